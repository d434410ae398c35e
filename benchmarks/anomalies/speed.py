"""Milliseconds a frame on this CPU beside the multiply-accumulates of the graph."""

import time

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.anomalies.bench import Bench
from benchmarks.anomalies.scorer import ShippedScorer
from benchmarks.denoising.macs import multiply_accumulates
from benchmarks.musts import Must, Side
from runtime.motion import optical_flow
from training.card import Row
from training.evaluate import auroc

THREADS = (1, 2)
RUNS = 30
MUST = 25.0  # milliseconds on one thread


def speed(bench: Bench) -> list[Must]:
    """Report the shipped models, optical flow included: a new field a frame, as for a camera whose frames arrive."""
    rows = {scorer.name: _row(bench, scorer) for scorer in bench.models}
    bench.report.add(f"Cost, median of {RUNS} frames in a row", list(rows.values()))
    best = max(bench.models, key=lambda scorer: auroc(bench.footage.anomalous, bench.judged[scorer.name].scores)).name
    found = {best: float(rows[best][_column(1)])}
    return [Must("milliseconds a frame of the model that detects best, 1 thread", Side.AT_MOST, MUST, found)]


def _column(threads: int) -> str:
    return f"ms, {threads} threads" if threads > 1 else "ms, 1 thread"


def _row(bench: Bench, scorer: ShippedScorer) -> Row:
    geometry = scorer.model.manifest.input
    graph = scorer.folder / scorer.model.manifest.graphs.autoencoder.file
    macs = multiply_accumulates(graph, geometry.height or 240, geometry.width or 360)
    fitted = [scorer.model.fit(pixels) for pixels in bench.footage.frames.pixels[: RUNS + 2 * scorer.time]]
    frames = np.stack(fitted)
    row: dict[str, str | float] = {"": scorer.name, "GMAC": macs / 1e9, "weights": scorer.model.manifest.parameters}
    for threads in THREADS:
        row[_column(threads)] = milliseconds(scorer, frames, threads)
    return row


def milliseconds(scorer: ShippedScorer, frames: npt.NDArray[np.uint8], threads: int) -> float:
    """Return the median time of a frame, as frames of one camera arrive one by one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    graph = scorer.folder / scorer.model.manifest.graphs.autoencoder.file
    session = ort.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        times = [_timed(session, scorer, frames[end - scorer.time : end]) for end in range(scorer.time, len(frames))]
    finally:
        cv2.setNumThreads(before)
    warm = scorer.time  # the first clips need every flow field, and warm everything up
    return float(np.median(times[warm:]))


def _timed(session: ort.InferenceSession, scorer: ShippedScorer, clip: npt.NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    geometry = scorer.model.manifest.input
    inputs = {"frames": clip[None] if scorer.time > 1 else clip}
    step = geometry.flow_step
    flow = {} if step is None else {"flow": optical_flow(clip, step, geometry.flows)[None]}
    session.run(None, inputs | flow)
    return 1000 * (time.perf_counter() - start)
