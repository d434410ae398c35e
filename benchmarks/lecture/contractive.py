"""Contraction: what the penalty on the encoder's Jacobian does to the code, at equal reconstruction error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.lecture.bottleneck import COLUMN
from benchmarks.lecture.course import Course, Trained
from benchmarks.lecture.measures import digit_probe, in_batches, mean_distance, singular_values, squared_error
from benchmarks.lecture.page import Section
from training.autoencoders.base import Autoencoder
from training.card import Row

UNITS = 144
NORM, MOVED, PROBE = "mean \\|J\\|_F", "code moved by noise (%)", "linear probe (%)"
SIGMA = 0.1  # of the noise that should not move a code; pixels are in 0..1


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured."""

    contractions: tuple[float, ...]
    """Lambdas."""

    steps: int
    rungs: tuple[int, ...]
    """Steps of the plain autoencoder: the longer, the smaller its error and the larger its Jacobian."""

    frames: int
    """Whose Jacobians are taken."""

    probe: int
    """Images that the linear probe learns from."""


FULL = Plan((0.01, 0.03, 0.1, 0.3), 20_000, (500, 1_000, 2_000, 4_000, 8_000, 11_000, 15_000, 20_000), 1_000, 20_000)
QUICK = Plan((0.1,), 600, (100, 300, 600), 50, 2_000)


@dataclass(frozen=True)
class Finding:
    """What was measured of one model."""

    name: str
    error: float
    spectrum: Tensor
    """Mean singular values of the Jacobian, [rank]."""

    norm: float
    """Mean |J|_F."""

    moved: float
    accuracy: float

    @property
    def row(self) -> Row:
        """The line of the table."""
        return {
            "": self.name,
            COLUMN: self.error,
            NORM: self.norm,
            "singular values above a tenth of the largest": float((self.spectrum > self.spectrum[0] / 10).sum()),
            MOVED: 100 * self.moved,
            PROBE: self.accuracy,
        }


COMPARED: dict[str, Callable[[Finding], float]] = {
    NORM: lambda found: found.norm,
    MOVED: lambda found: 100 * found.moved,
    PROBE: lambda found: found.accuracy,
}


def contractive(course: Course, section: Section) -> None:
    """Train plain and contractive autoencoders of one size, and compare them where they reconstruct equally well."""
    plan = QUICK if course.quick else FULL
    section.say(
        "The contractive autoencoder (Rifai et al. 2011) minimises |x - x'|² + λ |J|²_F, where J = ∂h/∂x is the "
        f"encoder's Jacobian. Here x' = s(Wᵀh + c) and h = s(Wx + b) with {UNITS} units, so that "
        "|J|²_F = Σ_j (h_j (1 - h_j))² Σ_i W_ji²; the figures below take J by automatic differentiation instead. With "
        "λ = 0 it is the plain autoencoder of the same size. The penalty costs reconstruction, so a plain autoencoder "
        "of equal error is found among those that were trained for fewer steps."
    )
    plain = [_find(course, 0.0, steps, plan) for steps in plan.rungs]
    contracted = [_find(course, value, plan.steps, plan) for value in plan.contractions]
    section.table(f"MNIST, |J|_F over {plan.frames:,} test images", [found.row for found in (*plain, *contracted)])
    section.say(
        f"Moved: the mean length of h(x + ε) - h(x), ε white noise of sigma {SIGMA:g}, in % of the mean distance of "
        "the codes of two test images; a code that is only smaller gains nothing by it. The probe is logistic "
        f"regression on the standardised codes of {plan.probe:,} images."
    )
    section.table(
        "At equal reconstruction error; the plain one's figures lie between those of the nearest errors",
        [_beside(found, plain) for found in contracted],
    )
    section.plot("norms", "Norm of the Jacobian against the reconstruction error", _norms(plain, contracted))
    nearest = [one for one in plain if any(one is nearest_to(other, plain) for other in contracted)]
    caption = "Mean singular values of the Jacobian, beside the plain autoencoders of the nearest errors"
    section.plot("spectra", caption, _spectra([*nearest, *contracted]))


def train_contractive(course: Course) -> dict[str, Trained]:
    """Return the contractive autoencoders, by what they are called."""
    plan = QUICK if course.quick else FULL
    return {f"contractive, λ = {value:g}": _train(course, value, plan.steps) for value in plan.contractions}


def _train(course: Course, contraction: float, steps: int) -> Trained:
    config = {"kind": "contractive", "latent_dim": UNITS, "contraction": contraction}
    return course.trained(f"contractive-{contraction:g}-{steps}", course.digits, config, steps, ship=True)


def _find(course: Course, contraction: float, steps: int, plan: Plan) -> Finding:
    digits = course.digits
    model = _train(course, contraction, steps).autoencoder
    spectra = singular_values(model, digits.test[: plan.frames])
    return Finding(
        f"λ = {contraction:g}" if contraction else f"plain, {steps:,} steps",
        squared_error(digits.test, in_batches(model.reconstruct, digits.test)),
        spectra.mean(0),
        float(spectra.square().sum(1).sqrt().mean()),
        moved_by_noise(model, digits.test[: plan.frames]),
        digit_probe(course, model, plan.probe),
    )


@torch.no_grad()
def moved_by_noise(model: Autoencoder[Tensor], frames: Tensor) -> float:
    """Return how far white noise of SIGMA moves a code, as a share of the mean distance of two frames' codes."""
    noise = SIGMA * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    codes = in_batches(model.encode, frames)
    return float((in_batches(model.encode, frames + noise) - codes).norm(dim=1).mean()) / mean_distance(codes)


def at_error(error: float, findings: Sequence[Finding], measured: Callable[[Finding], float]) -> float | None:
    """Return what is measured at a reconstruction error, between the nearest findings; None outside of them."""
    by_error = sorted(findings, key=lambda found: found.error)
    errors = [found.error for found in by_error]
    if not errors[0] <= error <= errors[-1]:
        return None
    return float(np.interp(error, errors, [measured(found) for found in by_error]))


def nearest_to(found: Finding, others: Sequence[Finding]) -> Finding:
    """Return the one of the others whose reconstruction error is nearest."""
    return min(others, key=lambda other: abs(other.error - found.error))


def _beside(found: Finding, plain: Sequence[Finding]) -> Row:
    row: dict[str, str | float] = {"": found.name, COLUMN: found.error}
    for name, measured in COMPARED.items():
        usual = at_error(found.error, plain, measured)
        row |= {name: measured(found), f"{name}, plain": "no plain one has this error" if usual is None else usual}
    return row


def _norms(plain: Sequence[Finding], contracted: Sequence[Finding]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [found.error for found in plain], [found.norm for found in plain], marker="o", label="plain, by its steps"
    )
    for found in contracted:
        axes.plot([found.error], [found.norm], marker="s", linestyle="", label=found.name)
    axes.set(xlabel=COLUMN, ylabel="mean |J|_F")
    axes.legend(fontsize="small")
    return figure


def _spectra(findings: Sequence[Finding]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for found in findings:
        axes.plot(found.spectrum.numpy(), label=f"{found.name}: error {found.error:.2f}")
    axes.set_yscale("log")
    axes.set(xlabel="direction, the strongest first", ylabel="singular value")
    axes.legend(fontsize="small")
    return figure
