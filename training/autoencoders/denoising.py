"""The denoising autoencoder (Vincent et al. 2008) as cameras need it: a residual U-Net for frames of any size.

The input is corrupted, the target is clean. The code is a pyramid of feature maps instead of a vector, so that
no detail has to pass a bottleneck. Plain 3x3 convolutions behind a pixel-unshuffle, no normalisation, no bias,
no global pooling: the network is homogeneous (twice the contrast gives twice the result), runs fast on CPUs and
gives the same answer on a tile as on the whole frame. The noise level enters as an input map, as in FFDNet
(Zhang et al. 2018) and DRUNet (Zhang et al. 2021).
"""

import itertools
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Noise, Task
from training.autoencoders.base import AutoencoderConfig, Denoiser, FrameShape, Losses, register
from training.noise import AnyCorruption, Gaussian, noise_level

UNSHUFFLE = 2


class DenoisingConfig(AutoencoderConfig):
    """Settings of the denoising kind."""

    kind: Literal["denoising"] = "denoising"
    widths: tuple[int, ...] = Field((32, 64, 128, 256), min_length=1, description="channels at each scale")
    blocks: int = Field(2, ge=1, description="residual blocks a scale, each way")
    estimator_width: int = Field(24, ge=4, description="channels of the noise estimator")
    corruption: AnyCorruption = Field(default_factory=Gaussian, description="clean frames to what a camera delivers")
    maximum_level: float = Field(55, gt=0, description="highest noise level to be asked of it, 0..255 scale")
    estimator_weight: float = Field(0.1, ge=0, description="share of the noise estimate in the loss")


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


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


class NoiseEstimator(nn.Module):
    """A small network that tells the noise level from the frames alone.

    Every position gives a level and a say; the level of the frame is their weighted mean, so that flat areas,
    where noise is easy to see, may speak louder than textures.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inputs = channels * UNSHUFFLE**2
        self.body = nn.Sequential(
            _conv(inputs, width), nn.ReLU(inplace=True),
            _conv(width, width), nn.ReLU(inplace=True),
            _conv(width, width), nn.ReLU(inplace=True),
            nn.Conv2d(width, 2, 3, padding=1),
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] in 0..1 -> [B], RMS noise in 0..1."""
        features: Tensor = self.body(F.pixel_unshuffle(frames, UNSHUFFLE)).float()
        level, say = features[:, 0], features[:, 1].clamp(-8, 8).exp()  # [B, h, w] each
        mean: Tensor = (F.softplus(level) * say).sum((1, 2)) / say.sum((1, 2))
        return mean / 10  # softplus(0) / 10 = 18 levels: a sane start


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
        self.estimator = NoiseEstimator(shape.channels, config.estimator_width)

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
        """Subtract the noise; level 0 gives the frames back, exactly."""
        level = level.reshape(-1, 1, 1, 1)
        level_map = level.expand(-1, 1, frames.shape[2], frames.shape[3])
        residual = self.decode(self.encode(torch.cat([frames, level_map], 1)))
        # In fp32, so that what 16-bit arithmetic loses is lost on the residual alone.
        return frames + residual.float() * (level > 0)

    def estimate_noise_level(self, frames: Tensor) -> Tensor:
        """Ask the estimator."""
        level: Tensor = self.estimator(frames)
        return level

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Denoise blindly."""
        return self.denoise(frames, self.estimate_noise_level(frames))

    def loss(self, frames: Tensor) -> Losses:
        """Mean absolute error of the denoised frames, plus that of the noise level."""
        noisy = _grey_stays_grey(frames, self.config.corruption(frames))
        level = noise_level(frames, noisy) / 255
        error = (self.denoise(noisy, level) - frames).abs().mean()
        misjudged = (self.estimate_noise_level(noisy) - level).abs().mean()
        total = error + self.config.estimator_weight * misjudged
        return Losses(total, {"absolute_error": error, "level_error": misjudged * 255})


def _grey_stays_grey(clean: Tensor, noisy: Tensor) -> Tensor:
    """Give grey frames grey noise: an infrared camera has one channel, copied to three."""
    grey = (clean == clean[:, :1]).flatten(1).all(1).reshape(-1, 1, 1, 1)
    return torch.where(grey, noisy[:, :1], noisy)
