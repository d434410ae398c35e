"""Harm: what a blind denoiser does to frames that have no noise."""

from collections.abc import Sequence

import numpy as np

from benchmarks.denoising.bench import Bench
from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.musts import Must, Side
from runtime.images import Pixels
from training.card import Row
from training.evaluate import psnr

CAP = 99.0  # dB, for an output that equals its input
MUST_KEEP = 45.0  # dB

MEAN = "mean PSNR (dB)"


def clean_frames(bench: Bench) -> list[Must]:
    """Report the output against the input."""
    colour = {
        denoiser.name: _row(bench, denoiser, "CBSD68", bench.photographs("bsds500/cbsd68"))
        for denoiser in bench.denoisers
    }
    rows = list(colour.values())
    for denoiser in bench.denoisers:
        rows.append(_row(bench, denoiser, "Set12", bench.photographs("set12", channels=1)))
        rows.append(_row(bench, denoiser, "Nam25, clean", bench.photographs("nam25/gt")))
    bench.report.add("Clean frames denoised blindly: output against input", rows)
    found = {name: float(row[MEAN]) for name, row in colour.items()}
    return [Must("CBSD68, clean, blind, mean PSNR against the input (dB)", Side.AT_LEAST, MUST_KEEP, found)]


def _row(bench: Bench, denoiser: ShippedDenoiser, photos: str, clean: Sequence[Pixels]) -> Row:
    def compare(pixels: Pixels) -> tuple[float, float]:
        level = denoiser.estimate(pixels)
        return min(CAP, psnr(pixels, denoiser.given(pixels, level))), level

    found = np.array(bench.each(f"{photos}, {denoiser.name}, without noise", compare, clean))
    return {
        "": f"{denoiser.name}, {photos}",
        MEAN: float(found[:, 0].mean()),
        "worst (dB)": float(found[:, 0].min()),
        "mean level": float(found[:, 1].mean()),
    }
