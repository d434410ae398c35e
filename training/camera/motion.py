"""Where nothing moves before a fixed camera: each frame's cells of 8x8 pixels beside their median over a stretch.

Noise moves the mean of a cell too. How much is measured on the cells themselves, by the median absolute deviation over
time, so that neither the level of the noise nor its correlation among pixels has to be known. Where the camera itself
moves all cells deviate; but noise does not shake the mean of a cell by more than the pixels within it differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from runtime.images import Pixels

CELL = 8  # pixels
SMOOTHINGS = (1, 5)  # frames: what is fast shows in one, what has little contrast in the mean of several
TOLERANCE = 4.5  # standard deviations: one still cell in 150,000 is taken for a moving one
RESTLESS = 2.0  # times the usual deviation: a cell with more is leaves or water, not noise
FINEST = 0.25  # levels: least deviation of a cell's mean, for frames without noise are rounded all the same
GAUSSIAN_MAD = 1.4826  # standard deviations of normal noise in one median absolute deviation
LIT = 16.0  # levels: cells darker than this tell nothing of the light, and little of the noise
LOOKED_AT = 8  # frames

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rest:
    """What is at rest in a stretch of n frames."""

    light: Floats
    """[n], brightness of each frame beside the usual one."""
    still: Mask
    """[n, rows, columns] of cells."""


def find_rest(frames: Sequence[Pixels]) -> Rest:
    """Judge a stretch of uint8 frames [h, w, c] by its own median; pixels beyond the last whole cell are left out."""
    cells = np.stack([cell_means(pixels) for pixels in frames])
    light = _light(cells)
    sample = [frames[i] for i in np.linspace(0, len(frames) - 1, LOOKED_AT).astype(int)]
    roughness = np.median([_roughness(pixels) for pixels in sample], axis=0)
    return Rest(light, ~_moving(cells / light[:, None, None, None], np.asarray(roughness, np.float32)))


def cell_means(pixels: npt.NDArray[np.uint8] | Floats) -> Floats:
    """Return the means [rows, columns, c] of the whole cells of [h, w, c] pixels."""
    rows, columns = pixels.shape[0] // CELL, pixels.shape[1] // CELL
    whole = pixels[: rows * CELL, : columns * CELL].astype(np.float32)
    means = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).reshape(rows, columns, -1)


def _light(cells: Floats) -> Floats:
    """Return [n]: the median over cells of how bright they are beside their own median; lamps flicker, clouds pass."""
    usual = np.median(cells, axis=0)
    lit = usual > LIT
    if not lit.any():
        return np.ones(len(cells), np.float32)
    return np.asarray(np.median(cells[:, lit] / usual[lit], axis=1), np.float32)


def _roughness(pixels: Pixels) -> Floats:
    """Return [c]: how much the pixels of a smooth cell differ, by the lower quartile over the lit cells."""
    means = cell_means(pixels)
    variance = cell_means(np.square(pixels, dtype=np.float32)) - np.square(means)
    lit = (means > LIT).all(-1)
    return np.sqrt(np.quantile(variance[lit] if lit.any() else variance.reshape(-1, variance.shape[2]), 0.25, axis=0))


def _moving(cells: Floats, roughness: Floats) -> Mask:
    """Return [n, rows, columns]: where any channel is further from its median than noise takes it, and around there."""
    away = np.asarray(cells - np.median(cells, axis=0), np.float32)
    moving = np.zeros(cells.shape[:3], bool)
    for window in SMOOTHINGS:
        smooth = _running_mean(away, window)
        deviation = GAUSSIAN_MAD * np.median(np.abs(smooth), axis=0)  # [rows, columns, c]
        usual = np.maximum(FINEST, np.minimum(np.median(deviation, axis=(0, 1)), roughness))  # [c]
        moving |= (np.abs(smooth) > TOLERANCE * np.clip(deviation, usual, RESTLESS * usual)).any(-1)
    return _grown(moving)


def _running_mean(values: Floats, window: int) -> Floats:
    """Average over `window` frames around each, along the first axis."""
    flat = values.reshape(len(values), -1)
    means = cv2.blur(flat, (1, window), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(means, np.float32).reshape(values.shape)


def _grown(mask: Mask) -> Mask:
    """Spread to neighbouring cells, and over the frames that a running mean mixes: a body's edge fills no cell."""
    around = np.stack([cv2.dilate(frame, np.ones((3, 3), np.uint8)) for frame in mask.astype(np.uint8)])
    flat = around.reshape(len(mask), -1)
    return cv2.dilate(flat, np.ones((max(SMOOTHINGS), 1), np.uint8)).reshape(mask.shape).astype(bool)
