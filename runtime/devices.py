"""Which device runs the graphs, and how work is spread over it: the one room that knows of CUDA."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.engines import Engine, OnnxRuntimeSession, OpenVinoSession, Session
from runtime.errors import DeviceUnavailable

ON_CPUS = frozenset({"CPUExecutionProvider", "f32", "bf16"})  # targets

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

# The smallest graph that needs a kernel: y = Relu(x) on float32 [1].
_RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


class DeviceChoice(StrEnum):
    """What a user may ask for; `auto` takes CUDA when it is there, and says so when it is not."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    OPENVINO = "openvino"
    OPENVINO_BF16 = "openvino-bf16"


@dataclass(frozen=True)
class Device:
    """What computes the graphs, and how work is spread over it."""

    name: str
    engine: Engine
    target: str
    """An execution provider of onnxruntime, or a precision of OpenVINO."""
    workers: int
    max_batch: int
    options: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    rivals: tuple["Device", ...] = ()
    """Others on the same cores that may be faster, model by model."""
    refuge: "Device | None" = None
    """Where frames are computed that this one has no memory for."""


def usable_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Count the cores this process may really use: its affinity mask, cut by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def select_device(choice: DeviceChoice, workers: int | None = None, *, cpu_fallback: bool = False) -> Device:
    """Resolve a choice on this machine. Raises DeviceUnavailable: a named device never falls back silently.

    With `cpu_fallback` a GPU has the CPU beside it, for frames that it has no memory for.
    """
    device = _selected(choice, workers)
    if cpu_fallback and device.target not in ON_CPUS:
        return replace(device, refuge=_named(DeviceChoice.CPU, None))
    return device


def _selected(choice: DeviceChoice, workers: int | None) -> Device:
    if choice is DeviceChoice.AUTO:
        return _automatic(workers)
    device = _named(choice, workers)
    trouble = _trouble(device)
    if trouble is not None:
        raise DeviceUnavailable(f"device={choice} was asked for but {trouble}, or ask for device=auto or cpu")
    return device


def _automatic(workers: int | None) -> Device:
    cuda = _named(DeviceChoice.CUDA, workers)
    trouble = _trouble(cuda)
    if trouble is None:
        return cuda
    candidates = [_named(choice, workers) for choice in (DeviceChoice.OPENVINO, DeviceChoice.OPENVINO_BF16)]
    rivals = tuple(device for device in candidates if _trouble(device) is None)
    cpu = _named(DeviceChoice.CPU, workers)
    return replace(cpu, note=f"running on the CPU: {trouble}", rivals=rivals)


def _named(choice: DeviceChoice, workers: int | None) -> Device:
    if choice is DeviceChoice.CUDA:
        gpu = {"device_id": "0"}
        return Device("cuda", Engine.ONNXRUNTIME, "CUDAExecutionProvider", workers or 2, max_batch=16, options=gpu)
    engine, target = {
        DeviceChoice.CPU: (Engine.ONNXRUNTIME, "CPUExecutionProvider"),
        DeviceChoice.OPENVINO: (Engine.OPENVINO, "f32"),
        DeviceChoice.OPENVINO_BF16: (Engine.OPENVINO, "bf16"),
    }[choice]
    # A convolution fills a core by itself, so batches buy nothing on CPUs: one worker a core, one frame a run.
    return Device(choice, engine, target, workers or usable_cores(), max_batch=1)


def _trouble(device: Device) -> str | None:
    """Say why a device cannot be used and what would help, or None: that it is offered does not mean it runs."""
    if device.engine is Engine.ONNXRUNTIME and device.target not in ort.get_available_providers():
        return "this onnxruntime has no CUDA provider; install the gpu extra in place of cpu"
    try:
        open_session(_RELU, device).run(["y"], {"x": np.zeros(1, np.float32)})
    except DeviceUnavailable as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the failures of the engines share no base class
        return f"{device.name} does not start ({error}); check the driver and its libraries"
    return None


def open_session(graph: bytes, device: Device, *, alone: bool = False) -> Session:
    """Open an ONNX graph on the device: to be run by every worker at a time, or `alone` with the threads of all.

    Raises DeviceUnavailable if the device is not there, and else what the engine raises.
    """
    if device.engine is Engine.OPENVINO:
        return OpenVinoSession(graph, device.target, streams=1 if alone else device.workers, threads=device.workers)
    # The workers are the threads: more in each run would take cores from one another.
    return OnnxRuntimeSession(graph, device.target, device.options, threads=device.workers if alone else 1)
