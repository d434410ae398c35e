"""Pictures for people: the right files, of the right size, whatever the frames."""

from pathlib import Path

import numpy as np
import pytest

from runtime.images import read
from runtime.model import Model
from tests.training.tiny import draw, frames
from training.pictures import CROP, MARGIN, add_gaussian, draw_highest, draw_histogram, draw_roc, mosaic
from training.pictures import draw as draw_pictures

pytestmark = pytest.mark.xdist_group("exported")


def test_a_mosaic_lays_out_rows_on_white() -> None:
    grey, colour = draw(1, height=70, width=80)[0], draw(1, channels=3, height=70, width=80)[0]
    sheet = mosaic([[grey, colour, grey], [colour, grey, colour]])
    assert sheet.shape == (2 * 70 + MARGIN, 3 * 80 + 2 * MARGIN, 3)
    assert np.array_equal(sheet[:70, :80], grey.repeat(3, 2))
    assert np.array_equal(sheet[70 + MARGIN :, :80], colour)
    assert (sheet[70 : 70 + MARGIN] == 255).all()


def test_small_frames_are_drawn_enlarged() -> None:
    assert mosaic([[draw(1, height=16, width=24)[0]]]).shape == (64, 96, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("name", ["sampler", "scorer", "denoiser"])
def test_any_number_of_held_out_frames_is_enough(
    name: str, count: int, opened: dict[str, Model], tmp_path: Path
) -> None:
    model = opened[name]
    draw_pictures(model, tmp_path, frames(count, channels=model.manifest.input.channels), seed=0)
    files = {path.name: read(path).pixels.shape for path in tmp_path.iterdir()}
    columns = 3 if name == "scorer" else 2
    expected = {
        "sampler": {"samples.jpg", "interpolations.jpg", "reconstructions.jpg"},
        "scorer": {"reconstructions.jpg"},
        "denoiser": {"denoised.jpg"},
    }
    assert files.keys() == expected[name]
    zoom = 4
    if "reconstructions.jpg" in files:
        assert files["reconstructions.jpg"] == (zoom * (columns * 20 - 4), zoom * (4 * 28 - 4), 3)
    if "denoised.jpg" in files:
        assert files["denoised.jpg"] == (3 * (CROP + MARGIN) - MARGIN,) * 2 + (3,)


def test_pictures_are_the_same_for_the_same_seed(opened: dict[str, Model], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw_pictures(opened["sampler"], tmp_path / name, frames(9), seed=0)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_highest_scores_are_drawn_one_a_clip(opened: dict[str, Model], tmp_path: Path) -> None:
    held_out = frames(12, clips=3)
    draw_highest(opened["scorer"], tmp_path, held_out, np.arange(12.0))
    assert read(tmp_path / "highest.jpg").pixels.shape == (4 * (3 * 20 - 4), 4 * (3 * 28 - 4), 3)
    draw_highest(opened["denoiser"], tmp_path / "nowhere", held_out, np.arange(12.0))
    assert not (tmp_path / "nowhere").exists(), "a denoiser finds nothing unusual"


def test_gaussian_noise_is_clipped_rounded_and_seeded() -> None:
    clean = np.full((64, 64, 3), 128, np.uint8)
    noisy = add_gaussian(clean, 25, np.random.default_rng(0))
    assert noisy.dtype == np.uint8
    assert (noisy.astype(float) - clean).std() == pytest.approx(25, rel=0.03)
    assert np.array_equal(noisy, add_gaussian(clean, 25, np.random.default_rng(0)))
    assert add_gaussian(np.zeros_like(clean), 25, np.random.default_rng(0)).min() == 0


def test_grey_frames_get_grey_noise() -> None:
    grey = np.full((16, 16, 3), 128, np.uint8)
    noisy = add_gaussian(grey, 25, np.random.default_rng(0))
    assert (noisy == noisy[..., :1]).all()
    colour = add_gaussian(grey + np.array([0, 1, 2], np.uint8), 25, np.random.default_rng(0))
    assert (colour != colour[..., :1]).any()


def test_plots_are_written(tmp_path: Path) -> None:
    labels = np.arange(40) % 2 == 0
    scores = np.random.default_rng(0).random(40) + labels
    draw_roc(tmp_path / "roc.png", labels, {"this model": scores, "chance": scores[::-1]})
    draw_histogram(tmp_path / "scores.png", labels, scores, 0.8)
    assert {read(path).pixels.shape[2] for path in tmp_path.iterdir()} == {3}
