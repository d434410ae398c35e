"""The measures against closed forms and independent computations."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.lecture import measures
from benchmarks.lecture.measures import PrincipalComponents, energy_distance, rank_correlation
from tests.training.tiny import batch, recipe
from training.autoencoders.base import build


def test_the_squared_error_is_summed_over_pixels_and_averaged_over_frames() -> None:
    frames = torch.zeros(2, 1, 3, 4)
    assert measures.squared_error(frames, torch.full_like(frames, 0.5)) == pytest.approx(12 * 0.25)


def test_batches_are_put_together_in_order() -> None:
    frames = torch.arange(1234.0)[:, None]
    assert torch.equal(measures.in_batches(lambda x: 2 * x, frames), 2 * frames)


def test_what_principal_components_leave_is_the_variance_of_the_others() -> None:
    frames = torch.randn(400, 1, 2, 3) * torch.tensor([[5.0, 4, 3], [2, 1, 0.5]]) + 0.3
    components = PrincipalComponents.fit(frames, 6)
    spectrum = torch.linalg.svdvals(frames.flatten(1) - frames.flatten(1).mean(0)).square() / len(frames)
    for kept in (1, 3, 6):
        error = measures.squared_error(frames, components.reconstruct(frames, kept))
        assert error == pytest.approx(float(spectrum[kept:].sum()), rel=1e-3, abs=1e-6)


def test_more_pixels_than_frames_are_no_hindrance_to_principal_components() -> None:
    frames = torch.randn(20, 1, 8, 8)
    components = PrincipalComponents.fit(frames, 19)
    assert measures.squared_error(frames, components.reconstruct(frames, 19)) < 1e-6


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.diag(torch.tensor([3.0, 2.0, 1.0])) @ torch.linalg.qr(torch.randn(6, 3))[0].T

    def encode(self, frames: Tensor) -> Tensor:
        code: Tensor = frames.flatten(1) @ self.weight.T
        return code


def test_the_singular_values_of_a_linear_encoder_are_those_of_its_matrix() -> None:
    found = measures.singular_values(Linear(), torch.randn(4, 1, 2, 3))  # type: ignore[arg-type]
    assert torch.allclose(found, torch.tensor([3.0, 2.0, 1.0]).expand(4, 3), atol=1e-5)


def test_the_norm_of_a_contractive_encoder_is_that_of_its_penalty() -> None:
    chosen = recipe("contractive", autoencoder={"hidden_sizes": []})
    autoencoder = build(chosen.autoencoder, chosen.shape)
    found = measures.singular_values(autoencoder, batch(3)).square().sum(1)
    penalty: Tensor = autoencoder.jacobian_norm(batch(3))  # type: ignore[operator]
    assert torch.allclose(found, penalty, rtol=1e-4)


def test_a_linear_probe_reads_what_is_linear_and_guesses_what_is_not() -> None:
    codes = torch.randn(400, 4)
    plain = (codes[:, 1] > 0).long().numpy()
    hidden = (codes[:, 0] * codes[:, 1] > 0).long().numpy()  # no line tells these apart
    parts = codes[:200], codes[200:]
    assert measures.probe_accuracy(parts, (plain[:200], plain[200:])) > 95
    assert measures.probe_accuracy(parts, (hidden[:200], hidden[200:])) < 65


def test_the_energy_distance_of_two_points_and_of_one_distribution() -> None:
    """E|X - Y| of N(0, 1) and N(m, 1) is that of N(m, 2), the folded normal."""
    one, other = torch.randn(3000, 1), torch.randn(3000, 1) + 2
    folded = 2 / math.sqrt(math.pi) * math.exp(-1) + 2 * math.erf(1)
    assert energy_distance(one, other) == pytest.approx(2 * (folded - 2 / math.sqrt(math.pi)), rel=0.06)
    assert abs(energy_distance(one, torch.randn(3000, 1))) < 0.01


def test_ranks_correlate_where_values_only_rise_together() -> None:
    values = np.random.default_rng(0).permutation(50).astype(float)
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values // 10, -(values // 10)) == pytest.approx(-1), "equal values have equal ranks"
