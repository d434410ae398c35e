"""What moves is found and what does not is left, whatever the noise and the light do."""

import numpy as np
import pytest

from tests.training.camera.scene import background, record
from training.camera.motion import CELL, cell_means, find_rest


def moving_cells(
    walker: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    rows, columns = walker.shape[1] // CELL, walker.shape[2] // CELL
    cells = walker[:, : rows * CELL, : columns * CELL].reshape(len(walker), rows, CELL, columns, CELL)
    return np.asarray(cells.any((2, 4)))


def test_the_means_of_whole_cells() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 26, 3), np.uint8)
    expected = pixels[:16, :24].reshape(2, 8, 3, 8, 3).mean((1, 3))
    assert cell_means(pixels) == pytest.approx(expected, abs=1e-3)
    assert cell_means(pixels[..., :1]).shape == (2, 3, 1)


@pytest.mark.parametrize("sigma", [0, 2, 12])
def test_the_walker_is_found_and_the_scene_is_not(sigma: float) -> None:
    recording = record((60,), sigma=sigma)
    rest = find_rest(recording.frames.pixels)
    moves = moving_cells(recording.walker)
    assert not rest.still[moves].any()
    assert rest.still[:, 9:].mean() > 0.95  # no walker there


def test_a_lamp_that_flickers_is_not_motion() -> None:
    light = [1.0, 1.08, 0.94]
    rest = find_rest(record((60,), sigma=4, light=light).frames.pixels)
    assert rest.light[:30].reshape(-1, 3).mean(0) == pytest.approx(light, abs=0.01)
    assert rest.still[:, 9:].mean() > 0.95


def test_a_restless_tree_is_not_noise() -> None:
    recording = record((60,), sigma=3, walks=False)
    rng = np.random.default_rng(1)
    for pixels in recording.frames.pixels:
        pixels[96:128, 96:128] = rng.integers(60, 200)
    still = find_rest(recording.frames.pixels).still
    assert still[:, 12:16, 12:16].mean() < 0.2
    assert still[:, :10].mean() > 0.95


def test_a_black_scene_has_no_light_to_judge() -> None:
    rest = find_rest([np.zeros((64, 64, 1), np.uint8)] * 12)
    assert np.array_equal(rest.light, np.ones(12))
    assert rest.still.all()
    assert background().min() > 40
