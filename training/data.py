"""Frames in memory, split so that no neighbours are on two sides, and how the trainer takes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from runtime.clips import Window
from runtime.images import Pixels, Size, resize
from runtime.manifest import Frozen
from training.errors import DataError
from training.sources import Reader

GAP_SHARE = 0.02  # of a clip, dropped between the parts it is cut into


class Source(Frozen):
    """One place to read frames from, relative to DATA."""

    path: str = Field(description="folder (recursive), video, or ARCHIVE.npz:KEY of [n, h, w(, c)] uint8")
    scales: tuple[PositiveFloat, ...] = Field((1.0,), min_length=1, description="keep a copy of each frame this large")
    detail: float = Field(1, gt=0, le=1, description="scale to this first: soft frames, their own noise averaged out")


class DataConfig(Frozen):
    """What a recipe says under `data:`."""

    sources: tuple[Source, ...] = Field(min_length=1)
    channels: Literal[1, 3] = 3
    height: int | None = Field(None, gt=0, description="pixels; with width: scale every frame to this size")
    width: int | None = Field(None, gt=0, description="pixels")
    pixels: int | None = Field(
        None, gt=0, description="instead of both: about so many a frame, in the proportions of the middle frame"
    )
    frame_stride: int = Field(1, ge=1, description="keep every n-th frame of a video or clip")
    split: Literal["clip", "image"] = Field("clip", description="'image' only for stills that are independent")
    validation_share: float = Field(0.1, gt=0, lt=0.9, description="of the clips, to choose the best checkpoint")
    calibration_share: float = Field(0.2, ge=0, lt=0.9, description="of the clips, to set the threshold")
    crop: int | None = Field(None, gt=0, description="train on random squares of this many pixels")
    shift: int = Field(0, ge=0, description="pixels that frames are moved by at random, as a camera in the wind does")
    flips: bool = Field(default=False, description="mirror and turn the crops at random")
    grey_share: float = Field(0, ge=0, le=1, description="of the crops, made grey as infrared cameras see")
    unreadable_share: float = Field(0.01, ge=0, lt=1, description="of the files may be unreadable")
    minimum_frames: int = Field(16, ge=1, description="fewer than this is an error")
    memory_gib: float = Field(8, gt=0, description="frames are kept in memory up to this")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        if self.pixels is not None and self.height is not None:
            raise ValueError("give pixels, or height and width, and not all of them")
        if self.validation_share + self.calibration_share >= 1:
            raise ValueError("validation_share and calibration_share leave nothing to train on")
        if self.flips and self.crop is None and self.height != self.width:
            raise ValueError("flips turn frames by 90 degrees: they need square ones; set crop")
        return self


@dataclass
class Frames:
    """Decoded frames, in order: `pixels` uint8 [h, w, c], `keys` relative paths, `clips` which belong together.

    The key of an image is its path below DATA, that of a video's frame is `VIDEO#INDEX`; scaled copies share it.
    """

    pixels: list[Pixels] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pixels)

    def add(self, clip: str, key: str, pixels: Pixels) -> None:
        """Append one frame."""
        self.pixels.append(pixels)
        self.keys.append(key)
        self.clips.append(clip)

    def subset(self, indices: Iterable[int]) -> "Frames":
        """Return the frames at these positions."""
        chosen = list(indices)
        return Frames([self.pixels[i] for i in chosen], [self.keys[i] for i in chosen], [self.clips[i] for i in chosen])

    def seen_at(self, indices: Sequence[int], window: Window) -> Pixels:
        """Stack what a model sees at frames: [n, h, w, c], or [n, time, h, w, c], the window up to each.

        The first frames of a clip, which have too few before them, see what the first one sees that has enough. Raises
        DataError where a clip is shorter than that, or its frames are not of one size.
        """
        if window.time == 1:
            return self.batch(indices)
        return np.stack([self.batch(window.begun(self._up_to(index, window))) for index in indices])

    def _up_to(self, index: int, window: Window) -> range:
        first = index
        while first > max(0, index - window.time + 1) and self.clips[first - 1] == self.clips[index]:
            first -= 1
        end = max(index, first + window.needed - 1)
        if end >= len(self) or self.clips[end] != self.clips[index]:
            raise DataError(f"{self.clips[index]} has fewer than the {window.needed} frames that the model looks at")
        return range(first, end + 1)

    def batch(self, indices: Sequence[int]) -> Pixels:
        """Stack frames to [n, h, w, c]; raise DataError where they are not of one size."""
        sizes = {self.pixels[i].shape: self.keys[i] for i in indices}
        if len(sizes) > 1:
            (first, one), (second, other) = list(sizes.items())[:2]
            raise DataError(
                f"frames of one size are needed: {one} is {first[1]} x {first[0]} pixels, {other} is "
                f"{second[1]} x {second[0]}; set data.height and data.width"
            )
        return np.stack([self.pixels[i] for i in indices])


def full_windows(frames: Frames, time: int) -> list[int]:
    """Return the positions of frames that end `time` frames in a row of their own clip."""
    found, run = [], 0
    for index, clip in enumerate(frames.clips):
        run = run + 1 if index and frames.clips[index - 1] == clip else 1
        if run >= time:
            found.append(index)
    return found


@dataclass(frozen=True)
class Split:
    """Three parts that share no clip."""

    train: Frames
    validation: Frames
    calibration: Frames


def load(config: DataConfig, root: Path) -> Frames:
    """Read every source. Raises DataError for missing, empty, too small or too damaged sets, naming the files."""
    frames = Frames()
    for source in config.sources:
        _load_source(source, root, config, frames)
    files = _files(frames) | set(frames.unreadable)
    if len(frames.unreadable) > config.unreadable_share * len(files):
        named = "\n  ".join(frames.unreadable[:10])
        raise DataError(
            f"{len(frames.unreadable)} of {len(files)} files under {root} are unreadable, more than the "
            f"{config.unreadable_share:.0%} that data.unreadable_share allows:\n  {named}"
        )
    if len(frames) < config.minimum_frames:
        raise DataError(
            f"found {len(frames)} frames in {', '.join(s.path for s in config.sources)} under {root}; "
            f"at least {config.minimum_frames} are needed (data.minimum_frames)"
        )
    return frames


def _files(frames: Frames) -> set[str]:
    """Return the files that the frames came from: a video is one, however many frames it gave."""
    return {clip if key.startswith(f"{clip}#") else key for clip, key in zip(frames.clips, frames.keys, strict=True)}


def _load_source(source: Source, root: Path, config: DataConfig, frames: Frames) -> None:
    budget = config.memory_gib * 2**30
    used = sum(pixels.nbytes for pixels in frames.pixels)
    fit = None if config.height is None or config.width is None else Size(config.height, config.width)
    reader = Reader(root, config.channels, config.frame_stride, frames.unreadable, fit)
    for clip, key, pixels in reader.read(source.path):
        soft = resize(pixels, *_sides(pixels, source.detail))
        for scale in source.scales:
            height, width = _sides(pixels, scale)
            scaled = resize(soft, config.height or height, config.width or width)
            used += scaled.nbytes
            if used > budget:
                raise DataError(
                    f"the frames need more than {config.memory_gib:g} GiB of memory; raise data.memory_gib, "
                    "or take fewer with data.frame_stride or smaller ones with data.height and data.width"
                )
            frames.add(clip, key, scaled)


def _sides(pixels: Pixels, scale: float) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    return max(1, round(height * scale)), max(1, round(width * scale))


def split(frames: Frames, config: DataConfig, seed: int) -> Split:
    """Deal the clips out to training, validation and calibration, by a seeded draw.

    Where there are fewer clips than parts each is cut in time instead, with gaps so that neighbours are never on two
    sides. Raises DataError when a part would be empty.
    """
    groups = frames.keys if config.split == "image" else frames.clips
    names = sorted(set(groups))
    parts = 3 if config.calibration_share > 0 else 2
    if len(names) >= parts:
        cut = _split_names(names, config, seed)
        indices = [[i for i, group in enumerate(groups) if group in part] for part in cut]
    else:
        indices = _split_time(groups, config)
    if not all(indices[:parts]):
        raise DataError(
            f"{len(frames)} frames in {len(names)} clips are too few for the shares asked for: add clips (subfolders "
            "or videos), or change data.validation_share and data.calibration_share"
        )
    return Split(*(frames.subset(part) for part in indices))


def _split_names(names: list[str], config: DataConfig, seed: int) -> list[set[str]]:
    order = np.random.default_rng(seed).permutation(len(names))
    validation = max(1, round(config.validation_share * len(names)))
    calibration = max(1, round(config.calibration_share * len(names))) if config.calibration_share else 0
    ends = len(names) - validation - calibration, len(names) - calibration
    return [{names[i] for i in part} for part in np.split(order, ends)]


def _split_time(groups: Sequence[str], config: DataConfig) -> list[list[int]]:
    parts: list[list[int]] = [[], [], []]
    for name in dict.fromkeys(groups):
        clip = [index for index, group in enumerate(groups) if group == name]
        for part, cut in zip(parts, _cut_in_time(len(clip), config), strict=True):
            part.extend(clip[cut])
    return parts


def _cut_in_time(count: int, config: DataConfig) -> tuple[slice, slice, slice]:
    """Cut `count` frames in a row into the three parts, with a gap before validation and one before calibration."""
    gap = max(1, round(GAP_SHARE * count))
    calibration = round(count * (1 - config.calibration_share))
    validation = calibration - round(count * config.validation_share)
    end = calibration - gap if calibration < count else count
    return slice(0, max(0, validation - gap)), slice(validation, end), slice(calibration, count)


class Place(NamedTuple):
    """A frame, and how large a square to cut from it."""

    frame: int
    crop: int | None


class Examples(Dataset[Tensor]):
    """Frames as the trainer takes them: uint8 [C, h, w], whole or as random augmented crops."""

    def __init__(self, frames: Frames, config: DataConfig) -> None:
        self.frames = frames
        self.config = config

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, place: int | Place) -> Tensor:
        """Return one example; the crop is drawn from torch's seeded generator."""
        index, crop = place if isinstance(place, Place) else Place(place, self.config.crop)
        pixels = self.frames.pixels[index]
        if self.config.shift:
            pixels = _shifted(pixels, self.config.shift)
        if crop is not None:
            pixels = _crop(pixels, crop)
        frame = torch.tensor(pixels).permute(2, 0, 1)
        if self.config.flips:
            frame = torch.rot90(frame, _draw(4), (1, 2))
            frame = frame.flip(2) if _draw(2) else frame
        if self.config.grey_share and torch.rand(()) < self.config.grey_share:
            luma = frame.float().mul(torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(0, keepdim=True)
            frame = luma.round().to(torch.uint8).expand_as(frame)
        return frame.contiguous()


def _draw(bound: int) -> int:
    return int(torch.randint(bound, ()))


def _shifted(pixels: Pixels, most: int) -> Pixels:
    """Move a frame up to `most` pixels each way; its border is repeated."""
    height, width = pixels.shape[:2]
    wide = np.pad(pixels, ((most, most), (most, most), (0, 0)), mode="edge")
    top, left = _draw(2 * most + 1), _draw(2 * most + 1)
    return wide[top : top + height, left : left + width]


def _crop(pixels: Pixels, size: int) -> Pixels:
    height, width = pixels.shape[:2]
    if min(height, width) < size:  # too small for a crop: mirror its borders
        pad = ((0, max(0, size - height)), (0, max(0, size - width)), (0, 0))
        pixels = np.pad(pixels, pad, mode="symmetric")
    top, left = _draw(pixels.shape[0] - size + 1), _draw(pixels.shape[1] - size + 1)
    return pixels[top : top + size, left : left + size]
