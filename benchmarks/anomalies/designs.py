"""Ways to judge motion and looks, each learned from some normal clips and tried on others."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from benchmarks.anomalies.walkers import CELL, Floats
from training.autoencoders.spatiotemporal import SpatiotemporalConfig, Tail
from training.speediness import SHARE, SPEED, Examples, Speediness, fit

Scale = Callable[[Floats], Floats]
"""Cells of clips [n, PLANES, rows, columns] -> how unusual each is, [n, rows, columns]."""
Design = Callable[[Sequence[Examples]], Scale]
"""Learns from the cells of some clips."""
Least = Callable[[Floats], Floats]
"""Differences from the scene [n, h, w] at n looks -> what stayed, [h, w]."""


class Span(NamedTuple):
    """How many looks a clip has, and how many times two frames are between them."""

    looks: int
    gap: int


SETTINGS = SpatiotemporalConfig()
SLOWEST = 0.3
LOOKS_REACH, LOOKS_FLOOR = (1.5, 1.5), 0.3


def speed_of_blocks(cells: Floats) -> Floats:
    """Return the mean speed of blocks, what does not move counting as 0: as the benchmark's statistic has it."""
    side = SETTINGS.motion_block
    return np.asarray(uniform_filter(cells[:, SPEED], (0, side, side), mode="nearest"))


def doubted_speed(cells: Floats) -> Floats:
    """Return the mean speed of what moves in blocks, less where little moves."""
    side = SETTINGS.motion_block
    share = uniform_filter(cells[:, SHARE], (0, side, side), mode="nearest")
    return np.asarray(speed_of_blocks(cells) / (share + SETTINGS.motion_doubt))


def unscaled(measure: Scale) -> Design:
    """Learn nothing."""
    return lambda _: measure


def by_block(measure: Scale, reach: tuple[float, float], floor: float) -> Design:
    """Compare each block with its own mean and deviation, smoothed, the mean deviation `floor` times added."""

    def learn(clips: Sequence[Examples]) -> Scale:
        mean, deviation = _moments(np.concatenate([measure(clip.normal[::2].numpy()) for clip in clips]), reach, floor)
        return lambda cells: np.asarray((measure(cells) - mean) / deviation)

    return learn


def by_pace(measure: Scale) -> Design:
    """Divide by what blocks of the same row show when somebody walks in them: a straight line over the rows."""

    def learn(clips: Sequence[Examples]) -> Scale:
        seen = np.concatenate([measure(clip.normal[::2].numpy()) for clip in clips])
        weight = seen.sum((0, 2))
        rows = np.arange(len(weight))
        known = weight > 0.002 * weight.max()
        shown = (seen**2).sum((0, 2))[known] / weight[known]
        pace = np.polyval(np.polyfit(rows[known], shown, 1, w=np.sqrt(weight[known])), rows)
        floor = SLOWEST * pace[known].mean()
        return lambda cells: np.asarray(measure(cells) / np.maximum(pace, floor)[:, None])

    return learn


@lru_cache
def _taught(clips: tuple[Examples, ...]) -> Speediness:
    torch.manual_seed(0)
    network = Speediness(SETTINGS.speed_width, SETTINGS.speed_blocks)
    fit(network, Examples(*(torch.cat(parts) for parts in zip(*clips, strict=True))), SETTINGS.speed_steps)
    return network


def by_network(clips: Sequence[Examples]) -> Scale:
    """Learn the log-odds of being faster, as the model does."""
    network = _taught(tuple(clips))

    def scale(cells: Floats) -> Floats:
        with torch.no_grad():
            odds = torch.cat([network(part) for part in torch.split(torch.from_numpy(cells), 64)])
        return np.asarray(torch.nn.functional.interpolate(odds[:, None], size=cells.shape[2:])[:, 0])

    return scale


def in_nats(design: Design) -> Design:
    """Say how seldom a normal block is so unusual."""

    def learn(clips: Sequence[Examples]) -> Scale:
        scale, tail = design(clips), Tail()
        tail.learn(torch.from_numpy(np.concatenate([scale(clip.normal[::2].numpy()) for clip in clips])))
        return lambda cells: np.asarray(tail(torch.from_numpy(scale(cells))))

    return learn


def mean_of(*designs: Design) -> Design:
    """Take the mean of what several say, in nats."""

    def learn(clips: Sequence[Examples]) -> Scale:
        scales = [in_nats(design)(clips) for design in designs]
        return lambda cells: np.asarray(np.mean([scale(cells) for scale in scales], 0))

    return learn


SPEEDS, PACE = unscaled(speed_of_blocks), by_pace(doubted_speed)
CHOSEN = "network, pace of the row and speed: the mean of their nats"
MOTION: Mapping[str, Design] = {
    "speed: the optical-flow statistic of the benchmark": SPEEDS,
    "each block by its own statistics, smoothed along the rows, floor 10": by_block(speed_of_blocks, (10, 90), 10),
    "over the pace of the row": by_pace(speed_of_blocks),
    "the same, less where little moves": PACE,
    "network that learned what is faster": by_network,
    "network and speed": mean_of(by_network, SPEEDS),
    "network and pace of the row": mean_of(by_network, PACE),
    CHOSEN: mean_of(by_network, PACE, SPEEDS),
}


def least_apart(looks: Floats) -> Floats:
    """Return the least absolute difference, of means over 3 x 3 pixels."""
    return np.asarray(uniform_filter(np.abs(looks), (0, 3, 3), mode="nearest").min(0))


def least_on_one_side(looks: Floats) -> Floats:
    """Return the least difference where the place was always brighter, or always darker; else 0."""
    return np.asarray(np.maximum(np.maximum(looks.min(0), -looks.max(0)), 0))


LOOKS: Mapping[str, Least] = {"least difference": least_apart, "least difference on one side": least_on_one_side}


def standing(differences: Floats, least: Least, span: Span, every: int) -> Floats:
    """Return cells [n, rows, columns] of what stayed in the looks of a clip, at every n-th full clip."""
    first = span.gap * (span.looks - 1)
    ends = range(first, len(differences), every)
    stayed = np.stack([least(differences[end - first : end + 1 : span.gap]) for end in ends])
    rows, columns = (length // CELL for length in stayed.shape[1:])
    cut = stayed[:, : rows * CELL, : columns * CELL]
    return np.asarray(cut.reshape(len(cut), rows, CELL, columns, CELL).mean((2, 4)))


def deviations(normal: Sequence[Floats]) -> Scale:
    """Learn the mean and deviation of cells of looks, and return how far others are from them."""
    mean, deviation = _moments(np.concatenate(normal), LOOKS_REACH, LOOKS_FLOOR)
    return lambda cells: np.asarray((cells - mean) / deviation)


def _moments(seen: Floats, reach: tuple[float, float], floor: float) -> tuple[Floats, Floats]:
    mean = gaussian_filter(seen.mean(0), reach)
    spread = np.sqrt(np.maximum(gaussian_filter((seen**2).mean(0), reach) - mean**2, 0))
    return mean, spread + floor * spread.mean()


def worst(maps: Floats, count: int) -> npt.NDArray[np.float64]:
    """Return the mean of the largest `count` of each map, [n, rows, columns] -> [n]."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(np.partition(flat, flat.shape[1] - count, axis=1)[:, -count:].mean(1), np.float64)
