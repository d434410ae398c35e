"""What the recipe is compared with, on a surface where the defect is plain to see."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.inspection.detectors import Detector, MemoryBank, PixelPCA
from benchmarks.inspection.sets import HELD_OUT, write

CAST = HELD_OUT[1]


@pytest.mark.parametrize("detector", [PixelPCA(), MemoryBank("random")], ids=lambda detector: detector.name)
def test_a_black_hole_scores_higher_and_is_found(detector: Detector, tmp_path: Path) -> None:
    write(tuple(CAST.sample((0, i), damaged=False) for i in range(16)), tmp_path / "normal")
    detector.fit(tmp_path / "normal", tmp_path)
    normal = CAST.sample((1, 0), damaged=False).pixels.repeat(3, axis=2)
    damaged = normal.copy()
    damaged[: normal.shape[0] // 4, : normal.shape[1] // 4] = 0
    answer = detector.answer(damaged)
    assert answer.score > detector.answer(normal).score
    row, column = np.unravel_index(answer.anomaly_map.argmax(), answer.anomaly_map.shape)
    height, width = answer.anomaly_map.shape
    assert row < 0.3 * height
    assert column < 0.3 * width
