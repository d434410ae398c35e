"""A camera's normal frames in parts that share no clip: to learn from, to set thresholds by, to measure on."""

import math
import sys
from dataclasses import dataclass
from hashlib import blake2b

from runtime.conformal import FalseAlarms
from training.compare.order import Order
from training.data import DataConfig, Frames, Source, Split, full_windows, load, split
from training.errors import DataError
from training.frame_size import frame_size
from training.sources import Reader

UNREADABLE_SHARE = 0.01  # of the files
VALIDATION_SHARE = 0.1  # of the clips: chooses each kind's checkpoint
HELD_OUT_SHARE = 0.5  # of the clips: half of them set the thresholds, on half is measured
FEWEST = 40  # frames in all


@dataclass(frozen=True)
class Parts:
    """Frames of one size; `data` says how they are read."""

    data: DataConfig
    learn: Split
    """To train on, to choose checkpoints by, and to set thresholds by."""

    test: Frames
    """Nothing is chosen on them."""

    @property
    def threshold(self) -> Frames:
        """The frames that set the thresholds."""
        return self.learn.calibration

    def suffice(self, time: int, false_alarm_rate: float) -> bool:
        """Tell whether what looks at so many frames in a row can be held to the false-alarm rate, and measured."""
        needed = FalseAlarms(false_alarm_rate).frames_needed
        return len(full_windows(self.threshold, time)) >= needed and bool(full_windows(self.test, time))

    @property
    def fingerprint(self) -> str:
        """Tell these frames, so dealt out, from all others."""
        digest = blake2b(digest_size=8)
        for part in (self.learn.train, self.learn.validation, self.learn.calibration, self.test):
            digest.update(str(part.keys).encode())
            for pixels in part.pixels:
                digest.update(pixels.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        train, threshold = self.learn.train, self.threshold
        parts = {"learn": train, "choose checkpoints": self.learn.validation, "set thresholds": threshold,
                 "measure on": self.test}  # fmt: skip
        sizes = ", ".join(f"{len(frames)} to {what}" for what, frames in parts.items())
        clips = set().union(*(frames.clips for frames in parts.values()))
        return f"{len(clips)} clips at {self.data.width} x {self.data.height}, grey: {sizes}"


def too_short(time: int) -> str:
    """Say why what looks at so many frames in a row is left out."""
    return f"it looks at {time} frames in a row, and too few clips have as many"


def read_parts(order: Order) -> Parts:
    """Read the frames and deal their clips out by a seeded draw; a few long clips are cut in time, with gaps.

    Raises DataError where there are no frames, too many damaged ones, or too few for the false-alarm rate.
    """
    if not order.frames.exists() and ".npz:" not in order.frames.name:
        raise DataError(f"{order.frames}: no such folder of frames, and no such video or archive")
    data = _data(order)
    frames = load(data, order.frames.resolve().parent)
    _check_readable(order, frames)
    _check_enough(order, len(frames), int(len(frames) * HELD_OUT_SHARE / 2))
    learn = split(frames, data, order.seed)
    halves = data.model_copy(update={"calibration_share": 0.0, "validation_share": 0.5})
    held_out = split(learn.calibration, halves, order.seed)
    parts = Parts(data, Split(learn.train, learn.validation, held_out.train), held_out.validation)
    _check_enough(order, len(frames), len(parts.threshold))
    return parts


def _data(order: Order) -> DataConfig:
    """Return how the frames are read: grey, and small, in the proportions of the first."""
    reader = Reader(order.frames.resolve().parent, 1, order.every, [])
    first = next(reader.read(order.source), None)
    if first is None:
        raise DataError(
            f"{order.frames}: holds no frame that can be read; give a folder of images or videos, or a video"
        )
    height, width = frame_size(order.pixels, first[2].shape[0] / first[2].shape[1])
    return DataConfig(
        sources=(Source(path=order.source),), channels=1, height=height, width=width, frame_stride=order.every,
        validation_share=VALIDATION_SHARE, calibration_share=HELD_OUT_SHARE,
        unreadable_share=0.999, minimum_frames=1,  # both are looked at here
    )  # fmt: skip


def _check_readable(order: Order, frames: Frames) -> None:
    unreadable = frames.unreadable
    if not unreadable:
        return
    named = "\n  ".join(unreadable[:10])
    if len(unreadable) > UNREADABLE_SHARE * (len(frames) + len(unreadable)):
        raise DataError(f"{order.frames}: {len(unreadable)} files are unreadable; mend or remove them:\n  {named}")
    print(f"{len(unreadable)} unreadable files left out:\n  {named}", file=sys.stderr)


def _check_enough(order: Order, count: int, threshold: int) -> None:
    """Raise DataError where so few of the frames, those that set thresholds, cannot promise the false-alarm rate."""
    needed = FalseAlarms(order.false_alarm_rate).frames_needed
    if threshold >= needed and count >= FEWEST:
        return
    enough = max(FEWEST, 2 * math.ceil(needed / HELD_OUT_SHARE))
    smaller = " or a smaller --every," if order.every > 1 else ""
    raise DataError(
        f"{order.frames}: {count} frames are too few: {threshold} of them would set the thresholds, and "
        f"--false-alarm-rate {order.false_alarm_rate:g} needs {needed} there; give {enough} and more in clips of "
        f"like lengths,{smaller} or accept more false alarms"
    )
