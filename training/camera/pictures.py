"""What a camera model's card shows: its noise in three plots, and held-out patches before and after."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runtime.images import ImageFormat, Pixels, encode
from training.camera.noise import CameraNoise, Correlation
from training.pictures import mosaic

COLOURS = {1: ("black",), 3: ("tab:red", "tab:green", "tab:blue")}
ROWS = 4
ZOOM = 3


def draw_noise(path: Path, noise: CameraNoise) -> None:
    """Plot the variance against brightness, and the correlation from pixel to pixel and from frame to frame."""
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    brightness, pixels, frames = figure.subplots(1, 3)
    for variance, line, colour in zip(noise.variances, noise.lines, COLOURS[len(noise.lines)], strict=True):
        brightness.plot(noise.brightness, variance, "o", color=colour, markersize=4)
        ends = np.array([0.0, 255.0])
        label = f"{line.slope:.3g} x {line.offset:+.3g}"
        brightness.plot(ends, line.slope * ends + line.offset, color=colour, linewidth=1, label=label)
    brightness.set(xlabel="brightness, levels", ylabel="variance, levels²", title="Noise against brightness", ylim=0)
    brightness.legend(fontsize="small")
    _draw_correlations(pixels, noise.spatial, "pixels apart")
    _draw_correlations(frames, (noise.temporal,), "frames apart")
    figure.savefig(path, dpi=100)


def _draw_correlations(axes: Axes, correlations: Sequence[Correlation], unit: str) -> None:
    for correlation in correlations:
        axes.plot(correlation.lags, correlation.values, ".-", label=correlation.name)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel=unit, ylabel="correlation", title=f"Noise {unit}", ylim=(-0.3, 1.05))
    axes.legend(fontsize="small")


def draw_patches(path: Path, columns: Sequence[Pixels]) -> None:
    """Write a mosaic of a few patches, evenly chosen; each column is [n, h, w, c]."""
    chosen = np.linspace(0, len(columns[0]) - 1, ROWS).astype(int)
    rows = [[patches[i].repeat(ZOOM, 0).repeat(ZOOM, 1) for patches in columns] for i in chosen]
    path.write_bytes(encode(mosaic(rows), ImageFormat.JPEG))
