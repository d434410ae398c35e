"""Cells of motion, and a network that learns which part of a clip is played faster."""

import pytest
import torch
from torch import Tensor

from training.speediness import LOOKS, MOMENTS, MOTION, PLANES, SHARE, SPEED, Examples, Grid, Speediness, fit

ROWS, COLUMNS = 12, 16
GRID = Grid(shrink=2, cell=4)


def gliding(columns: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames of chance, flow that is the same everywhere in each of two fields, and a grey scene."""
    chance = torch.rand(1, 3, 4 * ROWS, 4 * COLUMNS, 1, generator=torch.Generator().manual_seed(0))
    ends = 255 * chance.round().to(torch.uint8)
    flow = torch.zeros(1, 2, 4 * ROWS, 4 * COLUMNS, 2)
    flow[:, 0, ..., 0], flow[:, 1, ..., 0] = columns, 2 * columns
    return ends, flow, torch.full((1, 1, 2 * ROWS, 2 * COLUMNS), 0.25)


def walks(pace: float, count: int = 24) -> Tensor:
    """Let everything walk, farther from the camera more slowly, [n, PLANES, rows, columns]."""
    cells = torch.zeros(count, PLANES, ROWS, COLUMNS)
    speed = pace * torch.linspace(1, 3, ROWS)[:, None] * (0.9 + 0.2 * torch.rand(count, 1, 1))
    for moment in range(MOMENTS):
        cells[:, moment * MOTION + SPEED] = cells[:, moment * MOTION + 2] = speed
        cells[:, moment * MOTION + SHARE] = 1
    return cells


def test_cells_are_means_of_what_changed() -> None:
    ends, flow, scene = gliding(1.5)
    cells = GRID.cells(ends, flow, 1, scene)
    assert cells.shape == (1, 1, PLANES, ROWS, COLUMNS)
    now, before, looks = torch.split(cells[0, 0], [MOTION, MOTION, LOOKS])
    for motion, speed in ((now, 3), (before, 1.5)):
        assert torch.allclose(motion[SPEED], speed * motion[SHARE])
        assert torch.allclose(motion[2], motion[SPEED])
        assert not motion[3].any()
        assert 0.3 < motion[SHARE].mean() < 0.7  # every other pixel is the same by chance
    assert looks[0].mean() == pytest.approx(0.25, abs=0.05)
    assert (looks[1] >= looks[0].abs() - 1e-6).all()


def test_what_keeps_its_brightness_has_not_moved() -> None:
    ends, flow, scene = gliding(1.5)
    assert not GRID.cells(torch.full_like(ends, 128), flow, 1, scene)[:, :, : MOMENTS * MOTION].any()


@pytest.mark.parametrize("size", [(9, 11), (8, 12)])
def test_cells_at_the_border_are_smaller(size: tuple[int, int]) -> None:
    ends, flow, scene = gliding(1)
    height, width = size
    halved = -(-height // 2), -(-width // 2)
    ends, flow = ends[:, :, :height, :width], flow[:, :, :height, :width]
    cells = GRID.cells(ends, flow, 1, scene[..., : halved[0], : halved[1]])
    assert cells.shape[-2:] == (-(-height // 4), -(-width // 4))


def test_it_learns_what_is_faster_and_where() -> None:
    torch.manual_seed(0)
    network = Speediness(8, 1)
    fit(network, Examples(walks(1), torch.stack([walks(1.5), walks(2)], 1)), 250)
    mixed = walks(1)
    mixed[..., 6:] = walks(2)[..., 6:]
    with torch.no_grad():
        normal, faster, both = (network(cells).mean((0, 1)) for cells in (walks(1), walks(2), mixed))
    assert normal.max() < 0 < faster.min()
    assert both[:2].max() < 0 < both[-3:].min()


def test_the_same_examples_teach_the_same() -> None:
    examples = Examples(walks(1), walks(2)[:, None])
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        network = Speediness(4, 1)
        fit(network, examples, 5)
        found.append(network(examples.normal))
    assert torch.equal(*found)


def test_not_to_learn_leaves_it_as_it_is() -> None:
    network, cells = Speediness(4, 1), walks(1)
    before = network(cells)
    fit(network, Examples(cells, walks(2)[:, None]), 0)
    assert before.shape == (len(cells), ROWS // 2, COLUMNS // 2)
    assert torch.equal(network(cells), before)
