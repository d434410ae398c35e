"""The spatiotemporal autoencoder: what a fixed camera sees in a short clip, judged by its looks and by its motion.

Looks: a convolutional autoencoder with a narrow code learns the scene; what it cannot reconstruct, and what stays
where it is all through the clip, is a thing that stands. Motion: dense optical flow, where the brightness changes,
averaged over the clip. Both are measured in square blocks, and each block is compared with what it showed on normal
clips, for a fixed camera knows what is normal where: people far away are small and slow. Fused as p-values.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import AutoencoderConfig, ClipAutoencoder, FrameShape, Judgement, Losses, register
from training.layers import ConvolutionalDecoder, convolutional_encoder

TINY = 1e-6
DARKEST = 1 / 510  # in 0..1: half a level
SCENE_BATCHES = 40
NOISE_LEVELS = 12 / 255  # brightness that changes by less has not moved
TAIL = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
"""Shares of normal blocks that are further out than the knots of the tail."""

FLOOR = "added to the deviation of a block, in shares of the mean one"
REACH = "cells, up and down, left and right: statistics are smoothed by a Gaussian of this deviation"


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError(f"must be odd, so that it has a middle: {length - 1} or {length + 1}")
    return length


Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class SpatiotemporalConfig(AutoencoderConfig):
    """Settings of the spatio-temporal kind."""

    kind: Literal["spatiotemporal"] = "spatiotemporal"
    widths: tuple[int, ...] = Field((16, 32, 48, 64), min_length=1, description="channels; each halves the size")
    latent_dim: int = Field(4, ge=1, description="narrow: the scene and its light, not who walks through it")
    shrink: int = Field(2, ge=1, description="the autoencoder sees frames this many times smaller")
    clip: int = Field(9, ge=2, description="frames that a verdict looks at")
    flow_step: int = Field(2, ge=1, description="frames that the optical flow reaches over")
    cell: int = Field(4, ge=1, description="pixels; at every cell there is a block")
    looks_block: Odd = Field(1, description="cells a side")
    motion_block: Odd = Field(3, description="cells a side")
    looks_reach: tuple[float, float] = Field((1.5, 1.5), description=REACH)
    motion_reach: tuple[float, float] = Field((10.0, 90.0), description=REACH)
    looks_cost: float = Field(22, ge=0, description="nats: people who stop are normal, and so looks must be rarer")
    worst: int = Field(6, ge=1, description="blocks that count")
    looks_floor: float = Field(0.3, gt=0, description=FLOOR)
    motion_floor: float = Field(10, gt=0, description=FLOOR)


class Tail(nn.Module):
    """-log p of a deviation, p being the share of normal blocks that deviate further.

    Straight between knots, and beyond the last one as an exponential tail has it.
    """

    knots: Tensor
    bends: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.arange(len(TAIL), dtype=torch.float32))
        self.register_buffer("bends", F.pad(torch.ones(1), (0, len(TAIL) - 1)))  # until it has learned: the identity

    def learn(self, deviations: Tensor) -> None:
        """Take the knots from normal deviations, in any shape."""
        ordered = deviations.flatten().sort().values
        ranks = [min(len(ordered) - 1, math.ceil((1 - share) * len(ordered))) for share in TAIL]
        knots = ordered[ranks]
        gaps = knots.diff().clamp(min=1e-3)
        knots = torch.cat([knots[:1], knots[0] + gaps.cumsum(0)])
        excess = (ordered[ranks[-1] :] - knots[-1]).mean().clamp(min=1e-3)
        rises = -torch.tensor(TAIL).log().diff()
        slopes = torch.cat([rises / gaps, 1 / excess[None]])
        self.knots.copy_(knots)
        self.bends.copy_(torch.cat([slopes[:1], slopes.diff()]))

    def forward(self, deviations: Tensor) -> Tensor:
        """Return nats above those of the middle, in the shape of the deviations; negative for the nearer half."""
        evidence = self.bends[0] * (deviations - self.knots[0])
        for knot, bend in zip(self.knots[1:], self.bends[1:], strict=True):
            evidence = evidence + bend * (deviations - knot).clamp(min=0)
        return evidence


@register
class Spatiotemporal(ClipAutoencoder):
    """A scene and what little of it changes, optical flow, and what is normal of both in every block."""

    Config = SpatiotemporalConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE})
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: SpatiotemporalConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        channels, height, width = shape.fixed
        self.small = channels, -(-height // config.shrink), -(-width // config.shrink)
        self.encoder = convolutional_encoder(self.small, config.widths, config.latent_dim)
        self.decoder = ConvolutionalDecoder(self.small, config.widths, config.latent_dim)
        self.scene = nn.Parameter(torch.zeros(self.small))  # logits; the decoder adds what changes
        rows, columns = (-(-length // config.cell) for length in (height, width))
        self.register_buffer("mean", torch.zeros(2, rows, columns))
        self.register_buffer("deviation", torch.ones(2, rows, columns))
        self.looks_tail, self.motion_tail = Tail(), Tail()

    @property
    def latent_dim(self) -> int:
        """Numbers in the bottleneck."""
        return self.config.latent_dim

    @property
    def time(self) -> int:
        """Frames in a clip."""
        return self.config.clip

    @property
    def flow_step(self) -> int:
        """Frames that the flow reaches over."""
        return self.config.flow_step

    def encode(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, latent_dim]."""
        code: Tensor = self.encoder(self._shrink(frames))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]."""
        return self._enlarge(self._decode_small(code))

    def _enlarge(self, small: Tensor) -> Tensor:
        return F.interpolate(small, size=self.shape.fixed[1:], mode="bilinear")

    def _shrink(self, frames: Tensor) -> Tensor:
        return F.avg_pool2d(frames, self.config.shrink, ceil_mode=True)

    def _decode_small(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.scene + self.decoder(code))

    def pretrain(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Begin with the median of some frames: the scene as it is when nobody hides it."""
        seen = [self._shrink(frames) for frames in itertools.islice(batches(), SCENE_BATCHES)]
        self.scene.data.copy_(torch.cat(seen).median(0).values.logit(eps=DARKEST))

    def loss(self, frames: Tensor) -> Losses:
        """Absolute error, of the smaller frames: unlike the squared one it is least without those who pass."""
        small = self._shrink(frames)
        return Losses((self._decode_small(self.encoder(small)) - small).abs().mean())

    def learn_normal(self, clips: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Take mean and deviation of every block, smoothed over its neighbours, and the tails of what is left."""
        reaches = self.config.looks_reach, self.config.motion_reach
        floors = self.config.looks_floor, self.config.motion_floor
        with torch.no_grad():
            measured = [self._measure(frames, flow, self._reconstruct_small(frames)) for frames, flow in clips()]
            for index, (reach, blocks) in enumerate(zip(reaches, zip(*measured, strict=True), strict=True)):
                seen = torch.cat(blocks)
                mean, square = (_smoothed(moment.mean((0, 1)), reach) for moment in (seen, seen.square()))
                deviation = (square - mean.square()).clamp(min=0).sqrt()
                self.mean[index] = mean
                self.deviation[index] = deviation + floors[index] * deviation.mean().clamp(min=TINY)
                self._tails[index].learn(self._deviations(index, seen))

    def judge(self, frames: Tensor, flow: Tensor) -> Judgement:
        """Let the stronger of looks and motion speak in each block, by how seldom a normal block deviates so far."""
        code = self.encode(frames[:, -1])
        scene = self._decode_small(code)
        looks, motion = (
            tail(self._deviations(index, seen))
            for index, (tail, seen) in enumerate(zip(self._tails, self._measure(frames, flow, scene), strict=True))
        )
        evidence = torch.maximum(looks - self.config.looks_cost, motion)
        return Judgement(code, self._enlarge(scene), evidence[:, -1], self._worst(evidence))

    def _worst(self, evidence: Tensor) -> Tensor:
        """Return the mean of the worst blocks at each moment, in the mean over the moments, [B].

        Moment by moment, for what moves is in other blocks a moment later.
        """
        flat = evidence.flatten(2)
        return flat.topk(min(self.config.worst, flat.shape[2]), dim=2).values.mean((1, 2))

    def _reconstruct_small(self, frames: Tensor) -> Tensor:
        return self._decode_small(self.encode(frames[:, -1]))

    @property
    def _tails(self) -> tuple[Tail, Tail]:
        return self.looks_tail, self.motion_tail

    def _deviations(self, index: int, blocks: Tensor) -> Tensor:
        return (blocks - self.mean[index]) / self.deviation[index]

    def _measure(self, frames: Tensor, flow: Tensor, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Return the looks [B, 1, rows, columns] and the motion [B, F, rows, columns] of every block.

        Looks: the least error that a place had in the clip. Motion: speed, where the brightness changed.
        """
        ends = frames[:, :: self.config.flow_step]  # what the flow connects
        small = self._shrink(ends.flatten(0, 1))
        shrunk = small.reshape(*ends.shape[:2], *small.shape[1:])
        apart = F.avg_pool2d((shrunk - scene[:, None]).abs().mean(2), 3, stride=1, padding=1)
        looks = F.interpolate(apart.amin(1, keepdim=True), size=frames.shape[3:])
        changed = ends.diff(dim=1).abs().mean(2) > NOISE_LEVELS
        motion = flow.square().sum(2).sqrt() * changed
        return self._blocks(looks, self.config.looks_block), self._blocks(motion, self.config.motion_block)

    def _blocks(self, maps: Tensor, side: int) -> Tensor:
        """Average [B, n, H, W] over overlapping blocks, which the border cuts."""
        cells = F.avg_pool2d(maps, self.config.cell, ceil_mode=True)
        return F.avg_pool2d(cells, side, stride=1, padding=side // 2, count_include_pad=False)


def _smoothed(moments: Tensor, reach: tuple[float, float]) -> Tensor:
    """Blur [rows, columns]; beyond the border nothing counts."""
    rows, columns = (_weights(length, sigma) for length, sigma in zip(moments.shape, reach, strict=True))
    return rows @ moments @ columns.T


def _weights(length: int, sigma: float) -> Tensor:
    places = torch.arange(length, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma).square())
    return weights / weights.sum(1, keepdim=True)
