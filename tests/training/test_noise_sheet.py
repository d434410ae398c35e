"""The picture of all noises: one tile a piece, from frames of any size."""

import numpy as np
import pytest

from training.noise_sheet import CAPTION, COLUMNS, PIECES, SIDE, ZOOM, noise_sheet
from training.pictures import MARGIN


@pytest.mark.parametrize(("height", "width"), [(120, 200), (40, 97), (25, 30)])
def test_a_tile_for_every_piece(height: int, width: int) -> None:
    sheet = noise_sheet(np.full((height, width, 3), 128, np.uint8), 0)
    rows, side = len(PIECES) // COLUMNS, (min(height, SIDE), min(width, SIDE))
    tall, wide = side[0] * ZOOM + CAPTION + MARGIN, side[1] * ZOOM + MARGIN
    assert sheet.shape == (rows * tall - MARGIN, COLUMNS * wide - MARGIN, 3)
    for index in range(len(PIECES)):
        top, left = index // COLUMNS * tall + CAPTION, index % COLUMNS * wide
        assert sheet[top : top + side[0] * ZOOM, left : left + side[1] * ZOOM].std() > 1, list(PIECES)[index]


def test_the_seed_decides() -> None:
    frame = np.full((20, 20, 3), 128, np.uint8)
    assert np.array_equal(noise_sheet(frame, 1), noise_sheet(frame, 1))
    assert not np.array_equal(noise_sheet(frame, 1), noise_sheet(frame, 2))
