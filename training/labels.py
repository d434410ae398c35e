"""The truth about test frames: which are anomalous, and which of their pixels."""

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from training.data import Frames
from training.errors import DataError

PIXEL_STEP = 4  # masks and maps are compared at every fourth row and column


@dataclass(frozen=True)
class Labels:
    """The truth about each of n frames."""

    anomalous: npt.NDArray[np.bool_]
    """[n]."""

    rows: npt.NDArray[np.intp]
    """[n], the row of the CSV file that says it: masks are in the order of the rows."""


def read_labels(path: Path, source: str, frames: Frames) -> Labels:
    """Find every frame in a CSV of clip, frame, anomalous (0 or 1).

    `clip` is a path below the source; `frame` is an image's name without its ending, or six digits of a video.
    Raises DataError for another kind of file, for frames without a label, and where all frames are of one class.
    """
    table = _label_table(path)
    rows = {((PurePosixPath(source) / clip).as_posix(), frame): row for row, (clip, frame, _) in enumerate(table)}
    names = [(clip, _frame_name(clip, key)) for clip, key in zip(frames.clips, frames.keys, strict=True)]
    missing = [key for key, name in zip(frames.keys, names, strict=True) if name not in rows]
    if missing:
        raise DataError(f"{path}: has no label for {len(missing)} frames, {missing[0]} among them")
    found = np.asarray([rows[name] for name in names], np.intp)
    anomalous = np.asarray([label == "1" for _, _, label in table])[found]
    if anomalous.all() or not anomalous.any():
        raise DataError(f"{path}: labels only one class; a test needs normal and anomalous frames")
    return Labels(anomalous, found)


def _label_table(path: Path) -> list[tuple[str, str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # -sig: spreadsheets begin with a mark
            table = [(row["clip"], row["frame"], row["anomalous"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: should be a CSV with the columns clip, frame, anomalous ({error})") from error
    if not table:
        raise DataError(f"{path}: should be a CSV with the columns clip, frame, anomalous; it has no rows")
    for clip, frame, label in table:
        if label not in {"0", "1"}:
            raise DataError(f"{path}: anomalous should be 0 or 1; it is {label!r} for frame {frame} of clip {clip}")
    return table


def _frame_name(clip: str, key: str) -> str:
    return PurePosixPath(key.removeprefix(clip).lstrip("/#")).stem


def read_masks(path: Path, labels: Labels) -> npt.NDArray[np.bool_]:
    """Return [n, h, w] pixel masks of the labelled frames, thinned to every fourth row and column.

    Raises DataError where the file holds no masks, or not one for each row of the labels.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            packed = archive["masks_packed"]
        masks = np.unpackbits(packed[labels.rows, ::PIXEL_STEP], axis=-1)[..., ::PIXEL_STEP]
    except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, BadZipFile) as error:
        expected = "an archive of masks_packed, uint8 [n, h, w / 8], one for each row of the labels"
        raise DataError(f"{path}: should be {expected} ({error})") from error
    return masks.astype(bool)
