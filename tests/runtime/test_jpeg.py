"""Plain JPEGs: pixel by pixel what Pillow makes of them, at every size and sort; the others are left to it."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.images import Pixels
from runtime.jpeg import PlainJpeg

SORTS: tuple[dict[str, Any], ...] = (
    {}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 20},
)  # fmt: skip


def photograph(height: int, width: int, channels: int) -> Pixels:
    rng = np.random.default_rng(height)
    layers = [cv2.resize(rng.normal(0, 30, (n, n, channels)), (width, height)) for n in (2, 5, 11, 29)]
    return np.clip(128 + sum(layer.reshape(height, width, channels) for layer in layers), 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, **options: Any) -> bytes:  # noqa: ANN401 - as Pillow has it
    return saved(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), **options)


def saved(image: Image.Image, **options: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes, channels: int, at_least: tuple[int, int] | None) -> Pixels:
    mode = "L" if channels == 1 else "RGB"
    with Image.open(io.BytesIO(data)) as image:
        image.draft(mode, at_least and at_least[::-1])
        return np.atleast_3d(np.asarray(image.convert(mode)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("at_least", [None, (1, 1), (17, 30), (40, 52), (60, 70), (90, 90), (600, 600)])
@pytest.mark.parametrize("options", SORTS, ids=str)
def test_it_sees_what_pillow_sees(channels: int, at_least: tuple[int, int] | None, options: dict[str, Any]) -> None:
    for size in [(1, 1), (7, 9), (61, 143), (120, 160)]:
        for held in (1, 3):
            data = jpeg(photograph(*size, held), **options)
            plain = PlainJpeg.find(data)
            assert plain is not None
            assert (plain.height, plain.width, plain.grey) == (*size, held == 1)
            found = plain.decode(channels, at_least)
            assert found is not None
            assert np.array_equal(found, by_pillow(data, channels, at_least))


def test_what_may_have_to_be_turned_is_left_to_others() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert PlainJpeg.find(jpeg(photograph(8, 8, 3), exif=exif)) is None


def test_other_colours_are_left_to_others() -> None:
    assert PlainJpeg.find(saved(Image.fromarray(photograph(8, 8, 3)).convert("CMYK"))) is None


def test_damage_is_left_to_others() -> None:
    data = jpeg(photograph(64, 64, 3))
    assert PlainJpeg.find(data[:20]) is None
    cut = PlainJpeg.find(data[:-200])
    assert cut is not None
    assert cut.decode(3, None) is None


@pytest.mark.parametrize("said", [(1, 1), (20, 20), (63, 64), (64, 65), (128, 128)])
def test_no_more_is_decoded_than_the_header_was_understood_to_say(said: tuple[int, int]) -> None:
    found = PlainJpeg(jpeg(photograph(64, 64, 3)), *said, grey=False).decode(3, None)
    assert found is None or found.shape == (*said, 3)


def test_threads_see_what_one_thread_sees() -> None:
    files = [jpeg(photograph(50 + n, 60, 3)) for n in range(20)]

    def decoded(data: bytes) -> Pixels:
        plain = PlainJpeg.find(data)
        assert plain is not None
        found = plain.decode(3, None)
        assert found is not None
        return found

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decoded, files * 4))
    assert all(np.array_equal(a, decoded(data)) for a, data in zip(together, files * 4, strict=True))
