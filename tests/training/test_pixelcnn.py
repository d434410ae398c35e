"""What a place may see, that probabilities are ones, and that what is drawn is distributed as they say."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from training.pixelcnn import PixelCnn

GRID = (5, 6)
SYMBOLS = 4


@pytest.fixture
def prior() -> PixelCnn:
    return wild(PixelCnn(SYMBOLS, GRID, 6, 3))


def wild(prior: PixelCnn) -> PixelCnn:
    """Give it weights far from an untrained one's, so that every place depends on what it sees."""
    for weight in prior.parameters():
        weight.data = 0.6 * torch.randn_like(weight)
    return prior.eval()


def logits(prior: PixelCnn, grids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = prior(grids)
    return found


@pytest.mark.parametrize("place", [0, 7, 16, 29])
def test_a_symbol_is_seen_by_later_places_only(prior: PixelCnn, place: int) -> None:
    grids = torch.randint(SYMBOLS, (8, *GRID))
    changed = grids.flatten(1).clone()
    changed[:, place] = (changed[:, place] + 1) % SYMBOLS
    before, after = logits(prior, grids).flatten(2), logits(prior, changed.reshape(grids.shape)).flatten(2)
    moved = (before - after).abs().amax((0, 1)) > 0
    assert not moved[: place + 1].any(), "it sees itself, or what is read later"
    assert moved[place + 1 :].any() or place == GRID[0] * GRID[1] - 1


def test_no_earlier_place_is_out_of_sight() -> None:
    """Stacks of masked squares have a blind spot above to the right; two stacks have none within their reach."""
    prior = wild(PixelCnn(SYMBOLS, (4, 5), 6, 4))
    grids = torch.randint(SYMBOLS, (16, 4, 5))
    before = logits(prior, grids)[:, :, 3, 2]
    for row, column in itertools.product(range(4), range(5)):
        changed = grids.clone()
        changed[:, row, column] = (changed[:, row, column] + 1) % SYMBOLS
        seen = bool((logits(prior, changed)[:, :, 3, 2] != before).any())
        assert seen == (5 * row + column < 5 * 3 + 2), (row, column)


def test_the_probabilities_of_all_grids_sum_to_one() -> None:
    prior = wild(PixelCnn(2, (2, 3), 5, 2))
    grids = torch.tensor(list(itertools.product(range(2), repeat=6))).reshape(-1, 2, 3)
    with torch.no_grad():
        total = (-prior.negative_log_prob(grids).sum((1, 2))).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_draws_are_distributed_as_the_probabilities_say() -> None:
    """The likelihood of a grid is how often it is drawn."""
    prior = wild(PixelCnn(2, (2, 2), 5, 2))
    grids = torch.tensor(list(itertools.product(range(2), repeat=4))).reshape(-1, 2, 2)
    count = 40_000
    with torch.no_grad():
        expected = (-prior.negative_log_prob(grids).sum((1, 2))).exp()
        drawn = prior.draw(torch.rand(count, 4))
    numbers = (drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
    found = torch.bincount(numbers, minlength=16) / count
    assert (found - expected).abs().max() < 0.012


def test_a_number_falls_into_the_share_of_its_symbol(prior: PixelCnn) -> None:
    """Place by place: cumulative probability before the symbol <= number < cumulative probability with it."""
    numbers = torch.rand(6, 30)
    with torch.no_grad():
        grids = prior.draw(numbers)
        cumulative = prior(grids).flatten(2).softmax(1).cumsum(1).movedim(1, 2)  # [B, places, K]
    chosen = grids.flatten(1)[..., None]
    above = cumulative.gather(2, chosen)[..., 0]
    below = torch.where(chosen > 0, cumulative.gather(2, (chosen - 1).clamp(min=0)), 0)[..., 0]
    assert (below <= numbers + 1e-6).all()
    assert (numbers < above + 1e-6).all()


def test_numbers_at_the_ends_draw_symbols_too(prior: PixelCnn) -> None:
    with torch.no_grad():
        assert prior.draw(torch.zeros(1, 30)).eq(0).all()
        assert prior.draw(torch.ones(1, 30)).eq(SYMBOLS - 1).all()


def test_it_learns_what_stands_where() -> None:
    """Stripes that begin with either symbol cost one bit in all; without the prior every place costs one."""
    torch.manual_seed(0)
    stripes = torch.arange(6).repeat(4, 1)[None] % 2
    grids = torch.cat([stripes, 1 - stripes]).repeat(8, 1, 1)
    prior = PixelCnn(2, (4, 6), 8, 2)
    optimiser = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(120):
        surprise = prior.negative_log_prob(grids).sum((1, 2)).mean()
        optimiser.zero_grad()
        surprise.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(surprise.detach()) == pytest.approx(math.log(2), abs=0.1)
