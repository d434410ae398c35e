"""The plain kind as a denoising autoencoder: a noisy frame in, the clean one asked for."""

import torch

from tests.training.tiny import batch, fit, recipe
from training.autoencoders.base import build
from training.autoencoders.plain import Plain


def made(**settings: float) -> Plain:
    chosen = recipe("plain", autoencoder=settings)
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, Plain)
    return autoencoder


def test_the_error_is_that_of_the_clean_frame_from_a_noisy_one() -> None:
    autoencoder, frames = made(corruption=0.3), batch(4)
    torch.manual_seed(5)
    found = autoencoder.loss(frames).total
    torch.manual_seed(5)
    noisy = frames + 0.3 * torch.randn(frames.shape)
    expected = (autoencoder.reconstruct(noisy) - frames).square().sum() / 4
    assert torch.allclose(found, expected)


def test_without_corruption_nothing_is_drawn() -> None:
    autoencoder, frames = made(), batch(4)
    assert torch.equal(autoencoder.loss(frames).total, autoencoder.loss(frames).total)
    assert torch.equal(autoencoder.reconstruct(frames), made_like(autoencoder).reconstruct(frames))


def made_like(other: Plain) -> Plain:
    """Return one that differs in its corruption only, which no reconstruction depends on."""
    corrupted = made(corruption=0.5)
    corrupted.load_state_dict(other.state_dict())
    return corrupted


def test_it_learns_to_take_noise_out() -> None:
    frames = batch(24)
    noisy = frames + 0.3 * torch.randn(frames.shape)
    errors = {}
    for corruption in (0.0, 0.3):
        torch.manual_seed(0)
        autoencoder = made(corruption=corruption, latent_dim=24)
        fit(autoencoder, frames, 300)
        with torch.no_grad():
            errors[corruption] = float((autoencoder.reconstruct(noisy) - frames).square().mean())
    assert errors[0.3] < 0.8 * errors[0.0]
