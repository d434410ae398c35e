"""The game: which player each term teaches, in which direction, and a decoder that is served as any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from runtime.devices import Device
from runtime.manifest import Task
from runtime.model import Model
from tests.training.tiny import HEIGHT, WIDTH, batch, draw, fit, parts, recipe, taught
from training.autoencoders.base import build
from training.autoencoders.vaegan import Discriminator, VaeGan
from training.errors import ConfigError
from training.export import export
from training.graph import to_levels


def made(**settings: Any) -> VaeGan:  # noqa: ANN401
    chosen = recipe("vaegan", autoencoder=settings)
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, VaeGan)
    return autoencoder


def step(part: torch.nn.Module, rate: float) -> None:
    with torch.no_grad():
        for weight in part.parameters():
            if weight.grad is not None:
                weight.sub_(rate * weight.grad)


# -- the two players


def test_no_term_teaches_both_players() -> None:
    autoencoder = made()
    terms = autoencoder.loss(batch(8)).parts
    networks = {"encoder", "decoder"}
    assert {name: taught(term, autoencoder) for name, term in terms.items()} == {
        "negative_log_prob": networks,
        "kl": {"encoder"},
        "feature_error": networks,
        "deception": networks,
        "discrimination": {"discriminator"},
    }


def test_a_step_makes_the_discriminator_surer_and_one_of_the_decoder_less_sure() -> None:
    autoencoder, frames, codes = made(), batch(8), torch.randn(8, 4)

    def lead() -> float:
        """How much more real the frames look than what is made."""
        with torch.no_grad():
            real, other = autoencoder.discriminator(frames)[1], autoencoder.discriminator(autoencoder.decode(codes))[1]
        return float((real - other).mean())

    autoencoder.eval()  # spectral norms at rest
    judged = F.softplus(-autoencoder.discriminator(frames)[1]).mean()
    judged = judged + F.softplus(autoencoder.discriminator(autoencoder.decode(codes).detach())[1]).mean()
    judged.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None for weight in autoencoder.decoder.parameters())
    before = lead()
    step(autoencoder.discriminator, 0.05)
    surer = lead()
    assert surer > before

    autoencoder.zero_grad()
    deception = F.softplus(-autoencoder.discriminator.constant(autoencoder.decode(codes))[1]).mean()
    deception.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None for weight in autoencoder.discriminator.parameters())
    step(autoencoder.decoder, 0.5)
    assert lead() < surer


def test_one_backward_pass_gives_each_player_its_own_gradient() -> None:
    """The discriminator's is that of its own loss, whatever the decoder weighs its part by."""
    frames, gradients = batch(8), {}
    for adversarial in (1, 50):
        torch.manual_seed(3)
        autoencoder = made(adversarial=adversarial).eval()
        torch.manual_seed(4)
        autoencoder.loss(frames).total.backward()  # type: ignore[no-untyped-call]
        gradients[adversarial] = {
            name: torch.cat([w.grad.flatten() for w in part.parameters() if w.grad is not None])
            for name, part in (("discriminator", autoencoder.discriminator), ("decoder", autoencoder.decoder))
        }
    assert torch.allclose(gradients[1]["discriminator"], gradients[50]["discriminator"], atol=1e-6)
    assert not torch.allclose(gradients[1]["decoder"], gradients[50]["decoder"], atol=1e-3)


def test_the_constant_discriminator_judges_as_the_other() -> None:
    discriminator = Discriminator((1, HEIGHT, WIDTH), (4, 8)).eval()
    frames = batch(3)
    for one, other in zip(discriminator(frames), discriminator.constant(frames), strict=True):
        assert torch.equal(one, other)


def test_the_discriminators_slope_is_bounded() -> None:
    """Every weight, seen as a matrix, has spectral norm 1."""
    discriminator = Discriminator((1, HEIGHT, WIDTH), (4, 8))
    for _ in range(50):
        discriminator(batch(2))
    discriminator.eval()
    layers = [layer for layer in discriminator.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.02)


# -- the loss


def test_the_total_is_the_weighted_sum() -> None:
    losses = made(beta=3, features=0.5, adversarial=7).loss(batch(4))
    weights = {"negative_log_prob": 1, "kl": 3, "feature_error": 0.5, "deception": 7, "discrimination": 1}
    expected = sum(weight * losses.parts[name] for name, weight in weights.items())
    assert torch.allclose(losses.total, torch.as_tensor(expected))


def test_the_game_goes_on() -> None:
    """Neither player wins outright: the discriminator tells most apart, and not all."""
    autoencoder, frames = made(), batch(24)
    fit(autoencoder, frames, 150)
    with torch.no_grad():
        parts_of_loss = autoencoder.loss(frames).parts
    assert 0.01 < float(parts_of_loss["discrimination"]) < 3
    assert float(parts_of_loss["deception"]) < 6


@pytest.mark.parametrize("settings", [{"adversarial": -1}, {"beta": 0}, {"widths": []}, {"critic": 3}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"autoencoder.{next(iter(settings))}"):
        made(**settings)


# -- the exported model


def test_it_is_served_as_any_other_and_without_its_discriminator(tmp_path: Path, cpu: Device) -> None:
    autoencoder = made()
    fit(autoencoder, batch(24), 30)
    export(recipe("vaegan", score={"false_alarm_rate": 0.1}), autoencoder, parts(), tmp_path / "gan")
    model = Model.open(tmp_path / "gan", cpu)
    assert set(model.manifest.tasks) == {Task.RECONSTRUCT, Task.SCORE, Task.ENCODE, Task.SAMPLE}
    latents = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    with torch.no_grad():
        expected = to_levels(autoencoder.sample(torch.from_numpy(latents))).numpy()
    assert np.abs(model.generate(latents).astype(int) - expected).max() <= 1
    outputs = model.run(draw(3))
    assert outputs.latent is not None
    assert outputs.latent.shape == (3, 4)
    assert outputs.anomaly_score is not None
    for graph in ("autoencoder", "generator"):
        assert b"discriminator" not in (tmp_path / "gan" / f"{graph}.onnx").read_bytes()
