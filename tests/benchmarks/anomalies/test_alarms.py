"""Events, alarms and delays, counted by hand."""

import numpy as np
import pytest

from benchmarks.anomalies.alarms import operate, runs
from benchmarks.anomalies.footage import Footage
from tests.training.tiny import frames


def footage(labels: list[int], clips: int = 1) -> Footage:
    return Footage(frames(len(labels), clips=clips), np.asarray(labels, bool), np.zeros((len(labels), 1, 1), bool))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], []), ([0, 0], []), ([1], [(0, 1)]), ([1, 1, 0, 1], [(0, 2), (3, 4)]), ([0, 1], [(1, 2)])],
)
def test_runs(flags: list[int], expected: list[tuple[int, int]]) -> None:
    assert [(run.start, run.stop) for run in runs(np.asarray(flags, bool))] == expected


def test_alarms_are_counted_in_runs_and_delays_from_the_beginning() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0]
    scores = [9, 9, 0, 9, 1, 6, 6, 0, 0, 7, 1, 0]
    found = operate(footage(labels), np.asarray(scores, float), recall=1)
    assert (found.threshold, found.events, found.found) == (6, 2, 2)
    assert found.false_alarms == 2, "the third run of alarms goes on into an event, or is one"
    assert (found.false_frames, found.normal_frames) == (3, 7)
    assert list(found.delays) == [1, 0]


def test_an_event_ends_with_its_clip() -> None:
    found = operate(footage([0, 1, 1, 0], clips=2), np.asarray([0, 1, 2, 0], float), recall=1)
    assert found.events == 2


def test_the_threshold_finds_the_share_that_was_asked_for() -> None:
    labels = [0, 1] * 10
    scores = np.asarray([value for index in range(10) for value in (0, index)], float)
    found = operate(footage(labels), scores, recall=0.9)
    assert (found.found, found.threshold) == (9, 1)
