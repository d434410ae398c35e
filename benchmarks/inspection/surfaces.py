"""Surfaces as an inspection camera sees them, drawn from noise: no two alike, no position with a meaning of its own.

A surface is float32 [h, w] around 0.5, its texture within 0..1. Lengths in pixels are those of the drawing, whatever
its size, as with a camera at a fixed distance.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
Draw = Callable[[np.random.Generator, int, int], Plane]
"""(generator, height, width) -> float [h, w] in 0..1."""


def noise(rng: np.random.Generator, height: int, width: int, down: float, across: float) -> Plane:
    """Return Gaussian noise of variance 1 that is smooth over `down` rows and `across` columns (sigmas in pixels)."""
    coarse_y, coarse_x = (max(1, int(sigma / 4)) for sigma in (down, across))  # a wide blur needs no fine grid
    tall, wide = -(-height // coarse_y) + 26, -(-width // coarse_x) + 26  # the blur mirrors the border: cut it off
    white = rng.standard_normal((tall, wide)).astype(np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), sigmaX=max(across / coarse_x, 0.1), sigmaY=max(down / coarse_y, 0.1))
    fine = cv2.resize(smooth[12:-12, 12:-12], None, fx=coarse_x, fy=coarse_y, interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine[:height, :width] / smooth.std(), np.float32)


def ground_metal(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw grinding marks along the rows, coarse and fine, with bands that reflect more."""
    fine = noise(rng, height, width, 0.6, 25)
    coarse = noise(rng, height, width, 3, 80)
    bands = noise(rng, height, width, 25, 150)
    grain = noise(rng, height, width, 0.5, 0.5)
    return np.asarray(0.45 + 0.05 * fine + 0.04 * coarse + 0.05 * bands + 0.015 * grain, np.float32)


def fabric(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw a plain weave whose threads wander and differ in brightness."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    pitch = rng.uniform(7.5, 8.5)
    y = (rows + 1.2 * noise(rng, height, width, 15, 40)) / pitch
    x = (columns + 1.2 * noise(rng, height, width, 40, 15)) / pitch
    over = (np.floor(y) + np.floor(x)) % 2  # which of the two threads is on top
    weft, warp = np.sin(np.pi * (y % 1)), np.sin(np.pi * (x % 1))
    relief = np.where(over > 0, weft * (0.6 + 0.4 * warp), warp * (0.6 + 0.4 * weft))
    threads = 0.02 * noise(rng, height, width, 2, 60) + 0.02 * noise(rng, height, width, 60, 2)
    return np.asarray(0.3 + 0.35 * relief + threads + 0.02 * noise(rng, height, width, 0.5, 0.5), np.float32)


def leather(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw grain: soft cells between dark creases of two sizes."""
    cells = np.abs(noise(rng, height, width, 4, 4))
    small = np.abs(noise(rng, height, width, 1.8, 1.8))
    creases = np.exp(-cells / 0.25) * 0.6 + np.exp(-small / 0.3) * 0.3
    shade = 0.04 * noise(rng, height, width, 60, 60)
    return np.asarray(0.55 - 0.28 * creases + shade + 0.015 * noise(rng, height, width, 0.5, 0.5), np.float32)


def wood(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw year rings that bend, with fibres along the columns."""
    across = np.mgrid[:height, :width][1].astype(np.float32)
    bend = 14 * noise(rng, height, width, 90, 40)
    rings = (across + bend) / rng.uniform(14, 22) % 1
    fibres = 0.04 * noise(rng, height, width, 18, 0.7)
    return np.asarray(0.6 - 0.22 * rings**3 + fibres + 0.03 * noise(rng, height, width, 60, 8), np.float32)


def cast(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw a rough casting: clouds of several sizes, and the small pores that it is allowed to have."""
    clouds = sum(weight * noise(rng, height, width, size, size) for size, weight in ((1, 0.03), (4, 0.04), (16, 0.04)))
    pores = np.zeros((height, width), np.float32)
    for _ in range(rng.poisson(height * width / 6000)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(pores, centre, int(rng.integers(1, 3)), 1.0, -1, cv2.LINE_AA)
    return np.asarray(0.5 + clouds - 0.15 * cv2.GaussianBlur(pores, (0, 0), 0.8), np.float32)
