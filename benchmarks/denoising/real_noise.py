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
from training.evaluate import psnr

FIXED_LEVELS = (4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
MUST_BLIND = 41.5  # dB

PSNR, LEVEL = "PSNR (dB)", "mean level"


@dataclass(frozen=True)
class Pair:
    """A frame as the camera gave it and, uint8 [h, w, 3] as well, the mean of hundreds of them."""

    noisy: Pixels
    clean: Pixels


def real_noise(bench: Bench) -> list[Must]:
    """Report the blind results, and beside them the best that one level for all pairs could do."""
    photographs = bench.photographs("nam25/noisy"), bench.photographs("nam25/gt")
    pairs = [Pair(noisy, clean) for noisy, clean in zip(*photographs, strict=True)]
    unchanged = float(np.mean([psnr(pair.clean, pair.noisy) for pair in pairs]))
    rows: list[Row] = [{"": "noisy input", PSNR: unchanged, LEVEL: ""}]
    blind = {denoiser.name: _blind(bench, denoiser, pairs) for denoiser in bench.denoisers}
    for denoiser in bench.denoisers:
        rows += [blind[denoiser.name], _best_fixed(bench, denoiser, pairs)]
    rows += [{"": published.label(name), PSNR: figure} for name, figure in published.NAM25.items()]
    bench.report.add(f"Nam25, {len(pairs)} pairs, real camera noise", rows)
    found = {name: float(row[PSNR]) for name, row in blind.items()}
    return [Must("Nam25, blind, PSNR (dB)", Side.AT_LEAST, MUST_BLIND, found)]


def _blind(bench: Bench, denoiser: ShippedDenoiser, pairs: Sequence[Pair]) -> Row:
    def compare(pair: Pair) -> tuple[float, float]:
        level = denoiser.estimate(pair.noisy)
        return psnr(pair.clean, denoiser.given(pair.noisy, level)), level

    quality, level = np.mean(bench.each(f"Nam25, {denoiser.name}, blind", compare, pairs), axis=0)
    return {"": f"{denoiser.name}, blind", PSNR: float(quality), LEVEL: float(level)}


def _best_fixed(bench: Bench, denoiser: ShippedDenoiser, pairs: Sequence[Pair]) -> Row:
    """Find the level by the very images it is judged on: for information, no service knows it."""

    def at(level: float) -> float:
        what = f"Nam25, {denoiser.name}, level {level:g}"
        return float(np.mean(bench.each(what, lambda pair: psnr(pair.clean, denoiser.given(pair.noisy, level)), pairs)))

    found = {level: at(level) for level in FIXED_LEVELS}
    best = max(found, key=found.__getitem__)
    return {"": f"{denoiser.name}, best of {len(found)} fixed levels", PSNR: found[best], LEVEL: best}
