"""Discrete codes: whose gradient goes where, what the prior says of them, and that the exported sampler is torch's."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.distributions import Bernoulli, Normal

from runtime.devices import Device
from runtime.errors import InvalidInput
from runtime.manifest import Task
from runtime.model import Model
from tests.training.tiny import HEIGHT, WIDTH, batch, draw, fit, parts, recipe, taught
from training.autoencoders.base import build
from training.autoencoders.vq import Vq
from training.codebook import straight_through
from training.errors import ConfigError
from training.export import export
from training.graph import to_levels


def made(**settings: Any) -> Vq:  # noqa: ANN401
    chosen = recipe("vq", autoencoder=settings)
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, Vq)
    return autoencoder


@pytest.fixture(scope="module")
def trained() -> Vq:
    torch.manual_seed(0)
    autoencoder = made()
    fit(autoencoder, batch(24), 120)
    return autoencoder


# -- the loss


def test_every_term_teaches_its_own_part() -> None:
    autoencoder = made().eval()
    parts_of_loss = autoencoder.loss(batch(4)).parts
    assert {name: taught(part, autoencoder) for name, part in parts_of_loss.items()} == {
        "negative_log_prob": {"encoder", "decoder", "log_scale"},
        "commitment": {"encoder"},
        "code_surprise": {"prior"},
    }


def test_the_encoder_gets_the_gradient_of_the_decoders_input() -> None:
    autoencoder, frames = made().eval(), batch(4)
    vectors = autoencoder.encoder(frames)
    codes = autoencoder.codebook.look_up(autoencoder.codebook.nearest(vectors)).requires_grad_()
    straight = -autoencoder.log_prob(frames, straight_through(vectors, codes)).mean()
    (found,) = torch.autograd.grad(straight, vectors, retain_graph=True)
    (expected,) = torch.autograd.grad(-autoencoder.log_prob(frames, codes).mean(), codes)
    assert expected.any()
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-4)


def test_the_commitment_is_the_weighted_squared_distance() -> None:
    autoencoder, frames = made(commitment=0.7).eval(), batch(4)
    losses = autoencoder.loss(frames)
    vectors = autoencoder.encoder(frames)
    apart = vectors - autoencoder.codebook.look_up(autoencoder.encode(frames))
    assert torch.allclose(losses.parts["commitment"], 0.7 * apart.square().sum() / 4)
    assert torch.allclose(losses.total, torch.stack(list(losses.parts.values())).sum())


def test_only_training_moves_the_codebook() -> None:
    autoencoder = made()
    before = autoencoder.codebook.codes.clone()
    autoencoder.eval().loss(batch(4))
    assert torch.equal(autoencoder.codebook.codes, before)
    autoencoder.train().loss(batch(4))
    assert not torch.equal(autoencoder.codebook.codes, before)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_likelihood_is_that_of_torch(likelihood: str) -> None:
    autoencoder, frames = made(likelihood=likelihood).eval(), batch(3).round()
    code = autoencoder.encode(frames)
    mean = autoencoder.decode(code)
    expected = (Bernoulli(mean) if likelihood == "bernoulli" else Normal(mean, 0.1)).log_prob(frames)  # type: ignore[no-untyped-call]
    found = autoencoder.bound(frames)[0]
    assert torch.allclose(found, -expected.flatten(1).sum(1), rtol=1e-4)


def test_the_bound_is_made_of_both_likelihoods(trained: Vq) -> None:
    frames = batch(6, seed=1)
    with torch.no_grad():
        pixels, surprise = trained.bound(frames)
        figures = trained.measure(frames)
        probabilities = trained.prior(trained.encode(frames)).softmax(1)
    assert torch.allclose(probabilities.sum(1), torch.ones(6, *trained.grid))
    assert figures["bound of log p(x)", "nats a frame"] == pytest.approx(-float((pixels + surprise).mean()), rel=1e-5)
    bits = figures["code", "bits a cell"]
    assert bits == pytest.approx(float(surprise.mean()) / 24 / math.log(2), rel=1e-5)
    assert bits < math.log2(trained.config.codes) - 0.5, "the prior has learnt nothing"


def test_black_and_white_frames_are_drawn_with_grey_as_chance() -> None:
    grey = torch.tensor([0.0, 0.2, 1.0]).expand(20_000, 3)
    drawn = made(binarise=True, likelihood="bernoulli").seen(grey)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(drawn.mean(0), grey[0], atol=0.02)
    assert made().seen(grey) is grey


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"binarise": True}, "the likelihood must be bernoulli"),
        ({"anomaly": "both", "likelihood": "bernoulli"}, "the likelihood must be gaussian"),
        ({"anomaly": "prior"}, "'likelihood', 'error' or 'both'"),
        ({"codes": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        made(**settings)


def test_a_grid_of_indices_has_no_gaussian() -> None:
    with pytest.raises(ConfigError, match="no code that a Gaussian could be fitted to"):
        recipe("vq", score={"false_alarm_rate": 0.1, "latent": "density"})


# -- the anomaly map


def test_the_map_is_the_priors_surprise_where_the_code_is(trained: Vq) -> None:
    code = trained.encode(batch(1))
    with torch.no_grad():
        usual = trained.anomaly_map(code, torch.zeros(1, HEIGHT, WIDTH))
        changed = code.clone()
        changed[0, 3, 5] = trained.prior(code)[0, :, 3, 5].argmin()  # the last cell: nothing comes after it
        unusual = trained.anomaly_map(changed, torch.zeros(1, HEIGHT, WIDTH))
        surprise = trained.prior.negative_log_prob(changed)
    assert usual.shape == (1, HEIGHT, WIDTH)
    rise = (unusual - usual)[0]
    assert rise[12:, 20:].min() > 0, "its cell is 4 x 4 pixels at the lower right"
    assert rise[-1, -1] == rise.max()
    assert rise[:8].abs().max() < 1e-6
    assert float(unusual[0, -1, -1]) == pytest.approx(float(surprise[0, 3, 5]) / 16, rel=1e-4), "nats a pixel"


def test_the_setting_chooses_what_an_anomaly_is() -> None:
    error, code = torch.rand(2, HEIGHT, WIDTH), torch.randint(8, (2, 4, 6))
    maps = {}
    with torch.no_grad():
        for anomaly in ("likelihood", "error", "both"):
            torch.manual_seed(0)
            autoencoder = made(anomaly=anomaly).eval()
            maps[anomaly] = autoencoder.anomaly_map(code, error)
    assert torch.equal(maps["error"], error)
    spread = 0.1  # the standard deviation that an untrained one begins with
    assert torch.allclose(maps["both"], maps["likelihood"] + error / (2 * spread**2), rtol=1e-4)


# -- the exported model


@pytest.fixture(scope="module")
def folder(trained: Vq, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "codes"
    export(recipe("vq", score={"false_alarm_rate": 0.1}), trained, parts(), out)
    return out


@pytest.fixture(scope="module")
def model(folder: Path, cpu: Device) -> Model:
    return Model.open(folder, cpu)


def test_a_latent_is_one_number_for_each_cell(model: Model) -> None:
    assert model.manifest.latent_dim == 4 * 6
    assert set(model.manifest.tasks) == {Task.RECONSTRUCT, Task.SCORE, Task.SAMPLE}
    assert model.run(draw(2)).latent is None
    with pytest.raises(InvalidInput, match=r"shape \[n\]\[24\]"):
        model.generate(np.zeros((1, 8), np.float32))


def test_the_card_shows_samples_but_no_walks_between_frames(folder: Path) -> None:
    assert (folder / "samples.jpg").is_file()
    assert not (folder / "interpolations.jpg").exists(), "frames have no latent"
    assert "interpolations" not in (folder / "README.md").read_text()


def test_the_exported_sampler_draws_what_torch_draws(model: Model, trained: Vq) -> None:
    latents = np.random.default_rng(3).standard_normal((40, 24), np.float32)
    samples = model.generate(latents)
    with torch.no_grad():
        assert np.array_equal(samples, to_levels(trained.sample(torch.from_numpy(latents))).numpy())
    assert np.array_equal(samples, model.generate(latents))
    assert np.array_equal(samples[7:8], model.generate(latents[7:8])), "not by itself"
    assert len(np.unique(samples.reshape(40, -1), axis=0)) > 20


def test_latents_far_out_are_samples_still(model: Model) -> None:
    for value in (-1e30, -6, 6, 1e30):
        assert model.generate(np.full((2, 24), value, np.float32)).shape == (2, HEIGHT, WIDTH, 1)


def test_the_exported_scores_are_those_of_the_prior(model: Model, trained: Vq) -> None:
    outputs = model.run(draw(5, seed=4))
    with torch.no_grad():
        code = trained.encode(batch(5, seed=4))
        expected = trained.anomaly_map(code, torch.zeros(5, HEIGHT, WIDTH)).numpy()
    assert outputs.anomaly_map is not None
    assert outputs.anomaly_score is not None
    assert np.allclose(outputs.anomaly_map, expected, rtol=1e-3, atol=1e-4)
    turned = model.run(draw(5, seed=4)[:, ::-1].copy()).anomaly_score
    assert turned is not None
    assert turned.mean() > outputs.anomaly_score.mean(), "frames upside down are less probable"


def test_the_sampler_is_one_loop_that_tells_nothing_of_this_machine(folder: Path) -> None:
    data = (folder / "generator.onnx").read_bytes()
    kinds = [node.op_type for node in onnx.load_model_from_string(data).graph.node]
    assert kinds.count("Loop") == 1
    assert kinds.count("Conv") < 10, "the prior is inside, once"
    assert b".py" not in data
