"""What a promised false-alarm rate is worth: on synthetic scores whose law is known, and on normal test frames.

`make bench-calibration DATA=...`
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from benchmarks.report import Report, arguments
from benchmarks.shipped import able_to
from runtime.conformal import BOOTSTRAPS, INTERVAL, BlockBootstrap, FalseAlarms, NormalScores, calibrate
from runtime.manifest import Calibration, Task
from runtime.model import Model
from training.calibrate import score_normal
from training.camera.footage import clips_of
from training.card import Row
from training.config import AnomalyCheck, Recipe, parse_recipe
from training.data import Frames, load, split
from training.labels import read_labels

RATE = 0.01
SEEDS = 100
P_VALUES = (0.01, 0.05, 0.1, 0.5)

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Law(ABC):
    """How scores come about, so that the true rate of every threshold is known."""

    name: str
    clips: int
    frames: int  # in each

    def draw(self, rng: np.random.Generator) -> NormalScores:
        """Draw a calibration set."""
        scores = self.scores(rng).ravel()
        return NormalScores(scores, np.repeat(np.arange(self.clips), self.frames), scores, scores)

    @abstractmethod
    def scores(self, rng: np.random.Generator) -> Scores:
        """Draw [clips, frames]."""

    @abstractmethod
    def rate(self, threshold: float) -> float:
        """Return the share of all frames there could be that lie above a threshold."""


@dataclass(frozen=True)
class Gaussian(Law):
    """Gaussian scores: each frame correlated with the one before, each clip shifted by a draw of its own."""

    correlation: float
    shift: float  # standard deviation

    def scores(self, rng: np.random.Generator) -> Scores:
        """Draw an autoregressive series for each clip."""
        scores = rng.normal(size=(self.clips, self.frames))
        for index in range(1, self.frames):
            fresh = math.sqrt(1 - self.correlation**2) * scores[:, index]
            scores[:, index] = self.correlation * scores[:, index - 1] + fresh
        return scores + self.shift * rng.normal(size=(self.clips, 1))

    def rate(self, threshold: float) -> float:
        """Return the tail of a normal distribution."""
        return 1 - NormalDist(0, math.sqrt(1 + self.shift**2)).cdf(threshold)


@dataclass(frozen=True)
class EmptyScene(Law):
    """Independent scores N(0, 1), and now and then a walker, whose frames score N(0, 1) above a draw of N(4, 1).

    Walkers come as a Bernoulli process, and the one who came last is seen.
    """

    every: int  # so many frames
    stays: int = 30  # frames
    above: float = 4

    def scores(self, rng: np.random.Generator) -> Scores:
        """Draw when walkers come, and how they and the scene score."""
        shape = self.clips, self.stays + self.frames  # who came before the first frame may still be there
        frame = np.arange(shape[1])
        last = np.maximum.accumulate(np.where(rng.random(shape) < 1 / self.every, frame, -1), axis=1)
        seen = (last >= 0) & (frame - last < self.stays)
        level = np.take_along_axis(rng.normal(self.above, 1, shape), last, axis=1)
        return np.asarray(rng.normal(size=shape) + np.where(seen, level, 0))[:, self.stays :]

    def rate(self, threshold: float) -> float:
        """Return the tail of a mixture: the share of frames with a walker is 1 - (1 - 1 / every)^stays."""
        seen = 1 - (1 - 1 / self.every) ** self.stays
        return 1 - (1 - seen) * NormalDist().cdf(threshold) - seen * NormalDist(self.above, math.sqrt(2)).cdf(threshold)


LAWS: tuple[Law, ...] = (
    Gaussian("independent frames, 1 clip", 1, 2000, 0, 0),
    Gaussian("correlated 0.9, 1 clip", 1, 2000, 0.9, 0),
    Gaussian("correlated 0.9, 4 clips", 4, 160, 0.9, 0),
    Gaussian("correlated 0.9, 4 clips that differ", 4, 160, 0.9, 0.7),
    Gaussian("correlated 0.9, 12 clips that differ", 12, 160, 0.9, 0.7),
    Gaussian("correlated 0.9, 40 clips that differ", 40, 160, 0.9, 0.7),
    EmptyScene("empty scene, a walker in 1500 frames, 1 clip", 1, 2000, 1500),
    EmptyScene("empty scene, a walker in 1000 frames, 1 clip", 1, 2000, 1000),
    EmptyScene("empty scene, a walker in 1000 frames, 12 clips", 12, 200, 1000),
    EmptyScene("empty scene, a walker in 1500 frames, 1 long clip", 1, 6000, 1500),
)


def synthetic(law: Law) -> Row:
    """Calibrate on many draws of a law, and compare with the rate that each threshold truly has."""
    found = [calibrate(law.draw(np.random.default_rng(seed)), FalseAlarms(RATE), "") for seed in range(SEEDS)]
    rates = np.asarray([law.rate(each.threshold) for each in found])
    intervals = np.asarray([each.rate_interval for each in found])
    covered = (intervals[:, 0] <= rates) & (rates <= intervals[:, 1])
    return {
        "": law.name,
        "frames": law.clips * law.frames,
        "true rate, mean (%)": 100 * float(rates.mean()),
        "middle 95 % of thresholds, from": 100 * float(np.quantile(rates, INTERVAL[0])),
        "to (%)": 100 * float(np.quantile(rates, INTERVAL[1])),
        "interval covers (%)": 100 * float(covered.mean()),
        "interval's upper end, median (%)": 100 * float(np.median(intervals[:, 1])),
        "worth independent frames": float(np.median([each.effective_count or 0 for each in found])),
        "left-out rate, mean (%)": _mean_percent([each.left_out_rate for each in found]),
        "warned of more than a single clip (%)": 100 * _warned(found, law.clips),
    }


def _warned(found: list[Calibration], clips: int) -> float:
    return float(np.mean([len(each.warnings) > (clips == 1) for each in found]))


def _mean_percent(shares: list[float | None]) -> float | str:
    known = [share for share in shares if share is not None]
    return 100 * float(np.mean(known)) if known else ""


@dataclass(frozen=True)
class Judged:
    """Frames with the verdict of a calibration on each."""

    clips: npt.NDArray[np.str_]
    scores: Scores
    calibration: Calibration

    @property
    def alarms(self) -> npt.NDArray[np.bool_]:
        """[n], which are above the threshold."""
        return self.scores > self.calibration.threshold

    def of(self, clip: str) -> "Judged":
        """Return the frames of one clip."""
        chosen = self.clips == clip
        return Judged(self.clips[chosen], self.scores[chosen], self.calibration)

    def row(self, name: str) -> Row:
        """Return the share that alarms, with an interval from a block bootstrap over clips."""
        numbers = np.unique(self.clips, return_inverse=True)[1]
        bootstrap = BlockBootstrap.of(np.argsort(np.argsort(self.scores)), numbers)
        rng = np.random.default_rng(0)
        shares = [self.alarms[bootstrap.draw(rng)].mean() for _ in range(BOOTSTRAPS)]
        low, high = np.quantile(shares, INTERVAL)
        p_values = np.asarray([self.calibration.p_value(score) for score in self.scores])
        row: dict[str, str | float] = {
            "": name,
            "normal frames": len(self.scores),
            "alarm (%)": 100 * float(self.alarms.mean()),
            "95 % from": 100 * float(low),
            "to": 100 * float(high),
        }
        return row | {f"p <= {p:g} (%)": 100 * float((p_values <= p).mean()) for p in P_VALUES}


def judge(model: Model, calibration: Calibration, frames: Frames, normal: npt.NDArray[np.bool_]) -> Judged:
    """Score frames clip by clip, and keep those that are normal."""
    skipped = model.manifest.input.window.needed - 1
    scored = [index for clip in clips_of(frames) for index in clip[skipped:]]
    scores = score_normal(model, zip(frames.clips, frames.keys, frames.pixels, strict=True)).scores
    chosen = normal[scored]
    return Judged(np.asarray(frames.clips)[scored][chosen], scores[chosen], calibration)


def real(model: Model, recipe: Recipe, root: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yield a table for the frames that set the threshold, and one for the normal frames of each test set."""
    calibration = model.manifest.calibration
    if calibration is None:
        return
    held_out = split(load(recipe.data, root), recipe.data, recipe.seed).calibration
    everything = judge(model, calibration, held_out, np.ones(len(held_out), bool))
    again = calibrate(
        score_normal(model, zip(held_out.clips, held_out.keys, held_out.pixels, strict=True)),
        FalseAlarms(calibration.false_alarm_rate),
        "",
    )
    low, high = again.rate_interval or (math.nan, math.nan)
    yield "frames that set the threshold", [
        {"": "all", "frames": again.count, "clips": again.clips or 0, "promised (%)": 100 * again.false_alarm_rate,
         "alarm (%)": 100 * float(everything.alarms.mean()), "95 % from": 100 * low, "to": 100 * high,
         "left-out rate (%)": _mean_percent([again.left_out_rate]),
         "worth independent frames": again.effective_count or math.nan}
    ]  # fmt: skip
    for check in recipe.evaluate:
        if isinstance(check, AnomalyCheck):
            data = recipe.data.model_copy(update={"sources": (check.frames,), "frame_stride": 1, "minimum_frames": 1})
            frames = load(data, root)
            labels = read_labels(root / check.labels, check.frames.path, frames)
            judged = judge(model, calibration, frames, ~labels.anomalous)
            clips = [judged.of(clip).row(clip) for clip in np.unique(judged.clips)]
            yield f"normal test frames of {check.name}", [judged.row("all"), *clips]


def main() -> None:
    """Print the synthetic table, then two for each shipped model that scores."""
    options = arguments(__doc__)
    report = Report(f"rate promised: {RATE:g} a frame; {SEEDS} seeds; 95 % intervals by block bootstrap and events")
    report.add("synthetic scores", [synthetic(law) for law in LAWS])
    for folder, model in able_to(Task.SCORE):
        recipe = parse_recipe(model.manifest.provenance.config, str(folder))
        for title, rows in real(model, recipe, options.data):
            report.add(f"{folder.name}: {title}", rows)
    report.write(options.json)


if __name__ == "__main__":
    main()
