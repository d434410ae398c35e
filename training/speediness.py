"""Speediness (Benaim et al. 2020): what moves faster here than it does, learned from normal clips alone.

A clip played with frames left out shows the same people and the same places, but faster (Astrid et al. 2021). In a part
of a normal clip's motion, drawn at random, stands that of the faster clip; a small convolutional network learns to tell
which part it is. It looks at how fast and where to everything moves, at two moments, and at what it looks like against
the scene, so that it learns what pace belongs to which row, and to whom.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from tqdm import trange

from training.graph import clip_to_unit
from training.layers import ResidualBlock

MOTION = 4
"""Planes of a moment's motion: speed, share that moved, columns and rows moved by."""
MOMENTS = 2
LOOKS = 2
"""Planes of looks: difference from the scene, and its size."""
SPEED, SHARE = 0, 1
"""Planes of the last moment's motion."""
PLANES = MOMENTS * MOTION + LOOKS

CHANGE = 12.5 / 255  # of brightness: what changes by less has not moved; between levels, so that no rounding decides
FACTORS = (1.5, 2.0, 2.5, 3.0, 4.0)
BATCH = 16
RATE, DECAY = 2e-3, 1e-3
AVERAGE = 0.98
IN_PARTS = 0.8  # of the examples; half of the others are faster everywhere, and half nowhere
PARTS = 3
TALL, WIDE = (4, 16), (3, 14)  # of a part, in cells
MOVES = 0.05  # share of a block: where less moves there is nothing to be told
STILL = 0.1  # weight of such blocks, which are to be quiet


@dataclass(frozen=True)
class Grid:
    """Frames at a fraction of their size, and cells of so many pixels of the full size; powers of two."""

    shrink: int
    cell: int

    def shrunk(self, frames: Tensor) -> Tensor:
        """[B, n, C, H, W] -> [B, n, C, h, w]: means of squares of `shrink` pixels."""
        return _means(frames, self.shrink)

    def pooled(self, maps: Tensor) -> Tensor:
        """[B, n, planes, h, w] -> [B, n, planes, rows, columns]."""
        return _means(maps, self.cell // self.shrink)

    def cells(self, ends: Tensor, flow: Tensor, step: int, scene: Tensor) -> Tensor:
        """Return [B, n - 1, PLANES, rows, columns] of n fields [B, n, H, W, 2] and uint8 frames [B, n + 1, H, W, C].

        Each field reaches over `step` of the units of time that the flow is in, and motion is in pixels a field; the
        scene is [B, C, h, w] in 0..1. Flow is found at half the size: every `shrink`-th row and column of it and of the
        frames says as much.
        """
        thin = clip_to_unit(ends[:, :, :: self.shrink, :: self.shrink])
        moved = (thin.diff(dim=1).abs().mean(2, keepdim=True) > CHANGE).to(flow.dtype)
        velocity = step * flow[:, :, :: self.shrink, :: self.shrink].permute(0, 1, 4, 2, 3) * moved
        speed = velocity.square().sum(2, keepdim=True).sqrt()
        motion = self.pooled(torch.cat([speed, moved, velocity], 2))
        apart = (self.shrunk(clip_to_unit(ends[:, 2:])) - scene[:, None]).mean(2, keepdim=True)
        return torch.cat([motion[:, 1:], motion[:, :-1], self.pooled(torch.cat([apart, apart.abs()], 2))], 2)


def _means(maps: Tensor, side: int) -> Tensor:
    """Halve [B, n, planes, H, W] again and again, rounding up.

    Halfway between four pixels bilinear interpolation is their mean, and onnxruntime has it in a sixth of the time that
    it takes to pool them.
    """
    means = maps.flatten(0, 1)
    for _ in range(side.bit_length() - 1):
        means = F.interpolate(means, size=[-(-length // 2) for length in means.shape[2:]], mode="bilinear")
    return means.reshape(*maps.shape[:3], *means.shape[2:])


class Examples(NamedTuple):
    """Cells of normal clips, and of the same clips played faster: what they end with looks the same."""

    normal: Tensor
    """[n, PLANES, rows, columns]."""

    faster: Tensor
    """[n, factors, PLANES, rows, columns]."""


class Speediness(nn.Module):
    """A small residual network at half the resolution of the cells."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(PLANES + 1, width, 3, stride=2, padding=1)
        self.body = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.tail = nn.Conv2d(width, 1, 1)

    def forward(self, cells: Tensor) -> Tensor:
        """[n, PLANES, rows, columns], motion in pixels a field -> log-odds of being faster, [n, rows / 2, columns / 2].

        Rounded up. Speeds enter by their logarithm, and so does the row, for perspective depends on it.
        """
        motion, looks = cells[:, : MOMENTS * MOTION], cells[:, MOMENTS * MOTION :]
        row = torch.linspace(-1, 1, cells.shape[2], device=cells.device)[:, None].expand_as(cells[:, :1])
        features = F.relu(self.head(torch.cat([motion.sign() * motion.abs().log1p(), 3 * looks, row], 1)))
        for block in self.body:
            features = F.relu(block(features))
        odds: Tensor = self.tail(features)
        return odds[:, 0]


def fit(network: Speediness, examples: Examples, steps: int) -> None:
    """Teach it to find what is faster: by cross-entropy, AdamW, one cycle of the learning rate, averaged weights."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, max(steps, 2))
    averaged = [weight.detach().clone() for weight in network.parameters()]
    generator = torch.Generator().manual_seed(0)
    for _ in trange(steps, desc="speediness", unit="step", disable=None):
        cells, faster = _draw(examples, generator)
        loss = _loss(network(cells), cells, faster)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        torch._foreach_lerp_(averaged, [weight.detach() for weight in network.parameters()], 1 - AVERAGE)
    with torch.no_grad():
        for weight, average in zip(network.parameters(), averaged, strict=True):
            weight.copy_(average)


def _loss(odds: Tensor, cells: Tensor, faster: Tensor) -> Tensor:
    """Cross-entropy of log-odds with the blocks that move and are faster; blocks that stand count a little."""
    moves = (F.avg_pool2d(cells[:, SHARE : SHARE + 1], 2, ceil_mode=True)[:, 0] > MOVES).float()
    label = (F.avg_pool2d(faster[:, None].float(), 2, ceil_mode=True)[:, 0] > 0.5).float() * moves
    weight = moves + STILL
    return (F.binary_cross_entropy_with_logits(odds, label, reduction="none") * weight).sum() / weight.sum()


def _draw(examples: Examples, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return cells [BATCH, PLANES, rows, columns] that are faster in places, mirrored or not, and where."""
    count, factors = examples.faster.shape[:2]
    chosen = torch.randint(count, (BATCH,), generator=generator)
    factor = torch.randint(factors, (BATCH,), generator=generator)
    rows, columns = examples.normal.shape[2:]
    faster = torch.stack([_places(rows, columns, generator) for _ in range(BATCH)])
    cells = torch.where(faster[:, None], examples.faster[chosen, factor].float(), examples.normal[chosen].float())
    mirrored = torch.rand(BATCH, 1, 1, generator=generator) < 0.5
    sign = torch.ones(PLANES, 1, 1)
    sign[2 : MOMENTS * MOTION : MOTION] = -1  # what moves to the left moves to the right in a mirror
    return torch.where(mirrored[:, None], (cells * sign).flip(3), cells), torch.where(mirrored, faster.flip(2), faster)


def _places(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw some rectangles, now and then all or nothing, [rows, columns]."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    if draw(0, 100) >= 100 * IN_PARTS:
        return torch.full((rows, columns), bool(draw(0, 2)))
    chosen = torch.zeros(rows, columns, dtype=torch.bool)
    for _ in range(draw(1, PARTS + 1)):
        top, left = draw(0, rows), draw(0, columns)
        tall, wide = draw(*TALL) // 2, draw(*WIDE) // 2
        chosen[max(0, top - tall) : top + tall + 1, max(0, left - wide) : left + wide + 1] = True
    return chosen
