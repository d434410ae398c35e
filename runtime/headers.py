"""What the headers of image files say, read without Pillow: its readers spend memory on them, or warn of odd bytes."""

import struct

UPRIGHT = 1
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3


def webp_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of a WebP file's canvas."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":  # extended: alpha, EXIF, animation
        return 1 + _little(body[4:7]), 1 + _little(body[7:10])
    if kind == b"VP8L":  # lossless
        bits = _little(body[1:5])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return _little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


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
