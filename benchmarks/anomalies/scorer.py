"""What can be asked for the score of every frame: a shipped model, or a statistic that learns nothing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.model import Model
from training.baselines import MotionStatistic
from training.calibrate import outputs_of
from training.data import Frames
from training.labels import PIXEL_STEP

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What was said of n frames."""

    scores: Scores
    """[n]."""
    maps: npt.NDArray[np.float32] | None = None
    """[n, h, w], thinned as masks are."""


class Scorer(ABC):
    """One method of the benchmark."""

    name: str

    @abstractmethod
    def judge(self, frames: Frames) -> Judged:
        """Score grey frames at the camera's own size, each from itself and those before it in its clip."""


class ShippedScorer(Scorer):
    """A model folder, open."""

    def __init__(self, folder: Path, model: Model) -> None:
        self.name = folder.name
        self.folder = folder
        self.model = model

    @property
    def time(self) -> int:
        """Frames that a verdict looks at."""
        return self.model.manifest.input.time

    def judge(self, frames: Frames) -> Judged:
        """Scale the frames as the service does, and run the model."""
        fitted = Frames([self.model.fit(pixels) for pixels in frames.pixels], frames.keys, frames.clips)
        scores, maps = [], []
        for outputs in outputs_of(self.model, fitted, self.name):
            if outputs.anomaly_score is not None and outputs.anomaly_map is not None:
                scores.append(outputs.anomaly_score)
                maps.append(outputs.anomaly_map[:, ::PIXEL_STEP, ::PIXEL_STEP])
        return Judged(np.concatenate(scores).astype(np.float64), np.concatenate(maps))


class Statistic(Scorer):
    """Motion statistics beside the mean normal frame [h, w]."""

    def __init__(self, statistic: MotionStatistic, mean: Scores) -> None:
        self.name = statistic.name
        self._score = statistic.score
        self._mean = mean

    def judge(self, frames: Frames) -> Judged:
        """Score clip by clip."""
        clips, scores = np.asarray(frames.clips), np.empty(len(frames))
        for clip in np.unique(clips):
            chosen = np.flatnonzero(clips == clip)
            scores[chosen] = self._score(frames.batch(chosen.tolist())[..., 0], self._mean)
        return Judged(scores)
