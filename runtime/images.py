"""JPEG, PNG, WebP and BMP bytes to and from uint8 arrays: the only decoding and resizing code there is.

Training reads frames through this file too, so what was learned is what is served. One stated way for every
unusual image: EXIF orientation is applied; 16-bit samples keep their high byte; palettes are expanded;
transparent pixels are laid over black; CMYK becomes RGB; of an animation the first picture counts; grey from
colour is the ITU-R 601 luma (0.299, 0.587, 0.114).
"""

import io
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from runtime.errors import ImageTooLarge, UnreadableImage, UnsupportedImage

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Codec:
    """How a format is called by Pillow, in a Content-Type header and at the end of a file's name."""

    name: str
    media_type: str
    suffixes: tuple[str, ...]


class ImageFormat(Enum):
    """The formats we read and write."""

    JPEG = Codec("JPEG", "image/jpeg", (".jpg", ".jpeg"))
    PNG = Codec("PNG", "image/png", (".png",))
    WEBP = Codec("WEBP", "image/webp", (".webp",))
    BMP = Codec("BMP", "image/bmp", (".bmp",))


BY_MEDIA_TYPE = {form.value.media_type: form for form in ImageFormat} | {"image/jpg": ImageFormat.JPEG}
SUFFIXES = frozenset(suffix for form in ImageFormat for suffix in form.value.suffixes)


@dataclass(frozen=True)
class Limits:
    """What one image may cost, checked before the memory is spent."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000


@dataclass(frozen=True)
class Picture:
    """A decoded image: `pixels` is [height, width, channels]; `grey` says that the file held one channel."""

    pixels: Pixels
    format: ImageFormat
    grey: bool


DEFAULT_LIMITS = Limits()


def sniff(data: bytes) -> ImageFormat:
    """Tell the format from the first bytes; raise UnsupportedImage for any other."""
    if data[:3] == b"\xff\xd8\xff":
        return ImageFormat.JPEG
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ImageFormat.PNG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if data[:2] == b"BM":
        return ImageFormat.BMP
    raise UnsupportedImage("the bytes are no JPEG, PNG, WebP or BMP image; send one of these")


def decode(
    data: bytes,
    *,
    channels: int | None = None,
    claimed: ImageFormat | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Picture:
    """Decode one image to `channels` (1, 3, or as many as the file holds).

    Raises UnsupportedImage when the bytes are not of a format we read or of the `claimed` one, ImageTooLarge
    over the limits, UnreadableImage for damaged or truncated data.
    """
    if len(data) == 0:
        raise UnreadableImage("the image is empty: 0 bytes were sent")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted")
    found = sniff(data)
    if claimed is not None and found is not claimed:
        raise UnsupportedImage(
            f"the content type says {claimed.value.media_type} but the bytes are {found.value.media_type}"
        )
    try:
        return _decode(data, found, channels, limits)
    except ImageTooLarge:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"the image has more than {limits.max_pixels} pixels") from error
    except Exception as error:  # on hostile bytes a decoder may raise anything at all
        raise UnreadableImage(f"the {found.value.name} data is damaged or truncated") from error


def _decode(data: bytes, found: ImageFormat, channels: int | None, limits: Limits) -> Picture:
    with Image.open(io.BytesIO(data), formats=(found.value.name,)) as image:
        width, height = image.size  # known from the header: nothing is decoded yet
        if width * height > limits.max_pixels:
            raise ImageTooLarge(
                f"the image is {width} x {height} pixels; at most {limits.max_pixels} in all are accepted"
            )
        grey = image.mode in {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}
        if grey and channels == 3:
            pixels = np.repeat(_grey(image), 3, axis=2)
        elif channels == 1 or (channels is None and grey):
            pixels = _grey(image)
        else:
            pixels = np.asarray(_upright(image, "RGB"))
        return Picture(np.ascontiguousarray(pixels, np.uint8), found, grey)


def _grey(image: Image.Image) -> Pixels:
    """Return the luma as [h, w, 1]."""
    if image.mode.startswith("I"):
        # Pillow's own conversion of 16-bit grey clips at 255 instead of scaling: take the high byte ourselves.
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)
        return (upright.clip(0, 65535) >> 8).astype(np.uint8)[..., None]
    return np.asarray(_upright(image, "L"))[..., None]


def _upright(image: Image.Image, mode: str) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == mode else image.convert(mode)


def read(path: Path, *, channels: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decode the image file at `path`; errors name the file."""
    try:
        return decode(path.read_bytes(), channels=channels, limits=limits)
    except (UnreadableImage, UnsupportedImage, ImageTooLarge) as error:
        raise type(error)(f"{path}: {error}") from error


def encode(pixels: Pixels, form: ImageFormat, *, quality: int = 92) -> bytes:
    """Encode [h, w, 1] or [h, w, 3] pixels; PNG at its fastest level, for a default PNG costs more than a model."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    options = {"compress_level": 1} if form is ImageFormat.PNG else {"quality": quality}
    image.save(buffer, form.value.name, **({} if form is ImageFormat.BMP else options))
    return buffer.getvalue()


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale [h, w, c] pixels: area averages when shrinking, bilinear when growing."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(pixels, (width, height), interpolation=method)
    return np.asarray(scaled, np.uint8).reshape(height, width, pixels.shape[2])
