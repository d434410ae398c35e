"""The engine without a server: decode and run, in a process of its own. What no server can be faster than.

`python -m benchmarks.load.raw MODEL FRAME ENGINE WORKERS SECONDS` prints one line of JSON.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import simplejpeg

from benchmarks.load.servers import ROOT

WARM_UP = 3  # runs
OUTPUT = "anomaly_score"

Frames = npt.NDArray[np.uint8]
Run = Callable[[Frames], object]
"""frames [1, h, w, 3] -> whatever the engine answers."""


@dataclass(frozen=True)
class Limit:
    """What the engine does by itself."""

    rate: float
    """Images a second, in as many threads as workers."""
    lone_ms: float
    """Median milliseconds of an image while nothing else is to be done, with the threads of all workers."""
    cpu_ms: float
    """Processor time of an image."""


def measure(model: Path, frame: Path, engine: str, workers: int, seconds: float) -> Limit:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", __name__, *map(str, (model, frame, engine, workers, seconds))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return Limit(**json.loads(done.stdout.splitlines()[-1]))


def _decode(jpeg: bytes) -> Frames:
    return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB"), np.uint8)[None]


def _onnxruntime(model: Path, streams: int, threads: int) -> Callable[[], Run]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads // streams
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])

    def make() -> Run:
        return lambda frames: session.run([OUTPUT], {"frames": frames})

    return make


def _openvino(precision: str, model: Path, streams: int, threads: int) -> Callable[[], Run]:
    core = import_module("openvino").Core()
    wishes = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    compiled = core.compile_model(core.read_model(model), "CPU", wishes)

    def make() -> Run:
        request = compiled.create_infer_request()
        return lambda frames: request.infer({"frames": frames}, share_inputs=True, share_outputs=True)[OUTPUT]

    return make


def _open(engine: str, model: Path, streams: int, threads: int) -> Callable[[], Run]:
    """Open a model for so many runs at a time; what is returned makes a thread its own way to run it."""
    name, _, precision = engine.partition("-")
    if name == "onnxruntime":
        return _onnxruntime(model, streams, threads)
    return _openvino(precision, model, streams, threads)


def _loop(run: Run, jpeg: bytes, until: float) -> list[float]:
    """Return the seconds of each image up to a moment."""
    times = []
    while (started := time.perf_counter()) < until:
        run(_decode(jpeg))
        times.append(time.perf_counter() - started)
    return times


def _warm(run: Run, jpeg: bytes) -> Run:
    for _ in range(WARM_UP):
        run(_decode(jpeg))
    return run


def _rate(make: Callable[[], Run], jpeg: bytes, workers: int, seconds: float) -> tuple[float, float]:
    """Return images a second, and milliseconds of processor time for each."""
    runs = [_warm(make(), jpeg) for _ in range(workers)]
    started, spent = time.perf_counter(), time.process_time()
    counts = [0] * workers

    def work(index: int) -> None:
        counts[index] = len(_loop(runs[index], jpeg, started + seconds))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, spent = time.perf_counter() - started, time.process_time() - spent
    return sum(counts) / seconds, 1000 * spent / sum(counts)


def main(model: Path, frame: Path, engine: str, workers: int, seconds: float) -> None:
    """Print the limit."""
    jpeg = frame.read_bytes()
    rate, cpu_ms = _rate(_open(engine, model, workers, workers), jpeg, workers, seconds)
    lone = _warm(_open(engine, model, 1, workers)(), jpeg)
    lone_ms = 1000 * float(np.median(_loop(lone, jpeg, time.perf_counter() + seconds)))
    print(json.dumps({"rate": rate, "lone_ms": lone_ms, "cpu_ms": cpu_ms}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
