"""Synthetic anomalies in held-out normal frames: six sorts, each at the same places, visible and seeded.

Nobody has labelled frames of a new camera, so anomalies are made: foreign patches (after CutPaste, Li et al. 2021),
textured blobs (after DRAEM, Zavrtanik et al. 2021), regions out of focus or in other light, drawn things that stand or
pass. What a real camera will see is something else; the mix is broad so that no single sort decides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data import Frames, full_windows
from training.errors import DataError
from training.pseudo_anomalies import CONTRAST, GRAIN, Cutout, Grey, Mask, Spoiled, Thing, draw_thing, paste

PLACES = 120  # at the most, spread over the held-out frames
TRIES = 20  # the most visible counts where none is visible enough
FAINT = 6.0  # levels, in the mean, that a region out of focus differs by: what is flat does not change

Alpha = npt.NDArray[np.float32]
Draw = Callable[[Grey, Grey, np.random.Generator], Spoiled]
"""(a stretch [n, h, w], normal frames to take from [m, h, w], rng) -> the stretch with an anomaly in it."""


@dataclass(frozen=True)
class Sort:
    """One sort of anomaly."""

    name: str
    draw: Draw
    change: float = CONTRAST
    """Levels, in the mean over the mask, from which on it is visible."""


@dataclass(frozen=True)
class Anomalies:
    """Stretches of held-out frames with an anomaly in each: `places` of every sort, sort by sort."""

    frames: Frames
    """Every stretch is a clip of its own."""

    masks: Mask
    """[sorts * places, h, w], where the anomaly is in the last frame of each stretch."""

    time: int
    """Frames in a stretch."""

    sorts: tuple[str, ...]
    at: npt.NDArray[np.intp]
    """[places], the positions in the normal frames of those that are judged."""

    clips: npt.NDArray[np.intp]
    """[places], a number for the clip that each place is in, in the order of time."""

    @property
    def places(self) -> int:
        """How many there are of each sort."""
        return len(self.clips)

    @property
    def ends(self) -> list[int]:
        """The positions of the last frame of every stretch: those that are judged."""
        return list(range(self.time - 1, len(self.frames), self.time))


def spoil(normal: Frames, donor: Frames, time: int, seed: int) -> Anomalies:
    """Put one anomaly of every sort into stretches of `time` grey frames, at places spread evenly over `normal`.

    Patches are taken from `donor`. Raises DataError where no clip has that many frames.
    """
    ends = full_windows(normal, time)
    if not ends:
        raise DataError(f"no held-out clip has {time} frames in a row; give longer clips")
    chosen = [ends[i] for i in np.linspace(0, len(ends) - 1, min(PLACES, len(ends))).astype(int)]
    taken = donor.batch(range(0, len(donor), max(1, len(donor) // 200)))[..., 0]
    frames, masks = Frames(), []
    for number, sort in enumerate(SORTS):
        for end in tqdm(chosen, sort.name, unit="anomaly", disable=None):
            stretch = normal.batch(range(end - time + 1, end + 1))[..., 0]
            spoiled = visible(stretch, taken, sort, np.random.default_rng([seed, number, end]))
            masks.append(spoiled.masks[-1])
            for index, pixels in enumerate(spoiled.frames):
                frames.add(f"{sort.name}/{end}", f"{sort.name}/{end}/{index}", pixels[..., None])
    clips = np.unique([normal.clips[end] for end in chosen], return_inverse=True)[1]
    return Anomalies(frames, np.stack(masks), time, tuple(sort.name for sort in SORTS), np.array(chosen), clips)


def visible(stretch: Grey, donor: Grey, sort: Sort, rng: np.random.Generator) -> Spoiled:
    """Draw until the anomaly is visible in the last frame; where it never is, the most visible one counts."""
    drawn: list[Spoiled] = []
    for _ in range(TRIES):
        drawn.append(sort.draw(stretch, donor, rng))
        if _change(stretch, drawn[-1]) >= sort.change:
            return drawn[-1]
    return max(drawn, key=lambda spoiled: _change(stretch, spoiled))


def _change(stretch: Grey, spoiled: Spoiled) -> float:
    mask = spoiled.masks[-1]
    apart = np.abs(spoiled.frames[-1].astype(np.float32) - stretch[-1])
    return float(apart[mask].mean()) if mask.any() else 0.0


def _foreign_patch(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:
    """Paste a piece of another frame, from another place."""
    frame = donor[int(rng.integers(len(donor)))]
    shift = [int(rng.integers(side // 4, side - side // 4)) for side in frame.shape]
    return _blend(stretch, _grainy(np.roll(frame, shift, (0, 1)), len(stretch), rng), _ellipse(frame.shape, rng))


def _blob(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:  # noqa: ARG001 - a Draw
    """Drop a ragged blot, dark or bright, with a texture of its own."""
    shape = stretch.shape[1:]
    ragged = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), 0.06 * min(shape))
    inside = _ellipse(shape, rng) * (ragged > np.quantile(ragged, 0.4))
    shade = float(rng.choice([rng.uniform(10, 60), rng.uniform(190, 245)]))
    texture = cv2.GaussianBlur(rng.normal(0, 30, shape).astype(np.float32), (0, 0), 1)
    alpha = cv2.GaussianBlur(np.asarray(inside, np.float32), (3, 3), 0.7)
    return _blend(stretch, _grainy(shade + texture, len(stretch), rng), np.asarray(alpha, np.float32))


def _blurred_region(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:  # noqa: ARG001
    """Put a region out of focus, as a drop on the lens does."""
    shape = stretch.shape[1:]
    sigma = min(shape) * rng.uniform(0.04, 0.08)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in stretch])
    return _blend(stretch, blurred.astype(np.float32), _ellipse(shape, rng, (0.1, 0.2)))


def _changed_brightness(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:  # noqa: ARG001
    """Make a region darker or brighter, as a shadow or a lamp does."""
    gain = float(rng.choice([rng.uniform(0.4, 0.7), rng.uniform(1.4, 1.9)]))
    lit = (stretch.astype(np.float32) * gain).clip(0, 255)
    return _blend(stretch, lit, _ellipse(stretch.shape[1:], rng, (0.08, 0.2)))


def _standing_thing(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:  # noqa: ARG001
    """Leave a bag or a cart where it is all through the stretch."""
    cutout = _drawn(stretch, Thing.BAG if rng.random() < 0.5 else Thing.CART, rng)
    left = int(rng.integers(0, max(1, stretch.shape[2] - cutout.alpha.shape[1])))
    return paste(stretch, cutout, np.full(len(stretch), left), rng)


def _passing_thing(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:  # noqa: ARG001
    """Let a cart cross at three to six hundredths of the width a frame; in the last frame it is in full sight."""
    cutout = _drawn(stretch, Thing.CART, rng)
    last = int(rng.integers(0, max(1, stretch.shape[2] - cutout.alpha.shape[1])))
    speed = stretch.shape[2] * rng.uniform(0.03, 0.06) * rng.choice([-1, 1])
    return paste(stretch, cutout, np.rint(last - speed * np.arange(len(stretch))[::-1]).astype(int), rng)


SORTS = (
    Sort("foreign patch", _foreign_patch),
    Sort("blob", _blob),
    Sort("blurred region", _blurred_region, FAINT),
    Sort("changed brightness", _changed_brightness),
    Sort("standing thing", _standing_thing),
    Sort("passing thing", _passing_thing),
)


def _ellipse(shape: tuple[int, ...], rng: np.random.Generator, radius: tuple[float, float] = (0.05, 0.14)) -> Alpha:
    """Draw a soft ellipse anywhere, [h, w] in 0..1; the radii are shares of the shorter side."""
    alpha = np.zeros(shape, np.float32)
    centre = int(rng.integers(shape[1])), int(rng.integers(shape[0]))
    axes = tuple(max(2, round(min(shape) * rng.uniform(*radius))) for _ in range(2))
    cv2.ellipse(alpha, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(alpha, (3, 3), 0.8), np.float32)


def _blend(stretch: Grey, other: npt.NDArray[np.floating], alpha: Alpha) -> Spoiled:
    """Lay another picture, [h, w] or one a frame, over every frame."""
    mixed = alpha * other + (1 - alpha) * stretch
    return Spoiled(np.rint(mixed.clip(0, 255)).astype(np.uint8), np.broadcast_to(alpha > 0.5, stretch.shape))


def _grainy(picture: npt.NDArray[np.floating], count: int, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Repeat a picture [h, w] as a camera would see it `count` times."""
    return picture + rng.normal(0, GRAIN, (count, *picture.shape))


def _drawn(stretch: Grey, thing: Thing, rng: np.random.Generator) -> Cutout:
    """Draw a thing beside people of a seventh to a third of the frame's height, on its lower part."""
    tall, wide = stretch.shape[1:]
    height = min(tall, wide / 2) * rng.uniform(0.15, 0.35)
    return draw_thing(thing, height, int(rng.integers(round(0.6 * tall), tall + 1)), rng)
