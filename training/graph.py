"""The networks as they are exported: uint8 frames in, everything the manifest promises out, all arithmetic inside."""

from typing import Any

import torch
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, ClipAutoencoder, Denoiser
from training.config import ScoreConfig
from training.gaussian import LatentGaussian


def to_unit(frames: Tensor) -> Tensor:
    """Uint8 [B, H, W, C] -> float [B, C, H, W] in 0..1."""
    return frames.permute(0, 3, 1, 2).float() / 255


def clip_to_unit(frames: Tensor) -> Tensor:
    """Uint8 [B, T, H, W, C] -> float [B, T, C, H, W] in 0..1."""
    return frames.permute(0, 1, 4, 2, 3).float() / 255


def to_levels(frames: Tensor) -> Tensor:
    """Float [B, C, H, W] -> uint8 [B, H, W, C], clipped and rounded."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


class AutoencoderGraph(nn.Module):
    """Frames -> reconstruction, (anomaly_map, anomaly_score,) and the latent of kinds whose code is a vector.

    With the Gaussian of normal codes the score is what that says of the code; the map stays that of the pixels.
    """

    def __init__(
        self, autoencoder: Autoencoder[Any], score: ScoreConfig | None, gaussian: LatentGaussian | None = None
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.score = score
        self.gaussian = gaussian

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what forward returns."""
        scored = ("anomaly_map", "anomaly_score") if self.score else ()
        latent = ("latent",) if self._encodes else ()
        return ("reconstruction", *scored, *latent)

    @property
    def _encodes(self) -> bool:
        return Task.ENCODE in self.autoencoder.tasks

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Run on uint8 [B, H, W, C]."""
        unit = to_unit(frames)
        code = self.autoencoder.encode(unit)
        reconstruction = self.autoencoder.decode(code)
        latent = (code,) if self._encodes else ()
        if self.score is None:
            return to_levels(reconstruction), *latent
        anomaly_map = self.autoencoder.anomaly_map(code, error_map(unit, reconstruction, self.score))
        score = pool(anomaly_map, self.score.top_share) if self.gaussian is None else self.gaussian(code)
        return to_levels(reconstruction), anomaly_map, score, *latent


class ClipGraph(nn.Module):
    """A clip and its flow -> reconstruction of the last frame, anomaly_map, anomaly_score, latent."""

    outputs = ("reconstruction", "anomaly_map", "anomaly_score", "latent")

    def __init__(self, autoencoder: ClipAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor, flow: Tensor) -> tuple[Tensor, ...]:
        """Run on uint8 [B, T, H, W, C] and float [B, F, H, W, 2] in pixels a frame."""
        judged = self.autoencoder.judge(frames, flow)
        size = frames.shape[2:4]
        anomaly_map = nn.functional.interpolate(judged.evidence[:, None], size=size, mode="bilinear")[:, 0]
        return to_levels(judged.reconstruction), anomaly_map, judged.score, judged.latent


def error_map(frames: Tensor, reconstruction: Tensor, score: ScoreConfig) -> Tensor:
    """Return the reconstruction error [B, H, W], averaged over channels and over windows around each pixel."""
    apart = frames - reconstruction
    error = (apart.square() if score.error == "squared" else apart.abs()).mean(1, keepdim=True)
    if score.window > 1:
        # Along the columns, then along the rows: the same mean at a fifth of the cost. At the border the window is
        # cut, not filled with zeros: a car at the edge counts in full.
        reach = score.window // 2
        for kernel, padding in (((score.window, 1), (reach, 0)), ((1, score.window), (0, reach))):
            error = nn.functional.avg_pool2d(error, kernel, stride=1, padding=padding, count_include_pad=False)
    return error[:, 0]


def pool(anomaly_map: Tensor, top_share: float) -> Tensor:
    """Return the mean of the worst `top_share` of each map, [B, H, W] -> [B]."""
    flat = anomaly_map.flatten(1)
    count = max(1, round(top_share * flat.shape[1]))
    if count == flat.shape[1]:
        return flat.mean(1)
    return flat.amax(1) if count == 1 else flat.topk(count, dim=1).values.mean(1)


class GeneratorGraph(nn.Module):
    """Latent -> samples."""

    outputs = ("samples",)

    def __init__(self, autoencoder: Autoencoder[Any]) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latent: Tensor) -> tuple[Tensor]:
        """Float [n, latent_dim] -> uint8 [n, H, W, C]."""
        return (to_levels(self.autoencoder.sample(latent)),)


class DenoiserGraph(nn.Module):
    """Frames and their noise level -> reconstruction; any frame size."""

    outputs = ("reconstruction",)

    def __init__(self, denoiser: Denoiser[Any]) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, frames: Tensor, noise_level: Tensor) -> tuple[Tensor]:
        """Run on uint8 [B, H, W, C] and float [B] on the 0..255 scale."""
        height, width = frames.shape[1], frames.shape[2]
        padded = pad_to_stride(to_unit(frames), self.denoiser.stride)
        clean = self.denoiser.denoise(padded, noise_level / 255)
        return (to_levels(clean[:, :, :height, :width]),)


class NoiseEstimatorGraph(nn.Module):
    """Frames -> noise_level."""

    outputs = ("noise_level",)

    def __init__(self, denoiser: Denoiser[Any]) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        """Uint8 [B, H, W, C] -> float [B] on the 0..255 scale."""
        cut = cut_to_stride(to_unit(frames), self.denoiser.stride)
        return (self.denoiser.estimate_noise_level(cut) * 255,)


def pad_to_stride(frames: Tensor, stride: int) -> Tensor:
    """Mirror [B, C, H, W] at its last row and column up to a multiple of `stride`; works from 1 x 1 pixel up.

    What is mirrored is as noisy as the frame: repeated rows would be streaks, and cost up to 0.1 dB of the whole frame.
    """
    height, width = ((length + stride - 1) // stride for length in frames.shape[2:])
    return _mirrored(frames, height * stride, width * stride)


def cut_to_stride(frames: Tensor, stride: int) -> Tensor:
    """Drop rows and columns of [B, C, H, W] down to a multiple of `stride`; frames that are smaller are padded."""
    height, width = (torch.sym_max(length // stride, 1) for length in frames.shape[2:])  # type: ignore[no-untyped-call]
    return _mirrored(frames, height * stride, width * stride)


def _mirrored(frames: Tensor, height: int, width: int) -> Tensor:
    for axis, size in ((2, height), (3, width)):
        length = frames.shape[axis]
        place = torch.arange(size, device=frames.device)
        place = torch.remainder(place, torch.full_like(place, 2 * length))  # there and back again
        frames = frames.index_select(axis, torch.minimum(place, 2 * length - 1 - place))
    return frames
