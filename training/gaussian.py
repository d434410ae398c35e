"""The multivariate Gaussian of the codes of normal frames: N(mu, Sigma), its full covariance included.

p(h) = exp(-d^2 / 2) / ((2 pi)^(k/2) |Sigma|^(1/2)) with the Mahalanobis distance d^2 = (h - mu)' Sigma^-1 (h - mu)
(Mahalanobis 1936). Frames whose code is improbable are unlike those that it was fitted to.
"""

import math
from collections.abc import Iterable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from training.whitening import Moments

Measure = Literal["mahalanobis", "density"]

FLOOR = 1e-4  # of the mean variance, added to every variable: one that never moves must not divide by nothing


class LatentGaussian(nn.Module):
    """N(mean, covariance) over codes [B, latent_dim]; as a module it scores them by its measure."""

    def __init__(self, mean: Tensor, covariance: Tensor, measure: Measure = "mahalanobis") -> None:
        """Raise torch.linalg.LinAlgError where the covariance [k, k] is not positive definite."""
        super().__init__()
        exact = covariance.double()
        factor = torch.linalg.cholesky(exact)
        self.measure = measure
        self.mean: Tensor
        self.factor: Tensor
        self.whitening: Tensor
        self.log_normaliser = 0.5 * len(mean) * math.log(2 * math.pi) + float(factor.diagonal().log().sum())
        self.register_buffer("mean", mean.float())
        self.register_buffer("factor", factor.float())  # L, Sigma = L L'
        self.register_buffer("whitening", torch.linalg.inv(factor).float())

    @classmethod
    def fit(cls, codes: Iterable[Tensor], measure: Measure = "mahalanobis") -> Self:
        """Fit to batches of codes [B, k]; raise ValueError where there are none."""
        moments: Moments | None = None
        for batch in codes:
            moments = moments or Moments(batch.shape[1])
            moments.add(batch)
        if moments is None:
            raise ValueError("a Gaussian needs codes to be fitted to")
        covariance = moments.covariance
        ridge = max(FLOOR * float(covariance.diagonal().mean()), torch.finfo(torch.float32).tiny)
        return cls(moments.mean, covariance + ridge * torch.eye(len(covariance), dtype=torch.float64), measure)

    def mahalanobis(self, codes: Tensor) -> Tensor:
        """Return the distance d of codes [B, k] to the mean as [B], in standard deviations."""
        return ((codes - self.mean) @ self.whitening.T).square().sum(1).sqrt()

    def log_density(self, codes: Tensor) -> Tensor:
        """Return log p(h) of codes [B, k] as [B], in nats."""
        return -0.5 * ((codes - self.mean) @ self.whitening.T).square().sum(1) - self.log_normaliser

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return codes [count, k] drawn from it."""
        return self.mean + torch.randn(count, len(self.mean), generator=generator) @ self.factor.T

    def forward(self, codes: Tensor) -> Tensor:
        """Return the anomaly score [B]: the Mahalanobis distance, or -log p(h)."""
        return self.mahalanobis(codes) if self.measure == "mahalanobis" else -self.log_density(codes)
