"""Pairs of a noisy patch and the same patch almost without noise: the mean of other frames in which nothing moved.

The noise of neighbouring frames is correlated, for a codec carries it from one to the next. So the frames that are
averaged are all at least `stride` apart, from one another and from the noisy one, which is not among them. What is
averaged is the middle half of the values of a pixel (the interquartile mean): nearly as steady as the mean, and little
troubled by what the search for motion has missed or by noise that is cut off at black. The odd and the even frames are
averaged apart, and the two averaged: what they differ by tells how much noise a pair's clean patch still has.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from runtime.images import Pixels
from training.camera.footage import Stretches
from training.camera.motion import CELL, Floats, Mask, find_rest
from training.data import Frames
from training.errors import DataError
from training.graph import to_unit
from training.noise import noise_level

PATCH = 64  # pixels a side
STEP = PATCH // 2  # pixels between the patches that may be drawn
FEWEST, MOST = 9, 31  # frames averaged to one clean patch
TRAINING_PAIRS, HELD_OUT_PAIRS = 2000, 400
HELD_OUT_FRAMES = 16
ENOUGH_PAIRS = 32


class Place(NamedTuple):
    """A patch of a frame: the frame's position in the footage, and the pixel of the upper left corner."""

    frame: int
    top: int
    left: int

    def cut(self, pixels: Pixels) -> Pixels:
        """Cut the patch out of [h, w, c] pixels."""
        return pixels[self.top : self.top + PATCH, self.left : self.left + PATCH]


class Pair(NamedTuple):
    """A noisy and a clean patch [PATCH, PATCH, c], 0..255, and the variance of the noise left in the clean one."""

    place: Place
    noisy: Pixels
    clean: Floats
    variance: float


@dataclass(frozen=True)
class Pairs:
    """What a denoiser learns from, or is measured on."""

    places: tuple[Place, ...]
    noisy: Pixels
    """[n, PATCH, PATCH, c]."""
    clean: Floats
    """The same, 0..255."""
    variances: Floats
    """[n], of the noise that is left in each clean patch."""
    levels: Floats
    """[n], noise level of the stretch that each pair is from; see training.noise.noise_level."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def frames(self) -> int:
        """How many frames the patches are from."""
        return len({place.frame for place in self.places})

    @property
    def clean_error(self) -> float:
        """RMS of the noise that is left in the clean patches, 0..255 scale."""
        return float(np.sqrt(self.variances.mean(dtype=np.float64)))

    @property
    def purity(self) -> float:
        """How much of the variance of noisy - clean is noise of the noisy patch: the rest is the clean one's."""
        return 1 - float(self.variances.mean(dtype=np.float64)) / max(self.squared_error(self.noisy), 1e-9)

    @property
    def rounded(self) -> Pixels:
        """The clean patches as uint8."""
        return np.asarray(np.clip(np.rint(self.clean), 0, 255), np.uint8)

    def squared_error(self, patches: Pixels) -> float:
        """Return the mean squared difference of [n, PATCH, PATCH, c] to the clean patches."""
        return float(np.square(patches - self.clean).mean(dtype=np.float64))

    def psnr(self, patches: Pixels) -> float:
        """Return 10 log10(255^2 / MSE) against the clean patches, all pooled, in dB; 100 at the most."""
        return float(10 * np.log10(255**2 / max(self.squared_error(patches), 255**2 * 1e-10)))


class Scene:
    """A stretch of footage, with the patches in which nothing moves."""

    def __init__(self, frames: Frames, stretch: range, stride: int) -> None:
        self.first = stretch.start
        self.stride = stride
        self.frames = frames.pixels[stretch.start : stretch.stop]
        rest = find_rest(self.frames)
        self.light = rest.light
        self.still = still_patches(rest.still)

    def draw(self, count: int, times: Sequence[int], rng: np.random.Generator) -> list[Pair]:
        """Draw up to `count` pairs whose noisy patches are from frames at these times."""
        asked = np.isin(range(len(self.still)), times)[:, None, None]
        candidates = np.argwhere(self.still & asked & (self.still.sum(0) > FEWEST))
        found = (self.pair(*position) for position in rng.permutation(candidates).tolist()[: 4 * count])
        return list(islice((pair for pair in found if pair is not None), count))

    def pair(self, time: int, row: int, column: int) -> Pair | None:
        """Return the pair of one patch of the grid; None where too few frames show the same without motion."""
        place = Place(self.first + time, row * STEP, column * STEP)
        times = apart(np.flatnonzero(self.still[:, row, column]), time, self.stride)
        if len(times) < FEWEST:
            return None
        stack = np.stack([place.cut(self.frames[other]) for other in times]).astype(np.float32)
        stack *= (self.light[time] / self.light[times])[:, None, None, None]
        odd, even = middle_mean(stack[1::2]), middle_mean(stack[::2])
        variance = float(np.square(odd - even).mean()) / 4
        return Pair(place, place.cut(self.frames[time]), np.asarray((odd + even) / 2, np.float32), variance)


def still_patches(still: Mask) -> Mask:
    """Return which patches, STEP apart, are still as a whole: [n, rows, columns] of them from those of cells."""
    size, step = PATCH // CELL, STEP // CELL
    windows = np.lib.stride_tricks.sliding_window_view(still, (size, size), axis=(1, 2))
    return np.asarray(windows[:, ::step, ::step].all((-1, -2)))


def apart(times: npt.NDArray[np.intp], time: int, stride: int) -> list[int]:
    """Choose ascending times at least `stride` apart and from `time`, up to MOST of them, evenly."""
    chosen: list[int] = []
    for other in times.tolist():
        if abs(other - time) >= stride and (not chosen or other - chosen[-1] >= stride):
            chosen.append(other)
    if len(chosen) <= MOST:
        return chosen
    return [chosen[i] for i in np.linspace(0, len(chosen) - 1, MOST).astype(int)]


def middle_mean(stack: Floats) -> Floats:
    """Return the interquartile mean along the first axis."""
    spared = len(stack) // 4
    return np.asarray(np.sort(stack, axis=0)[spared : len(stack) - spared].mean(0))


def find_pairs(frames: Frames, stretches: Stretches, stride: int, seed: int) -> tuple[Pairs, Pairs]:
    """Return pairs to learn from, spread over the training stretches, and pairs of some held-out frames.

    Raises DataError where the frames are too small, or where too little stands still for long enough.
    """
    height, width = frames.pixels[0].shape[:2]
    if min(height, width) < PATCH:
        raise DataError(f"the frames are {width} x {height} pixels; at least {PATCH} x {PATCH} are needed")
    rng = np.random.default_rng(seed)
    bar = tqdm(total=len(stretches.training) + len(stretches.held_out), desc="looking for what stands still",
               unit="stretch", disable=None)  # fmt: skip
    training, held_out = [], []
    for stretch in stretches.training:
        quota = -(-TRAINING_PAIRS // len(stretches.training))
        training.append(Scene(frames, stretch, stride).draw(quota, range(len(stretch)), rng))
        bar.update()
    for stretch in stretches.held_out:
        quota, several = (-(-total // len(stretches.held_out)) for total in (HELD_OUT_PAIRS, HELD_OUT_FRAMES))
        times = np.linspace(0, len(stretch) - 1, several).astype(int).tolist()
        held_out.append(Scene(frames, stretch, stride).draw(quota, times, rng))
        bar.update()
    bar.close()
    return _together(training, stride), _together(held_out, stride)


def _together(scenes: Iterable[list[Pair]], stride: int) -> Pairs:
    """Put the pairs of several scenes together; raise DataError where they are too few."""
    found = [(pair, level) for pairs in scenes if pairs for level in [_level(pairs)] for pair in pairs]
    if len(found) < ENOUGH_PAIRS:
        raise DataError(
            f"too much moves: {len(found)} patches of {PATCH} x {PATCH} pixels stand still in at least {FEWEST + 1} "
            f"frames that are {stride} apart, and {ENOUGH_PAIRS} are needed to learn from and as many to measure on. "
            "Give frames of a camera that is fixed, longer clips, or a quieter hour"
        )
    pairs = [pair for pair, _ in found]
    return Pairs(
        places=tuple(pair.place for pair in pairs),
        noisy=np.stack([pair.noisy for pair in pairs]),
        clean=np.stack([pair.clean for pair in pairs]),
        variances=np.array([pair.variance for pair in pairs], np.float32),
        levels=np.array([level for _, level in found], np.float32),
    )


def _level(pairs: Sequence[Pair]) -> float:
    """Return the noise level of all pairs of a scene, less what noise the clean patches have."""
    clean, noisy = np.concatenate([pair.clean for pair in pairs]), np.concatenate([pair.noisy for pair in pairs])
    apparent = float(noise_level(*(to_unit(torch.from_numpy(tall[None])) for tall in (clean, noisy))))
    residual = float(np.square(noisy - clean).mean(dtype=np.float64))
    left = float(np.mean([pair.variance for pair in pairs]))
    return apparent * math.sqrt(max(0.0, 1 - left / max(residual, 1e-9)))
