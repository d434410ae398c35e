"""Scales that are learned from clips, and what counts as standing."""

import numpy as np
import pytest
import torch

from benchmarks.anomalies import designs
from benchmarks.anomalies.designs import CHOSEN, LOOKS, MOTION, Span, by_pace, speed_of_blocks, standing, worst
from training.autoencoders.spatiotemporal import SpatiotemporalConfig
from training.speediness import MOTION as MOTION_PLANES
from training.speediness import PLANES, SHARE, SPEED, Examples


def street(seldom: int, pace: float = 1) -> Examples:
    """Let all move twice as fast at the bottom as at the top, there once in `seldom` frames."""
    cells = np.zeros((12, PLANES, 20, 10), np.float32)
    cells[:, [SPEED, SPEED + MOTION_PLANES]] = pace * np.linspace(1, 2, 20)[:, None]
    cells[:, [SHARE, SHARE + MOTION_PLANES]] = 1
    cells[np.arange(12) // 2 % seldom != 0, :, 10:] = 0
    normal = torch.from_numpy(cells)
    faster = normal[:, None].repeat(1, 2, 1, 1, 1)
    faster[:, :, [SPEED, SPEED + MOTION_PLANES]] *= 2
    return Examples(normal, faster)


@pytest.mark.parametrize("seldom", [1, 6])
def test_pace_makes_rows_alike_however_seldom_somebody_walks(seldom: int) -> None:
    found = by_pace(speed_of_blocks)([street(seldom)])(street(1).normal.numpy())
    assert found[:, 2:-2].max() / found[:, 2:-2].min() == pytest.approx(1, abs=0.15)


def test_the_chosen_design_is_louder_where_all_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(designs, "SETTINGS", SpatiotemporalConfig(speed_width=8, speed_blocks=0, speed_steps=60))
    scale = MOTION[CHOSEN]([street(1), street(2)])
    normal, faster = (scale(street(1, pace).normal.numpy()) for pace in (1, 2))
    assert normal.shape == (12, 20, 10)
    assert faster.mean() > normal.mean() + 1


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
