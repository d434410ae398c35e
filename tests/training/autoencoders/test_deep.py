"""The deep autoencoder: symmetric halves, a linear code, and layers pretrained as Boltzmann machines."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import batch, recipe
from training.autoencoders.base import build
from training.autoencoders.deep import Deep
from training.errors import ConfigError


def made(**settings: Any) -> Deep:  # noqa: ANN401
    chosen = recipe("deep", autoencoder=settings)
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, Deep)
    return autoencoder


def linear_layers(half: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in half if isinstance(layer, nn.Linear)]


def batches() -> Iterator[Tensor]:
    for start in range(0, 24, 8):
        yield batch(24)[start : start + 8]


def test_the_halves_mirror_each_other() -> None:
    autoencoder = made()
    sizes = [layer.in_features for layer in linear_layers(autoencoder.encoder)] + [autoencoder.latent_dim]
    back = [autoencoder.latent_dim] + [layer.out_features for layer in linear_layers(autoencoder.decoder)]
    assert sizes == [384, 24, 16, 12, 6] == back[::-1]


def test_four_to_five_layers_each_way() -> None:
    assert len(linear_layers(made(hidden_sizes=[9, 8, 7, 6]).encoder)) == 5
    for wrong in ([9, 8], [9, 8, 7, 6, 5]):
        with pytest.raises(ConfigError, match="hidden_sizes"):
            made(hidden_sizes=wrong)


def test_the_code_is_linear_and_the_rest_is_logistic() -> None:
    autoencoder = made()
    for half in (autoencoder.encoder, autoencoder.decoder):
        assert isinstance(half[-1], nn.Linear)
        assert all(isinstance(layer, nn.Sigmoid) for layer in list(half.children())[1::2])
    linear_layers(autoencoder.encoder)[-1].weight.data.mul_(1000)
    assert autoencoder.encode(batch(2)).abs().max() > 1


def test_fresh_sigmoids_are_not_dead() -> None:
    """The code of a fresh network must tell frames apart, or its loss rests for thousands of steps."""
    torch.manual_seed(0)
    assert made().encode(batch(8)).std(0).min() > 1e-3


def test_without_epochs_nothing_is_pretrained() -> None:
    autoencoder = made()
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    autoencoder.pretrain(batches)
    assert all(torch.equal(value, before[name]) for name, value in autoencoder.state_dict().items())


def test_pretraining_sets_the_encoder_and_the_decoder_transposed() -> None:
    autoencoder = made(pretrain_epochs=2)
    before = [layer.weight.clone() for layer in linear_layers(autoencoder.encoder)]
    autoencoder.pretrain(batches)
    down, up = linear_layers(autoencoder.encoder), linear_layers(autoencoder.decoder)[::-1]
    for old, encoder, decoder in zip(before, down, up, strict=True):
        assert not torch.equal(old, encoder.weight)
        assert torch.equal(encoder.weight.T, decoder.weight)
        assert encoder.bias.shape == (encoder.out_features,)
        assert decoder.bias.shape == (encoder.in_features,)
    assert all(parameter.isfinite().all() for parameter in autoencoder.parameters())
    assert all(parameter.requires_grad for parameter in autoencoder.parameters()), "fine-tuning comes after"


def test_pretraining_helps() -> None:
    frames = batch(24)

    def start(epochs: int) -> float:
        torch.manual_seed(0)
        autoencoder = made(pretrain_epochs=epochs)
        autoencoder.pretrain(batches)
        with torch.no_grad():
            return float(autoencoder.loss(frames).total)

    assert start(15) < 0.7 * start(0)
