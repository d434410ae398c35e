"""Muon: orthogonal steps for wide weights, Adam for the others, and a network that learns."""

import copy

import pytest
import torch
from torch import Tensor, nn

from training.muon import Muon, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


def gradients(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (24, 24), (20, 200)])
def test_orthogonal_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    values = torch.logspace(0, -2, min(shape)).expand(3, -1)
    found = orthogonal(left @ torch.diag_embed(values) @ right)
    assert found.shape == (3, *shape)
    core = left.mT @ found @ right.mT
    level = core.diagonal(dim1=1, dim2=2)
    assert level.min() > 0.6
    assert level.max() < 1.3
    assert (core - torch.diag_embed(level)).abs().max() < 1e-3


def test_orthogonal_of_nothing_is_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(1, 20, 30)), torch.zeros(1, 20, 30))


def test_wide_weights_move_by_an_orthogonal_step() -> None:
    module = network()
    weight = module.get_parameter("0.weight")
    before = weight.detach().clone()
    gradients(module, 1)
    Muon(module.parameters(), 0.1, 0.01).step()
    values = torch.linalg.svdvals((before - weight.detach()) / (0.1 * 2**0.5))  # 64 rows, 32 columns
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_convolutions_are_matrices_of_outputs_by_inputs_and_taps() -> None:
    convolution = nn.Conv2d(20, 24, 3)
    gradients(convolution, 0)
    before = convolution.weight.detach().clone()
    Muon(convolution.parameters(), 1, 0.01).step()
    values = torch.linalg.svdvals((before - convolution.weight.detach()).flatten(1))
    assert values.shape == (24,)
    assert values.min() > 0.6


def test_what_is_no_wide_matrix_moves_as_with_adam() -> None:
    """Biases and the last layer, which has two rows, over several steps."""
    ours, theirs = network(), network()
    muon = Muon(ours.parameters(), 0.1, 0.01, weight_decay=0.3)
    adam = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.3)
    for seed in range(5):
        for module, optimiser in ((ours, muon), (theirs, adam)):
            gradients(module, seed)
            optimiser.step()
    for name in ("0.bias", "2.bias", "4.weight", "4.bias"):
        assert torch.allclose(ours.get_parameter(name), theirs.get_parameter(name), atol=1e-6), name
    assert not torch.allclose(ours.get_parameter("2.weight"), theirs.get_parameter("2.weight"), atol=1e-3)


def test_it_goes_on_from_its_state() -> None:
    first = network()
    muon = Muon(first.parameters(), 0.1, 0.01)
    gradients(first, 0)
    muon.step()
    second = copy.deepcopy(first)
    resumed = Muon(second.parameters(), 0.1, 0.01)
    resumed.load_state_dict(copy.deepcopy(muon.state_dict()))
    for module, optimiser in ((first, muon), (second, resumed)):
        gradients(module, 1)
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_frozen_and_unused_weights_stay() -> None:
    module = network()
    module[0].requires_grad_(requires_grad=False)
    muon = Muon(module.parameters(), 0.1, 0.01, weight_decay=0.5)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    muon.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def test_it_learns() -> None:
    module = network()
    torch.manual_seed(1)
    inputs = torch.randn(256, 32)
    wanted = inputs[:, :2].sin()
    muon = Muon(module.parameters(), 0.02, 0.003)

    def error() -> Tensor:
        return nn.functional.mse_loss(module(inputs), wanted)

    before = float(error().detach())
    for _ in range(60):
        muon.zero_grad()
        loss = error()
        loss.backward()  # type: ignore[no-untyped-call]
        muon.step()
    assert float(error().detach()) < 0.1 * before
