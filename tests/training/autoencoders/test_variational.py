"""The bound and its parts against torch.distributions, Monte Carlo, and a model whose log p(x) is known."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, MultivariateNormal, Normal, kl_divergence

from tests.training.tiny import batch, fit, recipe
from training.autoencoders import variational
from training.autoencoders.base import FrameShape, build
from training.autoencoders.variational import Variational, VariationalConfig, reparameterise
from training.config import Recipe
from training.errors import ConfigError


def made(**settings: Any) -> Variational:  # noqa: ANN401
    chosen: Recipe = recipe("variational", autoencoder=settings)
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, Variational)
    return autoencoder


def log_density(distribution: Distribution, value: Tensor) -> Tensor:
    found: Tensor = distribution.log_prob(value)
    return found


def posteriors() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 3), torch.randn(5, 3)


# -- the KL divergence and the draw


def test_the_kl_divergence_is_that_of_torch() -> None:
    mu, log_var = posteriors()
    expected = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0, 1)).sum(1)
    assert torch.allclose(variational.kl_divergence(mu, log_var), expected, atol=1e-5)
    assert torch.equal(variational.kl_divergence(torch.zeros(2, 4), torch.zeros(2, 4)), torch.zeros(2))


def test_the_kl_divergence_is_the_mean_log_ratio() -> None:
    mu, log_var = torch.tensor([[0.5, -1.0]]), torch.tensor([[-1.0, 0.3]])
    many = 200_000
    draws = reparameterise(mu.expand(many, 2), log_var.expand(many, 2))
    ratio = log_density(Normal(mu, (log_var / 2).exp()), draws) - log_density(Normal(0, 1), draws)
    assert float(ratio.sum(1).mean()) == pytest.approx(float(variational.kl_divergence(mu, log_var)), rel=0.02)


def test_gradients_pass_through_the_draw() -> None:
    """E z^2 = mu^2 + sigma^2, so its gradient is 2 mu for the mean and sigma^2 for the logarithm of the variance."""
    mu = torch.full((100_000, 1), 0.7, requires_grad=True)
    log_var = torch.full((100_000, 1), -0.4, requires_grad=True)
    reparameterise(mu, log_var).square().mean().backward()  # type: ignore[no-untyped-call]
    assert mu.grad is not None
    assert log_var.grad is not None
    assert float(mu.grad.sum()) == pytest.approx(1.4, rel=0.03)
    assert float(log_var.grad.sum()) == pytest.approx(math.exp(-0.4), rel=0.03)


# -- the likelihoods


def test_the_bernoulli_likelihood_is_that_of_torch() -> None:
    autoencoder, frames, code = made(likelihood="bernoulli"), batch(3).round(), torch.randn(3, 4)
    expected = log_density(Bernoulli(autoencoder.decode(code)), frames).flatten(1).sum(1)
    assert torch.allclose(autoencoder.log_prob(frames, code), expected, rtol=1e-4)


def test_the_gaussian_likelihood_is_that_of_torch() -> None:
    autoencoder, frames, code = made(likelihood="gaussian"), batch(3), torch.randn(3, 4)
    autoencoder.log_scale.data.fill_(-1.3)
    expected = log_density(Normal(autoencoder.decode(code), math.exp(-1.3)), frames).flatten(1).sum(1)
    assert torch.allclose(autoencoder.log_prob(frames, code), expected, rtol=1e-4)


def test_the_gaussian_scale_rests_where_it_is_the_error() -> None:
    autoencoder, frames, code = made(likelihood="gaussian"), batch(4), torch.randn(4, 4)
    rms = (autoencoder.decode(code) - frames).square().mean().sqrt()
    slopes = []
    for factor in (0.9, 1.0, 1.1):
        autoencoder.log_scale.data = (factor * rms).log().detach()
        (slope,) = torch.autograd.grad(-autoencoder.log_prob(frames, code).mean(), autoencoder.log_scale)
        slopes.append(float(slope))
    assert slopes[0] < -1 < slopes[1] < 1 < slopes[2]
    assert slopes[1] == pytest.approx(0, abs=0.01)
    assert not made(likelihood="bernoulli").log_scale.requires_grad


# -- the bound


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_the_negative_bound_with_beta(likelihood: str) -> None:
    autoencoder, frames = made(likelihood=likelihood, beta=0.3), batch(4)
    torch.manual_seed(5)
    losses = autoencoder.loss(frames)
    torch.manual_seed(5)
    mu, log_var = autoencoder.posterior(frames)
    fit_part = -autoencoder.log_prob(frames, reparameterise(mu, log_var)).mean()
    kl = variational.kl_divergence(mu, log_var).mean()
    assert torch.allclose(losses.total, fit_part + 0.3 * kl)
    assert torch.allclose(losses.parts["kl"], kl)
    assert torch.allclose(losses.parts["negative_log_prob"], fit_part)


class Linear(Variational):
    """x = W z + b + noise with z ~ N(0, I): Gaussian, so that log p(x) and p(z|x) are known in closed form."""

    def __init__(self, *, flawed: bool, importance_samples: int = 1) -> None:
        config = VariationalConfig(
            hidden_sizes=(4,), latent_dim=2, likelihood="gaussian", importance_samples=importance_samples
        )
        super().__init__(config, FrameShape(1, 1, 3))
        self.weight = torch.tensor([[1.0, 0.2], [-0.5, 0.8], [0.3, 0.6]])
        self.bias = torch.tensor([0.1, -0.2, 0.4])
        self.log_scale.data.fill_(math.log(0.5))
        self.flawed = flawed
        precision = torch.eye(2) + self.weight.T @ self.weight / 0.25
        self.covariance = torch.linalg.inv(precision)

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best diagonal Gaussian there is, or one that is off."""
        mu = (frames.flatten(1) - self.bias) @ self.weight @ self.covariance / 0.25
        log_var = -torch.linalg.inv(self.covariance).diagonal().log().expand_as(mu)
        return (mu + 0.4, log_var + 1) if self.flawed else (mu, log_var)

    def log_prob(self, frames: Tensor, code: Tensor) -> Tensor:
        mean = code @ self.weight.T + self.bias
        return log_density(Normal(mean, self.log_scale.exp()), frames.flatten(1)).sum(1)

    def true_log_prob(self, frames: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + 0.25 * torch.eye(3)
        return log_density(MultivariateNormal(self.bias, covariance), frames.flatten(1))


def elbo(autoencoder: Variational, frames: Tensor, draws: int = 2000) -> Tensor:
    mu, log_var = autoencoder.posterior(frames)
    with torch.no_grad():
        fits = [autoencoder.log_prob(frames, reparameterise(mu, log_var)) for _ in range(draws)]
        return torch.stack(fits).mean(0) - variational.kl_divergence(mu, log_var)


@pytest.mark.parametrize("flawed", [False, True])
def test_importance_sampling_finds_the_true_log_likelihood(*, flawed: bool) -> None:
    autoencoder, frames = Linear(flawed=flawed), torch.randn(6, 1, 1, 3)
    found = autoencoder.log_likelihood(frames, samples=1500)
    assert torch.allclose(found, autoencoder.true_log_prob(frames), atol=0.1)


def test_the_bound_is_below_and_tightens_with_the_samples() -> None:
    autoencoder, frames = Linear(flawed=True), torch.randn(400, 1, 1, 3)
    truth = autoencoder.true_log_prob(frames).mean()
    bounds = [autoencoder.log_likelihood(frames, samples=k).mean() for k in (1, 5, 50)]
    lowest = elbo(autoencoder, frames, 200).mean()
    assert bounds == sorted(bounds)
    assert bounds[-1] < truth + 0.02
    assert float(bounds[0]) == pytest.approx(float(lowest), abs=0.2), "one sample is the evidence lower bound"
    assert lowest < truth - 0.3, "this posterior is off, and the bound must show it"
    assert elbo(Linear(flawed=False), frames, 200).mean() > lowest


def test_a_bernoulli_model_agrees_with_numerical_integration() -> None:
    torch.manual_seed(1)
    autoencoder = made(latent_dim=1, likelihood="bernoulli")
    frames = batch(3)
    fit(autoencoder, frames, 120)
    grid = torch.linspace(-8, 8, 4001)
    with torch.no_grad():
        prior = log_density(Normal(0, 1), grid)
        exact = torch.stack([
            torch.logsumexp(autoencoder.log_prob(frame.expand(len(grid), *frame.shape), grid[:, None]) + prior, 0)
            for frame in frames
        ]) + math.log(16 / 4000)  # fmt: skip
        assert torch.allclose(autoencoder.log_likelihood(frames, samples=2000), exact, atol=0.1)
        assert (elbo(autoencoder, frames, 100) < exact + 0.05).all()


def test_the_measures_are_means_over_the_frames() -> None:
    autoencoder, frames = made(), batch(6)
    with torch.no_grad():
        figures = autoencoder.measure(frames)
    names = [name for name, _ in figures]
    assert names == ["ELBO", "KL divergence", "log p(x), 100 importance samples"]
    assert {unit for _, unit in figures} == {"nats a frame"}
    mean_elbo, kl, log_p = figures.values()
    assert log_p >= mean_elbo - 0.5
    assert kl == pytest.approx(float(variational.kl_divergence(*autoencoder.posterior(frames)).mean().detach()))


# -- black and white frames, and the importance-weighted objective


def test_binarised_frames_are_drawn_anew_with_grey_as_chance() -> None:
    autoencoder = made(binarise=True)
    grey = torch.tensor([0.0, 0.2, 0.7, 1.0]).expand(20_000, 4)
    drawn = autoencoder.seen(grey)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(drawn.mean(0), grey[0], atol=0.02)
    assert not torch.equal(drawn, autoencoder.seen(grey))
    assert made().seen(grey) is grey


@pytest.mark.parametrize("samples", [1, 7])
def test_black_and_white_frames_are_what_the_loss_is_of(samples: int) -> None:
    """Frames that are black and white already come out of the draw as they went in."""
    frames = batch(3).round()
    losses = []
    for binarise in (False, True):
        autoencoder = made(binarise=binarise, importance_samples=samples)
        torch.manual_seed(0)
        for weight in autoencoder.parameters():
            weight.data = torch.randn_like(weight) * 0.05
        losses.append(torch.stack([autoencoder.loss(frames).total.detach() for _ in range(300)]).mean())
    assert torch.allclose(losses[0], losses[1], rtol=0.01)


def test_the_importance_weighted_loss_is_the_bound_of_the_estimate() -> None:
    """Its mean is that of log_likelihood with as many samples, and lies between the evidence bound and the truth."""
    autoencoder, frames = Linear(flawed=True, importance_samples=5), torch.randn(400, 1, 1, 3)
    with torch.no_grad():
        loss = torch.stack([autoencoder.loss(frames).total for _ in range(50)]).mean()
        estimate = torch.stack([autoencoder.log_likelihood(frames, samples=5).mean() for _ in range(50)]).mean()
    assert float(-loss) == pytest.approx(float(estimate), abs=0.02)
    assert elbo(autoencoder, frames, 200).mean() + 0.1 < -loss < autoencoder.true_log_prob(frames).mean()


def test_its_gradient_is_that_of_the_normalised_weights() -> None:
    """Burda et al. 2016, equation 14: the mean of the gradients of log w_i, each weighted by w_i / sum_j w_j."""
    autoencoder, frames = made(importance_samples=6), batch(3)
    bias = autoencoder.decoder[0][-1].bias  # type: ignore[index]
    torch.manual_seed(3)
    (found,) = torch.autograd.grad(autoencoder.loss(frames).total, bias)
    torch.manual_seed(3)
    mu, log_var = autoencoder.posterior(frames)
    draws = torch.randn(6 * 3, 4).reshape(6, 3, 4)
    logs, slopes = [], []
    for draw in draws:
        code = mu + (log_var / 2).exp() * draw
        log_w = autoencoder.log_prob(frames, code) + log_density(Normal(0, 1), code).sum(1)
        log_w = log_w - log_density(Normal(mu, (log_var / 2).exp()), code).sum(1)
        logs.append(log_w.detach())
        slopes.append(torch.stack([torch.autograd.grad(one, bias, retain_graph=True)[0] for one in log_w]))
    shares = torch.stack(logs).softmax(0)
    expected = -(shares[..., None] * torch.stack(slopes)).sum(0).mean(0)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"importance_samples": 5, "beta": 2}, "no KL divergence to weigh"),
        ({"binarise": True, "likelihood": "gaussian"}, "the likelihood must be bernoulli"),
    ],
)
def test_objectives_that_contradict_themselves_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        made(**settings)


# -- the networks


def test_it_is_dense_or_convolutional() -> None:
    convolutional = made(hidden_sizes=[], widths=[4, 8])
    assert convolutional.reconstruct(batch(2)).shape == batch(2).shape
    assert convolutional.encode(batch(2)).shape == (2, 4)
    neither: dict[str, Any] = {"hidden_sizes": [], "widths": []}
    both = {"hidden_sizes": [8], "widths": [4]}
    for wrong in (neither, both):
        with pytest.raises(ConfigError, match="give either hidden_sizes"):
            made(**wrong)
    with pytest.raises(ValidationError):
        VariationalConfig(hidden_sizes=(4,), beta=0)


def test_a_wild_posterior_does_not_overflow() -> None:
    autoencoder = made()
    for parameter in autoencoder.encoder.parameters():
        parameter.data.mul_(1000)
    assert autoencoder.loss(batch(2)).total.isfinite()
