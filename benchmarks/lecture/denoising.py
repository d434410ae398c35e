"""Denoising as a lesson: what corruption does to the features of an autoencoder, and who takes noise out best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.lecture.bottleneck import Curve, curves
from benchmarks.lecture.contractive import train_contractive
from benchmarks.lecture.course import Course, Trained
from benchmarks.lecture.measures import PrincipalComponents, digit_probe, in_batches
from benchmarks.lecture.neighbours import train_generators
from benchmarks.lecture.page import Section
from benchmarks.shipped import able_to
from runtime.images import Pixels
from runtime.manifest import Task
from training.evaluate import psnr
from training.graph import to_levels, to_unit
from training.pictures import add_gaussian

UNITS = 144
DENOISER = "denoiser-fast"
SHOWN = 16  # filters a row
SIGMAS = (25, 50)  # of 255 levels

Cells = dict[str, str | float]

Method = Callable[[Pixels], Pixels]
"""Noisy frames [n, h, w, 1] to clean ones."""


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured."""

    corruptions: tuple[float, ...]
    """Sigmas, in 0..1."""

    steps: int
    probe: int
    """Images that the linear probe learns from."""

    frames: int
    """Test frames that noise is taken out of."""


FULL = Plan((0, 0.1, 0.25, 0.5), 20_000, 20_000, 1_000)
QUICK = Plan((0, 0.5), 600, 2_000, 50)


def denoising(course: Course, section: Section) -> None:
    """Train with more and more corruption; look at filters and codes; hold every kind to a real denoiser."""
    plan = QUICK if course.quick else FULL
    section.say(
        "A denoising autoencoder (Vincent et al. 2008) minimises |x - D(E(x + ε))|²: it is given noise and asked for "
        f"the clean frame. Here ε ~ N(0, σ²), and E and D are one sigmoid layer each way with {UNITS} units, more than "
        "a bottleneck needs: it is the noise that makes them look for strokes instead of pixels."
    )
    trained = {
        value: course.trained(
            f"corruption-{value:g}",
            course.digits,
            {"kind": "plain", "latent_dim": UNITS, "corruption": value},
            plan.steps,
            ship=True,
        )
        for value in plan.corruptions
    }
    section.table("MNIST, linear probe of the codes of clean images", [
        {"σ in training": f"{value:g}", "accuracy (%)": digit_probe(course, one.autoencoder, plan.probe)}
        for value, one in trained.items()
    ])  # fmt: skip
    caption = "Filters (rows of W) of the first units, σ in training growing from above: " + ", ".join(
        f"{value:g}" for value in trained
    )
    section.pictures("filters", caption, [filters(one) for one in trained.values()])
    digits, footage = curves(course)
    others = {f"plain, {UNITS} units, σ = {value:g}": one for value, one in trained.items()}
    others |= train_contractive(course) | {kind: train_generators(course)[kind] for kind in ("vaegan", "vq")}
    for curve, extra in ((digits, others), (footage, {})):
        rows = _compare(course, curve, extra, plan.frames)
        title = f"{curve.material.name} as noisy frames, PSNR (dB), noise clipped and rounded, output rounded"
        section.table(title, rows)
        section.say(" ".join(outcome(rows, f"sigma {sigma}") for sigma in SIGMAS))
    section.say(
        "Codes of few numbers cannot hold a frame; a real denoiser has no such bottleneck: its code is a pyramid of "
        "feature maps, its answer the noise to take away. It is told the level here, and was trained on photographs, "
        "never on digits."
    )


def filters(trained: Trained) -> list[Pixels]:
    """Return the weights that lead to the first units as pictures [h, w, 1]: 0 is grey, the largest black or white."""
    weights: Tensor = trained.autoencoder.get_parameter("encoder.weight").detach()[:SHOWN]
    scaled = 0.5 + 0.5 * weights / weights.abs().amax(1, keepdim=True)
    return list(to_levels(scaled.reshape(-1, *trained.autoencoder.shape.fixed)).numpy())


def _compare(course: Course, curve: Curve, extra: Mapping[str, Trained], frames: int) -> list[Cells]:
    material, width = curve.material, max(curve.widths)
    models = {f"{kind}, {width} numbers": one for kind, one in curve.trained(course, width).items()}
    components = PrincipalComponents.fit(material.learned, width)
    methods: dict[str, Method] = {"noisy": lambda noisy: noisy}
    methods[f"PCA, {width} numbers"] = _through(partial(components.reconstruct, components=width))
    methods |= {name: _through(one.autoencoder.reconstruct) for name, one in (models | dict(extra)).items()}
    clean = to_levels(material.test[:: max(1, len(material.test) // frames)][:frames]).numpy()
    rows: dict[str, Cells] = {name: {"": name} for name in (*methods, DENOISER)}
    denoiser = next(ShippedDenoiser(*opened) for opened in able_to(Task.DENOISE) if opened[0].name == DENOISER)
    for sigma in SIGMAS:
        noisy = _noisy(clean, sigma)
        for name, method in methods.items():
            rows[name][f"sigma {sigma}"] = mean_psnr(clean, method(noisy))
        answers = np.stack([denoiser.given(frame, sigma) for frame in noisy])
        rows[DENOISER][f"sigma {sigma}"] = mean_psnr(clean, answers)
    return list(rows.values())


def outcome(rows: Sequence[Cells], sigma: str) -> str:
    """Say who takes away more than it loses; the first row is the noisy frame, the last one the real denoiser."""
    gains = {str(row[""]): float(row[sigma]) - float(rows[0][sigma]) for row in rows[1:]}
    real = gains.pop(str(rows[-1][""]))
    best = max(gains, key=gains.__getitem__)
    helping = sum(gain > 0 for gain in gains.values())
    return (
        f"At {sigma}, {helping} of {len(gains)} bring frames nearer to the clean ones than the noise left them; the "
        f"most does {best}, {gains[best]:+.1f} dB, beside {real:+.1f} dB of {DENOISER}."
    )


def _through(reconstruct: Callable[[Tensor], Tensor]) -> Method:
    return lambda noisy: to_levels(in_batches(reconstruct, to_unit(torch.from_numpy(noisy)))).numpy()


def _noisy(clean: Pixels, sigma: float) -> Pixels:
    return np.stack([add_gaussian(frame, sigma, np.random.default_rng([0, i])) for i, frame in enumerate(clean)])


def mean_psnr(clean: Pixels, other: Pixels) -> float:
    """Return the mean PSNR of frames [n, h, w, 1], in dB."""
    return float(np.mean([psnr(one, two) for one, two in zip(clean, other, strict=True)]))
