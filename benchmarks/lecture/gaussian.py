"""The multivariate Gaussian of the codes: as an anomaly score, and as a place to draw new codes from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.lecture.bottleneck import curves
from benchmarks.lecture.course import Course, as_tensor
from benchmarks.lecture.measures import energy_distance, in_batches
from benchmarks.lecture.page import Section
from benchmarks.lecture.variational import binarised, train_vae
from training.autoencoders.base import Autoencoder
from training.autoencoders.variational import Variational, reparameterise
from training.card import Row
from training.config import ScoreConfig
from training.data import DataConfig, load
from training.evaluate import auroc
from training.gaussian import LatentGaussian
from training.graph import error_map, pool, to_levels
from training.labels import read_labels

SCORES = ("Mahalanobis distance of the code", "mean squared error", "largest squared error")
KINDS = ("convolutional", "variational")
WINDOW = 11  # pixels, of the largest error
WORST = 0.0001  # its share of the map
DRAWS, QUICK_DRAWS = 3_000, 300  # samples, and as many test images
SHOWN = 10


def gaussian(course: Course, section: Section) -> None:
    """Score footage by it, then draw digits from it."""
    section.say(
        "The codes h of normal frames have a mean μ and a covariance Σ. The multivariate Gaussian "
        "p(h) = exp(-½ (h - μ)ᵀ Σ⁻¹ (h - μ)) / ((2π)^(k/2) |Σ|^(1/2)) says how usual a code is. It depends on h "
        "through the Mahalanobis distance alone, so that both order frames alike. `score.latent: mahalanobis` or "
        "`density` in a recipe exports it in the graph."
    )
    _anomalies(course, section)
    _samples(course, section)


def _anomalies(course: Course, section: Section) -> None:
    _, curve = curves(course)
    width = max(curve.widths)
    source = {"path": "ped2/test"}
    config = DataConfig.model_validate({**curve.material.data, "sources": [source]})
    frames = load(config, course.root)
    labels = read_labels(course.root / "ped2" / "test_frame_labels.csv", source["path"], frames).anomalous
    learned, test = curve.material.learned, as_tensor(frames)
    rows: list[Row] = []
    for kind in KINDS:
        model = curve.trained(course, width)[kind].autoencoder
        scores = zip(SCORES, scores_of(model, learned, test), strict=True)
        rows.append({"": f"{kind}, {width} numbers"} | {name: 100 * auroc(labels, found) for name, found in scores})
    title = f"UCSD Ped2 at 96 x 64, {len(frames):,} test frames, frame AUROC RAW (%), one threshold for all clips"
    section.table(title, rows)
    section.say(
        "What learns nothing reaches 97.3 with optical flow and 88.9 with motion by gradient, on all frames at full "
        "size ([anomaly.md](anomaly.md)). A code is what the autoencoder can say of a frame; what it cannot say is in "
        "the error."
    )


@torch.no_grad()
def scores_of(model: Autoencoder[Any], normal: Tensor, test: Tensor) -> list[npt.NDArray[np.float32]]:
    """Return the scores of test frames [n, C, H, W], as SCORES names them; the Gaussian is that of the normal ones."""
    fitted = LatentGaussian.fit([in_batches(model.encode, normal)])
    pixels = ScoreConfig(window=WINDOW)
    maps = in_batches(lambda frames: error_map(frames, model.reconstruct(frames), pixels), test)
    squared = in_batches(lambda frames: (frames - model.reconstruct(frames)).square().flatten(1).mean(1), test)
    return [scores.numpy() for scores in (fitted(in_batches(model.encode, test)), squared, pool(maps, WORST))]


@dataclass(frozen=True)
class Generator:
    """A model whose codes are drawn: which of them training images have, and what is decoded from them."""

    name: str
    model: Autoencoder[Any]

    @torch.no_grad()
    def codes(self, frames: Tensor) -> Tensor:
        """Return the codes of frames; of a variational one, draws from its posterior."""
        if isinstance(self.model, Variational):
            return reparameterise(*self.model.posterior(self.model.seen(frames)))
        return in_batches(self.model.encode, frames)

    def pictures(self, codes: Tensor) -> Tensor:
        """Return [n, C, H, W] in 0..1."""
        return in_batches(self.model.decode, codes)


def _samples(course: Course, section: Section) -> None:
    digits, _ = curves(course)
    count = QUICK_DRAWS if course.quick else DRAWS
    learned, test = course.digits.learned, course.digits.test[:count]
    width = max(digits.widths)
    generators = (
        Generator(f"deep, {width} numbers", digits.trained(course, width)["deep"].autoencoder),
        Generator("variational, 50 numbers", train_vae(course).autoencoder),
    )
    other = learned[: len(test)]
    rows: list[Row] = []
    pictures = []
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for generator in generators:
            fitted = LatentGaussian.fit([generator.codes(learned)])
            drawn = {"N(μ, Σ)": fitted.draw(len(test)), "N(0, I)": torch.randn(len(test), len(fitted.mean))}
            drawn["training images"] = generator.codes(other)
            for name, codes in drawn.items():
                decoded = generator.pictures(codes)
                pictures.append(list(to_levels(decoded[:SHOWN]).numpy()))
                rows.append({
                    "": generator.name, "codes from": name,
                    "in pixels": energy_distance(*_black_and_white(decoded, test)),
                    "in the code": energy_distance(codes, generator.codes(test)),
                })  # fmt: skip
        floor = energy_distance(*_black_and_white(other, test))
    section.say(
        "**New digits.** The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely and Rizzo 2013) is 0 where "
        f"samples X and data Y are distributed alike. Over {len(test):,} of each; pixels are drawn black or white with "
        f"grey levels as probabilities; {floor:.3f} is the distance of as many training images from the test images."
    )
    section.table("Energy distance of samples from MNIST test images", rows)
    names = ", ".join(
        f"{generator.name}: from N(μ, Σ), from N(0, I), codes of training images" for generator in generators
    )
    section.pictures("samples", f"Samples, row by row: {names}", pictures)


def _black_and_white(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return binarised(one).flatten(1), binarised(other, seed=1).flatten(1)
