"""Nearest codes, the moving averages that they are, the revival of dead ones, and the gradient of rounding."""

import pytest
import torch

from training.codebook import Codebook, straight_through


def book(codes: list[list[float]], decay: float = 0.9) -> Codebook:
    """Return a codebook in which every code stands for ten vectors."""
    made = Codebook(len(codes), len(codes[0]), decay)
    made.codes.copy_(torch.tensor(codes))
    made.counts.fill_(10)
    made.sums.copy_(10 * made.codes)
    return made


def grid(vectors: list[list[float]]) -> torch.Tensor:
    """Return [1, D, 1, w]."""
    return torch.tensor(vectors).T[None, :, None, :]


def test_the_nearest_code_is_found_and_looked_up() -> None:
    codebook, vectors = Codebook(7, 5, 0.9), torch.randn(3, 5, 4, 6)
    indices = codebook.nearest(vectors)
    apart = (vectors[:, None] - codebook.codes[None, :, :, None, None]).norm(dim=2)  # [B, K, h, w]
    assert torch.equal(indices, apart.argmin(1))
    found = codebook.look_up(indices)
    assert found.shape == vectors.shape
    assert torch.equal(found[1, :, 2, 3], codebook.codes[indices[1, 2, 3]])


def test_a_code_moves_to_the_average_of_its_vectors() -> None:
    """By hand: N = 0.9 * 10 + 0.1 * 2, m = 0.9 * 10 e + 0.1 (sum of both)."""
    codebook, vectors = book([[0.0, 0.0], [4.0, 0.0]]), grid([[1.0, 0.0], [0.0, 1.0], [4.0, 2.0]])
    codebook.follow(vectors, codebook.nearest(vectors))
    assert torch.allclose(codebook.codes[0], torch.tensor([0.1, 0.1]) / 9.2)
    assert torch.allclose(codebook.codes[1], (9 * torch.tensor([4.0, 0.0]) + 0.1 * torch.tensor([4.0, 2.0])) / 9.1)


def test_codes_that_are_followed_long_enough_are_the_means_of_clusters() -> None:
    codebook = Codebook(3, 2, 0.8)
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    for _ in range(200):
        vectors = (centres.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 2)).T[None, :, None]
        codebook.follow(vectors, codebook.nearest(vectors))
    apart = torch.cdist(codebook.codes, centres)
    assert (apart.min(0).values < 0.1).all(), "every cluster has its code, however the codes began"


def test_after_the_first_batch_every_code_is_among_its_vectors() -> None:
    """Nearly all were dead, and begin at one of them; a code that many were nearest to is their mean."""
    codebook, vectors = Codebook(40, 3, 0.99), torch.randn(2, 3, 4, 4) + 10
    codebook.follow(vectors, codebook.nearest(vectors))
    rows = vectors.movedim(1, -1).flatten(0, 2)
    assert (codebook.codes >= rows.min(0).values - 1e-3).all()
    assert (codebook.codes <= rows.max(0).values + 1e-3).all()
    apart = (codebook.codes[:, None] - rows).norm(dim=2)
    assert (apart.min(1).values < 1e-4).sum() >= 35


def test_a_dead_code_starts_again_and_a_living_one_does_not() -> None:
    codebook = book([[0.0, 0.0], [1000.0, 0.0]], decay=0.5)
    vectors = torch.randn(1, 2, 1, 40)
    nearest = codebook.nearest(vectors)
    for step in range(12):
        codebook.follow(vectors, nearest)  # all go to the first
        if codebook.codes[1, 0] < 100:
            break
        assert codebook.counts[1] == pytest.approx(10 * 0.5 ** (step + 1))
    assert codebook.counts[1] == 20, "an even share of 40 vectors"
    assert (vectors[0, :, 0].T - codebook.codes[1]).norm(dim=1).min() < 1e-5
    mean = vectors[0, :, 0].mean(1)
    assert torch.allclose(codebook.codes[0], mean, atol=0.05), "and not where a vector happens to be"


def test_the_gradient_of_the_codes_is_that_of_the_vectors() -> None:
    vectors, codes = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    rounded = straight_through(vectors, codes)
    assert torch.allclose(rounded, codes, atol=1e-6)
    slopes = torch.randn(2, 3)
    (rounded * slopes).sum().backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, slopes)
