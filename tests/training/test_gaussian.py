"""The Gaussian of codes against torch.distributions, and through the graph, the ONNX file and the threshold."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from runtime.devices import Device
from runtime.model import Model
from tests.training.tiny import batch, draw, fit, parts, recipe
from training.autoencoders.base import build
from training.errors import ConfigError
from training.export import export
from training.gaussian import LatentGaussian

MEAN = torch.tensor([1.0, -2.0, 0.5])
FACTOR = torch.tensor([[2.0, 0, 0], [0.8, 0.6, 0], [-0.3, 0.4, 0.2]])
COVARIANCE = FACTOR @ FACTOR.T


def truth() -> MultivariateNormal:
    return MultivariateNormal(MEAN, COVARIANCE)


def test_the_density_is_that_of_torch() -> None:
    codes = 3 * torch.randn(20, 3)
    expected: Tensor = truth().log_prob(codes)  # type: ignore[no-untyped-call]
    gaussian = LatentGaussian(MEAN, COVARIANCE)
    assert torch.allclose(gaussian.log_density(codes), expected, rtol=1e-4)
    assert torch.allclose(LatentGaussian(MEAN, COVARIANCE, "density")(codes), -expected, rtol=1e-4)


def test_the_distance_is_that_of_the_formula_and_gives_the_density() -> None:
    codes = torch.randn(20, 3)
    gaussian = LatentGaussian(MEAN, COVARIANCE)
    apart = codes - MEAN
    squared = (apart @ torch.linalg.inv(COVARIANCE) * apart).sum(1)
    assert torch.allclose(gaussian(codes), squared.sqrt(), rtol=1e-4)
    constant = 1.5 * math.log(2 * math.pi) + 0.5 * float(torch.logdet(COVARIANCE))
    assert torch.allclose(gaussian.log_density(codes), -0.5 * squared - constant, rtol=1e-4)


def test_it_is_fitted_to_all_batches() -> None:
    codes = truth().sample((5000,))
    gaussian = LatentGaussian.fit(torch.split(codes, 700))
    assert torch.allclose(gaussian.mean, codes.mean(0), atol=1e-4)
    assert torch.allclose(gaussian.factor @ gaussian.factor.T, torch.cov(codes.T), rtol=0.01, atol=1e-3)
    assert float(gaussian(codes).square().mean()) == pytest.approx(3, rel=0.01), "d^2 has as many degrees of freedom"


def test_draws_from_it_have_its_mean_and_covariance() -> None:
    drawn = LatentGaussian(MEAN, COVARIANCE).draw(50_000, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), MEAN, atol=0.05)
    assert torch.allclose(torch.cov(drawn.T), COVARIANCE, atol=0.08)


def test_variables_that_never_move_leave_the_distance_finite() -> None:
    codes = torch.randn(100, 3)
    codes[:, 1] = 0.5
    gaussian = LatentGaussian.fit([codes])
    assert gaussian(codes).isfinite().all()
    moved = codes + torch.tensor([0.0, 1.0, 0.0])
    assert (gaussian(moved) > 10 * gaussian(codes)).all(), "and one that does at last is noticed"
    still = LatentGaussian.fit([torch.ones(10, 2)])
    assert still(torch.ones(1, 2)).isfinite().all()


def test_no_codes_are_no_gaussian() -> None:
    with pytest.raises(ValueError, match="needs codes"):
        LatentGaussian.fit([])


@pytest.mark.parametrize("measure", ["mahalanobis", "density"])
def test_an_exported_model_scores_by_it(measure: str, tmp_path: Path, cpu: Device) -> None:
    chosen = recipe("plain", score={"latent": measure, "false_alarm_rate": 0.1})
    autoencoder = build(chosen.autoencoder, chosen.shape)
    fit(autoencoder, batch(24), 60)
    split = parts()
    manifest = export(chosen, autoencoder, split, tmp_path / "gaussian")
    model = Model.open(tmp_path / "gaussian", cpu)
    normal, odd = draw(6, seed=4), 255 - draw(6, seed=4)
    found, strange = model.run(normal), model.run(odd)
    assert found.anomaly_score is not None
    assert found.latent is not None
    assert strange.anomaly_score is not None
    learned = model.run(split.train.batch(range(len(split.train)))).latent
    assert learned is not None
    apart = found.latent.astype(np.float64) - learned.mean(0)
    covariance = np.cov(learned.T.astype(np.float64), bias=True)
    covariance += 1e-4 * covariance.diagonal().mean() * np.eye(len(covariance))
    squared = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
    constant = 0.5 * (len(covariance) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
    expected = np.sqrt(squared) if measure == "mahalanobis" else 0.5 * squared + constant
    assert np.allclose(found.anomaly_score, expected, rtol=0.02, atol=0.02)
    assert strange.anomaly_score.min() > found.anomaly_score.max()
    assert manifest.calibration is not None
    assert (strange.anomaly_score > manifest.calibration.threshold).all()


def test_a_kind_without_a_code_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"score\.latent: the kind feature has no code"):
        recipe("feature", score={"latent": "mahalanobis"})
