"""The filters and statistics that learn nothing do what their names say."""

import numpy as np
import pytest

from runtime.images import Pixels
from tests.training.tiny import draw
from training.baselines import FILTERS, MOTION_STATISTICS, Filter, MotionStatistic, _blocks
from training.evaluate import psnr
from training.pictures import add_gaussian


def walk(count: int = 8, *, height: int = 48, width: int = 64) -> Pixels:
    """Return [n, h, w]: a textured square walks over a textured ground, two pixels a frame."""
    rng = np.random.default_rng(0)
    ground = rng.integers(80, 120, (height, width), np.uint8)
    square = rng.integers(150, 255, (16, 16), np.uint8)
    clip = np.repeat(ground[None], count, 0)
    for index in range(count):
        clip[index, 16:32, 8 + 2 * index : 24 + 2 * index] = square
    return clip


@pytest.mark.parametrize("classical", FILTERS, ids=lambda classical: classical.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_filter_removes_noise_at_one_of_its_settings(classical: Filter, channels: int) -> None:
    clean = draw(1, channels=channels, height=48, width=64)[0]
    noisy = add_gaussian(clean, 25, np.random.default_rng(0))
    results = [classical.apply(noisy, 25, setting).reshape(clean.shape) for setting in classical.settings]
    assert all(result.dtype == np.uint8 for result in results)
    assert max(psnr(clean, result) for result in results) > psnr(clean, noisy) + 2


@pytest.mark.parametrize("statistic", MOTION_STATISTICS, ids=lambda statistic: statistic.name)
def test_a_statistic_scores_every_frame_and_motion_above_rest(statistic: MotionStatistic) -> None:
    moving = walk()
    resting = np.repeat(moving[:1], len(moving), 0)
    mean = moving[0].astype(np.float64)
    scores, still = statistic.score(moving, mean), statistic.score(resting, mean)
    assert scores.shape == still.shape == (8,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert scores[-1] > still[-1] + 1e-3
    assert still.max() == pytest.approx(0, abs=0.05)
    assert statistic.score(moving[-statistic.time :], mean)[-1] == pytest.approx(scores[-1]), "it looks no further back"


def test_the_differences_are_mean_absolute_ones() -> None:
    clip = np.zeros((3, 4, 5), np.uint8)
    clip[1] = 10
    clip[2, 0, 0] = 40
    statistics = {statistic.name: statistic.score for statistic in MOTION_STATISTICS}
    apart = (19 * 10 + 30) / 20
    assert statistics["frame difference"](clip, np.zeros((4, 5))).tolist() == pytest.approx([10, 10, apart])
    assert statistics["mean-frame difference"](clip, np.full((4, 5), 4.0)) == pytest.approx([4, 6, (19 * 4 + 36) / 20])


def test_motion_by_gradient_is_the_change_over_the_slope() -> None:
    """A ramp that moves by one step a frame: |dI/dt| = |dI/dx|, in every block."""
    ramp = np.arange(64, dtype=np.uint8) * 2
    clip = np.stack([np.tile(ramp + 2 * index, (32, 1)) for index in range(3)]).astype(np.uint8)
    score = {statistic.name: statistic.score for statistic in MOTION_STATISTICS}["motion by gradient"]
    slope = 2 / 255
    assert score(clip, clip[0].astype(np.float64)) == pytest.approx([slope / (slope + 0.02)] * 3, rel=1e-4)


def test_blocks_are_averages_of_whole_squares() -> None:
    maps = np.arange(2 * 5 * 7, dtype=np.float64).reshape(2, 5, 7)
    found = _blocks(maps, 2)
    assert found.shape == (2, 2, 3)
    assert found[1, 1, 2] == maps[1, 2:4, 4:6].mean()
    assert _blocks(maps, 16).shape == (2, 1, 1), "a small frame is one block"
