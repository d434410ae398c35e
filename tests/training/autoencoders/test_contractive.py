"""The penalty against the full Jacobian of autograd, for one layer exactly and for several by estimate."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from tests.training.tiny import batch, fit, recipe
from training.autoencoders.base import build
from training.autoencoders.contractive import Contractive


def made(**settings: Any) -> Contractive:  # noqa: ANN401
    chosen = recipe("contractive", autoencoder={"hidden_sizes": [], **settings})
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, Contractive)
    for layer in autoencoder.layers:
        layer.weight.data.mul_(3)  # or the norms are too small to compare
    return autoencoder


def full_norm(autoencoder: Contractive, frame: Tensor) -> Tensor:
    """Return |J|_F^2 of one frame [C, H, W] from all of its latent_dim * C * H * W derivatives."""
    full = jacobian(lambda x: autoencoder.encode(x[None])[0], frame)  # type: ignore[no-untyped-call]
    return torch.as_tensor(full).square().sum()


def test_for_one_layer_the_penalty_is_exact() -> None:
    autoencoder, frames = made(), batch(4)
    expected = torch.stack([full_norm(autoencoder, frame) for frame in frames])
    assert torch.allclose(autoencoder.jacobian_norm(frames), expected, rtol=1e-4)


def test_for_several_layers_the_estimate_is_unbiased() -> None:
    autoencoder, frames = made(hidden_sizes=[12, 10], probes=2000), batch(3)
    expected = torch.stack([full_norm(autoencoder, frame) for frame in frames])
    assert torch.allclose(autoencoder.jacobian_norm(frames), expected, rtol=0.08)


def test_more_probes_scatter_less() -> None:
    frame = batch(1)

    def spread(probes: int) -> float:
        torch.manual_seed(0)
        autoencoder = made(hidden_sizes=[12], probes=probes)
        return float(torch.stack([autoencoder.jacobian_norm(frame).detach() for _ in range(40)]).std())

    assert spread(16) < 0.5 * spread(1)


@pytest.mark.parametrize("hidden", [[], [12]])
def test_the_loss_is_the_error_and_lambda_times_the_penalty(hidden: list[int]) -> None:
    autoencoder = made(hidden_sizes=hidden, contraction=0.7)
    losses = autoencoder.loss(batch(4))
    assert torch.allclose(losses.total, losses.parts["squared_error"] + 0.7 * losses.parts["jacobian_norm"])


@pytest.mark.parametrize("hidden", [[], [12]])
def test_the_penalty_contracts_the_code(hidden: list[int]) -> None:
    norms = {}
    for contraction in (0.0, 5.0):
        torch.manual_seed(0)
        autoencoder = made(hidden_sizes=hidden, contraction=contraction)
        fit(autoencoder, batch(8), 40)
        norms[contraction] = float(autoencoder.jacobian_norm(batch(8)).mean().detach())
    assert norms[5.0] < 0.5 * norms[0.0]


def test_the_decoder_has_the_encoders_weights_transposed() -> None:
    autoencoder = made(hidden_sizes=[12])
    shapes = {name: tuple(value.shape) for name, value in autoencoder.named_parameters()}
    assert shapes == {
        "encoder.0.weight": (12, 384),
        "encoder.0.bias": (12,),
        "encoder.1.weight": (8, 12),
        "encoder.1.bias": (8,),
        "decoder_biases.0": (384,),
        "decoder_biases.1": (12,),
    }
    first, second = autoencoder.layers
    code = torch.rand(2, 8)
    hidden = torch.sigmoid(code @ second.weight + autoencoder.decoder_biases[1])
    expected = torch.sigmoid(hidden @ first.weight + autoencoder.decoder_biases[0])
    assert torch.allclose(autoencoder.decode(code).flatten(1), expected)
