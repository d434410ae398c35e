"""What the headers of image files say, read without Pillow: its readers spend memory on them, or warn of odd bytes."""

import struct
from typing import NamedTuple

UPRIGHT = 1
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3
_WEBP_CHUNKS = 16  # to look at: a file of a million empty ones must not keep a core busy
_JPEG_MARKER = 0xFF
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # tables and an extension have the other numbers
_JPEG_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})  # no length follows: fill bytes, restarts, start, end
_JPEG_LENGTH = struct.Struct(">H")
_JPEG_FRAME = struct.Struct(">BHHB")
_JPEG_SPECIAL = (b"Exif\0", b"Adobe")


def webp_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of a WebP file's canvas."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":  # extended: alpha, EXIF, animation
        return 1 + _little(body[4:7]), 1 + _little(body[7:10])
    if kind == b"VP8L":  # lossless
        bits = _little(body[1:5])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return _little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF


def webp_is_lossless(data: bytes) -> bool:
    """Tell whether a WebP holds one picture without loss."""
    place = 12
    for _ in range(_WEBP_CHUNKS):
        if data[place : place + 4] == b"VP8L":
            return True
        length = _little(data[place + 4 : place + 8])
        place += 8 + length + length % 2
    return False


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


class JpegFrame(NamedTuple):
    """What a JPEG says of its picture before the first scan."""

    height: int
    width: int
    components: int
    plain: bool
    """Eight bits a sample, and neither EXIF, which may turn it, nor Adobe's colours."""


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """Return the frame header of a JPEG; None where it has none, ends before it, or has bare markers before it.

    Decoders skip those and go on: whoever took what follows for a length would read another frame header than they do.
    """
    plain, place = True, 2
    while place + 10 <= len(data) and data[place] == _JPEG_MARKER:
        marker, (length,) = data[place + 1], _JPEG_LENGTH.unpack_from(data, place + 2)
        if marker in _JPEG_BARE:
            return None
        if marker in _JPEG_FRAMES:
            precision, height, width, components = _JPEG_FRAME.unpack_from(data, place + 4)
            return JpegFrame(height, width, components, plain and precision == 8)
        plain = plain and not data.startswith(_JPEG_SPECIAL, place + 4)
        place += 2 + length
    return None


def exif_orientation(exif: bytes) -> int:
    """Return how the camera was held, 1 to 8; 1, upright, where an EXIF block does not say or is damaged."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(tiff[:2])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:  # it ends too early
        pass
    return UPRIGHT
