"""Tiles: every pixel once, on the grid of the whole frame, and together the same as the whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.devices import Device
from runtime.images import Pixels
from runtime.manifest import FrameInput
from runtime.model import Model
from runtime.tiles import Span, Tile, tiles
from tests.model_folders import write_denoiser

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))
GEOMETRIES = st.builds(
    FrameInput, channels=st.just(1), stride=st.sampled_from([1, 2, 3, 8, 16]), receptive_field=st.integers(0, 40)
)
MAX_PIXELS = st.integers(1, 40_000)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory, cpu: Device) -> Model:
    folder: Path = tmp_path_factory.mktemp("models") / "denoiser"
    return Model.open(write_denoiser(folder, channels=1), cpu)


def denoise(model: Model, frame: Pixels) -> Pixels:
    found = model.run(frame[None], np.asarray([25], np.float32)).reconstruction
    assert found is not None
    return np.asarray(found[0])


def denoise_by_tiles(model: Model, frame: Pixels, geometry: FrameInput, max_pixels: int) -> Pixels:
    height, width, _ = frame.shape
    result = np.zeros_like(frame)
    for tile in tiles(height, width, geometry, max_pixels):
        tile.paste(denoise(model, np.ascontiguousarray(tile.cut(frame))), result)
    return result


@given(size=SIZES, geometry=GEOMETRIES, max_pixels=MAX_PIXELS)
def test_tiles_own_every_pixel_once(size: tuple[int, int], geometry: FrameInput, max_pixels: int) -> None:
    owners = np.zeros((*size, 1), np.uint8)
    for tile in tiles(*size, geometry, max_pixels):
        owners[tile.rows.owned, tile.columns.owned] += 1
    assert (owners == 1).all()


@given(size=SIZES, geometry=GEOMETRIES, max_pixels=MAX_PIXELS)
def test_a_tile_reads_all_that_its_pixels_look_at(size: tuple[int, int], geometry: FrameInput, max_pixels: int) -> None:
    """And begins and ends where a cell of the down-sampling grid does, so that only the frame's edge is padded."""
    for tile in tiles(*size, geometry, max_pixels):
        for span, length in zip((tile.rows, tile.columns), size, strict=True):
            assert span.start % geometry.stride == 0
            assert 0 <= span.start <= max(0, span.own_start - geometry.receptive_field)
            assert min(length, span.own_stop + geometry.receptive_field) <= span.stop <= length
            assert span.stop % geometry.stride == 0 or span.stop == length


@given(size=SIZES, geometry=GEOMETRIES, max_pixels=MAX_PIXELS)
def test_tiles_are_about_as_large_as_allowed(size: tuple[int, int], geometry: FrameInput, max_pixels: int) -> None:
    """A tile outgrows the limit only where the overlap alone would, and by less than a stride."""
    overlap = geometry.receptive_field + geometry.stride - 1
    allowed = max(int(max_pixels**0.5), 3 * overlap, 2 * overlap + geometry.stride)
    found = tiles(*size, geometry, max_pixels)
    if len(found) > 1:
        for tile in found:
            assert tile.rows.stop - tile.rows.start < allowed + geometry.stride
            assert tile.columns.stop - tile.columns.start < allowed + geometry.stride


@given(size=SIZES, geometry=GEOMETRIES)
def test_a_frame_that_fits_is_one_tile(size: tuple[int, int], geometry: FrameInput) -> None:
    height, width = size
    whole = Tile(Span(0, height, 0, height), Span(0, width, 0, width))
    assert tiles(height, width, geometry, height * width) == [whole]


def test_cut_and_paste() -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    tile = Tile(rows=Span(0, 3, 1, 2), columns=Span(2, 6, 3, 5))
    assert np.array_equal(tile.cut(frame), frame[0:3, 2:6])
    result = np.zeros_like(frame)
    tile.paste(tile.cut(frame), result)
    assert np.array_equal(result[1:2, 3:5], frame[1:2, 3:5])
    assert np.count_nonzero(result) == 2


@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), max_pixels=st.integers(1, 900), seed=st.integers(0, 9))
def test_tiles_together_equal_the_whole(denoiser: Model, size: tuple[int, int], max_pixels: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (*size, 1), np.uint8)
    geometry = denoiser.manifest.input
    assert np.array_equal(denoise_by_tiles(denoiser, frame, geometry, max_pixels), denoise(denoiser, frame))


@pytest.mark.parametrize("change", [{"receptive_field": 0}, {"receptive_field": 1, "stride": 1}])
def test_with_less_overlap_or_off_the_grid_there_would_be_seams(denoiser: Model, change: dict[str, int]) -> None:
    """The denoiser does tell: the test above does not pass by itself."""
    frame = np.random.default_rng(0).integers(0, 256, (61, 47, 1), np.uint8)
    geometry = denoiser.manifest.input.model_copy(update=change)
    assert not np.array_equal(denoise_by_tiles(denoiser, frame, geometry, 225), denoise(denoiser, frame))
