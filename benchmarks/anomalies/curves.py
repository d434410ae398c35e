"""The score of every frame, clip by clip, with the truth shaded."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.anomalies.alarms import operate, runs
from benchmarks.anomalies.bench import Bench
from benchmarks.anomalies.scorer import ShippedScorer
from benchmarks.musts import Must

COLUMNS = 3


def curves(bench: Bench) -> tuple[Must, ...]:
    """Draw one sheet a model into the folder for pictures, where one is given."""
    if bench.pictures is not None:
        bench.pictures.mkdir(parents=True, exist_ok=True)
        for scorer in bench.models:
            _draw(bench, scorer, bench.pictures / f"curves-{scorer.name}.png")
    return ()


def _draw(bench: Bench, scorer: ShippedScorer, path: Path) -> None:
    scores, clips = bench.judged[scorer.name].scores, bench.footage.by_clip()
    threshold = operate(bench.footage, scores).threshold
    rows = -(-len(clips) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 1.9 * rows), layout="constrained")
    sheet = np.asarray(figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)).ravel()
    for axes, clip in zip(sheet, clips, strict=False):
        for run in runs(bench.footage.anomalous[clip]):
            axes.axvspan(run.start, run.stop - 1, color="tab:red", alpha=0.15, linewidth=0)
        axes.plot(scores[clip], linewidth=1.2)
        axes.axhline(threshold, color="black", linestyle="--", linewidth=0.8)
        axes.set_title(bench.footage.clips[clip[0]], fontsize="small")
    for axes in sheet[len(clips) :]:
        axes.set_axis_off()
    figure.suptitle(f"{scorer.name}: score a frame; shaded: anomalous; dashed: finds nine events in ten")
    figure.savefig(path, dpi=80)
