"""Contrastive divergence against a machine so small that all of its states can be counted."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tests.training.tiny import batch
from training.boltzmann import RestrictedBoltzmannMachine


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)))


def free_energy(machine: RestrictedBoltzmannMachine, visible: Tensor) -> Tensor:
    """Return F(v) = -log sum_h exp(-E(v, h))."""
    field = visible @ machine.weight.T + machine.hidden_bias
    return -visible @ machine.visible_bias - torch.nn.functional.softplus(field).sum(1)


def log_likelihood(machine: RestrictedBoltzmannMachine, data: Tensor) -> Tensor:
    """Return the mean log p(v), with the partition function summed over every visible state."""
    everything = -free_energy(machine, states(data.shape[1]))
    return -free_energy(machine, data).mean() - torch.logsumexp(everything, 0)


def small(hidden: int = 3, visible: int = 5) -> RestrictedBoltzmannMachine:
    machine = RestrictedBoltzmannMachine(visible, hidden)
    machine.weight = torch.randn(hidden, visible)
    machine.hidden_bias = torch.randn(hidden) / 2
    machine.visible_bias = torch.randn(visible) / 2
    return machine


def test_the_conditionals_are_those_of_the_energy() -> None:
    """P(h = 1 | v) and P(v = 1 | h) from the joint distribution, counted."""
    machine = small(hidden=2, visible=3)
    visible, hidden = states(3), states(2)
    energy = (
        -(visible @ machine.visible_bias)[:, None]
        - (hidden @ machine.hidden_bias)[None]
        - visible @ machine.weight.T @ hidden.T
    )
    joint = torch.softmax(-energy.flatten(), 0).reshape(8, 4)
    assert torch.allclose((joint @ hidden) / joint.sum(1, keepdim=True), machine.hidden(visible), atol=1e-5)
    assert torch.allclose((joint.T @ visible) / joint.sum(0)[:, None], machine.visible(hidden), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_points_where_the_likelihood_rises(seed: int) -> None:
    torch.manual_seed(seed)
    machine, data = small(), torch.bernoulli(torch.rand(5).expand(40, 5))
    parameters = (machine.weight, machine.hidden_bias, machine.visible_bias)
    for parameter in parameters:
        parameter.requires_grad_()
    exact = torch.autograd.grad(log_likelihood(machine, data), parameters)
    draws = [machine.gradient(data) for _ in range(300)]
    for truth, *estimates in zip(exact, *draws, strict=True):
        estimate = torch.stack(estimates).mean(0)
        assert cosine_similarity(estimate.flatten(), truth.flatten(), dim=0) > 0.7


def test_learning_raises_the_likelihood() -> None:
    torch.manual_seed(0)
    data = states(5)[[0, 31, 7]].repeat(8, 1)
    machine = RestrictedBoltzmannMachine(5, 4)
    before = log_likelihood(machine, data)
    machine.fit(lambda: [data], 300, "test")
    assert log_likelihood(machine, data) > before + 0.5
    assert log_likelihood(machine, data) < -1.09, "three states cannot be likelier than one third each"


@pytest.mark.parametrize("linear", [False, True])
def test_learning_lowers_the_reconstruction_error(*, linear: bool) -> None:
    torch.manual_seed(0)
    data = batch(24).flatten(1)
    machine = RestrictedBoltzmannMachine(data.shape[1], 12, linear=linear)

    def error() -> float:
        return float((machine.visible(machine.hidden(data)) - data).square().sum(1).mean())

    before = error()
    machine.fit(lambda: [data[start : start + 8] for start in range(0, 24, 8)], 15, "test")
    assert error() < 0.8 * before


def test_linear_hidden_units_have_unit_variance_around_their_field() -> None:
    machine = RestrictedBoltzmannMachine(4, 3, linear=True)
    machine.weight.mul_(50)
    visible = torch.ones(20_000, 4)
    mean = machine.hidden(visible)
    assert torch.allclose(mean[0], machine.weight.sum(1))
    drawn = machine.sample_hidden(mean)
    assert torch.allclose(drawn.std(0), torch.ones(3), atol=0.03)
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.03)


def test_logistic_hidden_units_are_drawn_as_zeros_and_ones() -> None:
    machine = RestrictedBoltzmannMachine(4, 3)
    drawn = machine.sample_hidden(torch.full((20_000, 3), 0.2))
    assert set(drawn.flatten().tolist()) == {0, 1}
    assert drawn.mean() == pytest.approx(0.2, abs=0.02)
