"""Inspection sets made of the drawings: normal images of varying size to learn from, normal and damaged ones to test.

The families of DEVELOPMENT were looked at while the recipe was chosen; those of HELD_OUT were not.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.inspection import objects, surfaces
from benchmarks.inspection.defects import OBJECT_DEFECTS, SURFACE_DEFECTS, Damage, Mask
from benchmarks.inspection.surfaces import Draw, Plane
from runtime.images import SUFFIXES, ImageFormat, Pixels, encode, read

SIZE = 224  # pixels a side, before it varies
CONTAMINATION = 0.02  # of the images to learn from are damaged after all


@dataclass(frozen=True)
class Sample:
    """One image: grey `pixels` [h, w, 1], `mask` [h, w] of what is damaged, all False on a normal one."""

    pixels: Pixels
    mask: Mask

    @property
    def anomalous(self) -> bool:
        """Whether anything is damaged."""
        return bool(self.mask.any())


@dataclass(frozen=True)
class InspectionSet:
    """`train` is nearly all normal; `test` is half normal, half damaged."""

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


Make = Callable[[np.random.Generator, bool], tuple[Plane, Mask]]
"""(generator, damaged) -> plane in 0..1, damaged pixels."""


@dataclass(frozen=True)
class Family:
    """A sort of image, and how to make one."""

    name: str
    make: Make

    def sample(self, seed: tuple[int, ...], *, damaged: bool) -> Sample:
        """Draw one image; the exposure of each differs by up to 25 %."""
        rng = np.random.default_rng(seed)
        plane, mask = self.make(rng, damaged)
        exposed = plane * rng.uniform(0.75, 1.25) + rng.normal(0, 0.008, plane.shape)
        pixels = np.rint(exposed.clip(0, 1) * 255).astype(np.uint8)[..., None]
        return Sample(pixels, mask)

    def draw(self, train: int, test: int, seed: int) -> InspectionSet:
        """Draw `train` images to learn from, and `test` normal and as many damaged ones."""
        contaminated = round(CONTAMINATION * train)
        learnt = [self.sample((seed, 0, i), damaged=i < contaminated) for i in range(train)]
        normal = [self.sample((seed, 1, i), damaged=False) for i in range(test)]
        damaged = [self.sample((seed, 2, i), damaged=True) for i in range(test)]
        return InspectionSet(self.name, tuple(learnt), (*normal, *damaged))


def _size(rng: np.random.Generator, low: float = 0.75, high: float = 1.35) -> tuple[int, int]:
    height, width = (int(SIZE * rng.uniform(low, high)) for _ in range(2))
    return height, width


def _damage(rng: np.random.Generator, plane: Plane, where: Mask, defects: tuple[Damage, ...]) -> tuple[Plane, Mask]:
    """Draw defects until one can be seen."""
    for _ in range(20):
        damaged, mask = defects[int(rng.integers(len(defects)))](rng, plane, where)
        if mask.sum() >= 6:
            return damaged, mask
    raise RuntimeError("twenty defects in a row left no trace")


def _surface(draw: Draw) -> Make:
    def make(rng: np.random.Generator, damaged: bool) -> tuple[Plane, Mask]:  # noqa: FBT001
        plane = draw(rng, *_size(rng)).clip(0, 1)
        everywhere = np.ones(plane.shape, np.bool_)
        return _damage(rng, plane, everywhere, SURFACE_DEFECTS) if damaged else (plane, ~everywhere)

    return make


def _part(draw: Callable[..., tuple[Plane, Mask]]) -> Make:
    def make(rng: np.random.Generator, damaged: bool) -> tuple[Plane, Mask]:  # noqa: FBT001
        broken = damaged and rng.random() < 0.25
        size = _size(rng, 0.95, 1.1)
        before = rng.bit_generator.state
        plane, where = draw(rng, *size)
        if broken:
            rng.bit_generator.state = before
            bad, bad_where = draw(rng, *size, broken=True)
            return bad, where ^ bad_where if (where ^ bad_where).any() else np.abs(bad - plane) > 0.1
        if damaged:
            return _damage(rng, plane.clip(0, 1), where, OBJECT_DEFECTS)
        return plane, np.zeros(plane.shape, np.bool_)

    return make


def digits(data: Path, normal: int = 3) -> Family:
    """Return prints of one digit of MNIST; any other digit is the damage. `data` holds mnist/mnist.npz."""
    with np.load(data / "mnist" / "mnist.npz") as archive:
        images, labels = archive["x_test"], archive["y_test"]

    def make(rng: np.random.Generator, damaged: bool) -> tuple[Plane, Mask]:  # noqa: FBT001
        chosen = np.flatnonzero(labels != normal if damaged else labels == normal)
        glyph = images[rng.choice(chosen)].astype(np.float32) / 255
        plane, where = objects.paste(rng, glyph, *_size(rng, 0.95, 1.1))
        return plane, where if damaged else np.zeros_like(where)

    return Family("digits", make)


DEVELOPMENT = (
    Family("ground metal", _surface(surfaces.ground_metal)),
    Family("fabric", _surface(surfaces.fabric)),
    Family("leather", _surface(surfaces.leather)),
    Family("gear", _part(objects.gear)),
)
HELD_OUT = (
    Family("wood", _surface(surfaces.wood)),
    Family("cast", _surface(surfaces.cast)),
    Family("screw", _part(objects.screw)),
)


def write(samples: tuple[Sample, ...], folder: Path) -> None:
    """Write images as PNG files, 0000.png and on."""
    folder.mkdir(parents=True)
    for index, sample in enumerate(samples):
        (folder / f"{index:04d}.png").write_bytes(encode(sample.pixels, ImageFormat.PNG))


def footage(data: Path, train: int, test: int) -> InspectionSet:
    """Return frames of UCSD Ped2 as if they were stills, evenly taken; `data` holds ped2/ as docs/data.md has it."""
    root = data / "ped2"
    with (root / "test_frame_labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with np.load(root / "test_pixel_masks.npz") as archive:
        packed = archive["masks_packed"]
    learnt = [Sample(_grey(path), np.zeros((1, 1), np.bool_)) for path in _evenly(_pictures(root / "train"), train)]
    tested = []
    for label in ("0", "1"):
        for index in _evenly([index for index, row in enumerate(rows) if row["anomalous"] == label], test):
            (path,) = (root / "test" / rows[index]["clip"]).glob(f"{rows[index]['frame']}.*")
            pixels = _grey(path)
            tested.append(Sample(pixels, np.unpackbits(packed[index], axis=-1)[:, : pixels.shape[1]].astype(np.bool_)))
    return InspectionSet("walkway", tuple(learnt), tuple(tested))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)


def _grey(path: Path) -> Pixels:
    return read(path, channels=1).pixels


T = TypeVar("T")


def _evenly(items: Sequence[T], count: int) -> list[T]:
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
