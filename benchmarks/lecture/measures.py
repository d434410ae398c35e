"""What the parts measure: errors, principal components, Jacobians, probes, distances."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.lecture.course import Course, Labels
from training.autoencoders.base import Autoencoder

AT_ONCE = 500  # frames that go through a network at once


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Apply a function to frames [n, ...], some hundreds at once."""
    return torch.cat([function(batch) for batch in torch.split(frames, AT_ONCE)])


def squared_error(frames: Tensor, reconstruction: Tensor) -> float:
    """Return the squared error of a frame, summed over its pixels (in 0..1), in the mean over the frames."""
    return float((frames - reconstruction).double().square().flatten(1).sum(1).mean())


@dataclass(frozen=True)
class PrincipalComponents:
    """The linear autoencoder of the least squared error (Baldi and Hornik 1989), for any number of components."""

    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    """[components, pixels], orthonormal, the largest variance first."""

    @classmethod
    def fit(cls, frames: Tensor, components: int) -> "PrincipalComponents":
        """Find the leading components of frames [n, C, H, W]."""
        solver = "covariance_eigh" if len(frames) > frames[0].numel() else "randomized"
        found = PCA(components, svd_solver=solver, random_state=0).fit(frames.flatten(1).numpy())
        return cls(found.mean_, found.components_)

    def reconstruct(self, frames: Tensor, components: int) -> Tensor:
        """Project [n, C, H, W] on the first components, and back."""
        axes, mean = torch.from_numpy(self.axes[:components]), torch.from_numpy(self.mean)
        return (((frames.flatten(1) - mean) @ axes.T) @ axes + mean).reshape(frames.shape)


def jacobians(encode: Callable[[Tensor], Tensor], frames: Tensor) -> Iterator[Tensor]:
    """Yield J = dh/dx [latent_dim, pixels] of every frame of [n, C, H, W]."""
    for frame in frames:
        jacobian: Tensor = torch.autograd.functional.jacobian(lambda x: encode(x[None])[0], frame, vectorize=True)  # type: ignore[no-untyped-call]
        yield jacobian.flatten(1)


def singular_values(autoencoder: Autoencoder[Tensor], frames: Tensor) -> Tensor:
    """Return those of the encoder's Jacobian, [n, rank], the largest first; |J|_F is the root of their squares' sum."""
    return torch.stack([torch.linalg.svdvals(jacobian) for jacobian in jacobians(autoencoder.encode, frames)])


def probe_accuracy(codes: tuple[Tensor, Tensor], labels: tuple[Labels, Labels]) -> float:
    """Return the test accuracy, in %, of logistic regression on standardised codes: (training, test) of each.

    What a linear classifier cannot read from a code, the code does not say plainly (Alain and Bengio 2017).
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    probe.fit(codes[0].numpy(), labels[0])
    return 100 * float(probe.score(codes[1].numpy(), labels[1]))


def digit_probe(course: Course, model: Autoencoder[Tensor], count: int) -> float:
    """Return the accuracy of a probe that learns from the codes of so many digits, on those of the test images."""
    digits, (known, test) = course.digits, course.labels
    codes = in_batches(model.encode, digits.learned[:count]), in_batches(model.encode, digits.test)
    return probe_accuracy(codes, (known[:count], test))


def mean_distance(points: Tensor) -> float:
    """Return the mean Euclidean distance of two different rows of [n, d]."""
    return float(torch.nn.functional.pdist(points).mean())


def energy_distance(one: Tensor, other: Tensor) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples [n, d] (Szekely and Rizzo 2013).

    It is 0 in expectation where both are drawn from one distribution and above where not; unbiased, so that it may
    fall below 0.
    """
    return 2 * float(torch.cdist(one, other).mean()) - mean_distance(one) - mean_distance(other)


def rank_correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return Spearman's correlation of two rows of numbers."""
    return float(spearmanr(one, other).statistic)
