"""What runs an ONNX file on the CPU: onnxruntime and, where it is installed, OpenVINO (the extra `openvino`)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.images import Pixels
from runtime.model import Floats


@dataclass(frozen=True)
class OpenGraph:
    """A denoiser's graph, ready to run; not from two threads at a time."""

    run: Callable[[Pixels, Floats], Pixels]
    """(frames [batch, h, w, 3], noise_level [batch]) -> reconstruction [batch, h, w, 3]."""
    precision: str
    """In which the convolutions really run, which may not be what was asked for."""


@dataclass(frozen=True)
class Engine:
    """A runtime at a precision."""

    name: str
    open: Callable[[Path, int], OpenGraph]
    """(ONNX file, threads) -> the graph, open."""


def _open_onnxruntime(path: Path, threads: int) -> OpenGraph:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(frames: Pixels, noise_level: Floats) -> Pixels:
        answer = session.run(["reconstruction"], {"frames": frames, "noise_level": noise_level})
        return np.asarray(answer[0], np.uint8)

    return OpenGraph(run, "f32")


def _open_openvino(precision: str, path: Path, threads: int) -> OpenGraph:
    core = import_module("openvino").Core()
    wishes = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", wishes)

    def run(frames: Pixels, noise_level: Floats) -> Pixels:
        return np.asarray(compiled({"frames": frames, "noise_level": noise_level})["reconstruction"], np.uint8)

    notes = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    ran = Counter(note["runtimePrecision"].value for note in notes if note["layerType"].value == "Convolution")
    return OpenGraph(run, " and ".join(ran))


ONNXRUNTIME = Engine("onnxruntime fp32", _open_onnxruntime)
OPENVINO = Engine("OpenVINO fp32", partial(_open_openvino, "f32"))
OPENVINO_BF16 = Engine("OpenVINO bf16", partial(_open_openvino, "bf16"))


def has_openvino() -> bool:
    """Tell whether it is installed."""
    return find_spec("openvino") is not None


def available() -> tuple[Engine, ...]:
    """Return the engines of this installation."""
    return (ONNXRUNTIME, OPENVINO, OPENVINO_BF16) if has_openvino() else (ONNXRUNTIME,)
