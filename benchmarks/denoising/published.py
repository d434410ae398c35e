"""Figures of other denoisers, as their papers print them. Nothing here was measured by this repository."""

from collections.abc import Mapping
from dataclasses import dataclass

SIGMAS = (15.0, 25.0, 50.0)

Triple = tuple[float, float, float]
"""PSNR (dB) at sigma 15, 25 and 50."""


@dataclass(frozen=True)
class Published:
    """A denoiser told the level, or trained for it alone, on noise that is not clipped."""

    name: str
    psnr: Mapping[str, Triple]
    """By test set."""
    parameters: float | None = None  # millions
    gmac: float | None = None  # 10^9 multiply-accumulates for 256 x 256 pixels


def _on(cbsd68: Triple, set12: Triple, bsd68: Triple) -> Mapping[str, Triple]:
    return {"CBSD68": cbsd68, "Set12": set12, "BSD68": bsd68}


NOT_CLIPPED = (
    Published("BM3D / CBM3D", _on((33.52, 30.71, 27.38), (32.37, 29.97, 26.72), (31.08, 28.57, 25.60))),
    Published("DnCNN", _on((33.90, 31.24, 27.95), (32.86, 30.44, 27.18), (31.73, 29.23, 26.23)), 0.67, 43.7),
    Published("FFDNet", _on((33.87, 31.21, 27.96), (32.75, 30.43, 27.32), (31.63, 29.19, 26.29)), 0.85, 13.9),
    Published("DRUNet", _on((34.30, 31.69, 28.51), (33.25, 30.94, 27.90), (31.91, 29.48, 26.59)), 32.6, 138.8),
    Published("SwinIR", _on((34.42, 31.78, 28.56), (33.36, 31.01, 27.91), (31.97, 29.50, 26.58)), 11.5),
    Published("Restormer", _on((34.40, 31.79, 28.60), (33.42, 31.08, 28.00), (31.96, 29.52, 26.62)), 26.1, 141.0),
)

CLIPPED_FIRST: Mapping[str, Triple] = {
    "noisy input": (24.80, 20.51, 14.99),
    "FFDNet": (33.35, 30.39, 26.04),
    "FFDNet trained on clipped noise": (33.56, 30.84, 27.53),
}
"""On the first 34 images of CBSD68, clipped and rounded to uint8."""

NAM25: Mapping[str, float] = {
    "CBM3D": 39.84,
    "NC": 40.41,
    "CBDNet": 40.02,
    "CBDNet (JPEG)": 41.31,
    "CDnCNN-B, blind": 37.49,
    "FFDNet, fixed level 6": 41.39,
    "FFDNet, fixed level 10": 42.96,
    "FFDNet, fixed level 15": 42.80,
}
"""PSNR (dB) on the 25 pairs of real camera noise."""


def label(name: str) -> str:
    """Mark a name as that of a published figure."""
    return f"{name} (published)"
