"""The noise of real cameras: the 25 pairs of Nam et al. 2016, denoised blindly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.denoising import published
from benchmarks.denoising.bench import Bench
from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.musts import Must, Side
from runtime.images import Pixels
from training.card import Row
from training.evaluate import psnr, ssim

FIXED_LEVELS = (4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
MUST_BLIND = 41.5  # dB

PSNR, SSIM, LEVEL = "PSNR (dB)", "SSIM", "mean level"


@dataclass(frozen=True)
class Pair:
    """A frame as the camera gave it and, uint8 [h, w, 3] as well, the mean of hundreds of them."""

    noisy: Pixels
    clean: Pixels

    def against(self, result: Pixels) -> tuple[float, float]:
        """Return the PSNR and the SSIM of a result."""
        return psnr(self.clean, result), ssim(self.clean, result)


def real_noise(bench: Bench) -> list[Must]:
    """Report the blind results, and beside them the best that one level for all pairs could do."""
    photographs = bench.photographs("nam25/noisy"), bench.photographs("nam25/gt")
    pairs = [Pair(noisy, clean) for noisy, clean in zip(*photographs, strict=True)]
    rows: list[Row] = [{"": "noisy input", **_quality([pair.against(pair.noisy) for pair in pairs]), LEVEL: ""}]
    blind = {denoiser.name: _blind(bench, denoiser, pairs) for denoiser in bench.denoisers}
    for denoiser in bench.denoisers:
        rows += [blind[denoiser.name], _best_fixed(bench, denoiser, pairs)]
    rows += [{"": published.label(name), PSNR: figure} for name, figure in published.NAM25.items()]
    bench.report.add(f"Nam25, {len(pairs)} pairs, real camera noise", rows)
    found = {name: float(row[PSNR]) for name, row in blind.items()}
    return [Must("Nam25, blind, PSNR (dB)", Side.AT_LEAST, MUST_BLIND, found)]


def _quality(found: Sequence[tuple[float, float]]) -> dict[str, float]:
    means = np.mean(found, axis=0)
    return {PSNR: float(means[0]), SSIM: float(means[1])}


def _blind(bench: Bench, denoiser: ShippedDenoiser, pairs: Sequence[Pair]) -> Row:
    levels = [denoiser.estimate(pair.noisy) for pair in pairs]

    def compare(judged: tuple[Pair, float]) -> tuple[float, float]:
        pair, level = judged
        return pair.against(denoiser.given(pair.noisy, level))

    found = bench.each(f"Nam25, {denoiser.name}, blind", compare, list(zip(pairs, levels, strict=True)))
    return {"": f"{denoiser.name}, blind", **_quality(found), LEVEL: float(np.mean(levels))}


def _best_fixed(bench: Bench, denoiser: ShippedDenoiser, pairs: Sequence[Pair]) -> Row:
    """Find the level by the very images it is judged on: for information, no service knows it."""

    def at(level: float) -> dict[str, float]:
        what = f"Nam25, {denoiser.name}, level {level:g}"
        return _quality(bench.each(what, lambda pair: pair.against(denoiser.given(pair.noisy, level)), pairs))

    found = {level: at(level) for level in FIXED_LEVELS}
    best = max(found, key=lambda level: found[level][PSNR])
    return {"": f"{denoiser.name}, best of {len(found)} fixed levels", **found[best], LEVEL: best}
