"""Headers read by hand say what Pillow says of sound files, and nothing bad of damaged ones."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runtime.headers import UPRIGHT, JpegFrame, exif_orientation, jpeg_frame, webp_is_lossless, webp_size

ORIENTATION, MAKER = 0x0112, 0x010F
SHORT, LONG = 3, 4


def exif(orientation: int, kind: int = SHORT, order: str = "<") -> bytes:
    """Return an EXIF block of two entries."""
    maker = struct.pack(order + "HHII", MAKER, 2, 1, 0)
    entry = struct.pack(
        order + ("HHIHH" if kind == SHORT else "HHII"), ORIENTATION, kind, 1, orientation, *[0] * (kind == SHORT)
    )
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2) + maker + entry
    return b"Exif\0\0" + tiff


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, order: str) -> None:
    assert exif_orientation(exif(orientation, order=order)) == orientation
    assert exif_orientation(exif(orientation, order=order).removeprefix(b"Exif\0\0")) == orientation


@pytest.mark.parametrize(
    "block", [b"", exif(0), exif(9), exif(65535), exif(3, kind=LONG), exif(3)[:-8], b"Exif\0\0II*\0"]
)
def test_without_a_sound_orientation_it_is_upright(block: bytes) -> None:
    assert exif_orientation(block) == UPRIGHT


@given(start=st.sampled_from([b"", b"Exif\0\0II*\0", b"Exif\0\0MM\0*", b"II"]), rest=st.binary(max_size=80))
def test_any_bytes_have_an_orientation(start: bytes, rest: bytes) -> None:
    assert 1 <= exif_orientation(start + rest) <= 8


def test_entries_without_end_end_with_the_bytes() -> None:
    assert exif_orientation(b"II*\0" + struct.pack("<IH", 8, 65535)) == UPRIGHT
    assert exif_orientation(b"II*\0" + struct.pack("<I", 2**32 - 1)) == UPRIGHT


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (257, 16), (16383, 1), (1, 16383)])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        (b"VP8 ", "RGB", {}),
        (b"VP8L", "RGB", {"lossless": True}),
        (b"VP8L", "RGBA", {"lossless": True}),
        (b"VP8X", "RGB", {"exif": b"II*\0"}),
    ],
)
def test_the_size_of_a_webp(size: tuple[int, int], kind: bytes, mode: str, options: dict[str, bool | bytes]) -> None:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "WEBP", **options)
    assert buffer.getvalue()[12:16] == kind
    assert webp_size(buffer.getvalue()) == size


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("options", [{}, {"icc_profile": b"VP8L VP8L", "exif": b"VP8L", "xmp": b"VP8L"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_without_loss_is_known(lossless: bool, options: dict[str, bytes], mode: str) -> None:  # noqa: FBT001
    buffer = io.BytesIO()
    Image.effect_noise((9, 7), 50).convert(mode).save(buffer, "WEBP", lossless=lossless, **options)
    assert webp_is_lossless(buffer.getvalue()) == lossless


@given(rest=st.binary(max_size=80))
def test_any_bytes_are_with_or_without_loss(rest: bytes) -> None:
    assert webp_is_lossless(b"RIFF\0\0\0\0WEBP" + rest) in {False, True}


@given(kind=st.sampled_from([b"VP8 ", b"VP8L", b"VP8X", b"????"]), rest=st.binary(max_size=20))
def test_any_bytes_have_a_size(kind: bytes, rest: bytes) -> None:
    width, height = webp_size(b"RIFF\0\0\0\0WEBP" + kind + rest)
    assert 0 <= width <= 2**24
    assert 0 <= height <= 2**24


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


@pytest.mark.parametrize(
    "bare", [b"", b"\xff", b"\xff\x00", b"\xff\x01", *(bytes([0xFF, n]) for n in range(0xD0, 0xDA))]
)
def test_after_a_bare_marker_no_frame_is_believed(bare: bytes) -> None:
    """What follows a bare marker is no length: it would lead into a comment, to a frame that no decoder sees."""
    frame = segment(0xC0, struct.pack(">BHHB", 8, 48, 64, 1) + b"\x01\x11\0")
    fake = segment(0xC0, struct.pack(">BHHB", 8, 16, 16, 1) + b"\x01\x11\0")
    data = bytearray(b"\xff\xd8" + bare + segment(0xFE, bytes(65_500)) + segment(0xFE, bytes(100)) + frame + bytes(10))
    if bare:
        led_to = 4 + int.from_bytes(data[4:6], "big")
        data[led_to : led_to + len(fake)] = fake
    assert jpeg_frame(bytes(data)) == (None if bare else JpegFrame(48, 64, 1, plain=True))
