"""Drawn inspection sets: the same for a seed, of varying size, damaged where the mask says."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.inspection.defects import OBJECT_DEFECTS, SURFACE_DEFECTS, Damage
from benchmarks.inspection.sets import CONTAMINATION, DEVELOPMENT, HELD_OUT, Family, write
from benchmarks.inspection.surfaces import noise
from runtime.images import read

FAMILIES = pytest.mark.parametrize("family", [*DEVELOPMENT, *HELD_OUT], ids=lambda family: family.name)


@FAMILIES
def test_a_seed_draws_the_same_image_again(family: Family) -> None:
    first, second = (family.sample((3, 1), damaged=True) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.mask, second.mask)


@FAMILIES
def test_only_damaged_images_have_a_mask(family: Family) -> None:
    assert not family.sample((3, 2), damaged=False).anomalous
    for seed in range(6):
        damaged = family.sample((3, seed), damaged=True)
        assert damaged.mask.shape == damaged.pixels.shape[:2]
        assert damaged.mask.sum() >= 6


@FAMILIES
def test_sizes_vary_and_grey_levels_are_used(family: Family) -> None:
    images = [family.sample((4, seed), damaged=False).pixels for seed in range(4)]
    assert len({image.shape for image in images}) > 1
    assert all(image.std() > 5 for image in images)


@pytest.mark.parametrize("damage", {*SURFACE_DEFECTS, *OBJECT_DEFECTS}, ids=lambda damage: damage.__name__)
def test_a_defect_changes_the_plane_where_its_mask_is_and_nowhere_else(damage: Damage) -> None:
    plane = np.asarray(0.5 + 0.05 * noise(np.random.default_rng(0), 120, 150, 2, 2), np.float32)
    damaged, mask = damage(np.random.default_rng(1), plane, np.ones(plane.shape, np.bool_))
    assert mask.any()
    assert np.abs(damaged - plane)[~mask].max() <= 0.021
    assert damaged.min() >= 0
    assert damaged.max() <= 1


def test_noise_has_unit_variance_and_the_smoothness_asked_for() -> None:
    fields = np.stack([noise(np.random.default_rng(seed), 200, 220, 2, 20) for seed in range(8)])
    assert fields.shape == (8, 200, 220)
    assert fields.std() == pytest.approx(1, abs=0.15)
    down, across = (np.abs(np.diff(fields, axis=axis)).mean() for axis in (1, 2))
    assert down > 4 * across


def test_a_set_is_contaminated_as_it_says_and_its_test_half_damaged() -> None:
    drawn = HELD_OUT[1].draw(50, 4, seed=0)
    assert sum(sample.anomalous for sample in drawn.train) == round(50 * CONTAMINATION)
    assert [sample.anomalous for sample in drawn.test] == [False] * 4 + [True] * 4


def test_images_are_written_as_they_are(tmp_path: Path) -> None:
    sample = HELD_OUT[1].sample((5, 5), damaged=False)
    write((sample,), tmp_path / "normal")
    assert np.array_equal(read(tmp_path / "normal" / "0000.png", channels=1).pixels, sample.pixels)
