"""The promises measured where the answer is known, and the whole part on tiny sets."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from benchmarks.lecture import variational as part
from benchmarks.lecture.course import Course, Trained
from benchmarks.lecture.page import Section
from benchmarks.lecture.variational import (
    NATS,
    PAIRS,
    Plan,
    Seen,
    dependence,
    dependence_of,
    distances,
    kept_log_likelihoods,
    log_likelihoods,
    variational,
    walk,
)
from training.autoencoders.base import FrameShape
from training.autoencoders.variational import Variational, VariationalConfig


def made(latent_dim: int = 3) -> Variational:
    config = VariationalConfig(hidden_sizes=(6,), latent_dim=latent_dim, binarise=True)
    return Variational(config, FrameShape(1, 4, 4)).eval()


def seen(count: int = 40) -> Seen:
    return Seen(made(), torch.rand(count, 1, 4, 4).round())


def test_the_divergence_of_each_variable_adds_up_to_that_of_the_code() -> None:
    shown = seen()
    mu, log_var = shown.posterior
    expected = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0, 1)).mean(0)
    assert torch.allclose(shown.kl, expected, atol=1e-5)


def test_the_covariance_of_the_aggregated_posterior_is_that_of_draws_from_it() -> None:
    shown = seen()
    mu, log_var = shown.posterior
    draws = torch.cat([mu + (log_var / 2).exp() * torch.randn_like(mu) for _ in range(3000)])
    assert torch.allclose(shown.covariance, torch.cov(draws.T), atol=0.03)


def test_independent_variables_have_no_correlation_whatever_their_variance() -> None:
    off, distance = dependence(torch.eye(4))
    assert (off, distance) == (0, 0)
    off, distance = dependence(torch.diag(torch.tensor([4.0, 1.0])))
    assert (off, distance) == pytest.approx((0, 3 / math.sqrt(2)))
    off, _ = dependence(torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
    assert off == pytest.approx(0.5)


def test_an_active_variable_is_one_whose_mean_varies() -> None:
    shown = seen()
    weights: Tensor = list(shown.model.encoder.parameters())[-2].data
    weights[1] = 0  # the mean of the second no longer depends on the image
    assert shown.active.tolist()[1] is False


def test_only_active_variables_are_asked_whether_they_are_independent() -> None:
    mean, unused = torch.randn(40), torch.zeros(40)
    shown = seen()
    shown.__dict__["posterior"] = torch.stack([mean, mean, unused], 1), torch.tensor([-20.0, -20, 0]).expand(40, 3)
    assert shown.active.tolist() == [True, True, False]
    assert dependence_of(shown)["mean abs. correlation of two"] == pytest.approx(1, abs=1e-3)
    alone = seen()
    alone.__dict__["posterior"] = torch.stack([mean, unused, unused], 1), torch.zeros(40, 3)
    assert set(dependence_of(alone).values()) == {"n/a"}


def test_the_bound_lies_below_the_likelihood() -> None:
    shown = seen(200)
    log_p = log_likelihoods(shown.model, shown.frames, 50)
    assert log_p.shape == (200,)
    assert shown.elbo() < float(log_p.mean())
    assert torch.equal(log_p, log_likelihoods(shown.model, shown.frames, 50)), "the same draws every time"


def test_likelihoods_are_measured_once_for_the_same_weights_images_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = seen(20)
    trained = Trained(shown.model, 0, tmp_path / "run")
    found = kept_log_likelihoods(trained, shown.frames, 5)
    assert torch.equal(found, log_likelihoods(shown.model, shown.frames, 5))
    measured: list[int] = []

    def again(model: Variational, frames: Tensor, draws: int) -> Tensor:  # noqa: ARG001
        measured.append(draws)
        return found

    monkeypatch.setattr(part, "log_likelihoods", again)
    assert torch.equal(kept_log_likelihoods(trained, shown.frames, 5), found)
    assert not measured
    kept_log_likelihoods(trained, shown.frames, 6)
    kept_log_likelihoods(trained, shown.frames.flip(3), 6)
    next(shown.model.parameters()).data += 1
    kept_log_likelihoods(trained, shown.frames.flip(3), 6)
    assert measured == [6, 6, 6]


def test_no_image_is_a_pair_with_itself() -> None:
    codes, images = distances(seen(5))
    assert len(codes[0]) == len(codes[1]) == PAIRS
    assert 0.7 * PAIRS < len(images[0]) < 0.9 * PAIRS
    assert images[0].min() > 0


def test_a_walk_begins_and_ends_at_the_images() -> None:
    start, end = torch.zeros(3), torch.tensor([7.0, 14.0, -7.0])
    steps = walk(start, end)
    assert torch.equal(steps[0], start)
    assert torch.equal(steps[-1], end)
    assert torch.allclose(steps[1], end / 7)


def test_the_part_measures_both_objectives_and_every_beta(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "QUICK", Plan(1, 3, 1, (20, 20), 2, 1, 100, 0.001, 0.02, 20, 10, (1, 4), 1))
    monkeypatch.setattr(part, "NETWORK", part.NETWORK | {"hidden_sizes": [8], "latent_dim": 4})
    section = Section("Variational", course.folder / "variational", "tiny")
    variational(course, section)
    section.write()
    tables = json.loads((section.folder / "figures.json").read_text())["tables"]
    bounds, musts, posterior, correlations, betas = tables.values()
    assert [row[""] for row in bounds] == ["VAE, k = 1", "IWAE, k = 3", "784-20-20-50, k = 2"]
    assert [row["published"] for row in bounds] == [86.76, "", ""], "the published IWAE has k = 50"
    assert all(row[NATS] > 0 for row in bounds)
    assert [row["ok"] for row in musts] == ["NO", "NO"]
    assert posterior[0]["latent variables"] == 4
    assert {"active", "mean abs. correlation of two"} <= posterior[0].keys()
    assert all(-1 <= value <= 1 for value in correlations[0].values())
    assert [row["β"] for row in betas] == ["1", "4"]
    shown = {path.stem for path in section.folder.glob("*.png")}
    assert shown == {"covariance", "distances", "walks", "map", "codes"}
