"""What a fixed camera has recorded: frames of one size, in clips, and stretches of them to learn and to measure on."""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from training.data import Frames
from training.errors import DataError
from training.sources import Found, Reader

MEMORY_GIB = 4.0  # of frames; a few thousand tell all there is to know of a camera's noise
UNREADABLE_SHARE = 0.01  # of the frames
SHORTEST, USUAL = 10, 36  # independent frames in a stretch
HELD_OUT_SHARE = 0.2  # of the stretches

Kind = TypeVar("Kind", bound=np.generic)


def read_footage(path: Path, channels: int, every: int = 1) -> Frames:
    """Read every n-th frame of a folder (subfolders are clips) or a video, as far as they fit into memory.

    Frames are uint8 [h, w, channels], but [h, w, 1] where all are grey. Raises DataError where there are none, where
    more than a hundredth is damaged, or where they differ in size.
    """
    if not path.exists():
        raise DataError(f"{path}: no such folder of frames, and no such video")
    unreadable: list[str] = []
    whole = path.resolve()
    frames = _collect(Reader(whole.parent, channels, every, unreadable).read(whole.name))
    if not frames.pixels:
        raise DataError(f"{path}: holds no frame that can be read; give a folder of images, or a video")
    if len(unreadable) > UNREADABLE_SHARE * (len(frames) + len(unreadable)):
        named = "\n  ".join(unreadable[:10])
        raise DataError(f"{path}: {len(unreadable)} files are unreadable; mend or remove them:\n  {named}")
    if any(pixels.shape[2] != 1 for pixels in frames.pixels):
        frames.pixels = [as_channels(pixels, channels) for pixels in frames.pixels]
    return frames


def _collect(found: Found) -> Frames:
    frames, room = Frames(), MEMORY_GIB * 2**30
    for clip, key, pixels in found:
        if frames.pixels and pixels.shape[:2] != frames.pixels[0].shape[:2]:
            first = frames.pixels[0].shape
            raise DataError(
                f"frames of one camera, all of one size, are needed: {frames.keys[0]} is {first[1]} x {first[0]} "
                f"pixels, {key} is {pixels.shape[1]} x {pixels.shape[0]}; give them one folder at a time"
            )
        kept = np.ascontiguousarray(pixels[..., :1]) if (pixels == pixels[..., :1]).all() else pixels
        room -= kept.nbytes
        if room < 0:
            print(f"the first {len(frames)} frames fill {MEMORY_GIB:g} GiB; the rest is not read", file=sys.stderr)
            break
        frames.add(clip, key, kept)
    return frames


def as_channels(pixels: npt.NDArray[Kind], channels: int) -> npt.NDArray[Kind]:
    """Copy grey [..., 1] pixels to as many channels as a model takes; others stay as they are."""
    return pixels.repeat(channels, axis=-1) if pixels.shape[-1] == 1 else pixels


def clips_of(frames: Frames) -> list[range]:
    """Return the positions of each clip's frames, which are in a row."""
    starts = [i for i, clip in enumerate(frames.clips) if i == 0 or clip != frames.clips[i - 1]]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(frames)], strict=True)]


@dataclass(frozen=True)
class Stretches:
    """Runs of frames, positions in the footage: those to learn from, and later ones to measure on."""

    training: tuple[range, ...]
    held_out: tuple[range, ...]


def cut(clips: list[range], stride: int) -> Stretches:
    """Cut clips into stretches and hold out the last fifth, with a gap; frames `stride` apart are independent.

    Raises DataError where there are too few frames for two stretches.
    """
    shortest = SHORTEST * stride
    pieces = [
        piece for clip in clips if len(clip) >= shortest for piece in _pieces(clip, len(clip) // (USUAL * stride))
    ]
    longest = max(clips, key=len)
    if len(pieces) < 2:
        pieces = _pieces(longest, min(3, len(longest) // shortest))
    if len(pieces) < 2:
        raise DataError(
            f"{len(longest)} frames in a row are too few: noise is told from the picture where nothing moves in frames "
            f"at least {stride} apart, for nearer ones share their noise; {2 * shortest} in a row are needed, several "
            f"times as many are better. Record a longer video, or more images a clip"
        )
    count = max(1, round(HELD_OUT_SHARE * len(pieces)))
    training, held_out = pieces[:-count], pieces[-count:]
    if held_out[0].start not in {clip.start for clip in clips}:  # its clip began in the training part
        held_out[0] = held_out[0][stride:]
    return Stretches(tuple(training), tuple(held_out))


def _pieces(clip: range, count: int) -> list[range]:
    bounds = np.linspace(0, len(clip), max(1, count) + 1).astype(int).tolist()
    return [clip[start:stop] for start, stop in pairwise(bounds)]
