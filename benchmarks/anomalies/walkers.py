"""Walkers of normal clips, followed, and made faster one by one: by their own flow over more frames than two.

Nothing is drawn and nothing pasted: in place of a walker's flow over two frames stands that over three or four, which
is real, and as long as a walk at one and a half times or twice the speed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter

from runtime.motion import optical_flow
from training.pseudo_anomalies import REACH, SMALLEST, Grey, foreground
from training.speediness import PLANES, Grid

Floats = npt.NDArray[np.float32]
GRID = Grid(2, 4)
CELL = GRID.cell // GRID.shrink  # of the halved size
STEP = 2  # frames
STEPS = {1.5: 3, 2.0: 4, 3.0: 6}
"""Frames of flow that look like two frames at so many times the speed."""
LONGEST = 2 * max(STEPS.values())
FIRST = 2 * STEP  # frame that has two fields before it
FOLLOWED = 26  # frames: who is lost sooner is no episode
SLOW = 0.5  # pixels a frame
UPRIGHT = 1.2  # height over width; groups are wider
WALKERS = 3  # of each clip


@dataclass(frozen=True)
class Episode:
    """A walker made faster: what the cells show in the moments in which it is followed."""

    moments: npt.NDArray[np.intp]
    cells: Floats
    """[n, PLANES, rows, columns]."""


@dataclass(frozen=True)
class Track:
    """A piece of foreground, followed from frame to frame."""

    number: int
    frames: npt.NDArray[np.intp]


def cells(clip: Grey, scene: Floats, step: int) -> Floats:
    """Return the cells [n, PLANES, rows, columns] of every other frame from the fifth on, frames `step` apart.

    As the model has them: motion in pixels a field, looks against the scene [h / 2, w / 2] in 0..1. Those that would
    begin before the clip are zero.
    """
    return np.concatenate([_moment(clip, end, scene, step) for end in range(FIRST, len(clip), STEP)])


def _moment(clip: Grey, end: int, scene: Floats, step: int) -> Floats:
    rows, columns = (-(-length // GRID.cell) for length in clip.shape[1:])
    if end < 2 * step:
        return np.zeros((1, PLANES, rows, columns), np.float32)
    ends = clip[end - 2 * step : end + 1 : step, ..., None]
    flow = torch.from_numpy(optical_flow(ends, 1, 2))
    return np.asarray(GRID.cells(torch.from_numpy(ends[None]), flow[None], 1, torch.from_numpy(scene)[None, None])[0])


def halved_scene(clips: Sequence[Grey]) -> Floats:
    """Return the median of frames as [h / 2, w / 2] in 0..1."""
    frames = np.concatenate([clip[::10] for clip in clips])[None, :, None]
    return np.asarray(GRID.shrunk(torch.from_numpy(frames).float() / 255)[0, :, 0].median(0).values)


def episodes(clip: Grey, background: Grey, normal: Floats, fast: Floats, seed: int) -> Iterator[Episode]:
    """Make up to three walkers of a clip faster, drawn by the seed; its cells are given as they are and faster."""
    labels, tracks = _follow(clip, background)
    order = np.random.default_rng([7, seed]).permutation(len(tracks))[:WALKERS]
    for track in (tracks[index] for index in order):
        ends = track.frames[(track.frames % STEP == 0) & (track.frames >= LONGEST)]
        moments = (ends - FIRST) // STEP
        there = np.stack([_touched(labels[end] == track.number) for end in ends])
        near = maximum_filter(there, (1, 3, 3))
        yield Episode(moments, np.where(near[:, None], fast[moments], normal[moments]))


def _touched(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    rows, columns = (-(-length // CELL) for length in mask.shape)
    padded = np.pad(mask, ((0, rows * CELL - mask.shape[0]), (0, columns * CELL - mask.shape[1])))
    return np.asarray(padded.reshape(rows, CELL, columns, CELL).any((1, 3)))


def _follow(clip: Grey, background: Grey) -> tuple[npt.NDArray[np.int16], list[Track]]:
    """Return label maps [n, h / 2, w / 2] and those pieces that walk, alone, for long enough."""
    labels = np.zeros((len(clip), *clip[0, ::2, ::2].shape), np.int16)
    seen: dict[int, list[tuple[int, float, float, float]]] = {}
    previous: list[tuple[int, npt.NDArray[np.float64], int]] = []
    for index, frame in enumerate(clip):
        current: list[tuple[int, npt.NDArray[np.float64], int]] = []
        count, pieces, boxes, centres = cv2.connectedComponentsWithStats(foreground(frame, background).astype(np.uint8))
        for piece in range(1, count):
            area = int(boxes[piece, 4])
            if area < SMALLEST:
                continue
            taken = {number for number, _, _ in current}
            number = _nearest(previous, centres[piece], area, taken) or len(seen) + 1
            current.append((number, centres[piece], area))
            labels[index][pieces[::2, ::2] == piece] = number
            shape = float(boxes[piece, 3] / boxes[piece, 2])
            across, down = centres[piece]
            seen.setdefault(number, []).append((index, float(across), float(down), shape))
        previous = current
    return labels, [Track(number, np.array([it[0] for it in life])) for number, life in seen.items() if _walks(life)]


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
