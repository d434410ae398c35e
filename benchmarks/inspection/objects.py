"""Objects in front of a camera: drawn parts whose place and pose vary, and the damage that only a part can take."""

from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.inspection.defects import Mask
from benchmarks.inspection.surfaces import Plane, ground_metal, noise

SUPERSAMPLING = 3  # shapes are drawn this much larger, for smooth edges


@dataclass(frozen=True)
class Pose:
    """Where a part lies: centre (x, y) and scale in pixels, angle in radians."""

    x: float
    y: float
    scale: float
    angle: float

    def place(self, points: Plane) -> Plane:
        """Turn, scale and shift points [n, 2], given in units of the part."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        return np.asarray(turned * self.scale + (self.x, self.y), np.float32)


def _pose(rng: np.random.Generator, height: int, width: int, scale: float, turn: float) -> Pose:
    x, y = width / 2 + rng.normal(0, 0.02 * width), height / 2 + rng.normal(0, 0.02 * height)
    return Pose(float(x), float(y), float(scale * rng.uniform(0.95, 1.05)), float(rng.uniform(-turn, turn)))


def _filled(outline: Plane, height: int, width: int) -> Plane:
    """Return the coverage [h, w] in 0..1 of a polygon [n, 2]."""
    large = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(large, [np.rint(outline * SUPERSAMPLING).astype(np.int32)], 255)
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255), np.float32)


def _ground(rng: np.random.Generator, height: int, width: int) -> Plane:
    return np.asarray(0.18 + 0.02 * noise(rng, height, width, 40, 40) + 0.012 * noise(rng, height, width, 0.6, 0.6))


def _painted(rng: np.random.Generator, cover: Plane, tone: float) -> Plane:
    """Lay the part over the ground, with an edge that shines."""
    height, width = cover.shape
    body = tone + 0.25 * (ground_metal(rng, height, width) - 0.45)
    soft = cv2.GaussianBlur(cover, (0, 0), 2.5)
    shine = 0.35 * (cover - soft) * (cover > 0.5)
    return np.asarray(_ground(rng, height, width) * (1 - cover) + body * cover + shine, np.float32)


def _gear_outline(teeth: int, missing: int | None) -> Plane:
    points = []
    for tooth in range(teeth):
        for share, radius in ((0.0, 0.82), (0.2, 1.0), (0.5, 1.0), (0.7, 0.82)):
            turn = 2 * np.pi * (tooth + share) / teeth
            reach = 0.82 if tooth == missing else radius
            points.append((reach * np.cos(turn), reach * np.sin(turn)))
    return np.asarray(points, np.float32)


def gear(rng: np.random.Generator, height: int, width: int, *, broken: bool = False) -> tuple[Plane, Mask]:
    """Draw a gear of 14 teeth, turned at will, with a hub and four holes; broken: without one tooth.

    Returns the plane and where the part is.
    """
    pose = _pose(rng, height, width, 0.4 * min(height, width), np.pi)
    whole = _filled(pose.place(_gear_outline(14, None)), height, width)
    cover = _filled(pose.place(_gear_outline(14, int(rng.integers(14)))), height, width) if broken else whole
    circle = np.linspace(0, 2 * np.pi, 40)[:, None]
    round_ = np.hstack([np.cos(circle), np.sin(circle)]).astype(np.float32)
    holes = [0.16 * round_, *(0.1 * round_ + 0.5 * np.array([np.cos(a), np.sin(a)]) for a in np.arange(4) * np.pi / 2)]
    for hole in holes:
        cover = cover * (1 - _filled(pose.place(np.asarray(hole, np.float32)), height, width))
    return _painted(rng, cover, 0.6), whole > 0.5


def screw(rng: np.random.Generator, height: int, width: int, *, broken: bool = False) -> tuple[Plane, Mask]:
    """Draw a screw that lies nearly upright: a head, a shank with 16 turns of thread; broken: with a bent tip.

    Returns the plane and where the part is.
    """
    pose = _pose(rng, height, width, 0.42 * height, 0.12)
    turns = 16
    shank = np.linspace(-0.55, 0.8, 2 * turns + 1)
    ridge = 0.11 + 0.03 * (np.arange(len(shank)) % 2)
    bend = np.where(shank > 0.45, 0.5 * (shank - 0.45), 0) if broken else np.zeros_like(shank)
    right = np.column_stack([ridge + bend, shank])
    left = np.column_stack([-ridge + bend, shank])[::-1]
    head = np.array([(-0.11, -0.6), (-0.3, -0.65), (-0.3, -0.85), (0.3, -0.85), (0.3, -0.65), (0.11, -0.6)])
    tip = np.array([(bend[-1] * 1.1, 1.0)])
    outline = np.vstack([head, right, tip, left]).astype(np.float32)
    cover = _filled(pose.place(outline), height, width)
    slot = np.array([(-0.04, -0.85), (0.04, -0.85), (0.04, -0.75), (-0.04, -0.75)], np.float32)
    plane = _painted(rng, cover, 0.55)
    plane = plane * (1 - 0.6 * _filled(pose.place(slot), height, width))
    return np.asarray(plane, np.float32), cover > 0.5


def paste(rng: np.random.Generator, glyph: Plane, height: int, width: int) -> tuple[Plane, Mask]:
    """Print a glyph [h, w] in 0..1 on cast-like ground, a little shifted; returns the plane and where the glyph is."""
    side = int(0.6 * min(height, width))
    large = cv2.resize(glyph, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    top = int((height - side) / 2 + rng.integers(-6, 7))
    left = int((width - side) / 2 + rng.integers(-6, 7))
    cover = np.zeros((height, width), np.float32)
    cover[top : top + side, left : left + side] = large
    ground = 0.5 + 0.03 * noise(rng, height, width, 1, 1) + 0.03 * noise(rng, height, width, 6, 6)
    return np.asarray(ground * (1 - cover) + 0.12 * cover, np.float32), cover > 0.5
