"""Where frames come from: folders of images and videos, single videos, arrays in .npz archives."""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from zipfile import BadZipFile

import av
import numpy as np
from tqdm import tqdm

from runtime.errors import ImageError
from runtime.images import SUFFIXES, Pixels, Size, read
from training.errors import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".ts"})
DECODERS = min(4, os.cpu_count() or 1)  # threads
DECODED_AHEAD = 16  # files

Found = Iterator[tuple[str, str, Pixels]]
"""Clip, key and pixels [h, w, c] of one frame after another."""

_NUMBER = re.compile(r"(\d+)")


def as_numbered(path: Path) -> tuple[list[list[str | int]], Path]:
    """Return the key to sort paths by as people number them: frame_2.jpg before frame_10.jpg.

    In the order of their letters frames would leave their place in time, and a model of clips would see jumps.
    """
    names = path.with_suffix("").parts
    return [[int(part) if part.isdecimal() else part for part in _NUMBER.split(name)] for name in names], path


@dataclass(frozen=True)
class Reader:
    """Reads sources below `root`, every `stride`-th frame of a clip; what no decoder takes is named in `unreadable`.

    Image files are decoded to the size `fit` where one is given, as the service does.
    """

    root: Path
    channels: int
    stride: int
    unreadable: list[str]
    fit: Size | None = None

    def read(self, source: str) -> Found:
        """Yield the frames of a folder, a video or ARCHIVE.npz:KEY. Raises DataError where there is none."""
        path = self.root / source
        if ".npz:" in source:
            return self._archive(source)
        if path.is_dir():
            return self._folder(path)
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            return self._video(path)
        raise DataError(f"{path}: no such folder, video or archive; see docs/data.md, or pass --data DIR")

    def lengths(self, source: str) -> Iterator[int]:
        """Yield how many frames each clip of a source has, at most, before any is decoded; none where `read` fails."""
        path = self.root / source
        if ".npz:" in source:
            yield from (1 for _ in self._archive(source))
        elif path.is_dir():
            images, videos = self._files(path)
            yield from map(len, images.values())
            yield from map(self._video_length, videos)
        elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            yield self._video_length(path)

    def _key(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.root)).as_posix()

    def _folder(self, folder: Path) -> Found:
        """Yield the images and videos below a folder; the clip is the subfolder or the video."""
        by_clip, videos = self._files(folder)
        images = list(chain.from_iterable(by_clip.values()))
        decoded = zip(images, self._decode(images), strict=True)
        for path, pixels in tqdm(decoded, f"reading {folder.name}", len(images), unit="image", disable=None):
            if pixels is None:
                self.unreadable.append(self._key(path))
            else:
                yield self._key(path.parent), self._key(path), pixels
        for path in videos:
            try:
                yield from self._video(path)
            except DataError:
                self.unreadable.append(self._key(path))

    def _files(self, folder: Path) -> tuple[dict[Path, list[Path]], list[Path]]:
        """Return every `stride`-th image of each subfolder, and the videos, as they are numbered."""
        paths = sorted((path for path in folder.rglob("*") if path.is_file()), key=as_numbered)
        by_clip: dict[Path, list[Path]] = {}
        for path in paths:
            if path.suffix.lower() in SUFFIXES:
                by_clip.setdefault(path.parent, []).append(path)
        images = {clip: members[:: self.stride] for clip, members in by_clip.items()}
        return images, [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]

    def _decode(self, paths: Sequence[Path]) -> Iterator[Pixels | None]:
        """Decode in threads, only a few files ahead: large frames must not pile up before they are scaled down."""
        with ThreadPoolExecutor(DECODERS) as pool:
            for start in range(0, len(paths), DECODED_AHEAD):
                yield from pool.map(self._image, paths[start : start + DECODED_AHEAD])

    def _image(self, path: Path) -> Pixels | None:
        try:
            return read(path, channels=self.channels, fit=self.fit).pixels
        except (ImageError, OSError):
            return None

    def _video(self, path: Path) -> Found:
        """Yield every n-th frame of a video file; the video is one clip."""
        name = self._key(path)
        pixel_format = "gray" if self.channels == 1 else "rgb24"
        try:
            with av.open(str(path)) as container:
                stream = container.decode(video=0)
                for index, frame in enumerate(tqdm(stream, f"reading {path.name}", unit="frame", disable=None)):
                    if index % self.stride == 0:
                        pixels = frame.to_ndarray(format=pixel_format)
                        pixels = pixels.reshape(frame.height, frame.width, self.channels)
                        yield name, f"{name}#{index:06d}", pixels.astype(np.uint8, copy=False)
        except (av.error.FFmpegError, IndexError, OSError) as error:
            raise DataError(f"{path}: not a readable video ({error})") from error

    def _video_length(self, path: Path) -> int:
        """Count the packets of a video, one a frame: its header may say nothing of it, or be wrong."""
        count = 0
        with contextlib.suppress(av.error.FFmpegError, IndexError, OSError), av.open(str(path)) as container:
            for packet in container.demux(video=0):
                count += packet.size > 0
        return math.ceil(count / self.stride)

    def _archive(self, source: str) -> Found:
        """Yield the images of a .npz array of uint8 [n, h, w] or [n, h, w, c]; each is a clip of its own."""
        name, _, key = source.rpartition(":")
        path = self.root / name
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                images = archive[key]
        except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
            raise DataError(f"{path}: cannot read the array {key!r} ({error})") from error
        images = images[..., None] if images.ndim == 3 else images
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != self.channels:
            raise DataError(
                f"{path}: {key} should be uint8 [n, h, w] or [n, h, w, {self.channels}] "
                f"and is {images.dtype} {list(images.shape)}"
            )
        for index, image in enumerate(images):
            yield f"{source}/{index:06d}", f"{source}/{index:06d}", image
