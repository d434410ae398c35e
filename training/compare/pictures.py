"""Synthetic anomalies with the heat map of every kind beside them."""

import numpy as np
from matplotlib.figure import Figure

from runtime.clips import Window
from runtime.heatmaps import overlay
from runtime.images import Pixels
from training.compare.detectors import Exported
from training.compare.ladder import Ladder, Rung

CAUGHT, MISSED = "tab:green", "tab:red"
CELL = 1.7  # inches a picture is wide


def draw_heat_maps(ladder: Ladder) -> Figure:
    """Draw the anomaly of every sort at the middle place, row by row, and the heat map of every kind.

    The frame around a heat map is green where the anomaly was caught: the kind's score is above its threshold, and is
    not without the anomaly; red where it was not. The colours of a heat map are on the scale that the kind was
    calibrated to: black is normal.
    """
    anomalies = ladder.anomalies
    sorts, middle = anomalies.sorts, anomalies.places // 2
    kinds = [rung for rung in ladder.autoencoders if isinstance(rung.detector, Exported)]
    tall, wide = anomalies.frames.pixels[0].shape[:2]
    size = CELL * (1 + len(kinds)), CELL * tall / wide * len(sorts) + 0.4
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(sorts), 1 + len(kinds), squeeze=False)
    for row, sort in enumerate(sorts):
        end = anomalies.ends[row * anomalies.places + middle]
        grid[row][0].imshow(anomalies.frames.pixels[end][..., 0], cmap="gray", vmin=0, vmax=255)
        grid[row][0].contour(anomalies.masks[row * anomalies.places + middle], [0.5], colors="cyan", linewidths=0.7)
        grid[row][0].set_ylabel(sort, fontsize="x-small")
        for axes, rung in zip(grid[row][1:], kinds, strict=True):
            axes.imshow(_heat_map(ladder, rung, end))
            for side in axes.spines.values():
                side.set(color=CAUGHT if rung.caught[row, middle] else MISSED, linewidth=2)
    for axes, title in zip(grid[0], ["anomaly", *(rung.name for rung in kinds)], strict=True):
        axes.set_title(title, fontsize="small")
    for axes in np.ravel(grid):
        axes.set(xticks=[], yticks=[])
    return figure


def _heat_map(ladder: Ladder, rung: Rung, end: int) -> Pixels:
    frames = ladder.anomalies.frames
    if not isinstance(rung.detector, Exported):
        return frames.pixels[end]
    model = rung.detector.model
    outputs = model.run(frames.seen_at([end], Window.whole(rung.detector.time)))[0]
    calibration = model.manifest.calibration
    if outputs.anomaly_map is None or calibration is None:
        return frames.pixels[end]
    return overlay(frames.pixels[end], outputs.anomaly_map, calibration)
