"""Scales that are learned from clips, and what counts as standing."""

import numpy as np
import pytest

from benchmarks.anomalies.designs import LOOKS, Span, area_speed, by_pace, standing, worst
from benchmarks.anomalies.walkers import Floats


def street(seldom: int) -> Floats:
    """Let all move twice as fast at the bottom as at the top, there once in `seldom` frames."""
    clip = np.ones((12, 2, 20, 10), np.float32)
    clip[:, 0] = np.linspace(1, 2, 20)[:, None]
    clip[np.arange(12) // 2 % seldom != 0, 0, 10:] = 0
    return clip


@pytest.mark.parametrize("seldom", [1, 6])
def test_pace_makes_rows_alike_however_seldom_somebody_walks(seldom: int) -> None:
    found = by_pace(area_speed)([street(seldom)])(street(1))
    assert found[:, 2:-2].max() / found[:, 2:-2].min() == pytest.approx(1, abs=0.15)


def test_who_is_now_brighter_and_now_darker_does_not_stand() -> None:
    apart = np.zeros((5, 4, 4), np.float32)
    apart[:, :2] = 30
    apart[:, 2:] = np.array([30, -30, 30, -30, 30])[:, None, None]
    stayed = standing(apart, LOOKS["least difference on one side"], Span(3, 2), 1)
    assert stayed.tolist() == [[[30, 30], [30, 30]]]
    apart[::2, 2:] = [[[30]], [[-30]], [[30]]]
    stayed = standing(apart, LOOKS["least difference on one side"], Span(3, 2), 1)
    assert stayed.tolist() == [[[30, 30], [0, 0]]]


def test_the_worst_are_the_largest() -> None:
    assert worst(np.arange(12, dtype=np.float32).reshape(1, 3, 4), 2).tolist() == [10.5]
