"""The neighbours of autoencoders: a PixelCNN as the prior of discrete codes, and a discriminator for the decoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.lecture.bottleneck import error_of
from benchmarks.lecture.course import BATCH, Course, Material, Trained
from benchmarks.lecture.measures import energy_distance, in_batches
from benchmarks.lecture.page import Section
from benchmarks.lecture.variational import Seen, binarised
from training.autoencoders.base import Autoencoder
from training.autoencoders.variational import Variational
from training.autoencoders.vq import Vq
from training.card import Row
from training.evaluate import auroc
from training.graph import to_levels

PIXELCNN = 81.30  # nats, van den Oord et al. 2016, binarised MNIST
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
SHOWN = 12


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured."""

    steps: int
    held_out_steps: int
    """Of the models that never see one of the digits."""

    held_out: tuple[int, ...]
    """Digits, one after the other."""

    widths: tuple[int, ...]
    """Of the kinds whose code is a vector."""

    vq: Mapping[str, Any]
    draws: int
    """Samples, and as many test images."""


FULL = Plan(12_000, 6_000, (1, 4, 8), (16, 32, 64), {"widths": [32, 64], "codes": 64, "prior_width": 64}, 3_000)
QUICK = Plan(60, 40, (1,), (4, 8), {"widths": [8, 16], "codes": 16, "prior_width": 16, "prior_layers": 3}, 300)


def neighbours(course: Course, section: Section) -> None:
    """Measure the likelihood of the one, the samples of both, and likelihood as an anomaly score."""
    plan = QUICK if course.quick else FULL
    section.say(
        "Beside autoencoders the lecture places two other generative models. A PixelCNN (van den Oord et al. 2016) "
        "gives p(x) as a product over pixels, each given those before it; a generative adversarial network (Goodfellow "
        "et al. 2014) is taught by a discriminator. Both meet an autoencoder here: the kind `vq` (van den Oord et al. "
        "2017) has a grid of discrete codes k with a gated PixelCNN as their prior p(k); the kind `vaegan` (Larsen et "
        "al. 2016) is a variational autoencoder whose decoder also has to deceive a discriminator."
    )
    _likelihood(course, section, plan)
    _samples(course, section, plan)
    _anomalies(course, section, plan)


def _vector(kind: str, plan: Plan) -> dict[str, Any]:
    return {"kind": kind, "latent_dim": 32, "widths": list(plan.widths)}


def _vq(plan: Plan, likelihood: str = "bernoulli") -> dict[str, Any]:
    return {"kind": "vq", "likelihood": likelihood, **plan.vq}


def _likelihood(course: Course, section: Section, plan: Plan) -> None:
    binary = {"binarise": True}
    trained = course.trained("neighbours-vq-binary", course.digits, _vq(plan) | binary, plan.steps, ship=True)
    other = course.trained(
        "neighbours-vae-binary", course.digits, _vector("variational", plan) | binary, plan.steps, ship=True
    )
    model, frames = trained.of_kind(Vq), binarised(course.digits.test)
    pixels, codes = bounds(model, frames)
    nats, bits = float((pixels + codes).mean()), float(codes.mean()) / math.log(2)
    seen = Seen(other.of_kind(Variational), frames)
    size = frames[0].numel()
    rows: list[Row] = [
        _bound("vq, -log p(x\\|e) - log p(k)", nats, size, trained.minutes),
        _bound("convolutional VAE, -ELBO", -seen.elbo(), size, other.minutes),
        _bound("published: PixelCNN of the pixels themselves", PIXELCNN, size, None),
    ]
    section.table(f"{len(frames):,} binarised MNIST test images, upper bounds of -log p(x)", rows)
    section.table("The code of the vq autoencoder, in the mean over the same images", [{
        "cells": float(model.latent_dim), "codes": float(model.config.codes),
        "codes in use": float(in_batches(model.encode, frames).flatten().bincount().count_nonzero()),
        "-log p(k) (nats)": float(codes.mean()), "bits a cell, by the PixelCNN": bits / model.latent_dim,
        "bits a cell, without one": math.log2(model.config.codes), "-log p(x\\|e) (nats)": float(pixels.mean()),
    }])  # fmt: skip
    section.say(
        f"Trained for {plan.steps:,} steps of {BATCH} images, binarised anew at each look; the test images are "
        "binarised once, seed 0. An image could also come from other codes than those that the encoder chooses, so "
        "that -log p(x|e) - log p(k) is no less than -log p(x). A PixelCNN of pixels has no such gap, and the "
        "published one was trained on a fixed binarisation."
    )


def _bound(name: str, nats: float, size: int, minutes: float | None) -> Row:
    spent = "" if minutes is None else minutes
    return {"": name, "nats": nats, "bits a pixel": nats / size / math.log(2), "CPU minutes of training": spent}


@torch.no_grad()
def bounds(model: Vq, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return -log p(x|e) and -log p(k) of frames [n, C, H, W] in nats, [n] each."""
    both = in_batches(lambda batch: torch.stack(model.bound(batch), 1), frames)
    return both[:, 0], both[:, 1]


def _samples(course: Course, section: Section, plan: Plan) -> None:
    models = train_generators(course)
    judge = models["variational"].autoencoder
    test, other = course.digits.test[: plan.draws], course.digits.learned[: plan.draws]
    drawn = {"test images": test, "as many training images": other}
    drawn |= {kind: draws(one.autoencoder, len(test)) for kind, one in models.items()}
    codes = {name: in_batches(judge.encode, frames) for name, frames in drawn.items()}
    rows: list[Row] = [
        {
            "": name,
            "energy distance in pixels": energy_distance(frames.flatten(1), test.flatten(1)),
            "in the code": energy_distance(codes[name], codes["test images"]),
            "sharpness": sharpness(frames) / sharpness(test),
            "squared error a test image": error_of(models[name], course.digits) if name in models else "",
            "CPU minutes of training": models[name].minutes if name in models else "",
        }
        for name, frames in drawn.items() if name != "test images"
    ]  # fmt: skip
    section.table(f"{len(test):,} samples beside as many MNIST test images, in grey levels", rows)
    section.say(
        "The energy distance (Székely and Rizzo 2013) is 0 where samples and images are distributed alike; the code is "
        "the mean code of the plain variational autoencoder, whoever made the sample. Sharpness is the mean absolute "
        "Laplacian, that of the test images being 1: a blur lowers it, and noise raises it. The error is that of "
        f"reconstructions. {plan.steps:,} steps of {BATCH} images each."
    )
    pictures = [list(to_levels(frames[:SHOWN]).numpy()) for frames in drawn.values()]
    section.pictures("samples", "Row by row: " + ", ".join(drawn), pictures)


def train_generators(course: Course) -> dict[str, Trained]:
    """Return the kinds that samples are drawn from."""
    plan = QUICK if course.quick else FULL
    configs = {kind: _vector(kind, plan) for kind in ("variational", "vaegan")} | {"vq": _vq(plan)}
    return {
        kind: course.trained(f"neighbours-{kind}", course.digits, config, plan.steps, ship=True)
        for kind, config in configs.items()
    }


def draws(model: Autoencoder[Any], count: int) -> Tensor:
    """Return samples [count, C, H, W] in grey levels as the exported graph gives them, the same every time."""
    latents = torch.randn(count, model.latent_dim or 0, generator=torch.Generator().manual_seed(0))
    return in_batches(lambda batch: (model.sample(batch) * 255).round() / 255, latents)


def sharpness(frames: Tensor) -> float:
    """Return the mean absolute Laplacian of frames [n, 1, H, W]."""
    return float(F.conv2d(frames, torch.tensor(LAPLACIAN)[None, None]).abs().mean())


def _anomalies(course: Course, section: Section, plan: Plan) -> None:
    rows: list[Row] = []
    for digit in plan.held_out:
        material, unseen = without(course, digit), course.labels[1] == digit
        variational, quantised = (
            course.trained(f"neighbours-{name}-not-{digit}", material, config, plan.held_out_steps, ship=True)
            for name, config in (("vae", _vector("variational", plan)), ("vq", _vq(plan, "gaussian")))
        )
        scores = scores_of(variational.of_kind(Variational), quantised.of_kind(Vq), material.test)
        figures = {name: 100 * auroc(unseen, found.numpy()) for name, found in scores.items()}
        rows.append({"never seen": str(digit), **figures})
    section.table(f"A digit that was never seen among the {len(course.digits.test):,} test images, AUROC (%)", rows)
    section.say(
        f"{plan.held_out_steps:,} steps of {BATCH} images each. A digit that is made of usual strokes is reconstructed "
        "well by who has never seen it; the prior asks whether such strokes are usual in such places. Likelihood has "
        "its own blind spot: what is simpler than all that was seen can be more probable than it (Nalisnick et al. "
        "2019), as a 1 is among digits."
    )


def without(course: Course, digit: int) -> Material:
    """Return the digits with one class left out of what is learnt from, and of what chooses the checkpoint."""
    digits = course.digits
    with np.load(course.root / "mnist" / "mnist.npz") as archive:
        labels = archive["y_train"]

    def others(keys: list[str]) -> list[int]:
        return [place for place, key in enumerate(keys) if labels[int(key.rpartition("/")[2])] != digit]

    parts = {part: getattr(digits.split, part) for part in ("train", "validation")}
    kept = {part: frames.subset(others(frames.keys)) for part, frames in parts.items()}
    return replace(digits, split=replace(digits.split, **kept))


@torch.no_grad()
def scores_of(variational: Variational, quantised: Vq, frames: Tensor) -> dict[str, Tensor]:
    """Return anomaly scores [n] of frames [n, C, H, W], the larger the less normal."""
    pixels, codes = bounds(quantised, frames)
    return {
        "vq: -log p(k)": codes,
        "vq: squared error": _errors(quantised, frames),
        "vq: -log p(x\\|e) - log p(k)": pixels + codes,
        "VAE: squared error": _errors(variational, frames),
    }


def _errors(model: Autoencoder[Any], frames: Tensor) -> Tensor:
    return in_batches(lambda batch: (batch - model.reconstruct(batch)).square().flatten(1).sum(1), frames)
