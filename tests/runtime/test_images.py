"""Decoding: every mode in its one way, every damage an ImageError, no bomb goes off; encoding and scaling."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from runtime.errors import ImageError, ImageTooLarge, UnreadableImage, UnsupportedImage
from runtime.images import (
    BY_MEDIA_TYPE,
    MAX_JPEG_SCANS,
    SUFFIXES,
    ImageFormat,
    Limits,
    Picture,
    Pixels,
    Size,
    decode,
    encode,
    read,
    resize,
    sniff,
)

ORIENTATION = 0x0112
END_OF_FILE = 20  # bytes that hold no pixels: the checksums of PNG and its last chunk
GREY, GREY_ALPHA, RGB, RGBA = 0, 4, 2, 6  # colour types of PNG
CRASHERS = sorted((Path(__file__).parent / "crashers").iterdir())


def random_pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth_pixels(height: int, width: int, channels: int) -> Pixels:
    """Pixels that a lossy format keeps within a few levels."""
    ramp = np.linspace(30, 200, height)[:, None, None] + np.linspace(0, 50, width)[:, None]
    return ramp.repeat(channels, axis=2).astype(np.uint8)


def save(image: Image.Image, form: str, **options: Any) -> bytes:  # noqa: ANN401 - as Pillow has it
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: npt.NDArray[np.uint16], colour_type: int, *chunks: bytes) -> bytes:
    """Make a PNG with 16 bits a sample, [h, w, samples], which Pillow itself cannot write."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + data + chunk(b"IEND", b"")


def samples_of_16_bits(*shape: int) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 65536, shape, np.uint16)


def bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    palette = bytes(value for grey in range(256) for value in (grey, 0, grey, 0))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def over_black(pixels: Pixels, alpha: Pixels) -> Pixels:
    return np.asarray(np.rint(pixels * (alpha / 255)), np.uint8)


def close(one: Pixels, other: Pixels, levels: int) -> bool:
    return one.shape == other.shape and int(np.abs(one.astype(int) - other).max()) <= levels


SMALL = random_pixels(7, 9, 3)
FILES = {form: encode(smooth_pixels(20, 31, 3), form) for form in ImageFormat}
formats = pytest.mark.parametrize("form", ImageFormat, ids=lambda form: form.name)


# -- which format


@formats
def test_bytes_tell_their_format(form: ImageFormat) -> None:
    assert sniff(FILES[form]) is form
    assert decode(FILES[form], claimed=form).format is form
    assert BY_MEDIA_TYPE[form.value.media_type] is form
    assert SUFFIXES.issuperset(form.value.suffixes)


def test_the_misspelt_media_type_of_many_cameras_is_known() -> None:
    assert BY_MEDIA_TYPE["image/jpg"] is ImageFormat.JPEG


@pytest.mark.parametrize("data", [b"\0", b"GIF89a" + bytes(20), b"RIFF0000WAVE", b"<svg/>", b"\x89PNG", b"\xff\xd8"])
def test_other_bytes_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="JPEG, PNG, WebP or BMP"):
        decode(data)


@formats
def test_a_false_claim_is_refused(form: ImageFormat) -> None:
    for claimed in set(ImageFormat) - {form}:
        with pytest.raises(UnsupportedImage, match=f"says {claimed.value.media_type} but .* {form.value.media_type}"):
            decode(FILES[form], claimed=claimed)


# -- one way for every mode


def test_colour_stays_colour() -> None:
    picture = decode(save(Image.fromarray(SMALL), "PNG"))
    assert not picture.grey
    assert np.array_equal(picture.pixels, SMALL)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_grey_stays_grey_unless_three_channels_are_asked_for(form: str) -> None:
    grey = SMALL[..., 0]
    data = save(Image.fromarray(grey), form)
    assert decode(data).grey
    assert np.array_equal(decode(data).pixels, grey[..., None])
    assert np.array_equal(decode(data, channels=1).pixels, grey[..., None])
    assert np.array_equal(decode(data, channels=3).pixels, grey[..., None].repeat(3, axis=2))


def test_grey_from_colour_is_the_luma() -> None:
    picture = decode(save(Image.fromarray(SMALL), "PNG"), channels=1)
    assert close(picture.pixels[..., 0], np.rint(SMALL @ [0.299, 0.587, 0.114]).astype(np.uint8), levels=1)
    assert not picture.grey


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_16_bit_grey_keeps_the_high_byte(channels: int | None) -> None:
    samples = samples_of_16_bits(6, 5)
    pixels = decode(save(Image.fromarray(samples), "PNG"), channels=channels).pixels
    assert np.array_equal(pixels, (samples >> 8)[..., None].repeat(channels or 1, axis=2))


def test_16_bit_grey_with_a_transparent_level() -> None:
    samples = samples_of_16_bits(6, 5)
    samples[2, 3] = samples[4, 1] = 0xABCD
    pixels = decode(png(samples[..., None], GREY, chunk(b"tRNS", struct.pack(">H", 0xABCD)))).pixels[..., 0]
    assert pixels[2, 3] == pixels[4, 1] == 0
    assert (pixels != samples >> 8).sum() == 2


def test_16_bit_colour_keeps_the_high_byte() -> None:
    samples = samples_of_16_bits(6, 5, 3)
    assert np.array_equal(decode(png(samples, RGB)).pixels, samples >> 8)


def test_16_bit_alpha() -> None:
    samples = samples_of_16_bits(6, 5, 4)
    high = (samples >> 8).astype(np.uint8)
    assert close(decode(png(samples, RGBA)).pixels, over_black(high[..., :3], high[..., 3:]), levels=1)
    grey = decode(png(samples[..., :2], GREY_ALPHA), channels=1)
    assert close(grey.pixels, over_black(high[..., :1], high[..., 1:2]), levels=1)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparent_pixels_lie_over_black(form: str) -> None:
    pixels = random_pixels(7, 9, 4)
    data = save(Image.fromarray(pixels), form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    assert close(decode(data).pixels, over_black(pixels[..., :3], pixels[..., 3:]), levels=1)


def test_grey_with_alpha_stays_grey() -> None:
    pixels = random_pixels(7, 9, 2)
    picture = decode(save(Image.fromarray(pixels), "PNG"))
    assert picture.grey
    assert close(picture.pixels, over_black(pixels[..., :1], pixels[..., 1:]), levels=1)


def test_a_colour_that_stands_for_transparent_becomes_black() -> None:
    key = tuple(int(value) for value in SMALL[2, 3])
    expected = SMALL.copy()
    expected[np.equal(SMALL, key).all(axis=2)] = 0
    assert np.array_equal(decode(save(Image.fromarray(SMALL), "PNG", transparency=key)).pixels, expected)


def palette_image() -> tuple[Image.Image, Pixels]:
    """Return an image of indices 0..62 and its colours [h, w, 3]."""
    image = Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9)).convert("P")
    colours = random_pixels(256, 3, seed=2)
    image.putpalette(colours.tobytes())
    return image, colours[np.asarray(image)]


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_a_palette_is_expanded(form: str) -> None:
    image, colours = palette_image()
    picture = decode(save(image, form))
    assert np.array_equal(picture.pixels, colours)
    assert not picture.grey


def test_a_palette_with_one_transparent_entry() -> None:
    image, colours = palette_image()
    colours[np.asarray(image) == 5] = 0
    assert np.array_equal(decode(save(image, "PNG", transparency=5)).pixels, colours)


def test_a_palette_with_an_alpha_for_every_entry() -> None:
    image, colours = palette_image()
    alpha = random_pixels(256, seed=3)
    expected = over_black(colours, alpha[np.asarray(image)][..., None])
    assert close(decode(save(image, "PNG", transparency=alpha.tobytes())).pixels, expected, levels=1)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_1_bit_is_black_and_white(form: str) -> None:
    bits = random_pixels(7, 9) > 127
    picture = decode(save(Image.fromarray(bits), form))
    assert np.array_equal(picture.pixels[..., 0], np.where(bits, 255, 0))
    assert picture.grey


def test_cmyk_as_adobe_inverts_it() -> None:
    ink = Image.fromarray(smooth_pixels(16, 16, 3)).convert("CMYK")
    data = save(ink, "JPEG", quality=98)
    assert b"Adobe" in data
    assert close(decode(data).pixels, smooth_pixels(16, 16, 3), levels=4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_rows": 1}])
def test_jpeg_of_every_sort(channels: int, options: dict[str, Any]) -> None:
    pixels = smooth_pixels(40, 56, channels)
    image = Image.fromarray(pixels.squeeze())
    picture = decode(save(image, "JPEG", quality=95, **options))
    assert close(picture.pixels, pixels, levels=4)
    assert picture.grey == (channels == 1)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_counts(form: str) -> None:
    first, *others = (Image.fromarray(random_pixels(7, 9, 3, seed=seed)) for seed in range(3))
    lossless = {"lossless": True} if form == "WEBP" else {}
    data = save(first, form, save_all=True, append_images=others, **lossless)
    assert np.array_equal(decode(data).pixels, np.asarray(first))


def test_of_a_jpeg_with_several_pictures_the_first_counts() -> None:
    first, second = (Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (40, 200))
    data = save(first, "MPO", save_all=True, append_images=[second])
    assert close(decode(data).pixels, np.asarray(first), levels=2)


# -- orientation


def photographs() -> dict[str, Callable[[bytes], bytes]]:
    """Images of different modes, each saved with the EXIF block that it is given."""
    colour = Image.fromarray(smooth_pixels(5, 8, 3) + random_pixels(5, 8, 1) // 8)
    return {
        "jpeg": lambda exif: save(colour, "JPEG", exif=exif),
        "grey jpeg": lambda exif: save(colour.convert("L"), "JPEG", exif=exif),
        "png": lambda exif: save(colour, "PNG", exif=exif),
        "16 bit png": lambda exif: save(Image.fromarray(samples_of_16_bits(5, 8)), "PNG", exif=exif),
        "palette png": lambda exif: save(colour.quantize(8), "PNG", exif=exif),
        "webp": lambda exif: save(colour, "WEBP", lossless=True, exif=exif),
    }


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", photographs())
def test_exif_orientation_is_applied(name: str, orientation: int, endian: str) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[ORIENTATION] = orientation
    exif[0x010F] = "a maker"  # another entry before it
    data = photographs()[name](exif.tobytes())
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB" if image.mode == "P" else None))
    expected = upright >> 8 if upright.dtype == np.uint16 else upright
    assert np.array_equal(decode(data).pixels, np.atleast_3d(expected))


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif\0\0", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"nonsense", bytes(300)],
)
@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_a_damaged_exif_block_does_not_matter(name: str, exif: bytes) -> None:
    photograph = photographs()[name]
    data = photograph(exif if exif.startswith(b"Exif") or name != "jpeg" else b"Exif\0\0" + exif)
    assert np.array_equal(decode(data).pixels, decode(photograph(b"")).pixels)


def test_a_png_may_bear_texts_of_any_name() -> None:
    texts = chunk(b"tEXt", b"exif\0II*\0") + chunk(b"tEXt", b"compression\0" + b"1")
    assert decode(png(samples_of_16_bits(3, 3, 3), RGB, texts)).pixels.shape == (3, 3, 3)


# -- damage


def assert_decodes_or_is_refused(data: bytes) -> Picture | None:
    """Hold decode to its word: a picture or an ImageError, whatever the bytes."""
    try:
        picture = decode(data, limits=Limits(max_pixels=1_000_000))
    except ImageError:
        return None
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.ndim == 3
    assert picture.pixels.shape[2] in {1, 3}
    return picture


@formats
def test_truncated_anywhere(form: ImageFormat) -> None:
    data = FILES[form]
    for length in range(len(data)):
        picture = assert_decodes_or_is_refused(data[:length])
        assert picture is None or length >= len(data) - END_OF_FILE, f"{length} of {len(data)} bytes"


@formats
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_images(form: ImageFormat, changes: list[tuple[float, int]]) -> None:
    data = bytearray(FILES[form])
    for place, value in changes:
        data[int(place * len(data))] = value
    assert_decodes_or_is_refused(bytes(data))


@formats
@given(tail=st.binary(max_size=200), kept=st.integers(2, 60))
def test_random_bytes_behind_a_true_beginning(form: ImageFormat, tail: bytes, kept: int) -> None:
    assert_decodes_or_is_refused(FILES[form][:kept] + tail)


@given(data=st.binary(max_size=100))
def test_random_bytes(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


def test_empty() -> None:
    with pytest.raises(UnreadableImage, match="0 bytes"):
        decode(b"")


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_no_pixels_at_all(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImage):
        decode(png(np.zeros((size[1], size[0], 1), np.uint16), GREY))


# -- limits


@formats
def test_bytes_over_the_limit(form: ImageFormat) -> None:
    size = len(FILES[form])
    with pytest.raises(ImageTooLarge, match=f"{size} bytes; at most {size - 1}"):
        decode(FILES[form], limits=Limits(max_bytes=size - 1))
    decode(FILES[form], limits=Limits(max_bytes=size))


@formats
def test_pixels_over_the_limit(form: ImageFormat) -> None:
    with pytest.raises(ImageTooLarge, match="31 x 20 pixels; at most 619"):
        decode(FILES[form], limits=Limits(max_pixels=619))
    decode(FILES[form], limits=Limits(max_pixels=620))


def png_of(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data = FILES[ImageFormat.JPEG][:-2]  # with the end marker libjpeg would fill up the rest in grey
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def bmp_of(width: int, height: int) -> bytes:
    return bmp(width, height, 0, bytes(1000))


def webp_of(width: int, height: int) -> bytes:
    """Return the lossy kind."""
    data = save(Image.fromarray(SMALL), "WEBP")
    assert data[12:16] == b"VP8 "
    return data[:26] + struct.pack("<HH", width, height) + data[30:]


def lossless_webp_of(width: int, height: int) -> bytes:
    data = save(Image.fromarray(SMALL), "WEBP", lossless=True)
    assert data[12:16] == b"VP8L"
    return data[:21] + struct.pack("<I", (width - 1) | (height - 1) << 14) + data[25:]


def extended_webp_of(width: int, height: int) -> bytes:
    data = save(Image.fromarray(SMALL), "WEBP", exif=b"II*\0")
    assert data[12:16] == b"VP8X"
    return data[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[30:]


BOMBS = {
    "png": png_of(2**31 - 1, 2**31 - 1),
    "jpeg": jpeg_of(65_500, 65_500),
    "bmp": bmp_of(2**30, 2**30),
    "webp": webp_of(16_383, 16_383),
    "lossless webp": lossless_webp_of(16_384, 16_384),
    "extended webp": extended_webp_of(2**24, 2**7),
}

BOMB_SQUAD = """
import resource, sys
from pathlib import Path
from runtime.errors import ImageTooLarge
from runtime.images import Limits, decode
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20,) * 2)
for path in map(Path, sys.argv[1:]):
    try:
        decode(path.read_bytes(), limits=Limits(max_pixels=64_000_000))
    except ImageTooLarge:
        print(path.name)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str) -> None:
    with pytest.raises(ImageTooLarge, match="pixels"):
        decode(BOMBS[name])


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory the way of Linux")
def test_a_bomb_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    paths = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", BOMB_SQUAD, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == sorted(BOMBS)


DECODING = """
import io, sys
from PIL import Image
from runtime.images import decode
buffer = io.BytesIO()
Image.new(sys.argv[1], (10, 10)).save(buffer, "PNG")
decode(buffer.getvalue(), channels=3)  # loads what is loaded once
rows = Image.new(sys.argv[1], (4000, 4000))
buffer = io.BytesIO()
rows.save(buffer, "PNG", compress_level=1)
del rows
data = buffer.getvalue()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
def status(what):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(what)).split()[1])
before = status("VmRSS")
decode(data, channels=3)
print((status("VmHWM") - before) / 4000**2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures its memory the way of Linux")
@pytest.mark.parametrize(("mode", "limit"), [("RGB", 10), ("L", 11), ("I;16", 12), ("RGBA", 14), ("LA", 14)])
def test_to_decode_a_pixel_takes_few_bytes(mode: str, limit: float) -> None:
    """As docs/configuration.md says."""
    done = subprocess.run([sys.executable, "-c", DECODING, mode], capture_output=True, text=True, check=True)
    assert float(done.stdout) < limit + 0.5


@pytest.mark.parametrize("make", [png_of, jpeg_of, bmp_of, webp_of, lossless_webp_of, extended_webp_of])
def test_pillows_own_limit_is_not_in_the_way(make: Callable[[int, int], bytes]) -> None:
    """Pillow by itself warns over 89 million pixels and fails over 179."""
    with pytest.raises(UnreadableImage):  # it is cut short, but it is not too large
        decode(make(13_600, 13_600), limits=Limits(max_pixels=200_000_000))


def test_a_large_image_within_a_high_limit() -> None:
    data = save(Image.new("1", (10_000, 9_000), 1), "PNG")
    assert decode(data, limits=Limits(max_pixels=90_000_000)).pixels.shape == (9_000, 10_000, 1)


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    data = save(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnsupportedImage, match="scans"):
        decode(data[:-2] + last_scan * MAX_JPEG_SCANS + data[-2:])
    decode(data[:-2] + last_scan * (MAX_JPEG_SCANS // 2) + data[-2:])


@pytest.mark.parametrize("compression", [1, 2])
def test_a_run_length_bmp_is_refused(compression: int) -> None:
    with pytest.raises(UnsupportedImage, match="run-length"):
        decode(bmp(4, 2, compression, b"\4\1\0\0" * 2 + b"\0\1"))


# -- many at once


def test_threads_see_what_one_thread_sees() -> None:
    damaged = [data[: len(data) // 2] for data in FILES.values()]
    odd = [photograph(b"Exif\0\0II*\0\x08\0\0\0\xff\xff") for photograph in photographs().values()]
    files = [*FILES.values(), *damaged, *odd] * 8

    def outcome(data: bytes) -> bytes | None:
        picture = assert_decodes_or_is_refused(data)
        return picture.pixels.tobytes() if picture else None

    filters = list(warnings.filters)
    alone = [outcome(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, files)) == alone
    assert list(warnings.filters) == filters


# -- files


def test_read_decodes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(encode(SMALL, ImageFormat.PNG))
    assert np.array_equal(read(path).pixels, SMALL)
    assert read(path, channels=1).pixels.shape == (7, 9, 1)


@pytest.mark.parametrize(
    ("data", "limits", "error"),
    [
        (b"", Limits(), UnreadableImage),
        (b"GIF89a", Limits(), UnsupportedImage),
        (FILES[ImageFormat.PNG], Limits(max_bytes=10), ImageTooLarge),
        (FILES[ImageFormat.PNG], Limits(max_pixels=10), ImageTooLarge),
        (FILES[ImageFormat.PNG][:60], Limits(), UnreadableImage),
    ],
)
def test_read_names_the_file(tmp_path: Path, data: bytes, limits: Limits, error: type[ImageError]) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(data)
    with pytest.raises(error, match=r"frame\.png: the "):
        read(path, limits=limits)


# -- writing


@formats
@given(pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))))
def test_what_is_written_is_read(form: ImageFormat, pixels: Pixels) -> None:
    picture = decode(encode(pixels, form), channels=pixels.shape[2], claimed=form)
    assert picture.pixels.shape == pixels.shape
    if form in {ImageFormat.PNG, ImageFormat.BMP}:
        assert np.array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("form", [ImageFormat.JPEG, ImageFormat.WEBP])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_stay_close(form: ImageFormat, channels: int) -> None:
    pixels = smooth_pixels(48, 64, channels)
    assert close(decode(encode(pixels, form), channels=channels).pixels, pixels, levels=6)
    noisy = random_pixels(48, 64, channels)
    assert len(encode(noisy, form, quality=20)) < len(encode(noisy, form, quality=95)) / 2


@pytest.mark.parametrize(("form", "side"), [(ImageFormat.WEBP, 16_384), (ImageFormat.JPEG, 65_501)])
@pytest.mark.parametrize("tall", [False, True])
def test_a_format_that_cannot_hold_the_image(form: ImageFormat, side: int, *, tall: bool) -> None:
    with pytest.raises(ImageTooLarge, match=f"{form.value.name} holds at most {side - 1}"):
        encode(np.zeros((side, 1, 1) if tall else (1, side, 3), np.uint8), form)
    encode(np.zeros((1, side - 1, 1), np.uint8), form)


# -- scaling


def test_resize_leaves_a_frame_of_that_size_alone() -> None:
    assert resize(SMALL, 7, 9) is SMALL


@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_averages_areas(channels: int) -> None:
    pixels = random_pixels(12, 20, channels)
    means = pixels.reshape(3, 4, 5, 4, channels).mean(axis=(1, 3))
    assert close(resize(pixels, 3, 5), np.rint(means).astype(np.uint8), levels=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_growing_interpolates(channels: int) -> None:
    pixels = random_pixels(6, 5, channels)
    grown = resize(pixels, 18, 15)
    assert grown.shape == (18, 15, channels)
    assert np.array_equal(grown[1::3, 1::3], pixels)  # the old centres
    assert grown.min() >= pixels.min()
    assert grown.max() <= pixels.max()


@given(
    pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]))),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
)
def test_resize_to_any_size(pixels: Pixels, height: int, width: int) -> None:
    scaled = resize(pixels, height, width)
    assert scaled.shape == (height, width, pixels.shape[2])
    assert scaled.dtype == np.uint8
    assert scaled.min() >= pixels.min()
    assert scaled.max() <= pixels.max()


def test_opencv_reads_what_we_write() -> None:
    """An independent reader sees the same colours in the same order."""
    seen = cv2.imdecode(np.frombuffer(encode(SMALL, ImageFormat.PNG), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(np.asarray(seen)[..., ::-1], SMALL)


# -- decoding to a size


def landscape(height: int, width: int) -> Pixels:
    """Return a picture with the spectrum of photographs: the finer the weaker."""
    rng = np.random.default_rng(0)
    octaves = [rng.normal(0, 20, (2**power, 2**power, 3)) for power in range(1, 8)]
    layers = [cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) for octave in octaves]
    return np.clip(128 + sum(layers), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [Size(64, 96), Size(200, 300), Size(700, 1000), Size(33, 21)])
def test_a_jpeg_decoded_to_a_size_is_the_whole_one_scaled(channels: int, size: Size) -> None:
    data = encode(landscape(600, 900), ImageFormat.JPEG)
    whole, fitted = decode(data, channels=channels), decode(data, channels=channels, fit=size)
    assert fitted.pixels.shape == (*size, channels)
    assert (fitted.height, fitted.width) == (whole.height, whole.width) == (600, 900)
    apart = np.abs(resize(whole.pixels, *size).astype(int) - fitted.pixels)
    assert apart.max() <= 3
    assert apart.mean() < 0.5


def test_any_other_format_decoded_to_a_size_is_exactly_the_whole_one_scaled() -> None:
    data = encode(landscape(300, 200), ImageFormat.PNG)
    assert np.array_equal(decode(data, fit=Size(40, 50)).pixels, resize(decode(data).pixels, 40, 50))


def test_the_size_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = io.BytesIO()
    Image.fromarray(landscape(400, 800)).save(buffer, "JPEG", exif=exif)
    fitted = decode(buffer.getvalue(), fit=Size(80, 40))
    assert (fitted.height, fitted.width) == (800, 400)
    whole = resize(decode(buffer.getvalue()).pixels, 80, 40)
    assert np.abs(whole.astype(int) - fitted.pixels).max() <= 3


@pytest.mark.parametrize("fit", [None, Size(4, 6)], ids=str)
@pytest.mark.parametrize("path", CRASHERS, ids=lambda path: str(path.name))
def test_what_once_got_through(path: Path, fit: Size | None) -> None:
    limits = Limits(max_bytes=2**20, max_pixels=1024)
    try:
        picture = decode(path.read_bytes(), limits=limits, fit=fit)
    except ImageError:
        return
    height, width, _ = picture.pixels.shape  # not what the header says: it may lie
    assert (height, width) == (fit or (picture.height, picture.width))
    assert height * width <= limits.max_pixels
