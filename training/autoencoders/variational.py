"""The variational autoencoder (Kingma and Welling 2014): the code is a distribution, and so it can be sampled.

The encoder gives mean and variance of a diagonal Gaussian q(z|x); a sample z = mu + sigma * epsilon is decoded; the
loss is the negative evidence lower bound -E log p(x|z) + beta KL(q(z|x) || N(0, I)). With `importance_samples` k > 1
it is the tighter bound of Burda et al. 2016, -E log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x).
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, FrameShape, Losses, register
from training.layers import ConvolutionalDecoder, Dense, Unflatten, convolutional_encoder
from training.likelihood import LikelihoodAutoencoder, LikelihoodConfig


class VariationalConfig(LikelihoodConfig):
    """Settings of the variational kind."""

    kind: Literal["variational"] = "variational"
    hidden_sizes: tuple[int, ...] = Field((), description="units a layer of a dense network")
    widths: tuple[int, ...] = Field((), description="channels of a convolutional network; each halves the size")
    latent_dim: int = Field(50, ge=1)
    beta: float = Field(1, gt=0, description="weight of the KL divergence (Higgins et al. 2017); 1 is the ELBO")
    importance_samples: int = Field(1, ge=1, description="k of the importance-weighted bound (Burda et al. 2016)")

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if bool(self.hidden_sizes) == bool(self.widths):
            raise ValueError("give either hidden_sizes, for a dense network, or widths, for a convolutional one")
        return self

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.importance_samples > 1 and self.beta != 1:
            raise ValueError("the importance-weighted bound has no KL divergence to weigh: leave beta at 1")
        return self


def kl_divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mu, diag exp log_var) || N(0, I)) in nats, [B, d] -> [B]: sum (mu^2 + s^2 - 1 - log s^2) / 2."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)


def reparameterise(mu: Tensor, log_var: Tensor) -> Tensor:
    """Draw z = mu + sigma * epsilon, so that gradients pass through mu and sigma."""
    return mu + (log_var / 2).exp() * torch.randn_like(mu)


def _log_mean(log_weights: Tensor) -> Tensor:
    """Return the logarithm of the mean weight, [samples, B] -> [B]."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


class GaussianCode(Autoencoder[Tensor]):
    """An autoencoder whose encoder gives mu and log_var of q(z|x), side by side, and whose decoder gives logits."""

    encoder: nn.Module
    decoder: nn.Module

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log_var of q(z|x), [B, latent_dim] each."""
        mu, log_var = self.encoder(frames).chunk(2, dim=1)
        return mu, log_var.clamp(-12, 8)  # exp of anything wilder overflows early in training

    def encode(self, frames: Tensor) -> Tensor:
        """Return the mean of q(z|x), [B, latent_dim]."""
        return self.posterior(frames)[0]

    def decode(self, code: Tensor) -> Tensor:
        """Return the mean of p(x|z), [B, latent_dim] -> [B, C, H, W]."""
        return torch.sigmoid(self.decoder(code))


@register
class Variational(GaussianCode, LikelihoodAutoencoder):
    """Dense or convolutional; Bernoulli likelihood, or Gaussian with one learned variance (Rybkin et al. 2021)."""

    Config = VariationalConfig
    config: VariationalConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE, Task.SAMPLE})

    def __init__(self, config: VariationalConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        fixed, twice = shape.fixed, 2 * config.latent_dim
        if config.widths:
            self.encoder = convolutional_encoder(fixed, config.widths, twice)
            self.decoder = ConvolutionalDecoder(fixed, config.widths, config.latent_dim)
        else:
            pixels = math.prod(fixed)
            self.encoder = nn.Sequential(nn.Flatten(), Dense((pixels, *config.hidden_sizes, twice), nn.Tanh))
            back = Dense((config.latent_dim, *reversed(config.hidden_sizes), pixels), nn.Tanh)
            self.decoder = nn.Sequential(back, Unflatten(fixed))
        self._make_scale()

    @classmethod
    def suggest(cls, steps: int | None = None) -> VariationalConfig:  # noqa: ARG003
        """Return a convolutional network, whose variance sets the balance of its two terms."""
        return VariationalConfig(widths=(16, 32, 64), likelihood="gaussian")

    @property
    def latent_dim(self) -> int:
        """Dimensions of z."""
        return self.config.latent_dim

    def log_prob(self, frames: Tensor, code: Tensor) -> Tensor:
        """Return log p(x|z) in nats, [B]."""
        return self._log_prob(frames, self.decoder(code))

    def loss(self, frames: Tensor) -> Losses:
        """Negative evidence lower bound, or importance-weighted bound, in nats a frame."""
        frames = self.seen(frames)
        mu, log_var = self.posterior(frames)
        if self.config.importance_samples > 1:
            weights = self._log_weights(frames, mu, log_var, self.config.importance_samples)
            return Losses(-_log_mean(weights).mean(), {"one_sample": -weights.mean()})
        log_prob = self.log_prob(frames, reparameterise(mu, log_var)).mean()
        kl = kl_divergence(mu, log_var).mean()
        return Losses(self.config.beta * kl - log_prob, {"negative_log_prob": -log_prob, "kl": kl})

    def _log_weights(self, frames: Tensor, mu: Tensor, log_var: Tensor, samples: int) -> Tensor:
        """Return log p(x|z_i) p(z_i) / q(z_i|x) of draws z_i from q(z|x), [samples, B], in nats."""
        mu, log_var = mu.repeat(samples, 1), log_var.repeat(samples, 1)
        code = reparameterise(mu, log_var)
        # log N(z; 0, I) - log N(z; mu, sigma^2): the normalising constants cancel
        log_ratio = 0.5 * (log_var + (code - mu).square() / log_var.exp() - code.square()).sum(1)
        log_prob = self.log_prob(frames.repeat(samples, 1, 1, 1), code)
        return (log_prob + log_ratio).reshape(samples, -1)

    def measure(self, frames: Tensor) -> dict[tuple[str, str], float]:
        """Return the evidence lower bound, its KL part and the importance-weighted log p(x) of held-out frames."""
        frames = self.seen(frames)
        mu, log_var = self.posterior(frames)
        kl = kl_divergence(mu, log_var)
        elbo = self.log_prob(frames, reparameterise(mu, log_var)) - kl
        return {
            ("ELBO", "nats a frame"): float(elbo.mean()),
            ("KL divergence", "nats a frame"): float(kl.mean()),
            ("log p(x), 100 importance samples", "nats a frame"): float(self.log_likelihood(frames).mean()),
        }

    @torch.no_grad()
    def log_likelihood(self, frames: Tensor, samples: int = 100) -> Tensor:
        """Estimate log p(x) in nats, [B], by importance sampling from q(z|x) (Burda et al. 2016).

        log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x): a lower bound in expectation, tighter the more samples.
        """
        posterior = self.posterior(frames)
        return _log_mean(torch.cat([self._log_weights(frames, *posterior, 1) for _ in range(samples)]))
