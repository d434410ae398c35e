"""Set thresholds from normal frames alone, through the exported model: at its export, and later for each camera."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from runtime import conformal
from runtime.calibrations import Calibrations
from runtime.clips import STILL, Window
from runtime.conformal import FalseAlarms, NormalScores, map_range
from runtime.errors import TooFewFrames
from runtime.images import Pixels
from runtime.manifest import Calibration, Manifest, Task, write_manifest
from runtime.model import Model, Outputs
from training.card import write_text
from training.config import Recipe, parse_recipe
from training.data import Frames
from training.errors import DataError, TrainingError
from training.sources import Reader

BATCH = 16
RATE = 0.01  # where neither the user nor the model says another
Answer = TypeVar("Answer")

Found = Iterable[tuple[str, str, Pixels]]
"""Clip, key and pixels [h, w, c] of one frame after another."""


def in_batches(
    frames: Frames,
    label: str,
    run: Callable[[npt.NDArray[np.uint8]], Answer],
    window: Window = STILL,
    ends: Sequence[int] | None = None,
) -> Iterator[Answer]:
    """Call `run` on uint8 [n, h, w, c] stacks of up to 16 frames of one size, with a progress bar.

    With a `window` of several frames the stacks are the clips that end at the frames, [n, time, h, w, c], as
    `Frames.seen_at` has them: at all, or at `ends`.
    """
    chosen = range(len(frames)) if ends is None else ends
    for start in tqdm(range(0, len(chosen), BATCH), label, unit="batch", disable=None):
        yield run(frames.seen_at(chosen[start : start + BATCH], window))


def outputs_of(model: Model, frames: Frames, label: str) -> Iterator[Outputs]:
    """Run an exported autoencoder on frames of its own input size, or on the clips that end there, batch by batch."""
    return in_batches(frames, label, model.run, model.manifest.input.window)


def check_enough(count: int, false_alarm_rate: float) -> None:
    """Raise DataError where a recipe holds out too few frames for its false-alarm rate."""
    try:
        conformal.check_enough(count, FalseAlarms(false_alarm_rate))
    except TooFewFrames as error:
        raise DataError(f"{error} (data.calibration_share, score.false_alarm_rate)") from error


def calibrate(model: Model, frames: Frames, promise: FalseAlarms, source: str) -> Calibration:
    """Score normal frames that were in no training, and return what follows from them."""
    found = zip(frames.clips, frames.keys, frames.pixels, strict=True)
    return conformal.calibrate(score_normal(model, found), promise, source)


class Look(NamedTuple):
    """What a model looks at to score one frame: uint8 [(time,) h, w, c], the frame last."""

    clip: str
    key: str
    pixels: Pixels


def score_normal(model: Model, frames: Found) -> NormalScores:
    """Score frames one after another; a model of clips sees each with those before it in its own clip.

    Raises DataError where a clip is too short to be scored at all, or its frames are not of one size.
    """
    scores, lows, peaks, clips = [], [], [], []
    looks = tqdm(_looks(model, frames), "calibrating", unit="frame", disable=None)
    for batch in _batches(looks):
        outputs = model.run(np.stack([look.pixels for look in batch]))
        maps, batch_scores = _scored(model, outputs)
        wrong = np.flatnonzero(~np.isfinite(batch_scores))
        if len(wrong):
            raise DataError(f"the score of {batch[wrong[0]].key} is {batch_scores[wrong[0]]}, not a number to compare")
        low, peak = map_range(maps)
        scores.append(batch_scores)
        lows.append(low)
        peaks.append(peak)
        clips += [look.clip for look in batch]
    if not scores:
        needed = model.manifest.input.window.needed
        raise DataError(f"found no clip of {needed} frames in a row to score" if needed > 1 else "found no frames")
    joined, map_lows, map_peaks = (np.concatenate(part).astype(np.float64) for part in (scores, lows, peaks))
    return NormalScores(joined, np.unique(clips, return_inverse=True)[1], map_lows, map_peaks)


def _looks(model: Model, frames: Found) -> Iterator[Look]:
    window = model.manifest.input.window
    for clip, members in groupby(frames, lambda frame: frame[0]):
        seen: deque[Pixels] = deque(maxlen=window.time)
        for _, key, pixels in members:
            seen.append(model.fit(pixels))
            if len(seen) >= window.needed:
                yield Look(clip, key, seen[-1] if window.time == 1 else np.stack(window.begun(seen)))


def _batches(looks: Iterable[Look]) -> Iterator[list[Look]]:
    """Gather looks of one size."""
    batch: list[Look] = []
    for look in looks:
        if batch and (len(batch) == BATCH or batch[0].pixels.shape != look.pixels.shape):
            yield batch
            batch = []
        batch.append(look)
    if batch:
        yield batch


def _scored(model: Model, outputs: Outputs) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    if outputs.anomaly_map is None or outputs.anomaly_score is None:
        raise DataError(f"{model.manifest.name} has no anomaly map and score to calibrate")
    return outputs.anomaly_map, outputs.anomaly_score


# -- the command


@dataclass(frozen=True)
class Order:
    """What is to be calibrated, with which frames, for how many false alarms."""

    model: Path
    frames: Path
    camera: str | None
    false_alarm_rate: float | None
    false_alarms_per_hour: float | None
    fps: float | None
    every: int
    calibrations: Path

    def promise(self, manifest: Manifest) -> FalseAlarms:
        """Return the false alarms that were asked for, else those that the model was exported with."""
        own = manifest.calibration
        otherwise = RATE if own is None else own.false_alarm_rate
        return FalseAlarms.stated(self.false_alarm_rate, self.false_alarms_per_hour, self.fps, otherwise)


def calibrate_folder(model: Model, order: Order) -> Iterator[str]:
    """Calibrate a model folder for one camera, or its own default; yield what is to be told.

    Raises DataError where the frames are those that the model was trained or is tested on, or are too few.
    """
    model.require(Task.SCORE)
    promise = order.promise(model.manifest)
    yield from _check_held_out(model.manifest, order.frames)
    unreadable: list[str] = []
    reader = Reader(order.frames.parent, model.manifest.input.channels, order.every, unreadable, model.frame_size)
    _check_count(model.manifest, reader.lengths(order.frames.name), promise)
    normal = score_normal(model, _untrained(model, reader.read(order.frames.name)))
    if unreadable:
        yield f"{len(unreadable)} unreadable files left out, {unreadable[0]} first"
    found = conformal.calibrate(normal, promise, f"{len(normal)} normal frames of {order.frames.name}")
    if order.camera is None:
        manifest = model.manifest.model_copy(update={"calibration": found})
        write_manifest(manifest, order.model)
        write_text(manifest, order.model)
        yield f"{order.model}: its own threshold is {found.threshold:.6g} now"
    else:
        made = Calibrations(order.calibrations).add(model.manifest, order.camera, found)
        yield f"{order.model}, camera {made.camera}, version {made.version}: the threshold is {made.threshold:.6g}"
    yield from summary(found, promise)


def _check_count(manifest: Manifest, clips: Iterable[int], promise: FalseAlarms) -> None:
    """Raise TooFewFrames where clips of such lengths cannot promise it: hours of scoring would only end in that."""
    unscored = manifest.input.window.needed - 1
    count = sum(max(0, length - unscored) for length in clips)
    if count:  # else the reading of them says better what is wrong
        conformal.check_enough(count, promise)


def summary(calibration: Calibration, promise: FalseAlarms) -> Iterator[str]:
    """Say in sentences what a calibration promises, and what stands against it."""
    low, high = calibration.rate_interval or (0.0, 1.0)
    yield f"set for {promise}, from {calibration.count} normal frames in {calibration.clips} clips"
    frames = 0 if promise.frames_per_second is None else 3600 * promise.frames_per_second
    hourly = f", {frames * low:.4g} to {frames * high:.4g} an hour" if frames else ""
    yield f"95 % interval of the rate: {low:.3g} to {high:.3g} a frame{hourly}"
    yield f"the frames say as much as {calibration.effective_count:.0f} independent ones"
    if calibration.left_out_rate is not None:
        yield f"under the threshold that the other clips set, {calibration.left_out_rate:.3g} of the frames alarm"
    for warning in calibration.warnings:
        yield f"warning: {warning}"


def _untrained(model: Model, frames: Found) -> Iterator[tuple[str, str, Pixels]]:
    """Pass frames on; raise DataError at one that the weights have learnt from."""
    for clip, key, pixels in frames:
        if model.has_learnt(model.fit(pixels)):
            raise DataError(
                f"{key} is a frame that {model.manifest.name} was trained on, and scores too low to set a threshold: "
                "calibrate on frames that it has not seen"
            )
        yield clip, key, pixels


def _check_held_out(manifest: Manifest, frames: Path) -> Iterator[str]:
    """Raise DataError for what the recipe trains or tests on, as far as paths tell; say what cannot be told."""
    try:
        recipe: Recipe = parse_recipe(manifest.provenance.config, "provenance.config")
    except TrainingError:
        yield "the manifest holds no recipe of ours: make sure that the frames are neither of training nor of test"
        return
    for check in recipe.evaluate:
        if _meets(frames, check.frames.path):
            raise DataError(f"{frames} is what {manifest.name} is tested on: a threshold set there would flatter it")
    if manifest.provenance.trained_on:
        return
    if any(_meets(frames, source.path) for source in recipe.data.sources):
        raise DataError(
            f"{frames} is what {manifest.name} was trained on, and its manifest does not say which of the frames: "
            "calibrate on others"
        )
    yield f"the manifest does not say which frames {manifest.name} was trained on: make sure that these are others"


def _meets(frames: Path, source: str) -> bool:
    """Tell whether a folder is a recipe's source, or lies in it, wherever the data are."""
    inside, parts = frames.resolve().parts, Path(source).parts
    return any(inside[start : start + len(parts)] == parts for start in range(len(inside)))
