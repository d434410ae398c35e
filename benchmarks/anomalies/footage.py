"""UCSD Ped2 as the benchmark needs it: grey clips at their own size, with the truth about frames and pixels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.images import Pixels
from training.data import DataConfig, Frames, Source, full_windows, load
from training.labels import read_labels, read_masks

FRAMES_A_SECOND = 10
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Footage:
    """Labelled frames of one camera, in order."""

    frames: Frames
    anomalous: Flags
    """[n]."""
    masks: Flags
    """[n, h, w], thinned to every fourth row and column."""

    @cached_property
    def clips(self) -> npt.NDArray[np.str_]:
        """The clip of each frame."""
        return np.asarray(self.frames.clips)

    def by_clip(self) -> list[npt.NDArray[np.intp]]:
        """Return the positions of the frames of each clip."""
        return [np.flatnonzero(self.clips == clip) for clip in dict.fromkeys(self.frames.clips)]

    def full(self, time: int) -> Flags:
        """Tell which frames end `time` frames in a row of their clip, [n]."""
        found = np.zeros(len(self.frames), bool)
        found[full_windows(self.frames, time)] = True
        return found

    def subset(self, chosen: npt.NDArray[np.intp]) -> "Footage":
        """Return the frames at these positions."""
        return Footage(self.frames.subset(chosen.tolist()), self.anomalous[chosen], self.masks[chosen])

    def showing(self, pixels: list[Pixels]) -> "Footage":
        """Return the same frames with other pixels."""
        return Footage(Frames(pixels, self.frames.keys, self.frames.clips), self.anomalous, self.masks)


def find_ped2(data: Path) -> Path:
    """Return the folder `ped2`: `data` may be that folder, or hold it."""
    return data if (data / "test_frame_labels.csv").is_file() else data / "ped2"


def read_test_clips(ped2: Path) -> Footage:
    """Read the test clips. Raises DataError where they, their labels or their masks are missing."""
    frames = read_clips(ped2, "test")
    labels = read_labels(ped2 / "test_frame_labels.csv", "test", frames)
    return Footage(frames, labels.anomalous, read_masks(ped2 / "test_pixel_masks.npz", labels))


def read_clips(ped2: Path, part: str, every: int = 1) -> Frames:
    """Read every n-th grey frame of a part."""
    return load(DataConfig(sources=(Source(path=part),), channels=1, frame_stride=every, minimum_frames=1), ped2)
