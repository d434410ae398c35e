"""The feature autoencoder: normal frames, compressed by principal components of a frozen network's features.

The encoder is a network that learnt photographs in general (EfficientNet-Lite0), read at strides of 4 to 16 pixels,
and at each stride the principal components of normal frames. The leading ones are the bottleneck: light, tone, all that
differs from one normal frame to another. The decoder paints the frame from them. What they leave of the features is the
error: each remaining component in units of its own normal variation, so that the directions in which normal frames
hardly differ count most (Rippel et al. 2020), over what is usual at that place. Errors of all strides are put on one
scale, that of normal frames which the components were not fitted on, and averaged: nothing has to be known of a
defect's size.
"""

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, register
from training.efficientnet import LICENCE, STAGES, EfficientNetLite, Weights
from training.errors import DataError
from training.layers import structural_error
from training.whitening import Level, Moments

STAGES_AT = {4: (1,), 8: (2,), 16: (3, 4)}  # of the network, by their stride in pixels
COARSEST = max(STAGES_AT)
PAINTED = 8  # stride of the cells that the decoder paints
FAR = 3.0  # deviations of a component; the decoder has seen few beyond
POOLING = 3  # cells that features are averaged over
LEAST_HELD_BACK = 2  # frames
HELD_BACK = 3  # one frame of so many is not whitened by, but tells how far normal frames go

Components = list[Tensor]
"""Whitened features [B, C, h, w] at each stride, the fine ones first."""


class FeatureConfig(AutoencoderConfig):
    """Settings of the feature kind."""

    kind: Literal["feature"] = "feature"
    weights: Weights = Field("imagenet", description="of the frozen network; random needs no package and finds less")
    bottleneck: float = Field(0.3, gt=0, lt=1, description="share of the components that are kept, and no error")
    structure: float = Field(0.1, ge=0, description="weight of 1 - MS-SSIM beside the squared error of a pixel")


@register
class Feature(Autoencoder[Components]):
    """Frozen features, principal components, and a decoder that paints what they hold."""

    Config = FeatureConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE})

    def __init__(self, config: FeatureConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        channels, height, width = shape.fixed
        self.padding = (0, -width % COARSEST, 0, -height % COARSEST)
        padded = height + self.padding[3], width + self.padding[1]
        self.network = EfficientNetLite(1 + STAGES_AT[COARSEST][-1], config.weights)
        widths = {stride: sum(STAGES[stage].width for stage in stages) for stride, stages in STAGES_AT.items()}
        self.levels = [Level(c, padded[0] // stride, padded[1] // stride) for stride, c in widths.items()]
        self.whitening = nn.ModuleList(self.levels)
        self.kept = [max(1, round(config.bottleneck * width)) for width in widths.values()]
        self.painter = nn.Conv2d(sum(self.kept), channels * PAINTED**2, 3, padding=1)

    @property
    def licence(self) -> str | None:
        """What the weights that were not learnt here ask for."""
        return LICENCE if self.config.weights == "imagenet" else None

    def features(self, frames: Tensor) -> list[Tensor]:
        """Return the features at every stride, as yet not whitened."""
        padded = F.pad(frames.expand(-1, 3, -1, -1), self.padding, mode="replicate")
        stages = self.network(padded)
        found = [torch.cat([stages[stage] for stage in chosen], 1) for chosen in STAGES_AT.values()]
        return [F.avg_pool2d(f, POOLING, 1, POOLING // 2, count_include_pad=False) for f in found]

    def encode(self, frames: Tensor) -> Components:
        """Return the components at every stride."""
        return [level.whiten(f) for level, f in zip(self.levels, self.features(frames), strict=True)]

    def decode(self, code: Components) -> Tensor:
        """Paint frames from the leading components of every stride."""
        size = self.levels[list(STAGES_AT).index(PAINTED)].grid
        cells = [F.interpolate(c[:, :kept], size, mode="bilinear") for c, kept in zip(code, self.kept, strict=True)]
        held = torch.cat(cells, 1).clamp(-FAR, FAR) / math.sqrt(sum(self.kept))  # so that a step paints no black hole
        painted = torch.sigmoid(F.pixel_shuffle(self.painter(held), PAINTED))
        return painted[:, :, : self.shape.fixed[1], : self.shape.fixed[2]]

    def anomaly_map(self, code: Components, error: Tensor) -> Tensor:  # noqa: ARG002 - of the features alone
        """Return [B, H, W]: the mean error of all strides, in spreads of normal frames."""
        height, width = self.shape.fixed[1:]
        size = height + self.padding[3], width + self.padding[1]
        residuals = [c[:, kept:] for c, kept in zip(code, self.kept, strict=True)]
        levels = zip(self.levels, residuals, strict=True)
        errors = [level.standardise(level.error(residual))[:, None] for level, residual in levels]
        large = [F.interpolate(each, size, mode="bilinear") for each in errors]
        return torch.cat(large, 1).mean(1)[:, :height, :width]

    def loss(self, frames: Tensor) -> Losses:
        """Squared and structural error of the painted frames: all that is left to learn after `pretrain`."""
        painted = self.reconstruct(frames)
        squared, structural = (painted - frames).square().mean(), structural_error(frames, painted)
        total = squared + self.config.structure * structural
        return Losses(total, {"squared_error": squared, "structural_error": structural})

    @torch.no_grad()
    def pretrain(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Fit the whitening in closed form, and its scale on frames that it has not seen; each frame counts once.

        On which side a frame is follows from its pixels alone.
        """
        moments = [Moments(level.width) for level in self.levels]
        held_back: list[list[Tensor]] = []
        seen: set[int] = set()
        for batch in batches():
            marks = [zlib.crc32(frame.numpy().tobytes()) for frame in batch.cpu()]
            new = [index for index, mark in enumerate(marks) if mark not in seen]
            if not new:
                break  # the second pass has begun
            seen.update(marks)
            aside = torch.tensor([marks[index] % HELD_BACK == 0 for index in new])
            found = self.features(batch[new])
            held_back.append([f[aside].half() for f in found])
            for known, f in zip(moments, found, strict=True):
                known.add(f[~aside].movedim(1, -1).flatten(0, -2))
        apart = sum(len(found[0]) for found in held_back)
        if apart < LEAST_HELD_BACK or moments[-1].count < LEAST_HELD_BACK:
            raise DataError(f"{apart} frames to set the scale by and {moments[-1].count} to whiten by are too few: "
                            f"{LEAST_HELD_BACK} of each are needed; add frames")  # fmt: skip
        for number, (level, known) in enumerate(zip(self.levels, moments, strict=True)):
            level.fit(known)
            unseen = (level.whiten(found[number].float()) for found in held_back)
            level.normalise(torch.cat([level.error(components[:, self.kept[number] :]) for components in unseen]))
