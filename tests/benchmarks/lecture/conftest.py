"""A course on a few drawn digits and frames, with models of a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.lecture.course import Course
from runtime.images import ImageFormat, Pixels, encode
from tests.training.tiny import draw

DIGITS, TEST = 240, 60


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a folder laid out as the data sets are: two sorts of squares for digits, four clips for footage."""
    root = tmp_path / "data"
    (root / "mnist").mkdir(parents=True)
    arrays: dict[str, Pixels] = {}
    for part, count in (("train", DIGITS), ("test", TEST)):
        pixels = draw(count, height=28, width=28, seed=count)[..., 0]
        labels = np.arange(count, dtype=np.uint8) % 2
        pixels[labels == 1, 18:24, 4:24] = 255  # a bar below, in every second one
        arrays |= {f"x_{part}": pixels, f"y_{part}": labels}
    np.savez(root / "mnist" / "mnist.npz", allow_pickle=False, **arrays)
    for clip in range(4):
        folder = root / "ped2" / "train" / f"{clip:02d}"
        folder.mkdir(parents=True)
        for index, pixels in enumerate(draw(40, height=64, width=96, seed=clip)):
            (folder / f"{index:03d}.png").write_bytes(encode(pixels, ImageFormat.PNG))
    return root


@pytest.fixture
def course(data: Path, tmp_path: Path) -> Course:
    return Course(data, tmp_path / "runs" / "quick", quick=True)
