"""The spatiotemporal autoencoder: what a fixed camera sees in a short clip, judged by its looks and by its motion.

Looks: a convolutional autoencoder with a narrow code learns the scene; what it cannot reconstruct, and what stays
where it is all through the clip, is a thing that stands. Motion: the speed of what moves, by dense optical flow. Both
are measured in square blocks and compared with what is normal there: looks block by block, motion row by row, for
people far away are small and slow. Fused as p-values.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import AutoencoderConfig, ClipAutoencoder, FrameShape, Judgement, Losses, register
from training.layers import ConvolutionalDecoder, convolutional_encoder

TINY = 1e-6
DARKEST = 1 / 510  # in 0..1: half a level
SCENE_BATCHES = 40
CHANGE = 12.5 / 255  # of brightness: what changes by less has not moved; between levels, so that no rounding decides
SLOWEST = 0.3  # of the mean pace: rows that nobody walks in must not become the loudest
TAIL = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
"""Shares of normal blocks that are further out than the knots of the tail."""


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
    clip: int = Field(31, ge=2, description="frames that a verdict looks at")
    looks_step: int = Field(
        6, ge=1, description="of the frames of the clip every so many are looked at for what stands"
    )
    flow_step: int = Field(2, ge=1, description="frames that the optical flow reaches over")
    flow_fields: int = Field(6, ge=1, description="fields of flow, up to the last frame")
    cell: int = Field(4, ge=1, description="pixels, a multiple of shrink; at every cell there is a block")
    looks_block: Odd = Field(1, description="cells a side")
    motion_block: Odd = Field(3, description="cells a side")
    looks_reach: tuple[float, float] = Field(
        (1.5, 1.5), description="cells, up and along: statistics are smoothed by a Gaussian of this deviation"
    )
    looks_floor: float = Field(0.3, gt=0, description="added to the deviation of a block, in shares of the mean one")
    looks_cost: float = Field(6, ge=0, description="nats: people who stop are normal, and so looks must be rarer")
    looks_cap: float = Field(8, gt=0, description="nats that looks can say: as much as normal motion ever does")
    motion_doubt: float = Field(0.3, gt=0, description="share of a block that must move for half its speed to count")
    worst: int = Field(6, ge=1, description="blocks that count")

    @model_validator(mode="after")
    def _the_clip_holds_it_all(self) -> Self:
        if self.flow_fields * self.flow_step >= self.clip:
            raise ValueError(
                f"{self.flow_fields} fields of {self.flow_step} frames need a longer clip than {self.clip}"
            )
        if self.cell % self.shrink:
            raise ValueError(f"cell, {self.cell}, must be a multiple of shrink, {self.shrink}")
        return self


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
    pace: Tensor

    def __init__(self, config: SpatiotemporalConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        channels, height, width = shape.fixed
        self.small = channels, -(-height // config.shrink), -(-width // config.shrink)
        self.encoder = convolutional_encoder(self.small, config.widths, config.latent_dim)
        self.decoder = ConvolutionalDecoder(self.small, config.widths, config.latent_dim)
        self.scene = nn.Parameter(torch.zeros(self.small))  # logits; the decoder adds what changes
        rows, columns = (-(-length // config.cell) for length in (height, width))
        self.register_buffer("mean", torch.zeros(rows, columns))
        self.register_buffer("deviation", torch.ones(rows, columns))
        self.register_buffer("pace", torch.ones(rows, 1))
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

    @property
    def flow_fields(self) -> int:
        """Fields of flow in a clip."""
        return self.config.flow_fields

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
        """Take mean and deviation of the looks of every block, the pace of every row, and the tails of what is left."""
        with torch.no_grad():
            measured = [
                (self._looks(frames, self._reconstruct_small(frames)), self._motion(frames, flow)[:, -1])
                for frames, flow in clips()
            ]
            looks, motion = (torch.cat(blocks) for blocks in zip(*measured, strict=True))
            mean, square = (_smoothed(moment.mean(0), self.config.looks_reach) for moment in (looks, looks.square()))
            deviation = (square - mean.square()).clamp(min=0).sqrt()
            self.mean.copy_(mean)
            self.deviation.copy_(deviation + self.config.looks_floor * deviation.mean().clamp(min=TINY))
            self.pace.copy_(_pace(motion))
            self.looks_tail.learn((looks - self.mean) / self.deviation)
            self.motion_tail.learn(motion / self.pace)

    def judge(self, frames: Tensor, flow: Tensor) -> Judgement:
        """Let the stronger of looks and motion speak in each block, by how seldom a normal block deviates so far."""
        code = self.encode(frames[:, -1])
        scene = self._decode_small(code)
        looks = self.looks_tail((self._looks(frames, scene) - self.mean) / self.deviation)
        motion = self.motion_tail(self._motion(frames, flow) / self.pace)
        stands = (looks - self.config.looks_cost).clamp(max=self.config.looks_cap)
        evidence = torch.maximum(stands[:, None], motion)
        return Judgement(code, self._enlarge(scene), evidence[:, -1], self._worst(evidence))

    def _worst(self, evidence: Tensor) -> Tensor:
        """Return the mean of the worst blocks at each moment, in the mean over the moments, [B].

        Moment by moment, for what moves is in other blocks a moment later.
        """
        flat = evidence.flatten(2)
        return flat.topk(min(self.config.worst, flat.shape[2]), dim=2).values.mean((1, 2))

    def _reconstruct_small(self, frames: Tensor) -> Tensor:
        return self._decode_small(self.encode(frames[:, -1]))

    def _looks(self, frames: Tensor, scene: Tensor) -> Tensor:
        """Return [B, rows, columns]: by how much a place was brighter, or darker, than the scene at every look.

        Who walks is gone a moment later. A crowd hides the scene for longer, but is now brighter than it, now darker.
        """
        step = self.config.looks_step
        seen = frames[:, (self.time - 1) % step :: step]
        small = self._shrink(seen.flatten(0, 1))
        apart = small.reshape(*seen.shape[:2], *small.shape[1:]) - scene[:, None]
        staying = torch.maximum(apart.amin(1), -apart.amax(1)).clamp(min=0)
        return self._blocks(staying.mean(1, keepdim=True), self.config.looks_block)[:, 0]

    def _motion(self, frames: Tensor, flow: Tensor) -> Tensor:
        """Return [B, F, rows, columns]: the mean speed of what moves in a block, less where little moves.

        Flow is found at half the size: of both, every `shrink`-th row and column says as much.
        """
        first = self.time - 1 - self.flow_fields * self.flow_step
        thin = frames[:, first :: self.flow_step, :, :: self.config.shrink, :: self.config.shrink]
        moved = (thin.diff(dim=1).abs().mean(2) > CHANGE).to(flow.dtype)
        speed = flow[..., :: self.config.shrink, :: self.config.shrink].square().sum(2).sqrt() * moved
        side = self.config.motion_block
        return self._blocks(speed, side) / (self._blocks(moved, side) + self.config.motion_doubt)

    def _blocks(self, maps: Tensor, side: int) -> Tensor:
        """Average [B, n, h, w] of the smaller size over overlapping blocks, which the border cuts."""
        cells = F.avg_pool2d(maps, self.config.cell // self.config.shrink, ceil_mode=True)
        return F.avg_pool2d(cells, side, stride=1, padding=side // 2, count_include_pad=False)


def _pace(motion: Tensor) -> Tensor:
    """Return what a block shows when somebody walks in it, row by row, [rows, 1], from blocks [n, rows, columns].

    The mean, every block weighed by itself, so that it does not matter how seldom somebody does; then a straight line,
    as perspective has it.
    """
    weight = motion.sum((0, 2))
    shown = motion.square().sum((0, 2)) / weight.clamp(min=TINY)
    rows = torch.arange(len(weight), dtype=motion.dtype)
    weight = weight / weight.sum().clamp(min=TINY)
    middle, level = (weight * rows).sum(), (weight * shown).sum().clamp(min=TINY)
    slope = (weight * (rows - middle) * (shown - level)).sum() / (weight * (rows - middle).square()).sum().clamp(
        min=TINY
    )
    return (level + slope * (rows - middle)).clamp(min=SLOWEST * float(level))[:, None]


def _smoothed(moments: Tensor, reach: tuple[float, float]) -> Tensor:
    """Blur [rows, columns]; beyond the border nothing counts."""
    rows, columns = (_weights(length, sigma) for length, sigma in zip(moments.shape, reach, strict=True))
    return rows @ moments @ columns.T


def _weights(length: int, sigma: float) -> Tensor:
    places = torch.arange(length, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma).square())
    return weights / weights.sum(1, keepdim=True)
