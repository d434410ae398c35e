"""One size for stills of many sizes."""

from pathlib import Path

import numpy as np
import pytest

from runtime.images import ImageFormat, encode
from tests.training.tiny import recipe
from training.errors import ConfigError, DataError
from training.frame_size import MULTIPLE, frame_size, with_frame_size

FREE = {"height": None, "width": None, "pixels": 10_000}


def write(folder: Path, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir()
    for index, (height, width) in enumerate(sizes):
        pixels = np.full((height, width, 1), 100, np.uint8)
        (folder / f"{index}.png").write_bytes(encode(pixels, ImageFormat.PNG))


@pytest.mark.parametrize("ratio", [0.1, 0.4, 1.0, 1.7, 12.0])
def test_sizes_are_multiples_near_the_pixels_and_the_proportions_asked_for(ratio: float) -> None:
    height, width = frame_size(100_000, ratio)
    assert height % MULTIPLE == width % MULTIPLE == 0
    assert height * width == pytest.approx(100_000, rel=0.2)
    assert height / width == pytest.approx(ratio, rel=0.35)


def test_the_smallest_size_is_one_multiple() -> None:
    assert frame_size(1, 1) == (MULTIPLE, MULTIPLE)


def test_the_middle_frame_says_what_is_tall(tmp_path: Path) -> None:
    write(tmp_path / "frames", [(40, 20), (60, 30), (20, 60)])
    sized = with_frame_size(recipe("convolutional", data=FREE), tmp_path).data
    assert (sized.height, sized.width, sized.pixels) == (128, 64, None)


def test_a_recipe_that_names_its_size_keeps_it(tmp_path: Path) -> None:
    chosen = recipe("convolutional")
    assert with_frame_size(chosen, tmp_path) is chosen


def test_a_folder_without_readable_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="no readable frame in frames"):
        with_frame_size(recipe("convolutional", data=FREE), tmp_path)


def test_pixels_beside_a_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="give pixels, or height and width"):
        recipe("convolutional", data={"pixels": 10_000})


def test_a_kind_for_any_size_needs_no_pixels() -> None:
    with pytest.raises(ConfigError, match="takes frames of any size"):
        recipe("denoising", data={"pixels": 10_000})
