"""What makes errors comparable: moments, shrinkage, whitening, and what is usual where."""

import pytest
import torch
from torch import Tensor

from training.whitening import LEAST_SHRINKAGE, Level, Moments, shrinkage, worst


def rows(count: int, seed: int = 0) -> Tensor:
    """Return correlated rows of three columns whose scales are far apart."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.5, 0.0], [0.0, 0.01, 0.02]])
    return torch.randn(count, 3, generator=generator) @ mixing.T + torch.tensor([5.0, -1.0, 0.3])


def level(features: Tensor) -> Level:
    made = Level(features.shape[1], *features.shape[2:])
    moments = Moments(features.shape[1])
    moments.add(features.movedim(1, -1).flatten(0, -2))
    made.fit(moments)
    return made


def grid(count: int, seed: int = 0, side: int = 12) -> Tensor:
    """Return [count, 3, side, side]."""
    return rows(count * side * side, seed).reshape(count, side, side, 3).movedim(-1, 1)


def test_moments_are_those_of_all_rows_together() -> None:
    moments = Moments(3)
    for start in range(0, 1000, 130):
        moments.add(rows(1000)[start : start + 130])
    assert moments.count == 1000
    assert torch.allclose(moments.mean.float(), rows(1000).mean(0), atol=1e-4)
    assert torch.allclose(moments.covariance.float(), torch.cov(rows(1000).T, correction=0), rtol=1e-3, atol=1e-5)


def test_few_rows_are_pulled_towards_the_identity_and_many_hardly() -> None:
    correlation = torch.corrcoef(rows(5000).T).double()
    assert shrinkage(correlation, 4) > shrinkage(correlation, 40) > shrinkage(correlation, 10**6) == LEAST_SHRINKAGE
    assert shrinkage(torch.eye(3, dtype=torch.float64), 100) == 1


def test_components_have_unit_variance_and_come_in_the_order_of_their_own() -> None:
    features = grid(40)
    components = level(features).whiten(features)
    flat = components.movedim(1, -1).flatten(0, -2)
    assert torch.allclose(flat.mean(0), torch.zeros(3), atol=1e-3)
    covariance = torch.cov(flat.T)
    assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-4)
    assert ((covariance.diag() > 0.6) & (covariance.diag() < 1.1)).all()  # shrinkage takes from the smallest
    scaled = features.movedim(1, -1).flatten(0, -2)
    shares = [float(torch.corrcoef(torch.stack([flat[:, i], scaled[:, 0]]))[0, 1].abs()) for i in range(3)]
    assert shares[0] > max(shares[1:])  # the two columns that move together lead


def test_a_deviation_that_is_small_but_never_seen_counts() -> None:
    made = level(grid(40))
    odd = grid(1, seed=1)
    odd[0, 1, 6, 6] += 4.0  # twice its own deviation, but the first column does not go with it
    errors = made.error(made.whiten(odd))[0]
    assert errors[6, 6] > 2 * errors[:4, :4].max()


def test_the_scale_is_that_of_normal_frames() -> None:
    made = level(grid(40))
    unseen = made.error(made.whiten(grid(60, seed=2)))
    made.normalise(unseen)
    scores = made.standardise(worst(made.error(made.whiten(grid(60, seed=3)))))
    assert scores.median().abs() < 0.5
    assert float((scores > 1).float().mean()) == pytest.approx(0.1, abs=0.1)


def test_a_place_that_always_varies_is_not_reported_for_it() -> None:
    def restless(seed: int) -> Tensor:
        features = grid(80, seed)
        features[:, :, :, :4] = (features[:, :, :, :4] - features.mean()) * 3
        return features

    made = level(restless(0))
    before = made.error(made.whiten(restless(1)))
    made.normalise(before)
    after = made.error(made.whiten(restless(2)))
    assert before[:, :, :3].mean() > 2 * before[:, :, 6:].mean()
    assert float(after[:, :, :3].mean() / after[:, :, 6:].mean()) == pytest.approx(1, abs=0.15)
