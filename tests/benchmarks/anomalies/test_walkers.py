"""Walkers that are followed and made faster."""

import numpy as np
import pytest

from benchmarks.anomalies.walkers import FIRST, STEP, STEPS, Episode, cells, episodes, halved_scene
from tests.training.test_pseudo_anomalies import CLIPS, HEIGHT, TIME, WIDTH
from training.speediness import PLANES, SHARE, SPEED

BACKGROUND = np.median(np.concatenate(CLIPS), axis=0).astype(np.uint8)
SCENE = halved_scene(CLIPS)
NORMAL = cells(CLIPS[0], SCENE, STEP)


@pytest.fixture(params=[1.5, 2.0])
def faster(request: pytest.FixtureRequest) -> tuple[float, list[Episode]]:
    fast = cells(CLIPS[0], SCENE, STEPS[request.param])
    return request.param, list(episodes(CLIPS[0], BACKGROUND, NORMAL, fast, 1))


def test_cells_are_of_every_other_frame() -> None:
    assert NORMAL.shape == (len(range(FIRST, TIME, STEP)), PLANES, HEIGHT // 4, WIDTH // 4)
    assert NORMAL[:, SHARE].min() == 0
    assert NORMAL[:, SHARE].max() <= 1


def test_walkers_are_found_and_moved_faster(faster: tuple[float, list[Episode]]) -> None:
    factor, found = faster
    assert 1 <= len(found) <= 2
    for episode in found:
        before, after = (cut[:, SPEED].sum((1, 2)) for cut in (NORMAL[episode.moments], episode.cells))
        assert np.median(after / before) > 1 + (factor - 1) / 4


def test_the_rest_of_the_frame_stays_as_it_is(faster: tuple[float, list[Episode]]) -> None:
    for episode in faster[1]:
        changed = (NORMAL[episode.moments] != episode.cells).any(1)
        assert 0 < changed.mean() < 0.2
