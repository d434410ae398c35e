"""Features on the scale of their own normal variation: moments, whitening by principal components, typical errors."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

LEAST_SHRINKAGE = 0.01  # of the covariance: half-precision weights and other CPUs must not move the score
WORST_SHARE = 0.003  # of a map, which the score of one level is the mean of
SMOOTHING = 3  # cells that errors are averaged over, for a defect is seldom one cell large
TINY = 1e-6


class Moments:
    """Running mean and covariance of rows [n, C], in double precision."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._outer = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take rows [n, C] into account."""
        exact = rows.double().cpu()
        self.count += len(exact)
        self._sum += exact.sum(0)
        self._outer += exact.T @ exact

    @property
    def mean(self) -> Tensor:
        """The mean, [C]."""
        return self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """The covariance, [C, C]."""
        return self._outer / self.count - torch.outer(self.mean, self.mean)


def shrinkage(correlation: Tensor, count: int) -> float:
    """Return how far to pull a [C, C] correlation of `count` rows towards the identity, in 0..1.

    That is the oracle approximating shrinkage of Chen et al. 2010, with a floor.
    """
    width = len(correlation)
    squares, trace = float(correlation.square().sum()), float(correlation.trace())
    above = (1 - 2 / width) * squares + trace**2
    below = (count + 1 - 2 / width) * (squares - trace**2 / width)
    return min(1.0, max(LEAST_SHRINKAGE, above / below)) if below > 0 else 1.0


class Level(nn.Module):
    """One grid of features: whitened by what is normal, and its errors put on a scale that levels share.

    The components are ordered by their variance, the largest first; each has mean 0 and variance 1 on normal frames.
    """

    def __init__(self, width: int, height: int, across: int) -> None:
        super().__init__()
        self.width, self.grid = width, (height, across)
        self.mean: Tensor
        self.basis: Tensor
        self.usual: Tensor
        self.middle: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.eye(width))  # a column is an axis, divided by its standard deviation
        self.register_buffer("usual", torch.ones(height, across))  # what is normal where, in the mean
        self.register_buffer("middle", torch.zeros(()))  # of the scores of normal frames
        self.register_buffer("spread", torch.ones(()))

    def fit(self, moments: Moments) -> None:
        """Set mean and basis from the moments of normal features."""
        covariance = moments.covariance
        scale = covariance.diagonal().clamp(min=TINY).sqrt()
        correlation = covariance / torch.outer(scale, scale)
        share = shrinkage(correlation, moments.count)
        mixed = (1 - share) * correlation + share * torch.eye(self.width, dtype=torch.float64)
        variances, axes = torch.linalg.eigh(mixed)
        basis = axes / variances.clamp(min=TINY).sqrt() / scale[:, None]
        self.mean.copy_(moments.mean)
        self.basis.copy_(basis.flip(1))

    def whiten(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> components [B, C, h, w]."""
        return F.conv2d(features - self.mean[:, None, None], self.basis.T[:, :, None, None])

    def error(self, components: Tensor) -> Tensor:
        """Return the mean square of components [B, n, h, w], over what is usual there, as [B, h, w]."""
        return smooth(components.square().mean(1)) / self.usual

    def normalise(self, errors: Tensor) -> None:
        """Set the scale from errors [n, h, w] of normal frames that `fit` has not seen.

        What is usual is told block by block, so that a place that always varies is not reported for it.
        """
        errors = errors * self.usual
        self.usual.copy_(smooth(errors.mean(0, keepdim=True))[0].clamp(min=TINY))
        scores = worst(errors / self.usual)
        self.middle.copy_(scores.median())
        self.spread.copy_((scores.quantile(0.9) - scores.median()).clamp(min=TINY))

    def standardise(self, error: Tensor) -> Tensor:
        """Return how many spreads the error is above the middle of normal frames."""
        return (error - self.middle) / self.spread


def smooth(maps: Tensor) -> Tensor:
    """Average [B, h, w] over windows, which the border cuts."""
    kernel, reach = SMOOTHING, SMOOTHING // 2
    return F.avg_pool2d(maps[:, None], kernel, stride=1, padding=reach, count_include_pad=False)[:, 0]


def worst(maps: Tensor) -> Tensor:
    """Return the mean of the worst share of each map, [B, h, w] -> [B]."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round(WORST_SHARE * flat.shape[1])), dim=1).values.mean(1)
