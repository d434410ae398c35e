"""The spatiotemporal autoencoder: what a fixed camera sees in a short clip, judged by its looks and by its motion.

Looks: a convolutional autoencoder with a narrow code learns the scene; what it cannot reconstruct, and what stays
where it is all through the clip, is a thing that stands. Motion: optical flow, judged by how fast things are, and by a
network that has learned what pace belongs where, and to whom. All is measured in square blocks, compared with what is
normal, and fused as p-values.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from runtime.manifest import Task
from runtime.motion import optical_flow
from training.autoencoders.base import AutoencoderConfig, ClipAutoencoder, FrameShape, Judgement, Losses, register
from training.graph import clip_to_unit, to_unit
from training.layers import ConvolutionalDecoder, convolutional_encoder
from training.speediness import FACTORS, SHARE, SPEED, Examples, Grid, Speediness, fit

TINY = 1e-6
DARKEST = 1 / 510  # in 0..1: half a level
SCENE_BATCHES = 40
SLOWEST = 0.3  # of the mean pace: rows that nobody walks in must not become the loudest
TAUGHT = 2  # of so many clips in a row one is played faster, to learn from
TAIL = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
"""Shares of normal blocks that are further out than the knots of the tail."""


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError(f"must be odd, so that it has a middle: {length - 1} or {length + 1}")
    return length


def _power_of_two(length: int) -> int:
    if length.bit_count() != 1:
        raise ValueError(f"must be a power of two: {1 << length.bit_length() - 1} or {1 << length.bit_length()}")
    return length


Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
PowerOfTwo = Annotated[int, Field(ge=1), AfterValidator(_power_of_two)]


class SpatiotemporalConfig(AutoencoderConfig):
    """Settings of the spatio-temporal kind."""

    kind: Literal["spatiotemporal"] = "spatiotemporal"
    widths: tuple[int, ...] = Field((16, 32, 48, 64), min_length=1, description="channels; each halves the size")
    latent_dim: int = Field(4, ge=1, description="narrow: the scene and its light, not who walks through it")
    shrink: PowerOfTwo = Field(2, description="the autoencoder sees frames this many times smaller")
    clip: int = Field(31, ge=2, description="frames that a verdict looks at")
    looks_step: int = Field(
        6, ge=1, description="of the frames of the clip every so many are looked at for what stands"
    )
    flow_step: int = Field(2, ge=1, description="frames that the optical flow reaches over")
    moments: int = Field(2, ge=1, description="fields of flow that are judged, up to the last frame")
    cell: PowerOfTwo = Field(4, description="pixels, shrink or more; at every cell there is a block")
    looks_block: Odd = Field(1, description="cells a side")
    motion_block: Odd = Field(3, description="cells a side")
    looks_reach: tuple[float, float] = Field(
        (1.5, 1.5), description="cells, up and along: statistics are smoothed by a Gaussian of this deviation"
    )
    looks_floor: float = Field(0.3, gt=0, description="added to the deviation of a block, in shares of the mean one")
    looks_cost: float = Field(6, ge=0, description="nats: people who stop are normal, and so looks must be rarer")
    looks_cap: float = Field(8, gt=0, description="nats that looks can say: as much as normal motion ever does")
    motion_doubt: float = Field(0.3, gt=0, description="share of a block that must move for half its pace to count")
    speed_width: int = Field(32, ge=1, description="channels of the network that judges pace")
    speed_blocks: int = Field(2, ge=0, description="its residual blocks")
    speed_steps: int = Field(2400, ge=0, description="that it learns for, at the export")
    worst: int = Field(6, ge=1, description="blocks that count")

    @model_validator(mode="after")
    def _the_clip_holds_it_all(self) -> Self:
        fields = self.moments + 1  # each moment is judged beside the one before it
        if fields * self.flow_step >= self.clip:
            raise ValueError(f"{fields} fields of {self.flow_step} frames need a longer clip than {self.clip}")
        if not self.reaches:
            raise ValueError(f"a clip of {self.clip} frames is too short to be played faster; 4 flow_steps are enough")
        if self.cell < self.shrink:
            raise ValueError(f"cell, {self.cell}, must be at least shrink, {self.shrink}")
        return self

    @property
    def reaches(self) -> tuple[int, ...]:
        """Frames from moment to moment of a clip that is played faster, as far as it is long enough."""
        steps = sorted({round(factor * self.flow_step) for factor in FACTORS} - {self.flow_step})
        return tuple(step for step in steps if 2 * step < self.clip)


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
        self.grid = Grid(config.shrink, config.cell)
        self.small = channels, -(-height // config.shrink), -(-width // config.shrink)
        self.encoder = convolutional_encoder(self.small, config.widths, config.latent_dim)
        self.decoder = ConvolutionalDecoder(self.small, config.widths, config.latent_dim)
        self.scene = nn.Parameter(torch.zeros(self.small))  # logits; the decoder adds what changes
        rows, columns = (-(-length // config.cell) for length in (height, width))
        self.register_buffer("mean", torch.zeros(rows, columns))
        self.register_buffer("deviation", torch.ones(rows, columns))
        self.register_buffer("pace", torch.ones(rows, 1))
        self.speediness = Speediness(config.speed_width, config.speed_blocks).requires_grad_(requires_grad=False)
        self.looks_tail, self.speed_tail, self.pace_tail, self.speediness_tail = Tail(), Tail(), Tail(), Tail()

    @classmethod
    def suggest(cls, steps: int | None = None) -> SpatiotemporalConfig:
        """Return the defaults, with few steps for what learns at the export where few are wished."""
        config = SpatiotemporalConfig()
        return config if steps is None else config.model_copy(update={"speed_steps": min(steps, config.speed_steps)})

    @property
    def latent_dim(self) -> int:
        """Numbers in the bottleneck."""
        return self.config.latent_dim

    @property
    def time(self) -> int:
        """Frames in a clip."""
        return self.config.clip

    @property
    def warm_up(self) -> int:
        """Frames that hold the fields of flow. A thing that stands is seen when the clip is full."""
        return self.flow_fields * self.flow_step + 1

    @property
    def flow_step(self) -> int:
        """Frames that the flow reaches over."""
        return self.config.flow_step

    @property
    def flow_fields(self) -> int:
        """Fields of flow in a clip."""
        return self.config.moments + 1

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
        return self.grid.shrunk(frames[:, None])[:, 0]

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
        """Take mean and deviation of the looks of every block, learn what is fast, and the tails of what is left."""
        with torch.no_grad():
            looks, normal, taught, faster = (torch.cat(parts) for parts in zip(*self._seen(clips()), strict=True))
        mean, square = (_smoothed(moment.mean(0), self.config.looks_reach) for moment in (looks, looks.square()))
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(deviation + self.config.looks_floor * deviation.mean().clamp(min=TINY))
        self.speediness.requires_grad_()
        fit(self.speediness, Examples(taught, faster), self.config.speed_steps)
        self.speediness.requires_grad_(requires_grad=False)
        self.looks_tail.learn((looks - self.mean) / self.deviation)
        with torch.no_grad():
            parts = [part.float() for part in torch.split(normal, 64)]
            self.pace.copy_(_pace(torch.cat([self._walked(part) for part in parts])))
            for tail, measure in self._measures:
                tail.learn(torch.cat([measure(part) for part in parts]))

    def _seen(self, clips: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield looks, cells of the last moment, those of every other clip, and what they are when played faster."""
        for frames, flow in clips:
            scene = self._decode_small(self.encode(to_unit(frames[:, -1])))
            ends = frames[:, -1 - 2 * self.flow_step :: self.flow_step]
            cells = self.grid.cells(ends, flow[:, -2:], self.flow_step, scene)[:, 0].half()
            pairs = zip(frames[::TAUGHT], scene[::TAUGHT], strict=True)
            faster = torch.stack([self._faster(clip, behind) for clip, behind in pairs])
            yield self._looks(frames, scene), cells, cells[::TAUGHT], faster.half()

    def _faster(self, clip: Tensor, scene: Tensor) -> Tensor:
        """Return the cells [reaches, PLANES, rows, columns] of [T, H, W, C] with frames left out."""
        found = []
        for reach in self.config.reaches:
            ends = clip[-1 - 2 * reach :: reach]
            flow = torch.from_numpy(optical_flow(ends.numpy(), 1, 2))
            found.append(self.grid.cells(ends[None], flow[None], 1, scene[None])[0, 0])
        return torch.stack(found)

    def judge(self, frames: Tensor, flow: Tensor) -> Judgement:
        """Let the stronger of looks and motion speak in each block, by how seldom a normal block deviates so far."""
        code = self.encode(to_unit(frames[:, -1]))
        scene = self._decode_small(code)
        looks = self.looks_tail((self._looks(frames, scene) - self.mean) / self.deviation)
        stands = (looks - self.config.looks_cost).clamp(max=self.config.looks_cap)
        ends = frames[:, self.time - 1 - self.flow_fields * self.flow_step :: self.flow_step]
        evidence = torch.maximum(stands[:, None], self._motion(self.grid.cells(ends, flow, self.flow_step, scene)))
        return Judgement(code, self._enlarge(scene), evidence[:, -1], self._worst(evidence))

    @property
    def _measures(self) -> tuple[tuple[Tail, Callable[[Tensor], Tensor]], ...]:
        """The ways to judge motion, [n, PLANES, rows, columns] -> [n, ...], and the tail of each."""
        return (
            (self.speed_tail, self._speed),
            (self.pace_tail, lambda cells: self._walked(cells) / self.pace),
            (self.speediness_tail, self.speediness),
        )

    def _motion(self, cells: Tensor) -> Tensor:
        """Return the evidence [B, n, rows, columns] of cells [B, n, PLANES, ...]: the mean of what all measures say."""
        flat, size = cells.flatten(0, 1), cells.shape[3:]
        said = [F.interpolate(tail(measure(flat))[:, None], size=size) for tail, measure in self._measures]
        return torch.cat(said, 1).mean(1).reshape(*cells.shape[:2], *size)

    def _speed(self, cells: Tensor) -> Tensor:
        """Return the mean speed in each block; who stands has 0."""
        return _averaged(cells[:, SPEED : SPEED + 1], self.config.motion_block)[:, 0]

    def _walked(self, cells: Tensor) -> Tensor:
        """Return the mean speed of what moves in each block, less where little moves."""
        share = _averaged(cells[:, SHARE : SHARE + 1], self.config.motion_block)[:, 0]
        return self._speed(cells) / (share + self.config.motion_doubt)

    def _worst(self, evidence: Tensor) -> Tensor:
        """Return the mean of the worst blocks at each moment, in the mean over the moments, [B].

        Moment by moment, for what moves is in other blocks a moment later.
        """
        flat = evidence.flatten(2)
        return flat.topk(min(self.config.worst, flat.shape[2]), dim=2).values.mean((1, 2))

    def _looks(self, frames: Tensor, scene: Tensor) -> Tensor:
        """Return [B, rows, columns]: by how much a place was brighter, or darker, than the scene at every look.

        Who walks is gone a moment later. A crowd hides the scene for longer, but is now brighter than it, now darker.
        A look that is repeated, as before the first frame of a camera, shows nothing: nobody has stood there yet.
        """
        step = self.config.looks_step
        seen = self.grid.shrunk(clip_to_unit(frames[:, (self.time - 1) % step :: step]))
        repeated = F.pad((seen.diff(dim=1) == 0).flatten(2).all(2), (0, 1))
        apart = (seen - scene[:, None]) * ~repeated[:, :, None, None, None]
        staying = torch.maximum(apart.amin(1), -apart.amax(1)).clamp(min=0)
        return _averaged(self.grid.pooled(staying.mean(1)[:, None, None])[:, 0], self.config.looks_block)[:, 0]


def _averaged(cells: Tensor, side: int) -> Tensor:
    """Average over overlapping blocks, which the border cuts."""
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
    spread = (weight * (rows - middle).square()).sum().clamp(min=TINY)
    slope = (weight * (rows - middle) * (shown - level)).sum() / spread
    return (level + slope * (rows - middle)).clamp(min=SLOWEST * float(level))[:, None]


def _smoothed(moments: Tensor, reach: tuple[float, float]) -> Tensor:
    """Blur [rows, columns]; beyond the border nothing counts."""
    rows, columns = (_weights(length, sigma) for length, sigma in zip(moments.shape, reach, strict=True))
    return rows @ moments @ columns.T


def _weights(length: int, sigma: float) -> Tensor:
    places = torch.arange(length, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma).square())
    return weights / weights.sum(1, keepdim=True)
