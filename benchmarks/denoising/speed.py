"""Milliseconds a frame on this CPU, the level given."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from benchmarks.denoising.bench import Bench
from benchmarks.denoising.engines import Engine, OpenGraph, available
from benchmarks.musts import Must
from runtime.images import Pixels
from training.card import Row

THREADS = (1, 2)
LEVEL = np.array([25], np.float32)


@dataclass(frozen=True)
class FrameSize:
    """A size, and of how many runs the median is taken."""

    width: int
    height: int
    runs: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


SIZES = (FrameSize(256, 256, 9), FrameSize(640, 480, 5), FrameSize(1920, 1080, 3))


def speed(bench: Bench) -> tuple[Must, ...]:
    """Report every model in every engine, the models taking turns so that a busy machine is busy for all."""
    rows = [row for engine in available() for threads in THREADS for row in _rows(bench, engine, threads)]
    runs = ", ".join(f"{_runs(size, bench.limit)} at {size}" for size in SIZES)
    bench.report.add(f"Milliseconds a frame (median of {runs}) and their ratio to {bench.denoisers[0].name}", rows)
    return ()


def _runs(size: FrameSize, limit: int | None) -> int:
    return size.runs if limit is None else min(size.runs, limit)


def _rows(bench: Bench, engine: Engine, threads: int) -> Iterator[Row]:
    graphs = [engine.open(denoiser.graph, threads) for denoiser in bench.denoisers]
    bar = tqdm(SIZES, f"{engine.name}, {threads} threads", disable=None)
    medians = {str(size): milliseconds(graphs, size, _runs(size, bench.limit)) for size in bar}
    for index, denoiser in enumerate(bench.denoisers):
        row: dict[str, str | float] = {"": f"{denoiser.name}, {engine.name}", "threads": threads}
        for size, found in medians.items():
            row[f"{size} (ms)"] = found[index]
            row[f"{size} (ratio)"] = found[index] / found[0]
        yield row


def milliseconds(graphs: Sequence[OpenGraph], size: FrameSize, runs: int) -> list[float]:
    """Return the median of each graph, after a first run that warms it up; they take turns."""
    frames = np.random.default_rng(0).integers(0, 256, (1, size.height, size.width, 3), np.uint8)
    for graph in graphs:
        graph.run(frames, LEVEL)
    times = [[_timed(graph, frames) for graph in graphs] for _ in range(runs)]
    return [float(median) for median in np.median(times, axis=0)]


def _timed(graph: OpenGraph, frames: Pixels) -> float:
    start = time.perf_counter()
    graph.run(frames, LEVEL)
    return 1000 * (time.perf_counter() - start)
