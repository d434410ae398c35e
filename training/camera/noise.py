"""What a fixed camera's noise is like: how strong, how it depends on brightness, and how far it is correlated."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from training.camera.motion import Floats, cell_means
from training.camera.pairs import Pairs
from training.data import Frames
from training.noise import LUMA

FRAME_LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
INDEPENDENT = 0.2  # correlation below which frames count as independent
COMPARED = 24  # pairs of frames a lag
PIXEL_LAGS = range(1, 9)
BINS = 12  # of brightness
CUT_OFF = 8.0  # levels from black and white within which noise is cut off
FEWEST_PIXELS = 1000  # in a bin of brightness

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Correlation of the noise with itself, at each of the lags."""

    name: str
    lags: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """Poisson-Gaussian noise (Foi et al. 2008), as far as a file's levels x keep to it: variance = slope x + offset."""

    slope: float
    offset: float


@dataclass(frozen=True)
class CameraNoise:
    """Levels are on the 0..255 scale, and less the noise that is left in the clean patches."""

    level: float
    """Sigma of white noise as hard to remove; see training.noise.noise_level."""
    rms: float
    psnr: float
    """Of the frames against the scene without noise, 10 log10(255^2 / rms^2), dB; 100 at the most."""
    brightness: Doubles
    """[bins], means."""
    variances: Doubles
    """[channels, bins]."""
    lines: tuple[Line, ...]
    """One a channel."""
    spatial: tuple[Correlation, ...]
    temporal: Correlation


def temporal_correlation(frames: Frames, clips: Sequence[range]) -> Correlation:
    """Return how noise is correlated from frame to frame, where nothing moves.

    Half the variance of the difference of two frames is sigma^2 (1 - correlation). It is taken within cells, which
    leaves the light out, and the median over cells, which leaves out what moves. Frames far apart show sigma^2.
    """
    longest = max(map(len, clips))
    lags = tuple(lag for lag in FRAME_LAGS if lag == 1 or lag <= longest // 3)
    apart = [float(np.median([_unlike(frames, *pair) for pair in _frame_pairs(clips, lag)])) for lag in lags]
    independent = float(np.median(apart[-max(1, len(apart) // 3) :]))
    if independent == 0:  # not a level of noise
        return Correlation("frame to frame", lags, (0.0,) * len(lags))
    return Correlation("frame to frame", lags, tuple(1 - value / independent for value in apart))


def independent_lag(correlation: Correlation) -> int:
    """Return the least lag, in frames, from which on noise counts as independent."""
    pairs = zip(correlation.lags, correlation.values, strict=True)
    return next((lag for lag, value in pairs if value < INDEPENDENT), correlation.lags[-1])


def _frame_pairs(clips: Sequence[range], lag: int) -> list[tuple[int, int]]:
    starts = np.concatenate([np.arange(clip.start, max(clip.start, clip.stop - lag)) for clip in clips])
    chosen = starts[np.linspace(0, len(starts) - 1, min(COMPARED, len(starts))).astype(int)]
    return [(int(start), int(start) + lag) for start in chosen]


def _unlike(frames: Frames, first: int, second: int) -> float:
    """Return half the variance of the difference of two frames within a cell, the median over cells that are lit."""
    one, other = (frames.pixels[i].astype(np.float32) for i in (first, second))
    difference = one - other
    variance = cell_means(np.square(difference)) - np.square(cell_means(difference))
    means = cell_means(one)
    inside = (means > CUT_OFF) & (means < 255 - CUT_OFF)
    return float(np.median(variance[inside] if inside.any() else variance)) / 2


def measure(pairs: Pairs, temporal: Correlation) -> CameraNoise:
    """Measure noise on pairs of noisy and clean patches."""
    noise = pairs.noisy - pairs.clean
    purity = max(0.0, pairs.purity)
    brightness, variances = _by_brightness(pairs.clean, noise)
    variances *= purity
    rms = float(np.sqrt(np.square(noise).mean(dtype=np.float64) * purity))
    return CameraNoise(
        level=float(np.sqrt(np.square(pairs.levels).mean())),
        rms=rms,
        psnr=float(20 * np.log10(255 / max(rms, 255e-5))),
        brightness=brightness,
        variances=variances,
        lines=tuple(_line(brightness, channel) for channel in variances),
        spatial=_spatial(noise),
        temporal=temporal,
    )


def _by_brightness(clean: Floats, noise: Floats) -> tuple[Doubles, Doubles]:
    """Return the middles [bins] of bins of brightness that hold enough pixels, and variances [channels, bins]."""
    edges = np.linspace(0, 255, BINS + 1)
    found = []
    for low, high in pairwise(edges):
        inside = [(clean[..., c] >= low) & (clean[..., c] < high + (high == 255)) for c in range(clean.shape[3])]
        if min(mask.sum() for mask in inside) >= FEWEST_PIXELS:
            variances = [np.square(noise[..., c][mask]).mean(dtype=np.float64) for c, mask in enumerate(inside)]
            found.append(((low + high) / 2, variances))
    return np.array([middle for middle, _ in found]), np.array([variances for _, variances in found]).T


def _line(brightness: Doubles, variance: Doubles) -> Line:
    """Fit variance = slope x + offset by least squares, away from black and white where noise is cut off."""
    inside = (brightness > CUT_OFF) & (brightness < 255 - CUT_OFF)
    if inside.sum() < 2:
        return Line(0.0, float(variance.mean()))
    slope, offset = np.polyfit(brightness[inside], variance[inside], 1)
    return Line(float(slope), float(offset))


def _spatial(noise: Floats) -> tuple[Correlation, ...]:
    weights = np.array(LUMA if noise.shape[3] == len(LUMA) else (1.0,), np.float32)
    luma = (noise @ weights)[..., None]
    planes = {"luma": luma} | ({"chroma": noise - luma} if noise.shape[3] > 1 else {})
    return tuple(
        Correlation(f"{name}, {direction}", tuple(PIXEL_LAGS), tuple(_shifted(plane, axis, lag) for lag in PIXEL_LAGS))
        for name, plane in planes.items()
        for axis, direction in ((2, "along rows"), (1, "along columns"))
    )


def _shifted(noise: Floats, axis: int, lag: int) -> float:
    """Return the correlation of noise [n, h, w, c] with itself, `lag` pixels further along an axis."""
    length = noise.shape[axis]
    one, other = noise.take(range(length - lag), axis), noise.take(range(lag, length), axis)
    return float((one * other).mean(dtype=np.float64) / max(float(np.square(noise).mean(dtype=np.float64)), 1e-9))
