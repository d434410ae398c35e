"""A camera's folder of drawn frames, and one comparison of two kinds that the tests share."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runtime.images import ImageFormat, encode
from tests.training.tiny import draw
from training.compare.ladder import Ladder, climb
from training.compare.order import Order
from training.compare.parts import Parts, read_parts

CLIPS, LENGTH = 8, 16


def write_clips(folder: Path, clips: int = CLIPS, length: int = LENGTH) -> Path:
    """Write clips of a bright square that walks over a gradient."""
    for clip in range(clips):
        (folder / f"{clip:02d}").mkdir(parents=True)
        for index, pixels in enumerate(draw(length, seed=clip, height=32, width=48)):
            (folder / f"{clip:02d}" / f"{index:03d}.png").write_bytes(encode(pixels, ImageFormat.PNG))
    return folder


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of eight clips; not to be changed."""
    return write_clips(tmp_path_factory.mktemp("footage") / "door")


@pytest.fixture(scope="session")
def order(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    """Ask for two kinds that are quickly trained, and one that does not score."""
    out = tmp_path_factory.mktemp("compared") / "out"
    kinds = ("contractive", "denoising", "plain")
    return Order(footage, out, kinds, false_alarm_rate=0.1, steps=6, pixels=1024)


@pytest.fixture(scope="session")
def parts(order: Order) -> Parts:
    return read_parts(order)


@pytest.fixture(scope="session")
def ladder(order: Order, parts: Parts) -> Ladder:
    """Train and measure; it takes seconds, so the modules that use it share an xdist group."""
    torch.set_num_threads(1)
    return climb(order, parts)


@pytest.fixture
def kept(ladder: Ladder, tmp_path: Path) -> Order:
    """Give an order whose folder is a copy of what the comparison has kept."""
    return replace(ladder.order, out=Path(shutil.copytree(ladder.order.out, tmp_path / "out")))
