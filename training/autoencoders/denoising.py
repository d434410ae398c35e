"""The denoising autoencoder (Vincent et al. 2008) as cameras need it: a residual U-Net for frames of any size.

The input is corrupted, the target is clean. The code is a pyramid of feature maps instead of a vector, so that
no detail has to pass a bottleneck. Plain 3x3 convolutions behind a pixel-unshuffle, no normalisation, no bias,
no global pooling: the network is homogeneous (twice the contrast gives twice the result), runs fast on CPUs and
gives the same answer on a tile as on the whole frame. The noise level enters as an input map, as in FFDNet
(Zhang et al. 2018) and DRUNet (Zhang et al. 2021).
"""

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Noise, Task
from training.autoencoders.base import AutoencoderConfig, Denoiser, FrameShape, Losses, register
from training.estimator import UNSHUFFLE, NoiseEstimator, fit
from training.noise import AnyCorruption, Corrupted, Corruption, Gaussian, root_mean_square

FAINT = 3 / 255  # levels below this fade out: such noise hardly shows, and a clean frame should stay one
SMALLEST_ERROR = 1e-7  # mean squared, a twelfth of a level: keeps the gradient of a perfect frame finite
MEAN_WEIGHT = 16  # of the squared error of a frame's mean colour: small beside that of its pixels, yet it shows
CLEAN_SHARE = 0.1  # of the frames that the noise estimator learns from


class DenoisingConfig(AutoencoderConfig):
    """Settings of the denoising kind."""

    kind: Literal["denoising"] = "denoising"
    widths: tuple[int, ...] = Field((32, 64, 128, 256), min_length=1, description="channels at each scale")
    blocks: int = Field(2, ge=1, description="residual blocks a scale, each way")
    orientations: int = Field(
        1, ge=1, le=8, description="ways a frame is turned to be denoised; the mean is the result"
    )
    estimator_width: int = Field(16, ge=4, description="channels of the noise estimator")
    corruption: AnyCorruption = Field(default_factory=Gaussian, description="clean frames to what a camera delivers")
    clean: AnyCorruption = Field(
        default_factory=partial(Gaussian, sigma=(0, 0)), description="frames of level 0, for the noise estimator"
    )
    maximum_level: float = Field(55, gt=0, description="highest noise level to be asked of it, 0..255 scale")
    level_jitter: float = Field(0.05, ge=0, description="relative error of the noise level told in training")
    blind_share: float = Field(0.5, ge=0, le=1, description="of the frames, told what the noise estimator says instead")
    estimator_steps: int = Field(1000, ge=0, description="the noise estimator is trained first, alone")


Pyramid = list[Tensor]


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.ReLU(inplace=True), _conv(width, width))

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape."""
        residual: Tensor = self.body(features)
        return features + residual


def turned(frames: Tensor, orientation: int) -> Tensor:
    """Bring [B, C, H, W] into one of the eight orientations of a square: by quarter turns, and transposed if odd."""
    frames = torch.rot90(frames, orientation // 2, (2, 3))
    return frames.mT if orientation % 2 else frames


def turned_back(frames: Tensor, orientation: int) -> Tensor:
    """Undo `turned`."""
    frames = frames.mT if orientation % 2 else frames
    return torch.rot90(frames, -(orientation // 2), (2, 3))


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


@register
class Denoising(Denoiser[Pyramid]):
    """Residual U-Net with a noise level map, and a noise estimator beside it."""

    Config = DenoisingConfig
    tasks = frozenset({Task.DENOISE})

    def __init__(self, config: DenoisingConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        widths, packing = config.widths, UNSHUFFLE**2
        self.head = _conv((shape.channels + 1) * packing, widths[0])
        self.encoders = nn.ModuleList(_blocks(width, config.blocks) for width in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2, bias=False) for fine, coarse in itertools.pairwise(widths)
        )
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False) for fine, coarse in itertools.pairwise(widths)
        )
        self.decoders = nn.ModuleList(_blocks(width, config.blocks) for width in widths[:-1])
        self.tail = _conv(widths[0], shape.channels * packing)
        nn.init.zeros_(self.tail.weight)  # an untrained denoiser returns its input
        self.estimator = NoiseEstimator(shape.channels, config.estimator_width).requires_grad_(requires_grad=False)

    @property
    def stride(self) -> int:
        """Coarsest cell of the pyramid, in pixels."""
        return int(UNSHUFFLE * 2 ** (len(self.config.widths) - 1))

    @property
    def receptive_field(self) -> int:
        """Sum of the reach of every 3x3 convolution on the longest path, in pixels, rounded up to the stride."""
        scales = len(self.config.widths)
        reach = 2 * UNSHUFFLE  # head and tail
        for scale in range(scales):
            passes = 1 if scale == scales - 1 else 2  # the coarsest scale is passed once
            reach += passes * 2 * self.config.blocks * UNSHUFFLE * 2**scale
        reach += self.stride  # the strided cells that the edges fall into
        return reach + -reach % self.stride

    @property
    def noise(self) -> Noise:
        """Sum up the corruption."""
        config = self.config
        description = config.corruption.model_dump_json()
        return Noise(description=description, minimum_level=0, maximum_level=config.maximum_level)

    def encode(self, frames: Tensor) -> Pyramid:
        """Return features, finest scale first, of [B, C + 1, H, W]: frames with their level map as a last channel."""
        features: Tensor = self.head(F.pixel_unshuffle(frames, UNSHUFFLE))
        pyramid = []
        for index, encoder in enumerate(self.encoders):
            features = encoder(features)
            pyramid.append(features)
            if index < len(self.downs):
                features = self.downs[index](features)
        return pyramid

    def decode(self, code: Pyramid) -> Tensor:
        """Return the residual [B, C, H, W]: what to add to the frames."""
        features = code[-1]
        for index in reversed(range(len(self.decoders))):
            features = self.decoders[index](self.ups[index](features) + code[index])
        return F.pixel_shuffle(self.tail(features), UNSHUFFLE)

    def denoise(self, frames: Tensor, level: Tensor) -> Tensor:
        """Subtract the noise, the faintest of it in part; level 0 gives the frames back, exactly."""
        level = level.reshape(-1, 1, 1, 1)
        level_map = level.expand(-1, 1, frames.shape[2], frames.shape[3])
        residual = self._residual(torch.cat([frames, level_map], 1))
        # In fp32, so that what 16-bit arithmetic loses is lost on the residual alone.
        return frames + residual.float() * (level / FAINT).clamp(0, 1)

    def _residual(self, frames: Tensor) -> Tensor:
        """Average over the orientations (Timofte et al. 2016); in training one is enough, for crops come turned."""
        count = 1 if self.training else self.config.orientations
        residuals = [turned_back(self.decode(self.encode(turned(frames, index))), index) for index in range(count)]
        return torch.stack(residuals).mean(0) if count > 1 else residuals[0]

    def estimate_noise_level(self, frames: Tensor) -> Tensor:
        """Ask the estimator."""
        level: Tensor = self.estimator(frames)
        return level

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Denoise blindly."""
        return self.denoise(frames, self.estimate_noise_level(frames))

    def pretrain(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Train the noise estimator, which shares nothing with the network: both are better off alone."""
        self.estimator.requires_grad_()
        fit(self.estimator, self._corrupt_most, batches, self.config.estimator_steps)
        self.estimator.requires_grad_(requires_grad=False)

    def loss(self, frames: Tensor) -> Losses:
        """Root mean squared error of each denoised frame, of its pixels and its mean colour: faint noise counts too."""
        noisy, level = self._corrupt(frames, self.config.corruption)
        error = self.denoise(noisy, self._told(noisy, level / 255, root_mean_square(noisy - frames))) - frames
        drift = error.mean((2, 3)).square().mean(1)
        return Losses((error.square().mean((1, 2, 3)) + MEAN_WEIGHT * drift + SMALLEST_ERROR).sqrt().mean())

    @torch.no_grad()
    def _told(self, noisy: Tensor, level: Tensor, rms: Tensor) -> Tensor:
        """Return levels [B] in 0..1 that are a little wrong, or the estimator's: the network learns to look too.

        For smeared noise anything between its RMS and its level may be said: nobody can tell well how much it was
        smeared, and it has to be removed all the same. For white noise the two are one.
        """
        between = torch.lerp(torch.minimum(rms, level), level, torch.rand_like(level))
        jittered = between * (1 + self.config.level_jitter * torch.randn_like(level))
        blind = torch.rand_like(level) < self.config.blind_share
        told = torch.where(blind, self.estimate_noise_level(noisy), jittered)
        return told.clamp(0, self.config.maximum_level / 255)

    def _corrupt_most(self, frames: Tensor) -> Corrupted:
        """Corrupt, but let a share of the frames be clean: the estimator has to know no noise when it sees it."""
        spared = torch.rand(len(frames), device=frames.device) < CLEAN_SHARE
        noisy, level = torch.empty_like(frames), frames.new_empty(len(frames))
        for chosen, corruption in ((spared, self.config.clean), (~spared, self.config.corruption)):
            if chosen.any():
                noisy[chosen], level[chosen] = self._corrupt(frames[chosen], corruption)
        return Corrupted(noisy, level)

    @staticmethod
    def _corrupt(frames: Tensor, corruption: Corruption) -> Corrupted:
        """Give colour frames colour noise and grey ones grey: an infrared camera has one channel, copied to three."""
        grey = (frames == frames[:, :1]).flatten(1).all(1)
        noisy, level = torch.empty_like(frames), frames.new_empty(len(frames))
        for chosen, channels in ((grey, 1), (~grey, frames.shape[1])):
            if chosen.any():
                noisy[chosen], level[chosen] = corruption(frames[chosen][:, :channels])
        return Corrupted(noisy, level)
