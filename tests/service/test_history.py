"""The scores that are kept of a camera: the last ones, in order, and no more than may be."""

import numpy as np
import pytest

from service.history import ScoreHistory


def filled(maximum: int, count: int) -> ScoreHistory:
    history = ScoreHistory(maximum)
    for index in range(count):
        history.add(100.0 + index, index, (index / 2, index * 2))
    return history


@pytest.mark.parametrize(
    ("maximum", "count"), [(5, 0), (5, 3), (5, 5), (5, 7), (5, 23), (1000, 600), (300, 301), (0, 3)]
)
def test_the_last_ones_are_kept_in_order(maximum: int, count: int) -> None:
    history = filled(maximum, count)
    kept = min(maximum, count)
    found = history.between(None, None)
    assert len(history) == len(found) == kept
    expected = np.arange(count - kept, count, dtype=float)
    assert np.array_equal(found.scores, expected)
    assert found.map_lows is not None
    assert found.map_peaks is not None
    assert np.array_equal(found.map_lows, expected / 2)
    assert np.array_equal(found.map_peaks, expected * 2)


def test_a_time_is_cut_out() -> None:
    assert filled(10, 23).between(115.5, 118.0).scores.tolist() == [16, 17, 18]
    assert filled(10, 23).between(None, 114.0).scores.tolist() == [13, 14]
    assert filled(10, 23).between(200.0, None).scores.tolist() == []


def test_frames_of_the_training_are_counted() -> None:
    history = ScoreHistory(5)
    for index in range(8):
        history.add(float(index), index, (0, 1), learnt=index in {1, 4, 6})
    assert history.learnt_between(None, None) == 2, "the first is no longer kept"
    assert history.learnt_between(5, None) == history.learnt_between(None, 5) == 1
    assert history.learnt_between(7, None) == 0


def test_forgetting() -> None:
    history = filled(10, 23)
    history.clear()
    assert len(history) == 0
    history.add(1.0, 7, (0, 1))
    assert history.between(None, None).scores.tolist() == [7]


def test_room_is_taken_as_needed_and_bounded() -> None:
    assert filled(1_000_000, 3)._rows.nbytes < 10_000
    assert filled(1000, 5000)._rows.nbytes == 21_000
