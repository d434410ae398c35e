"""JPEG, PNG, WebP and BMP bytes to and from uint8 arrays: the only decoding and resizing code there is.

Training reads frames through this file too, so what was learned is what is served. One stated way for every
unusual image: EXIF orientation is applied; 16-bit samples keep their high byte; palettes are expanded;
transparent pixels are laid over black; CMYK becomes RGB; of an animation the first picture counts; grey from
colour is the ITU-R 601 luma (0.299, 0.587, 0.114).
"""

import hashlib
import io
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from runtime import headers
from runtime.errors import ImageError, ImageTooLarge, UnreadableImage, UnsupportedImage
from runtime.jpeg import PlainJpeg

Pixels = npt.NDArray[np.uint8]

# Pillow's own limit is one number for the whole process and fixed at 179 million pixels; ours are in `Limits` and
# looked at in every header.
Image.MAX_IMAGE_PIXELS = None

# A progressive JPEG usually comes in ten scans. Each may be a hundred bytes long and costs a pass over all pixels.
MAX_JPEG_SCANS = 100

# A JPEG is decoded at a reduced size that is still so many times the size wanted: averaging the rest away hides that
# the reduction is sharper than an average. Scaled to a tenth, photographs differ by 0.2 of 255 levels in the mean.
SPARE = 3

BMP_RUN_LENGTHS = frozenset({1, 2})  # 8 and 4 bits a pixel, as the BMP header has it

GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B"})


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block Pillow leaves alone: it would parse it for the resolution and warn of odd bytes."""

    def _read_dpi_from_exif(self) -> None:
        pass


@dataclass(frozen=True)
class Codec:
    """How a format is called by Pillow, in a Content-Type header and at the end of a file's name."""

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    reader: type[ImageFile.ImageFile]
    max_side: int  # pixels that its encoder can write


class ImageFormat(Enum):
    """The formats we read and write."""

    JPEG = Codec("JPEG", "image/jpeg", (".jpg", ".jpeg"), _Jpeg, 65_500)
    PNG = Codec("PNG", "image/png", (".png",), PngImagePlugin.PngImageFile, 2**31 - 1)
    WEBP = Codec("WEBP", "image/webp", (".webp",), WebPImagePlugin.WebPImageFile, 16_383)
    BMP = Codec("BMP", "image/bmp", (".bmp",), BmpImagePlugin.BmpImageFile, 2**31 - 1)


BY_MEDIA_TYPE = {form.value.media_type: form for form in ImageFormat} | {"image/jpg": ImageFormat.JPEG}
SUFFIXES = frozenset(suffix for form in ImageFormat for suffix in form.value.suffixes)


@dataclass(frozen=True)
class Limits:
    """What one image may cost, checked before the memory is spent."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000


@dataclass(frozen=True)
class Picture:
    """A decoded image: `pixels` is [height, width, channels]; `grey` says that the file held one channel.

    `lossless` says that it was a WebP that keeps every pixel as it is.
    `height` and `width` are those of the image as it was sent, upright, whatever `pixels` was reduced to.
    """

    pixels: Pixels
    format: ImageFormat
    grey: bool
    height: int
    width: int
    lossless: bool = False


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


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
    fit: Size | None = None,
) -> Picture:
    """Decode one image to `channels` (1, 3, or as many as the file holds), and scale it to `fit` where that is given.

    Of a JPEG that is to become much smaller only the low frequencies are decoded, in half the time.

    Raises UnsupportedImage when the bytes are not of a format we read or of the `claimed` one, ImageTooLarge
    over the limits, UnreadableImage for damaged or truncated data.
    """
    if len(data) == 0:
        raise UnreadableImage("the image is empty: 0 bytes were sent")
    _check_bytes(len(data), limits)
    found = sniff(data)
    if claimed is not None and found is not claimed:
        raise UnsupportedImage(
            f"the content type says {claimed.value.media_type} but the bytes are {found.value.media_type}"
        )
    try:
        plain = _decode_plain_jpeg(data, channels, limits, fit) if found is ImageFormat.JPEG else None
        return plain or _decode(data, found, channels, limits, fit)
    except ImageError:
        raise
    except Exception as error:  # on hostile bytes a decoder may raise anything at all
        raise UnreadableImage(f"the {found.value.name} data is damaged or truncated") from error


def _decode_plain_jpeg(data: bytes, channels: int | None, limits: Limits, fit: Size | None) -> Picture | None:
    """Decode most JPEGs; None for those that are left to Pillow, which also says what is wrong with them."""
    plain = PlainJpeg.find(data)
    if plain is None or _scans(data) > MAX_JPEG_SCANS:
        return None
    _check_pixels(plain.width, plain.height, limits)
    wanted = channels or (1 if plain.grey else 3)
    pixels = plain.decode(wanted, None if fit is None else _reduced(fit, headers.UPRIGHT))
    if pixels is None:
        return None
    fitted = pixels if fit is None else resize(pixels, *fit)
    return Picture(fitted, ImageFormat.JPEG, plain.grey, plain.height, plain.width)


def _decode(data: bytes, found: ImageFormat, channels: int | None, limits: Limits, fit: Size | None) -> Picture:
    if found is ImageFormat.WEBP:  # Pillow sets up the decoder, buffers and all, before it tells the size
        _check_pixels(*headers.webp_size(data), limits)
    # Its own reader, not Image.open, which also tries what a JPEG may be besides a JPEG. Nothing is decoded yet.
    with found.value.reader(io.BytesIO(data)) as image:
        _check_pixels(*image.size, limits)
        _check_effort(image, data)
        exif = image.info.get("exif")  # not always bytes: the text chunks of a PNG may bear any name
        orientation = headers.exif_orientation(exif if isinstance(exif, bytes) else b"")
        height, width = _lying(Size(image.height, image.width), orientation)
        grey = image.mode in GREY_MODES
        mode = "L" if channels == 1 or (channels is None and grey) else "RGB"
        # Only a JPEG takes this to heart: its luma is there without the colours, and smaller pictures within it.
        image.draft(mode, None if fit is None else _reduced(fit, orientation)[::-1])
        image.load()
        upright = np.ascontiguousarray(_turn(np.atleast_3d(np.asarray(_convert(image, mode))), orientation))
        lossless = found is ImageFormat.WEBP and headers.webp_is_lossless(data)
        return Picture(upright if fit is None else resize(upright, *fit), found, grey, height, width, lossless)


def _check_bytes(count: int, limits: Limits) -> None:
    if count > limits.max_bytes:
        raise ImageTooLarge(f"the image has {count} bytes; at most {limits.max_bytes} are accepted")


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        message = f"the image is {width} x {height} pixels; at most {limits.max_pixels} in all are accepted"
        raise ImageTooLarge(message, width * height)


def _check_effort(image: Image.Image, data: bytes) -> None:
    """Refuse the two codings of which a few kilobytes keep a core busy for many seconds; no camera writes them."""
    scans = _scans(data) if "progressive" in image.info else 1
    if scans > MAX_JPEG_SCANS:
        raise UnsupportedImage(f"the progressive JPEG has {scans} scans; at most {MAX_JPEG_SCANS} are accepted")
    if image.info.get("compression") in BMP_RUN_LENGTHS:
        raise UnsupportedImage("the BMP is run-length coded; send an uncompressed one, or a PNG")


def _scans(data: bytes) -> int:
    """Return how many scans a JPEG has, at most: of a baseline one a picture within it may count too."""
    return data.count(b"\xff\xda")


def _reduced(fit: Size, orientation: int) -> Size:
    """Return the least size to decode to, as the file holds it."""
    height, width = _lying(fit, orientation)
    return Size(SPARE * height, SPARE * width)


def _lying(size: Size, orientation: int) -> Size:
    """Turn an upright size as the file holds it, or back."""
    return Size(size.width, size.height) if orientation > 4 else size


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation of [h, w, c] pixels."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in {3, 4, 7, 8} else 1
    columns = -1 if orientation in {2, 3, 6, 7} else 1
    return pixels[::rows, ::columns]


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Turn any mode into L or RGB, transparency laid over black."""
    if image.mode.startswith("I"):
        # Pillow's own conversion of 16-bit grey clips at 255 instead of scaling: take the high byte ourselves.
        samples = np.array(image).clip(0, 65535)
        samples[samples == image.info.get("transparency", -1)] = 0
        image = Image.fromarray((samples >> 8).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in {"LA", "RGBA"}:
        opaque = Image.new(image.mode.removesuffix("A"), image.size)  # black
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    return image if image.mode == mode else image.convert(mode)


def read(
    path: Path, *, channels: int | None = None, limits: Limits = DEFAULT_LIMITS, fit: Size | None = None
) -> Picture:
    """Decode the image file at `path`; errors name the file."""
    try:
        _check_bytes(path.stat().st_size, limits)
        return decode(path.read_bytes(), channels=channels, limits=limits, fit=fit)
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error


def encode(pixels: Pixels, form: ImageFormat, *, quality: int = 92, lossless: bool = False) -> bytes:
    """Encode [h, w, 1] or [h, w, 3] pixels, a WebP `lossless` on demand.

    What has no loss is written at its fastest level: a default PNG costs more than a model.

    Raises ImageTooLarge where the format cannot hold so many rows or columns.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > form.value.max_side:
        raise ImageTooLarge(
            f"the image is {width} x {height} pixels and a {form.value.name} holds at most {form.value.max_side} "
            "a side; ask for image/png"
        )
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    options: dict[ImageFormat, dict[str, int]] = {
        ImageFormat.JPEG: {"quality": quality},
        ImageFormat.PNG: {"compress_level": 1},
        ImageFormat.WEBP: {"lossless": True, "quality": 0, "method": 0} if lossless else {"quality": quality},
        ImageFormat.BMP: {},
    }
    image.save(buffer, form.value.name, **options[form])
    return buffer.getvalue()


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale [h, w, c] pixels: area averages when shrinking, bilinear when growing."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(pixels, (width, height), interpolation=method)
    return np.asarray(scaled, np.uint8).reshape(height, width, pixels.shape[2])


def fingerprint(pixels: Pixels) -> str:
    """Return 16 hexadecimal digits that other pixels do not have."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()
