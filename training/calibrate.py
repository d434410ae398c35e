"""Set the threshold from normal frames alone: what held-out normal frames score, through the exported model."""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from runtime.manifest import Calibration
from runtime.model import Floats, Model, Outputs
from training.data import Frames
from training.errors import DataError

BATCH = 16
KEPT_SCORES = 2000
Answer = TypeVar("Answer")


def in_batches(
    frames: Frames, label: str, run: Callable[[npt.NDArray[np.uint8]], Answer], time: int = 1
) -> Iterator[Answer]:
    """Call `run` on uint8 [n, h, w, c] stacks of up to 16 frames of one size, with a progress bar.

    With `time` above 1 the stacks are the clips that end at the frames, [n, time, h, w, c].
    """
    starts = range(0, len(frames), BATCH)
    for start in tqdm(starts, label, unit="batch", disable=None):
        chosen = range(start, min(start + BATCH, len(frames)))
        yield run(frames.seen_at(chosen, time))


def outputs_of(model: Model, frames: Frames, label: str) -> Iterator[Outputs]:
    """Run an exported autoencoder on frames of its own input size, or on the clips that end there, batch by batch."""
    return in_batches(frames, label, model.run, model.manifest.input.time)


def conformal_threshold(scores: npt.NDArray[np.floating], false_alarm_rate: float) -> float:
    """Return the smallest threshold that a new normal score exceeds with probability <= the rate.

    That is the ceil((1 - rate) (n + 1))-th smallest of n exchangeable scores (Vovk et al. 2005). Raises DataError
    when n is too small to promise the rate.
    """
    check_enough(len(scores), false_alarm_rate)
    return float(np.sort(scores)[_rank(len(scores), false_alarm_rate) - 1])


def check_enough(count: int, false_alarm_rate: float) -> None:
    """Raise DataError where so few normal frames cannot promise the rate."""
    if _rank(count, false_alarm_rate) > count:
        needed = math.ceil(round(1 / false_alarm_rate, 9)) - 1
        raise DataError(
            f"{count} normal frames cannot support a false-alarm rate of {false_alarm_rate:g}: "
            f"at least {needed} are needed; add frames, raise data.calibration_share or score.false_alarm_rate"
        )


def _rank(count: int, false_alarm_rate: float) -> int:
    return math.ceil(round((1 - false_alarm_rate) * (count + 1), 9))  # (1 - 0.7) * 10 is 3.0000000000000004


def calibrate(model: Model, frames: Frames, false_alarm_rate: float, source: str) -> Calibration:
    """Score normal frames that were in no training, and return what follows from them."""
    scores, peaks, medians = [], [], []
    for outputs in outputs_of(model, frames, "calibrating"):
        maps, batch_scores = _scored(model, outputs)
        scores.append(batch_scores)
        peaks.append(maps.max(axis=(1, 2)))
        medians.append(np.median(maps, axis=(1, 2)))
    normal = np.sort(np.concatenate(scores).astype(np.float64))
    kept = normal if len(normal) <= KEPT_SCORES else np.quantile(normal, np.linspace(0, 1, KEPT_SCORES))
    return Calibration(
        scores=tuple(float(score) for score in kept),
        count=len(normal),
        threshold=conformal_threshold(normal, false_alarm_rate),
        false_alarm_rate=false_alarm_rate,
        map_low=float(np.median(np.concatenate(medians))),
        map_threshold=conformal_threshold(np.concatenate(peaks), false_alarm_rate),
        source=source,
    )


def _scored(model: Model, outputs: Outputs) -> tuple[Floats, Floats]:
    if outputs.anomaly_map is None or outputs.anomaly_score is None:
        raise ValueError(f"{model.manifest.name} has no anomaly score to calibrate")
    return outputs.anomaly_map, outputs.anomaly_score
