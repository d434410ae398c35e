"""Walkers of normal clips, followed, and made faster one by one: by their own flow over more frames than two.

Nothing is drawn and nothing pasted: in place of a walker's flow over two frames stands that over three or four, which
is real, and as long as a walk at one and a half times or twice the speed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from training.pseudo_anomalies import FOREGROUND_LEVELS, REACH, SMALLEST, Grey

Floats = npt.NDArray[np.float32]
CELL = 2  # of the halved size
STEP = 2  # frames
STEPS = {1.5: 3, 2.0: 4}
"""Frames of flow that look like two frames at so many times the speed."""
CHANGE = 12  # levels
FOLLOWED = 26  # frames: who is lost sooner is no episode
SLOW = 0.5  # pixels a frame
UPRIGHT = 1.2  # height over width; groups are wider
WALKERS = 3  # of each clip


@dataclass(frozen=True)
class Episode:
    """A walker made faster: what the cells show in the fields in which it is followed."""

    fields: npt.NDArray[np.intp]
    cells: Floats
    """[n, 2, rows, columns]: speed of what changed, and its share."""


@dataclass(frozen=True)
class Track:
    """A piece of foreground, followed from frame to frame."""

    number: int
    frames: npt.NDArray[np.intp]


def cells(clip: Grey, step: int) -> Floats:
    """Return the cells [n, 2, rows, columns] of the fields that end at every other frame from the third on.

    The first is speed, in pixels in two frames over two, where the brightness changed in `step` frames; the second the
    share of a cell in which it did. Fields that would begin before the clip are zero.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(1)
    search.setVariationalRefinementIterations(0)
    found = []
    for end in range(STEP, len(clip), STEP):
        speed = np.zeros(clip.shape[1:], np.float32)
        changed = np.zeros(clip.shape[1:], np.float32)
        if end >= step:
            now, before = clip[end], clip[end - step]
            flow = search.calc(now, before, np.zeros((*now.shape, 2), np.float32))
            changed = (cv2.absdiff(now, before) > CHANGE).astype(np.float32)
            speed = np.linalg.norm(flow, axis=2) / STEP * changed
        found.append([_pooled(plane[::2, ::2]) for plane in (speed, changed)])
    return np.asarray(found, np.float32)


def _pooled(plane: Floats) -> Floats:
    rows, columns = (length // CELL for length in plane.shape)
    return np.asarray(plane[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).mean((1, 3)))


def episodes(clip: Grey, background: Grey, factor: float, normal: Floats, seed: int) -> Iterator[Episode]:
    """Make up to three walkers of a clip faster, drawn by the seed; `normal` are its cells as they are."""
    labels, tracks = _follow(clip, background)
    fast = cells(clip, STEPS[factor])
    order = np.random.default_rng([7, seed]).permutation(len(tracks))[:WALKERS]
    for track in (tracks[index] for index in order):
        ends = track.frames[(track.frames % STEP == 0) & (track.frames >= max(STEP, STEPS[factor]))]
        fields = ends // STEP - 1
        there = np.stack([_pooled((labels[end] == track.number).astype(np.float32)) > 0 for end in ends])
        near = maximum_filter(there, (1, 3, 3))
        yield Episode(fields, np.where(near[:, None], fast[fields], normal[fields]))


def _follow(clip: Grey, background: Grey) -> tuple[npt.NDArray[np.int16], list[Track]]:
    """Return label maps [n, h / 2, w / 2] and those pieces that walk, alone, for long enough."""
    labels = np.zeros((len(clip), *clip[0, ::2, ::2].shape), np.int16)
    seen: dict[int, list[tuple[int, float, float, float]]] = {}
    previous: list[tuple[int, npt.NDArray[np.float64], int]] = []
    for index, frame in enumerate(clip):
        current: list[tuple[int, npt.NDArray[np.float64], int]] = []
        count, pieces, boxes, centres = cv2.connectedComponentsWithStats(_foreground(frame, background))
        for piece in range(1, count):
            area = int(boxes[piece, 4])
            if area < SMALLEST:
                continue
            taken = {number for number, _, _ in current}
            number = _nearest(previous, centres[piece], area, taken) or len(seen) + 1
            current.append((number, centres[piece], area))
            labels[index][pieces[::2, ::2] == piece] = number
            shape = float(boxes[piece, 3] / boxes[piece, 2])
            seen.setdefault(number, []).append((index, *map(float, centres[piece]), shape))
        previous = current
    return labels, [Track(number, np.array([it[0] for it in life])) for number, life in seen.items() if _walks(life)]


def _foreground(frame: Grey, background: Grey) -> Grey:
    apart = cv2.absdiff(cv2.GaussianBlur(frame, (3, 3), 0), cv2.GaussianBlur(background, (3, 3), 0))
    return np.asarray(
        cv2.morphologyEx((apart > FOREGROUND_LEVELS).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8))
    )


def _nearest(
    previous: list[tuple[int, npt.NDArray[np.float64], int]],
    centre: npt.NDArray[np.float64],
    area: int,
    taken: set[int],
) -> int | None:
    near = [
        (float(np.hypot(*(centre - other))), number)
        for number, other, size in previous
        if number not in taken and np.hypot(*(centre - other)) <= REACH and 0.6 <= area / size <= 1.7
    ]
    return min(near)[1] if near else None


def _walks(life: list[tuple[int, float, float, float]]) -> bool:
    if len(life) < FOLLOWED:
        return False
    (_, left, top, _), (_, right, bottom, _) = life[0], life[-1]
    pace = float(np.hypot(right - left, bottom - top)) / (len(life) - 1)
    return pace >= SLOW and float(np.median([shape for *_, shape in life])) >= UPRIGHT
