"""The ladder: how much each detector catches at thresholds set for equal false alarms, and at what cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from runtime.conformal import BOOTSTRAPS, INTERVAL, BlockBootstrap, FalseAlarms, conformal_threshold
from training.compare.anomalies import Anomalies, spoil
from training.compare.candidates import LeftOut, check_kept, find_candidates, train_candidate
from training.compare.detectors import Baseline, Detector, Exported, baselines
from training.compare.order import Order
from training.compare.parts import Parts, too_short
from training.data import full_windows
from training.evaluate import separation


@dataclass(frozen=True)
class Rung:
    """One detector, measured on the test part."""

    detector: Detector
    threshold: float
    caught: npt.NDArray[np.bool_]
    """[sorts, places], whether the frame alarms with the anomaly in it, and not without.

    Clips that are unlike those which set the threshold alarm as they are; no anomaly is found there.
    """

    interval: tuple[float, float]
    """95 % of the recall, by block bootstrap over the places; the threshold stays as it is."""

    false_alarms: float
    """Share of the test part's normal frames above the threshold."""

    auroc: float
    milliseconds: float

    @property
    def name(self) -> str:
        """What the detector is called."""
        return self.detector.name

    @property
    def learns(self) -> bool:
        """Tell an autoencoder from a baseline."""
        return self.detector.minutes is not None

    @property
    def recall(self) -> float:
        """The mean over the sorts, in 0..1."""
        return float(self.caught.mean())


@dataclass(frozen=True)
class Ladder:
    """Every detector on the same anomalies, and why some are missing."""

    order: Order
    parts: Parts
    anomalies: Anomalies
    rungs: tuple[Rung, ...]
    left_out: dict[str, str]

    @cached_property
    def autoencoders(self) -> list[Rung]:
        """Those that learn, the best first."""
        return [rung for rung in self._ranked if rung.learns]

    @cached_property
    def baselines(self) -> list[Rung]:
        """Those that learn nothing, the best first."""
        return [rung for rung in self._ranked if not rung.learns]

    @property
    def _ranked(self) -> list[Rung]:
        return sorted(self.rungs, key=lambda rung: -rung.recall)

    @property
    def pick(self) -> Rung | None:
        """The fastest autoencoder that the best one does not surpass."""
        if not self.autoencoders:
            return None
        best = self.autoencoders[0]
        enough = (rung for rung in self.autoencoders if not self.surpasses(best, rung))
        return min(enough, key=lambda rung: rung.milliseconds)

    def surpasses(self, one: Rung, other: Rung) -> bool:
        """Tell whether one catches more by a difference that is hardly chance: its interval lies above 0.

        Both judge the same frames, so that they are compared place by place.
        """
        low, _ = bootstrap_mean(one.caught.astype(np.int8) - other.caught, self.anomalies.clips)
        return low > 0


def climb(order: Order, parts: Parts) -> Ladder:
    """Train every kind, make anomalies, measure all. Raises DataError or RunError where that cannot be done."""
    check_kept(order, parts)
    left_out: dict[str, str] = {}
    detectors = [*_candidates(order, parts, left_out), *_baselines(order, parts, left_out)]
    time = max(detector.time for detector in detectors)
    anomalies = spoil(parts.test, parts.learn.train, time, order.seed)
    rungs = tuple(_measure(detector, parts, anomalies, order.false_alarm_rate) for detector in detectors)
    return Ladder(order, parts, anomalies, rungs, left_out)


def _candidates(order: Order, parts: Parts, left_out: dict[str, str]) -> Iterator[Exported]:
    for name, kind in find_candidates(order).items():
        try:
            yield train_candidate(order, parts, name, kind)
        except LeftOut as reason:
            left_out[name] = str(reason)


def _baselines(order: Order, parts: Parts, left_out: dict[str, str]) -> Iterator[Baseline]:
    for baseline in baselines(parts.learn.train):
        if parts.suffice(baseline.time, order.false_alarm_rate):
            yield baseline
        else:
            left_out[baseline.name] = too_short(baseline.time)


def _measure(detector: Detector, parts: Parts, anomalies: Anomalies, false_alarm_rate: float) -> Rung:
    """Judge the same frames for every detector: those that end as many in a row as the longest-sighted asks for."""
    time = anomalies.time
    normal = detector.scores(parts.threshold, full_windows(parts.threshold, time))
    threshold = conformal_threshold(normal, FalseAlarms(false_alarm_rate))
    windows = full_windows(parts.test, time)
    quiet = detector.scores(parts.test, windows)
    scores = detector.scores(anomalies.frames, anomalies.ends)
    alarms = (scores > threshold).reshape(len(anomalies.sorts), anomalies.places)
    at = np.searchsorted(windows, anomalies.at)
    caught = alarms & (quiet[at] <= threshold)
    return Rung(
        detector=detector,
        threshold=threshold,
        caught=caught,
        interval=bootstrap_mean(caught, anomalies.clips),
        false_alarms=float((quiet > threshold).mean()),
        auroc=separation(quiet, scores),
        milliseconds=detector.milliseconds(parts.test),
    )


def bootstrap_mean(
    found: npt.NDArray[np.integer] | npt.NDArray[np.bool_], clips: Sequence[int] | npt.NDArray[np.intp]
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of what was found [sorts, places], over clips and blocks of places in them.

    A place is drawn with the anomalies of every sort: they share its frames.
    """
    rng = np.random.default_rng(0)
    sums = found.sum(0)
    blocks = BlockBootstrap.of(sums, np.asarray(clips, np.intp))
    means = [float(sums[blocks.draw(rng)].mean()) / len(found) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, INTERVAL)
    return float(low), float(high)
