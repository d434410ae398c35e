"""Anomalies made from normal clips of a fixed camera: things that stand, things that move too fast. All is seeded.

They are what designs and settings are chosen by, so that nothing is chosen on test clips, and they show what a test
set lacks: things that do not move. Clips are grey, uint8 [n, h, w].
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

FOREGROUND_LEVELS = 22  # that a pixel differs from the background
SMALLEST = 60  # pixels of a moving thing: less is a leaf or a shadow
STANDING_FRAMES = 40  # a pixel that is covered this long in a row has somebody standing on it
GRAIN = 1.5  # levels: what is drawn has a camera's noise too
CONTRAST = 18  # levels between a thing and what it hides, in the mean: less is seen by nobody
VISIBLE = 25  # pixels of a thing in a frame, for the frame to count as anomalous
TRIES = 400
TRACKS = 100
FAST = 2.2  # pixels a frame: no walker is that fast
REACH = 8.0  # pixels a frame that a thing may move and still be the same one


@dataclass(frozen=True)
class Spoiled:
    """A clip with something in it that does not belong there, and where."""

    frames: Grey
    masks: Mask
    """[n, h, w]."""

    @property
    def anomalous(self) -> Mask:
        """[n], whether enough of the thing is to be seen."""
        return np.asarray(self.masks.sum(axis=(1, 2)) >= VISIBLE)


class Thing(StrEnum):
    """What can be left standing."""

    BAG = "bag"
    CART = "cart"
    PERSON = "person"


@dataclass(frozen=True)
class Cutout:
    """A picture of a thing: `pixels` float [h, w], `alpha` [h, w] in 0..1, and the row that it stands on."""

    pixels: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32]
    base: int


@dataclass(frozen=True)
class Walker:
    """A connected piece of foreground in one frame."""

    mask: Mask
    centre: tuple[float, float]
    """Row and column."""

    top: int
    left: int
    height: int
    width: int

    @property
    def base(self) -> int:
        """The row it stands on."""
        return self.top + self.height

    @property
    def is_upright(self) -> bool:
        """Tell whether it has the shape of one person."""
        return 1.6 <= self.height / self.width <= 3.6


def foreground(frame: Grey, background: Grey) -> Mask:
    """Return what hides the background, [h, w]."""
    apart = cv2.absdiff(cv2.GaussianBlur(frame, (3, 3), 0), cv2.GaussianBlur(background, (3, 3), 0))
    covered = (apart > FOREGROUND_LEVELS).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8)), bool)


class Scene:
    """What is normal in front of a fixed camera: its background, how large people are, where none ever stands."""

    def __init__(self, clips: Sequence[Grey], every: int = 5) -> None:
        """Look at every n-th frame of normal clips."""
        self.background = np.median(np.concatenate([clip[::every] for clip in clips]), axis=0).astype(np.uint8)
        people = [w for clip in clips for frame in clip[::every] for w in self.walkers(frame) if w.is_upright]
        if len(people) < 2:
            raise ValueError("nobody walks through these clips: there is nothing to tell sizes from")
        bases, heights = (np.array([getattr(person, what) for person in people]) for what in ("base", "height"))
        self.top_base, self.last_base = int(np.quantile(bases, 0.02)), int(bases.max())
        self._slope, self._offset = _line_below_pairs(bases, heights)
        self.stood_on = np.any([self._stood_on(clip) for clip in clips], axis=0)

    def foreground(self, frame: Grey) -> Mask:
        """Return what hides the background, [h, w]."""
        return foreground(frame, self.background)

    def walkers(self, frame: Grey) -> list[Walker]:
        """Return the pieces of the foreground, the largest first."""
        _, pieces, boxes, centres = cv2.connectedComponentsWithStats(self.foreground(frame).astype(np.uint8))
        order = [int(i) for i in np.argsort(-boxes[:, 4]) if i != 0 and boxes[i, 4] >= SMALLEST]
        return [
            Walker(pieces == i, (float(centres[i][1]), float(centres[i][0])), *(int(boxes[i, k]) for k in (1, 0, 3, 2)))
            for i in order
        ]

    def person_height(self, base: float) -> float:
        """Return how tall people are whose feet are in this row, in pixels."""
        return max(8.0, float(self._slope * base + self._offset))

    def is_single(self, walker: Walker) -> bool:
        """Tell whether it is no taller than one person."""
        return walker.height <= 1.15 * self.person_height(walker.base)

    def _stood_on(self, clip: Grey) -> Mask:
        covered_for = np.zeros(clip.shape[1:], np.int32)
        stood_on = np.zeros(clip.shape[1:], bool)
        for frame in clip:
            covered_for = (covered_for + 1) * self.foreground(frame)
            stood_on |= covered_for >= STANDING_FRAMES
        return stood_on


def _line_below_pairs(bases: npt.NDArray[np.int_], heights: npt.NDArray[np.int_]) -> tuple[float, float]:
    """Fit height over base. Two people, one behind the other, look like one tall one: the tallest are left out."""
    slope, offset = 0.0, float(np.median(heights))
    for _ in range(10):
        kept = heights <= 1.15 * (slope * bases + offset)
        slope, offset = np.polyfit(bases[kept], heights[kept], 1)
    return float(slope), float(offset)


def leave_standing(clip: Grey, donor: Grey, scene: Scene, thing: Thing, rng: np.random.Generator) -> Spoiled:
    """Let a thing stand in every frame of a clip, where nobody ever stands; who walks in front of it hides it.

    A person is cut from `donor`; bags and carts are drawn. Raises ValueError where no place can be found.
    """
    cutout, left = _placed(thing, donor, scene, rng)
    return _compose(clip, scene, cutout, np.full(len(clip), left), rng)


def drive(clip: Grey, scene: Scene, speed: float, rng: np.random.Generator) -> Spoiled:
    """Let a cart drive through the clip from one side to the other, at `speed` pixels a frame."""
    cutout, _ = _placed(Thing.CART, clip, scene, rng)
    way = speed * np.arange(len(clip)) - int(rng.integers(0, max(1, round(speed * len(clip) / 2))))
    lefts = np.rint(way - cutout.alpha.shape[1]).astype(int)
    if rng.random() < 0.5:
        cutout = Cutout(cutout.pixels[:, ::-1], cutout.alpha[:, ::-1], cutout.base)
        lefts = clip.shape[2] - cutout.alpha.shape[1] - lefts
    return _compose(clip, scene, cutout, lefts, rng)


def _placed(thing: Thing, donor: Grey, scene: Scene, rng: np.random.Generator) -> tuple[Cutout, int]:
    """Return a thing and its first column."""
    tall, wide = scene.background.shape
    for _ in range(TRIES):
        base = int(rng.integers(scene.top_base, scene.last_base + 1))
        cutout = _cutout(thing, donor, scene, base, rng)
        if cutout is None:
            continue
        height, width = cutout.alpha.shape
        if not height <= base <= tall or width >= wide:
            continue
        left = int(rng.integers(0, wide - width))
        place, inside = np.s_[base - height : base, left : left + width], cutout.alpha > 0.5
        apart = np.abs(cutout.pixels - scene.background[place])[inside]
        if apart.mean() >= CONTRAST and not scene.stood_on[place][inside].any():
            return cutout, left
    raise ValueError(f"found no place for a {thing} in {TRIES} tries")


def _compose(
    clip: Grey, scene: Scene, cutout: Cutout, lefts: npt.NDArray[np.int_], rng: np.random.Generator
) -> Spoiled:
    """Paste a thing into every frame at its own column; who walks nearer to the camera hides it."""
    return paste(
        clip, cutout, lefts, rng, lambda frame: [one.mask for one in scene.walkers(frame) if one.base > cutout.base]
    )


def paste(
    clip: Grey, cutout: Cutout, lefts: npt.NDArray[np.int_], rng: np.random.Generator,
    hiding: Callable[[Grey], Iterable[Mask]] = lambda _frame: (),
) -> Spoiled:  # fmt: skip
    """Paste a thing into every frame at its own column; the part of it outside of the frame is cut.

    `hiding` tells what of a frame [h, w] stands before it.
    """
    frames, masks = clip.copy(), np.zeros(clip.shape, bool)
    height, width = cutout.alpha.shape
    for index, left in enumerate(lefts.tolist()):
        first, last = max(0, -left), min(width, clip.shape[2] - left)
        if first >= last:
            continue
        place = np.s_[cutout.base - height : cutout.base, left + first : left + last]
        alpha = cutout.alpha[:, first:last].copy()
        for mask in hiding(clip[index]):
            alpha[mask[place]] = 0
        noisy = cutout.pixels[:, first:last] + rng.normal(0, GRAIN, alpha.shape)
        mixed = alpha * noisy + (1 - alpha) * clip[index][place]
        frames[index][place] = np.rint(mixed.clip(0, 255)).astype(np.uint8)
        masks[index][place] = alpha > 0.5
    return Spoiled(frames, masks)


def _cutout(thing: Thing, donor: Grey, scene: Scene, base: int, rng: np.random.Generator) -> Cutout | None:
    tall = scene.person_height(base)
    if thing is Thing.PERSON:
        return _cut_person(donor, scene, base, rng)
    return draw_thing(thing, tall, base, rng)


def draw_thing(thing: Thing, tall: float, base: int, rng: np.random.Generator) -> Cutout:
    """Draw a bag or a cart that stands on row `base`, as large as it is beside people `tall` pixels high."""
    canvas = _draw_bag(tall, rng) if thing is Thing.BAG else _draw_cart(tall, rng)
    return canvas.cutout(base, rng)


def _cut_person(donor: Grey, scene: Scene, base: int, rng: np.random.Generator) -> Cutout | None:
    tall = scene.person_height(base)
    frame = donor[int(rng.integers(len(donor)))]
    people = [walker for walker in scene.walkers(frame) if walker.is_upright and scene.is_single(walker)]
    if not people:
        return None
    person = people[int(rng.integers(len(people)))]
    box = np.s_[person.top : person.base, person.left : person.left + person.width]
    scale = tall / person.height
    if not 0.6 <= scale <= 1.6:
        return None
    size = max(3, round(person.width * scale)), max(6, round(tall))
    pixels = cv2.resize(frame[box].astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    alpha = cv2.resize(person.mask[box].astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return Cutout(np.asarray(pixels, np.float32), np.asarray(alpha, np.float32), base)


FINE = 4  # drawn larger by this and averaged, for a lens shows no steps


def _draw_bag(tall: float, rng: np.random.Generator) -> "_Canvas":
    """Draw a bag with a handle, a third of a person high."""
    height, width = tall * rng.uniform(0.3, 0.45), tall * rng.uniform(0.3, 0.5)
    canvas = _Canvas(height, width)
    shade = float(rng.choice([rng.uniform(20, 60), rng.uniform(170, 220)]))
    canvas.box(0.0, 0.25, 1.0, 1.0, shade)
    canvas.box(0.12, 0.45, 0.88, 0.6, shade + rng.uniform(-25, 25))
    canvas.box(0.3, 0.0, 0.4, 0.3, shade * 0.7)
    canvas.box(0.6, 0.0, 0.7, 0.3, shade * 0.7)
    canvas.box(0.3, 0.0, 0.7, 0.1, shade * 0.7)
    return canvas


def _draw_cart(tall: float, rng: np.random.Generator) -> "_Canvas":
    """Draw a small service cart with a roof, two wheels and a load: a little taller than a person."""
    canvas = _Canvas(tall * rng.uniform(1.05, 1.3), tall * rng.uniform(1.5, 2.1))
    shade = float(rng.choice([rng.uniform(25, 70), rng.uniform(160, 225)]))
    canvas.box(0.05, 0.0, 0.75, 0.08, shade)  # roof
    canvas.box(0.08, 0.08, 0.12, 0.6, shade * 0.6)
    canvas.box(0.68, 0.08, 0.72, 0.6, shade * 0.6)
    canvas.box(0.0, 0.5, 1.0, 0.85, shade)
    canvas.box(0.72, 0.35, 1.0, 0.55, shade + rng.uniform(-30, 30))
    canvas.box(0.25, 0.35, 0.5, 0.6, rng.uniform(30, 60))  # seat
    for column in (0.2, 0.8):
        canvas.wheel(column, 0.85, rng.uniform(15, 35))
    return canvas


class _Canvas:
    """A picture in the making, in shares of its height and width."""

    def __init__(self, height: float, width: float) -> None:
        self._size = max(4, round(width)), max(4, round(height))
        self._pixels = np.zeros((self._size[1] * FINE, self._size[0] * FINE), np.float32)
        self._alpha = np.zeros_like(self._pixels)

    def _at(self, x: float, y: float) -> tuple[int, int]:
        return round(x * (self._pixels.shape[1] - 1)), round(y * (self._pixels.shape[0] - 1))

    def box(self, left: float, top: float, right: float, bottom: float, shade: float) -> None:
        cv2.rectangle(self._pixels, self._at(left, top), self._at(right, bottom), shade, -1)
        cv2.rectangle(self._alpha, self._at(left, top), self._at(right, bottom), 1.0, -1)

    def wheel(self, x: float, y: float, shade: float) -> None:
        radius = max(2, round(0.14 * self._pixels.shape[0]))
        cv2.circle(self._pixels, self._at(x, y), radius, shade, -1)
        cv2.circle(self._alpha, self._at(x, y), radius, 1.0, -1)

    def cutout(self, base: int, rng: np.random.Generator) -> Cutout:
        """Light it from above, roughen it, and look at it through a lens."""
        light = np.linspace(1.1, 0.8, len(self._pixels), dtype=np.float32)[:, None]
        rough = cv2.GaussianBlur(rng.normal(0, 12, self._pixels.shape).astype(np.float32), (0, 0), FINE)
        pixels = ((self._pixels * light + rough * FINE) * self._alpha).clip(0, 255)
        small, alpha = (cv2.resize(plane, self._size, interpolation=cv2.INTER_AREA) for plane in (pixels, self._alpha))
        alpha = cv2.GaussianBlur(alpha, (3, 3), 0.5)
        small = cv2.GaussianBlur(small, (3, 3), 0.5)
        return Cutout(np.asarray(small / np.maximum(alpha, 1e-3), np.float32).clip(0, 255), np.asarray(alpha), base)


def skip_frames(clip: Grey, scene: Scene, speed: int) -> Spoiled:
    """Play a clip faster, as STEAL does (Astrid et al. 2021): whatever moves is anomalous."""
    frames = clip[::speed]
    return Spoiled(frames, np.stack([scene.foreground(frame) for frame in frames]))


def hurry(clip: Grey, donor: Grey, scene: Scene, speed: int, rng: np.random.Generator) -> Spoiled:
    """Let one walker of the `donor` hurry through the clip, `speed` times as fast, at the place where it walked.

    One camera took both, so that place, size and light are right. Raises ValueError where no walker stays in sight.
    """
    for _ in range(TRACKS):
        start = int(rng.integers(max(1, len(donor) - 8 * speed)))
        track = list(_follow(donor[start::speed], scene, REACH * speed, rng))
        if len(track) >= 8 and _travelled(track) >= FAST:
            return _paste_track(clip, donor[start::speed], track, int(rng.integers(0, max(1, len(clip) - len(track)))))
    raise ValueError(f"found no walker to follow in {TRACKS} tries")


def _travelled(track: Sequence[Walker]) -> float:
    """Return pixels a frame."""
    (row, column), (last_row, last_column) = track[0].centre, track[-1].centre
    return float(np.hypot(last_row - row, last_column - column)) / (len(track) - 1)


def _follow(clip: Grey, scene: Scene, reach: float, rng: np.random.Generator) -> Iterator[Walker]:
    """Yield one walker frame by frame, until it merges with others or is out of sight."""
    first = [walker for walker in scene.walkers(clip[0]) if walker.is_upright]
    if not first:
        return
    walker = first[int(rng.integers(len(first)))]
    yield walker
    for frame in clip[1:]:
        near = [other for other in scene.walkers(frame) if _apart(walker, other) <= reach]
        if not near:
            return
        nearest = min(near, key=lambda other: _apart(walker, other))
        if not 0.6 <= nearest.mask.sum() / walker.mask.sum() <= 1.7:
            return
        walker = nearest
        yield walker


def _apart(one: Walker, other: Walker) -> float:
    return float(np.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]))


def _paste_track(clip: Grey, donor: Grey, track: Sequence[Walker], start: int) -> Spoiled:
    frames, masks = clip.copy(), np.zeros(clip.shape, bool)
    for index, walker in enumerate(track[: len(clip) - start]):
        grown = cv2.dilate(walker.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
        alpha = cv2.GaussianBlur(grown, (3, 3), 0.7)
        mixed = alpha * donor[index] + (1 - alpha) * clip[start + index]
        frames[start + index] = np.rint(mixed).astype(np.uint8)
        masks[start + index] = walker.mask
    return Spoiled(frames, masks)
