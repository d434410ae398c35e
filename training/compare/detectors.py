"""What is compared: exported autoencoders and statistics that learn nothing, asked in one way."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from runtime.clips import Window
from runtime.devices import DeviceChoice, select_device
from runtime.images import Pixels
from runtime.model import Model
from training.baselines import MOTION_STATISTICS, MotionStatistic
from training.data import Frames, full_windows
from training.errors import RunError

AT_ONCE = 16  # frames
TIMED = 40  # frames in a row
MEAN_OF = 200  # frames to learn from, evenly spaced

Scores = npt.NDArray[np.float64]


class Detector(ABC):
    """Scores frames: the higher, the less normal."""

    name: str
    time: int
    """Frames in a row that it looks at, the judged one last."""

    minutes: float | None = None
    """Of one core, that its training took; None for what learns nothing."""

    bytes: int | None = None
    """The size of the graph that scores."""

    @abstractmethod
    def score(self, seen: Pixels) -> Scores:
        """Score uint8 [n, h, w, c], or [n, time, h, w, c], as [n]."""

    def scores(self, frames: Frames, at: Sequence[int]) -> Scores:
        """Score the frames at these positions, each with those before it in its own clip."""
        starts = tqdm(range(0, len(at), AT_ONCE), f"scoring by {self.name}", unit="batch", disable=None)
        return np.concatenate(
            [self.score(frames.seen_at(at[i : i + AT_ONCE], Window.whole(self.time))) for i in starts]
        )

    def milliseconds(self, frames: Frames) -> float:
        """Return the median time of a frame on one thread, as frames of one camera arrive one by one."""
        at = full_windows(frames, self.time)[: TIMED + self.time]
        with _one_thread():
            times = [self._timed(frames.seen_at([index], Window.whole(self.time))) for index in at]
        return float(np.median(times[min(self.time, len(times) - 1) :]))  # the first warm everything up

    def _timed(self, seen: Pixels) -> float:
        start = time.perf_counter()
        self.score(seen)
        return 1000 * (time.perf_counter() - start)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV, which finds the optical flow, to one thread too."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class Exported(Detector):
    """A model folder in onnxruntime, on one thread."""

    def __init__(self, folder: Path, minutes: float) -> None:
        """`minutes` of one core are what its training took."""
        self.model = Model.open(folder, select_device(DeviceChoice.CPU, workers=1))
        self.minutes = minutes
        self.bytes = self.model.manifest.graphs.autoencoder.bytes
        self.name = self.model.manifest.kind
        self.time = self.model.manifest.input.time

    def score(self, seen: Pixels) -> Scores:
        """Return the graph's own scores; raise RunError where they are no numbers to compare."""
        found = self.model.run(seen).anomaly_score
        if found is None or not np.isfinite(found).all():
            raise RunError(f"{self.name}: its scores are no numbers; its training has failed")
        return found.astype(np.float64)


class Baseline(Detector):
    """A statistic that knows the mean normal frame, or nothing at all."""

    def __init__(self, statistic: MotionStatistic, mean: Scores) -> None:
        self.name, self.time = statistic.name, statistic.time
        self._statistic, self._mean = statistic, mean

    def score(self, seen: Pixels) -> Scores:
        """Return the statistic of every stretch's last frame."""
        stretches = seen.reshape(len(seen), self.time, *seen.shape[-3:-1])
        return np.array([self._statistic.score(stretch, self._mean)[-1] for stretch in stretches])


def baselines(normal: Frames) -> list[Baseline]:
    """Return those that score frames; the mean frame is that of frames to learn from."""
    chosen = np.linspace(0, len(normal) - 1, min(MEAN_OF, len(normal))).astype(int)
    mean = normal.batch(chosen.tolist())[..., 0].mean(0, dtype=np.float64)
    return [Baseline(statistic, mean) for statistic in MOTION_STATISTICS]
