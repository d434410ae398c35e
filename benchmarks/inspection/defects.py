"""Defects drawn into a plane: each returns the damaged plane and where it differs.

Contrast and size are drawn from wide ranges, log-uniformly, so that a part of the defects is hard to see.
"""

import itertools
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.inspection.surfaces import Plane, noise

Mask = npt.NDArray[np.bool_]
Damage = Callable[[np.random.Generator, Plane, Mask], tuple[Plane, Mask]]
"""(generator, plane [h, w] in 0..1, where a defect may start [h, w]) -> damaged plane, changed pixels."""

FAINTEST, STRONGEST = 0.07, 0.45  # contrast, of the range from black to white
VISIBLE = 0.02  # a change below this is no part of the mask


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _contrast(rng: np.random.Generator) -> float:
    return _log_uniform(rng, FAINTEST, STRONGEST) * float(rng.choice([-1, 1], p=[0.65, 0.35]))  # most are dark


def _start(rng: np.random.Generator, where: Mask) -> tuple[float, float]:
    """Return a pixel (x, y) among those allowed."""
    rows, columns = np.nonzero(where)
    index = int(rng.integers(len(rows)))
    return float(columns[index]), float(rows[index])


def _changed(before: Plane, after: Plane) -> tuple[Plane, Mask]:
    after = np.clip(after, 0, 1)
    return after, np.abs(after - before) > VISIBLE


def scratch(rng: np.random.Generator, plane: Plane, where: Mask) -> tuple[Plane, Mask]:
    """Draw a thin line that bends a little and fades."""
    x, y = _start(rng, where)
    angle, stroke = rng.uniform(0, np.pi), np.zeros_like(plane)
    steps = int(_log_uniform(rng, 4, 20))
    points = [(x, y)]
    for _ in range(steps):
        angle += rng.normal(0, 0.15)
        points.append((points[-1][0] + 6 * np.cos(angle), points[-1][1] + 6 * np.sin(angle)))
    for number, (one, other) in enumerate(itertools.pairwise(points)):
        ends = [tuple(round(16 * value) for value in point) for point in (one, other)]
        cv2.line(stroke, ends[0], ends[1], 1 - 0.6 * number / steps, int(rng.integers(1, 3)), cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(stroke, (0, 0), rng.uniform(0.4, 0.9))
    return _changed(plane, plane + 1.3 * _contrast(rng) * soft)


def pit(rng: np.random.Generator, plane: Plane, where: Mask) -> tuple[Plane, Mask]:
    """Draw one to three small holes, dark inside and bright at one rim."""
    hole, rim = np.zeros_like(plane), np.zeros_like(plane)
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(value) for value in _start(rng, where))
        axes = tuple(int(max(1, _log_uniform(rng, 1.5, 7))) for _ in range(2))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(hole, (x, y), axes, turn, 0, 360, 1.0, -1, cv2.LINE_AA)
        cv2.ellipse(rim, (x, y + 1), axes, turn, 20, 160, 1.0, 1, cv2.LINE_AA)
    depth = _log_uniform(rng, 0.12, STRONGEST)
    return _changed(plane, plane - depth * cv2.GaussianBlur(hole, (0, 0), 0.7) + 0.4 * depth * rim)


def stain(rng: np.random.Generator, plane: Plane, where: Mask) -> tuple[Plane, Mask]:
    """Draw a blot with a ragged edge."""
    x, y = _start(rng, where)
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    radius = _log_uniform(rng, 6, 30)
    distance = np.hypot(rows - y, (columns - x) * rng.uniform(0.6, 1.6)) / radius
    ragged = distance + 0.25 * noise(rng, plane.shape[0], plane.shape[1], 4, 4)
    blot = 1 / (1 + np.exp((ragged - 1) * rng.uniform(4, 12)))
    return _changed(plane, plane + (0.7 * _contrast(rng) * blot).astype(np.float32))


def dent(rng: np.random.Generator, plane: Plane, where: Mask) -> tuple[Plane, Mask]:
    """Pinch or bulge the surface around a point, and shade it as a slope would be."""
    x, y = _start(rng, where)
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]].astype(np.float32)
    radius = _log_uniform(rng, 8, 26)
    down, across = (rows - y) / radius, (columns - x) / radius
    slope = np.exp(-(down**2 + across**2))
    push = float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)) * radius
    bent = cv2.remap(plane, columns + push * across * slope, rows + push * down * slope, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REFLECT)  # fmt: skip
    return _changed(plane, bent + (_contrast(rng) * 0.8 * down * slope).astype(np.float32))


def missing_strip(rng: np.random.Generator, plane: Plane, where: Mask) -> tuple[Plane, Mask]:
    """Take the texture away along a straight strip: a thread that is missing, a place that was not ground."""
    x, y = _start(rng, where)
    width, length = int(_log_uniform(rng, 4, 12)), int(_log_uniform(rng, 24, 90))
    strip = np.zeros_like(plane)
    wide, tall = (length, width) if rng.random() < 0.5 else (width, length)
    corner = (int(x - wide / 2), int(y - tall / 2))
    cv2.rectangle(strip, corner, (corner[0] + wide, corner[1] + tall), 1.0, -1)
    blend = cv2.GaussianBlur(strip, (0, 0), 0.8)
    flat = cv2.GaussianBlur(plane, (0, 0), 6) + rng.uniform(-0.1, 0.05)
    return _changed(plane, np.asarray(plane * (1 - blend) + flat * blend, np.float32))


def unevenness(rng: np.random.Generator, plane: Plane, where: Mask) -> tuple[Plane, Mask]:
    """Change tone and contrast of a large part, without a clear edge."""
    x, y = _start(rng, where)
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    reach = rng.uniform(0.2, 0.4) * np.array(plane.shape)
    part = np.exp(-(((rows - y) / reach[0]) ** 2 + ((columns - x) / reach[1]) ** 2)).astype(np.float32)
    smooth = cv2.GaussianBlur(plane, (0, 0), 8)
    gain = rng.choice([rng.uniform(0.3, 0.6), rng.uniform(1.5, 2.2)])
    changed = plane + part * ((gain - 1) * (plane - smooth) + 0.5 * _contrast(rng))
    return _changed(plane, np.asarray(changed, np.float32))


SURFACE_DEFECTS: tuple[Damage, ...] = (scratch, pit, stain, dent, missing_strip, unevenness)
OBJECT_DEFECTS: tuple[Damage, ...] = (scratch, pit, stain, dent)
