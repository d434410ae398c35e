"""How well normal and anomalous frames, and pixels, are told apart."""

import numpy as np

from benchmarks.anomalies.bench import Bench
from benchmarks.anomalies.footage import Footage
from benchmarks.anomalies.scorer import Judged, Scores, ShippedScorer
from benchmarks.musts import Must, Side
from training.card import Row
from training.evaluate import auroc, bootstrap_auroc, minmax_by_clip, pixel_auroc

RAW, MINMAX, PIXEL = "AUROC RAW (%)", "AUROC MINMAX (%)", "pixel AUROC (%)"
MUSTS = {RAW: 97.5, MINMAX: 97.5, PIXEL: 95.0}


def detection(bench: Bench) -> list[Must]:
    """Report every method; only a shipped model can keep a must."""
    rows = {name: _row(name, judged, bench.footage) for name, judged in bench.judged.items()}
    title = f"Frames and pixels, {len(bench.footage.frames)} frames, {bench.footage.anomalous.mean():.0%} anomalous"
    bench.report.add(title, list(rows.values()))
    bench.report.add("Without the frames during which a camera warms up", [_warm(bench, it) for it in bench.models])
    ours = {scorer.name: rows[scorer.name] for scorer in bench.models}
    return [
        Must(figure, Side.AT_LEAST, wanted, {name: float(row[figure]) for name, row in ours.items()})
        for figure, wanted in MUSTS.items()
    ]


def _row(name: str, judged: Judged, footage: Footage) -> Row:
    labels, clips = footage.anomalous, footage.clips
    low, high = bootstrap_auroc(labels, judged.scores, clips)
    rescaled = minmax_by_clip(judged.scores, clips)
    row: dict[str, str | float] = {
        "": name,
        RAW: 100 * auroc(labels, judged.scores),
        "95 % from": 100 * low,
        "to": 100 * high,
        MINMAX: 100 * auroc(labels, rescaled),
        "AUROC macro (%)": 100 * macro_auroc(footage, judged.scores),
        PIXEL: "" if judged.maps is None else 100 * pixel_auroc(judged.maps, footage.masks),
    }
    return row


def macro_auroc(footage: Footage, scores: Scores) -> float:
    """Return the mean AUROC of the clips that have frames of both classes."""
    labels = footage.anomalous
    both = [clip for clip in footage.by_clip() if 0 < labels[clip].mean() < 1]
    return float(np.mean([auroc(labels[clip], scores[clip]) for clip in both]))


def _warm(bench: Bench, scorer: ShippedScorer) -> Row:
    footage, scores = bench.footage, bench.judged[scorer.name].scores
    full = footage.full(scorer.model.manifest.input.window.needed)
    labels, rescaled = footage.anomalous[full], minmax_by_clip(scores[full], footage.clips[full])
    return {
        "": scorer.name,
        "frames": float(full.sum()),
        RAW: 100 * auroc(labels, scores[full]),
        MINMAX: 100 * auroc(labels, rescaled),
    }
