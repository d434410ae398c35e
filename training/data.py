"""Frames from folders of images, video files and .npz archives, split so that no neighbours are on two sides."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from runtime.errors import ImageError
from runtime.images import SUFFIXES, Pixels, read, resize
from runtime.manifest import Frozen
from training.errors import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".ts"})
GAP_SHARE = 0.02  # of a single clip, dropped between the parts it is cut into


class Source(Frozen):
    """One place to read frames from, relative to DATA."""

    path: str = Field(description="folder (recursive), image, video, or ARCHIVE.npz:KEY of [n, h, w(, c)] uint8")
    scales: tuple[float, ...] = Field((1.0,), min_length=1, description="also keep a copy of each frame this large")


class DataConfig(Frozen):
    """What a recipe says under `data:`."""

    sources: tuple[Source, ...] = Field(min_length=1)
    channels: Literal[1, 3] = 3
    height: int | None = Field(None, gt=0, description="pixels; with width: scale every frame to this size")
    width: int | None = Field(None, gt=0, description="pixels")
    frame_stride: int = Field(1, ge=1, description="keep every n-th frame of a video or clip")
    split: Literal["clip", "image"] = Field("clip", description="'image' only for stills that are independent")
    validation_share: float = Field(0.1, gt=0, lt=0.9, description="of the clips, to choose the best checkpoint")
    calibration_share: float = Field(0.2, ge=0, lt=0.9, description="of the clips, to set the threshold")
    crop: int | None = Field(None, gt=0, description="train on random squares of this many pixels")
    flips: bool = Field(default=False, description="mirror and turn the crops at random")
    grey_share: float = Field(0, ge=0, le=1, description="of the crops, made grey as infrared cameras see")
    unreadable_share: float = Field(0.01, ge=0, lt=1, description="of the files may be unreadable")
    minimum_frames: int = Field(16, ge=1, description="fewer than this is an error")
    memory_gib: float = Field(8, gt=0, description="frames are kept in memory up to this")


@dataclass
class Frames:
    """Decoded frames, in order: `pixels` uint8 [h, w, c], `keys` relative paths, `clips` which belong together."""

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

    def batch(self, indices: Sequence[int]) -> Pixels:
        """Stack frames of one size to [n, h, w, c]."""
        return np.stack([self.pixels[i] for i in indices])


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
    files = len(frames.unreadable) + len(set(frames.keys))
    if len(frames.unreadable) > config.unreadable_share * files:
        named = "\n  ".join(frames.unreadable[:10])
        raise DataError(
            f"{len(frames.unreadable)} of {files} files are unreadable, more than the {config.unreadable_share:.0%} "
            f"that data.unreadable_share allows:\n  {named}"
        )
    if len(frames) < config.minimum_frames:
        raise DataError(
            f"found {len(frames)} frames in {', '.join(s.path for s in config.sources)} under {root}; "
            f"at least {config.minimum_frames} are needed (data.minimum_frames)"
        )
    return frames


def _load_source(source: Source, root: Path, config: DataConfig, frames: Frames) -> None:
    path = root / source.path.partition(".npz:")[0]
    if ".npz:" in source.path:
        found = _archive(root, source.path, config)
    elif path.is_dir():
        found = _folder(path, config, frames.unreadable)
    elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        found = _video(path, path.name, config)
    else:
        raise DataError(f"{path}: no such folder, video or archive; see docs/data.md, or pass --data DIR")
    budget = config.memory_gib * 2**30
    used = sum(pixels.nbytes for pixels in frames.pixels)
    for clip, key, pixels in found:
        for scale in source.scales:
            height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
            scaled = resize(pixels, config.height or height, config.width or width)
            used += scaled.nbytes
            if used > budget:
                raise DataError(
                    f"the frames need more than {config.memory_gib:g} GiB of memory; raise data.memory_gib, "
                    "or take fewer with data.frame_stride or smaller ones with data.height and data.width"
                )
            frames.add(f"{source.path}/{clip}", f"{source.path}/{key}", scaled)


Found = Iterator[tuple[str, str, Pixels]]


def _folder(folder: Path, config: DataConfig, unreadable: list[str]) -> Found:
    """Yield the images and videos below a folder; the clip is the subfolder or the video."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    by_clip: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() in SUFFIXES:
            by_clip.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
    images = [(clip, path) for clip, members in by_clip.items() for path in members[:: config.frame_stride]]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        decoded = pool.map(lambda item: _read_or_none(item[1], config.channels), images)
        for (clip, path), pixels in tqdm(
            zip(images, decoded, strict=True), f"reading {folder.name}", len(images), unit="image", disable=None
        ):
            if pixels is None:
                unreadable.append(str(path))
            else:
                yield clip, path.relative_to(folder).as_posix(), pixels
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from _readable_video(path, path.relative_to(folder).as_posix(), config, unreadable)


def _read_or_none(path: Path, channels: int) -> Pixels | None:
    try:
        return read(path, channels=channels).pixels
    except (ImageError, OSError):
        return None


def _readable_video(path: Path, name: str, config: DataConfig, unreadable: list[str]) -> Found:
    try:
        yield from _video(path, name, config)
    except DataError:
        unreadable.append(str(path))


def _video(path: Path, name: str, config: DataConfig) -> Found:
    """Yield every n-th frame of a video file; the video is one clip."""
    pixel_format = "gray" if config.channels == 1 else "rgb24"
    try:
        with av.open(str(path)) as container:
            stream = container.decode(video=0)
            for index, frame in enumerate(tqdm(stream, f"reading {path.name}", unit="frame", disable=None)):
                if index % config.frame_stride == 0:
                    pixels = frame.to_ndarray(format=pixel_format)
                    pixels = pixels.reshape(frame.height, frame.width, config.channels)
                    yield name, f"{name}#{index:06d}", pixels.astype(np.uint8, copy=False)
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise DataError(f"{path}: not a readable video ({error})") from error


def _archive(root: Path, source: str, config: DataConfig) -> Found:
    """Yield the images of a .npz array of uint8 [n, h, w] or [n, h, w, c]; each is a clip of its own."""
    name, _, key = source.rpartition(":")
    try:
        with np.load(root / name, allow_pickle=False) as archive:
            images = archive[key]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{root / name}: cannot read the array {key!r} ({error})") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != config.channels:
        raise DataError(
            f"{root / name}: {key} should be uint8 [n, h, w] or [n, h, w, {config.channels}] "
            f"and is {images.dtype} {list(images.shape)}"
        )
    for index, image in enumerate(images):
        yield f"{index:06d}", f"{index:06d}", image


def split(frames: Frames, config: DataConfig, seed: int) -> Split:
    """Deal the clips out to training, validation and calibration, by a seeded draw.

    A single clip is cut in time instead, with a gap so that neighbours are never on two sides.
    Raises DataError when a part would be empty.
    """
    groups = frames.keys if config.split == "image" else frames.clips
    names = sorted(set(groups))
    parts = 3 if config.calibration_share > 0 else 2
    if len(names) >= parts:
        cut = _split_names(names, config, seed)
        indices = [[i for i, group in enumerate(groups) if group in part] for part in cut]
    else:
        indices = _split_time(len(frames), config)
    if not all(indices[:parts]):
        raise DataError(
            f"{len(names)} clips are too few for the shares asked for: add clips (subfolders or videos), "
            "or lower data.validation_share and data.calibration_share"
        )
    return Split(*(frames.subset(part) for part in indices))


def _split_names(names: list[str], config: DataConfig, seed: int) -> list[set[str]]:
    order = np.random.default_rng(seed).permutation(len(names))
    validation = max(1, round(config.validation_share * len(names)))
    calibration = max(1, round(config.calibration_share * len(names))) if config.calibration_share else 0
    ends = len(names) - validation - calibration, len(names) - calibration
    return [{names[i] for i in part} for part in np.split(order, ends)]


def _split_time(count: int, config: DataConfig) -> list[list[int]]:
    gap = max(1, round(GAP_SHARE * count))
    calibration = round(count * (1 - config.calibration_share))
    validation = calibration - round(count * config.validation_share)
    return [
        list(range(max(0, validation - gap))),
        list(range(validation, calibration - (gap if calibration < count else 0))),
        list(range(calibration, count)),
    ]


class Examples(Dataset[Tensor]):
    """Frames as the trainer takes them: uint8 [C, h, w], whole or as random augmented crops."""

    def __init__(self, frames: Frames, config: DataConfig) -> None:
        self.frames = frames
        self.config = config

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Tensor:
        """Return one example; the crop is drawn from torch's seeded generator."""
        pixels = self.frames.pixels[index]
        if self.config.crop is not None:
            pixels = _crop(pixels, self.config.crop)
        frame = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        if self.config.flips:
            frame = torch.rot90(frame, _draw(4), (1, 2))
            frame = frame.flip(2) if _draw(2) else frame
        if self.config.grey_share and torch.rand(()) < self.config.grey_share:
            luma = frame.float().mul(torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(0, keepdim=True)
            frame = luma.round().to(torch.uint8).expand_as(frame)
        return frame.contiguous()


def _draw(bound: int) -> int:
    return int(torch.randint(bound, ()))


def _crop(pixels: Pixels, size: int) -> Pixels:
    height, width = pixels.shape[:2]
    if min(height, width) < size:  # too small for a crop: mirror its borders
        pad = ((0, max(0, size - height)), (0, max(0, size - width)), (0, 0))
        pixels = np.pad(pixels, pad, mode="symmetric")
    top, left = _draw(pixels.shape[0] - size + 1), _draw(pixels.shape[1] - size + 1)
    return pixels[top : top + size, left : left + size]
