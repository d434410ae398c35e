"""Recall counts what an anomaly has changed, at thresholds that other frames have set; the pick is fast and good."""

from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest

from runtime.conformal import FalseAlarms, conformal_threshold
from runtime.images import Pixels
from training.compare.anomalies import SORTS, spoil
from training.compare.detectors import Detector, Exported, Scores
from training.compare.ladder import Ladder, Rung, _measure, bootstrap_mean
from training.compare.parts import Parts
from training.data import full_windows

pytestmark = pytest.mark.xdist_group("compared")


class Spread(Detector):
    """Judges frames by a number, such as how far the pixels reach."""

    name, time = "spread", 1

    def __init__(self, sign: float) -> None:
        self._sign = sign

    def score(self, seen: Pixels) -> Scores:
        return np.asarray(self._sign * seen.reshape(len(seen), -1).std(1), np.float64)


class Constant(Detector):
    """Says the same of every frame, but is afraid of those to measure on, anomalies or not."""

    name, time = "afraid", 1

    def __init__(self, calm: Pixels) -> None:
        self._calm = {frame.tobytes() for frame in calm}

    def score(self, seen: Pixels) -> Scores:
        return np.array([float(frame.tobytes() not in self._calm) for frame in seen])


def test_the_threshold_is_that_of_other_frames_and_recall_that_of_the_anomalies(parts: Parts) -> None:
    anomalies = spoil(parts.test, parts.learn.train, 2, seed=0)
    rung = _measure(Spread(1), parts, anomalies, 0.1)
    windows = full_windows(parts.threshold, 2)
    apart = Spread(1).scores(parts.threshold, windows)
    assert rung.threshold == conformal_threshold(apart, FalseAlarms(0.1))
    assert rung.caught.shape == (len(SORTS), anomalies.places)
    assert 0 <= rung.interval[0] <= rung.recall <= rung.interval[1] <= 1
    assert rung.milliseconds > 0
    backwards = _measure(Spread(-1), parts, anomalies, 0.1)
    assert backwards.auroc == pytest.approx(1 - rung.auroc)


def test_what_alarms_without_the_anomaly_has_not_found_it(parts: Parts) -> None:
    anomalies = spoil(parts.test, parts.learn.train, 1, seed=0)
    rung = _measure(Constant(parts.threshold.batch(range(len(parts.threshold)))), parts, anomalies, 0.1)
    assert rung.false_alarms == 1
    assert rung.recall == 0


def test_the_interval_is_wider_where_neighbours_agree() -> None:
    rng = np.random.default_rng(0)
    clips = np.repeat(np.arange(6), 20)
    independent = rng.random((3, 120)) < 0.5
    by_clip = np.repeat(rng.permutation([True, False] * 3), 20)[None].repeat(3, 0)
    (low, high), (lowest, highest) = bootstrap_mean(independent, clips), bootstrap_mean(by_clip, clips)
    assert low < independent.mean() < high
    assert highest - lowest > 2 * (high - low)
    assert bootstrap_mean(np.ones((2, 8), bool), np.zeros(8, np.intp)) == (1, 1)


def test_every_kind_and_baseline_is_on_the_ladder_or_left_out(ladder: Ladder) -> None:
    assert {rung.name for rung in ladder.autoencoders} == {"contractive", "plain"}
    assert len(ladder.baselines) == 4
    assert ladder.left_out == {"denoising": "it gives no anomaly score"}
    assert ladder.anomalies.time == 3, "as many frames as optical flow looks at"
    assert [rung.recall for rung in ladder.autoencoders] == sorted(
        (rung.recall for rung in ladder.autoencoders), reverse=True
    )
    for rung in ladder.autoencoders:
        assert isinstance(rung.detector, Exported)
        calibration = rung.detector.model.manifest.calibration
        assert calibration is not None
        assert calibration.count == len(ladder.parts.threshold), "nothing of the frames that are measured on"


def rung(name: str, recall: float, milliseconds: float, *, learns: bool = True, seed: int | None = None) -> Rung:
    """Make a rung of a hundred anomalies; which are caught depends on the seed, or else on the name."""
    detector = Spread(1)
    detector.name, detector.minutes = name, 1.0 if learns else None
    order = np.random.default_rng(crc32(name.encode()) if seed is None else seed).permutation(100)
    caught = (order < 100 * recall).reshape(2, 50)
    return Rung(detector, 1.0, caught, (recall - 0.1, recall + 0.1), 0.01, 0.9, milliseconds)


def of(ladder: Ladder, *rungs: Rung, **left_out: str) -> Ladder:
    anomalies = replace(ladder.anomalies, clips=np.repeat(np.arange(5), 10))
    return Ladder(ladder.order, ladder.parts, anomalies, rungs, left_out)


def test_one_surpasses_another_where_the_difference_at_the_same_places_is_clear(ladder: Ladder) -> None:
    """A few places more are chance where others are lost for them, and are not where none is."""
    best, subset, other = rung("best", 0.8, 1, seed=1), rung("subset", 0.72, 1, seed=1), rung("other", 0.75, 1, seed=2)
    found = of(ladder, best, subset, other)
    assert found.surpasses(best, subset)
    assert best.interval[0] <= subset.recall, "as the interval of the best alone does not tell"
    assert not found.surpasses(best, other)
    assert not found.surpasses(other, best)
    assert not found.surpasses(best, best)


def test_the_pick_is_the_fastest_that_the_best_does_not_surpass(ladder: Ladder) -> None:
    best, near, far = rung("best", 0.8, 9), rung("near", 0.75, 3), rung("far", 0.6, 1)
    nothing = rung("difference", 0.9, 0.1, learns=False)
    assert of(ladder, far, near, best, nothing).pick is near
    assert of(ladder, far, best).pick is best
    assert of(ladder, nothing).pick is None
