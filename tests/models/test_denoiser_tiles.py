"""No seams: what a shipped denoiser makes of a frame in tiles is, byte for byte, what it makes of the whole."""

import numpy as np
import pytest

from runtime.images import Pixels
from runtime.model import Model
from runtime.tiles import tiles
from tests.models.scenes import drawn, tiled, with_noise

LEVEL = np.asarray([20], np.float32)


def run(model: Model, frame: Pixels) -> Pixels:
    found = model.run(np.ascontiguousarray(frame)[None], LEVEL).reconstruction
    assert found is not None
    return np.asarray(found[0])


@pytest.mark.parametrize("size", [(517, 389), (77, 1101)], ids=str)
def test_tiles_together_equal_the_whole(denoiser: Model, size: tuple[int, int]) -> None:
    """On sizes that no stride divides, with tiles as small as the receptive field lets them be."""
    frame = with_noise(tiled(drawn("dead_leaves"), *size), 20).frame
    cover = tiles(*size, denoiser.manifest.input, max_pixels=1)
    assert len(cover) >= 6
    assert any(tile.rows.start > 0 or tile.columns.start > 0 for tile in cover)
    together = np.zeros_like(frame)
    for tile in cover:
        tile.paste(run(denoiser, tile.cut(frame)), together)
    assert np.array_equal(together, run(denoiser, frame))
