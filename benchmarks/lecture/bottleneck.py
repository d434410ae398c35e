"""Compression: the reconstruction error against the width of the code, and the deep autoencoder of 2006."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.lecture.course import BATCH, Course, Material, Trained
from benchmarks.lecture.measures import PrincipalComponents, in_batches, squared_error
from benchmarks.lecture.page import Section
from benchmarks.musts import Must, Side
from training.card import Row
from training.graph import to_levels

COLUMN = "squared error a test image"
HINTON, HINTON_PCA = 3.00, 13.87  # Hinton and Salakhutdinov 2006
MUST = 3.0
CODE = 30
DEEP = {"kind": "deep", "hidden_sizes": [1000, 500, 250], "latent_dim": CODE}
SHOWN = 8  # test images in the picture


@dataclass(frozen=True)
class Plan:
    """How much is trained."""

    digits: tuple[int, ...]
    """Widths of the code."""

    digit_steps: int
    footage: tuple[int, ...]
    footage_steps: int
    epochs: int
    """Of the deep autoencoder."""

    pretrain_epochs: int
    """Of each of its Boltzmann machines."""


# Not Muon: for matrices of 784 by 1000 its step takes half a second of a core.
FULL = Plan((2, 4, 8, 16, 32, 64), 15_000, (4, 16, 64, 128), 3_000, 120, 20)
QUICK = Plan((2, 16), 200, (16,), 60, 1, 1)


@dataclass(frozen=True)
class Curve:
    """One set of pictures, compressed by every kind to several widths."""

    material: Material
    widths: tuple[int, ...]
    steps: int
    batch_size: int
    likelihood: str
    """Of the variational kind."""

    def trained(self, course: Course, width: int) -> dict[str, Trained]:
        """Return every kind with a code of this width, by what it is called."""
        kinds: dict[str, dict[str, Any]] = {
            "plain": {},
            "deep": {"hidden_sizes": [500, 250, 125]},
            "convolutional": {"widths": [16, 32, 64]},
            "variational": {"hidden_sizes": [200, 200], "likelihood": self.likelihood},
        }
        return {
            kind: course.trained(
                f"{kind}-{width}-{self.material.key}",
                self.material,
                {"kind": kind, "latent_dim": width} | settings,
                self.steps,
                batch_size=self.batch_size,
            )
            for kind, settings in kinds.items()
        }


def curves(course: Course) -> tuple[Curve, Curve]:
    """Return that of digits and that of footage."""
    plan = QUICK if course.quick else FULL
    return (
        Curve(course.digits, plan.digits, plan.digit_steps, BATCH, "bernoulli"),
        Curve(course.footage, plan.footage, plan.footage_steps, 32, "gaussian"),
    )


def bottleneck(course: Course, section: Section) -> None:
    """Draw both curves, then hold the deep autoencoder to the published figures."""
    section.say(
        "An autoencoder minimises |x - x'|², x' = D(E(x)), through a code of `latent_dim` numbers. With linear E and D "
        "the best it can do is the projection on the principal components (Baldi and Hornik 1989); what lies below "
        "that curve is what non-linear layers are worth. The variational kind minimises another loss (the evidence "
        "lower bound) and pays for it here; it is shown by the mean of its code."
    )
    for curve in curves(course):
        _draw(course, section, curve)
    _deep(course, section, QUICK if course.quick else FULL)


def _draw(course: Course, section: Section, curve: Curve) -> None:
    material = curve.material
    components = PrincipalComponents.fit(material.learned, max(curve.widths))
    rows: list[dict[str, str | float]] = []
    for width in curve.widths:
        linear = squared_error(material.test, components.reconstruct(material.test, width))
        errors = {kind: error_of(trained, material) for kind, trained in curve.trained(course, width).items()}
        rows.append({"latent_dim": str(width), "PCA": linear, **errors})
    size = f"{curve.steps:,} steps of {curve.batch_size} images each"
    title = f"{material.name}, {COLUMN} against the width of the code, {size}"
    section.table(title, rows)
    section.plot(f"curve-{material.key}", title, _plot(rows))


def error_of(trained: Trained, material: Material) -> float:
    """Return the squared error of a test image."""
    return squared_error(material.test, in_batches(trained.autoencoder.reconstruct, material.test))


def _plot(rows: list[dict[str, str | float]]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for kind in [key for key in rows[0] if key != "latent_dim"]:
        widths, errors = [float(row["latent_dim"]) for row in rows], [float(row[kind]) for row in rows]
        axes.plot(widths, errors, marker="o", color="black" if kind == "PCA" else None, label=kind)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(xlabel="latent_dim", ylabel=COLUMN)
    axes.legend(fontsize="small")
    return figure


def _deep(course: Course, section: Section, plan: Plan) -> None:
    """Train 784-1000-500-250-30 in three ways, for equally many epochs, and hold it to the published figures."""
    digits = course.digits
    found = _ways(course, plan)
    components = PrincipalComponents.fit(digits.learned, CODE)
    errors = {name: error_of(trained, digits) for name, trained in found.items()}
    rows: list[Row] = [_row(f"PCA, {CODE} components", partial(components.reconstruct, components=CODE), digits)]
    rows += [_row(f"deep, {name}", one.autoencoder.reconstruct, digits, one.minutes) for name, one in found.items()]
    rows += [
        {"": "published: PCA", COLUMN: HINTON_PCA},
        {"": "published: deep, from Boltzmann machines", COLUMN: HINTON},
    ]
    section.say(
        "The deep autoencoder 784-1000-500-250-30 of Hinton and Salakhutdinov 2006 has logistic layers and a linear "
        "code. They trained each layer as a restricted Boltzmann machine first, for random weights led nowhere; what "
        "that is worth beside today's initialisation and optimiser is measured. So is what is lost by learning the "
        "images by heart: the third sees each of them moved by up to a pixel each way, elsewhere every time."
    )
    section.table(f"MNIST, {plan.epochs} epochs, after {plan.pretrain_epochs} of each Boltzmann machine or none", rows)
    section.must([Must(f"MNIST, deep autoencoder, {COLUMN}", Side.AT_MOST, MUST, errors)])
    shown = digits.test[:SHOWN]
    with torch.no_grad():
        reconstructions = [one.autoencoder.reconstruct(shown) for one in found.values()]
    pictures = [shown, components.reconstruct(shown, CODE), *reconstructions]
    caption = "Test images; from 30 principal components; from the deep autoencoder " + ", ".join(found)
    section.pictures("digits", caption, [list(to_levels(row).numpy()) for row in pictures])


def _ways(course: Course, plan: Plan) -> dict[str, Trained]:
    """Return the deep autoencoder by how it was trained."""
    digits = course.digits
    moved = replace(digits, data=dict(digits.data) | {"shift": 1})
    steps = plan.epochs * len(digits.split.train) // BATCH

    def trained(name: str, material: Material, pretrain_epochs: int = 0) -> Trained:
        network = DEEP | {"pretrain_epochs": pretrain_epochs}
        return course.trained(name, material, network, steps, ship=True)

    return {
        "from random weights": trained("hinton", digits),
        "from Boltzmann machines": trained("hinton-pretrained", digits, plan.pretrain_epochs),
        "from random weights, images moved": trained("hinton-moved", moved),
    }


def _row(name: str, reconstruct: Callable[[Tensor], Tensor], material: Material, minutes: float | None = None) -> Row:
    learned = material.learned[: len(material.test)]
    return {
        "": name,
        COLUMN: squared_error(material.test, in_batches(reconstruct, material.test)),
        "a training image": squared_error(learned, in_batches(reconstruct, learned)),
        "CPU minutes of training": "" if minutes is None else minutes,
    }
