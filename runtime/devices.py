"""Which execution provider runs the graphs, and with which options: the one room that knows of CUDA."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.errors import DeviceUnavailable

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


@dataclass(frozen=True)
class Device:
    """An execution provider of onnxruntime and how work is spread over it."""

    name: str
    provider: str
    workers: int
    max_batch: int
    options: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def usable_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Count the cores this process may really use: its affinity mask, cut by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def select_device(choice: DeviceChoice, workers: int | None = None) -> Device:
    """Resolve a choice on this machine. Raises DeviceUnavailable: a named device never falls back silently."""
    note = ""
    if choice is not DeviceChoice.CPU:
        cuda = Device("cuda", "CUDAExecutionProvider", workers or 2, max_batch=16, options={"device_id": "0"})
        trouble = _trouble(cuda)
        if trouble is None:
            return cuda
        if choice is DeviceChoice.CUDA:
            raise DeviceUnavailable(f"device=cuda was asked for but {trouble}, or ask for device=auto or cpu")
        note = f"running on the CPU: {trouble}"
    # A convolution fills a core by itself, so batches buy nothing on CPUs: one worker a core, one frame a run.
    return Device("cpu", "CPUExecutionProvider", workers or usable_cores(), max_batch=1, note=note)


def _trouble(device: Device) -> str | None:
    """Say why a device cannot be used and what would help, or None: that it is offered does not mean it runs."""
    if device.provider not in ort.get_available_providers():
        return "this onnxruntime has no CUDA provider; install the gpu extra in place of cpu"
    try:
        open_session(_RELU, device).run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:  # noqa: BLE001 - the failures of onnxruntime share no base class
        return f"CUDA does not start ({error}); check the driver and the CUDA libraries"
    return None


def open_session(graph: bytes, device: Device) -> ort.InferenceSession:
    """Open an ONNX graph on the device; raise DeviceUnavailable if onnxruntime quietly took another provider."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its warnings go past our JSON log
    options.intra_op_num_threads = 1  # the workers are the threads; more would take cores from one another
    options.inter_op_num_threads = 1
    providers = [(device.provider, dict(device.options))]
    # Without fallback: a GPU that fails later must not turn into a slow CPU that nobody hears of.
    session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != device.provider:
        raise DeviceUnavailable(
            f"{device.provider} was asked for but onnxruntime took {session.get_providers()[0]}; "
            "check the driver and the CUDA libraries, or ask for device=cpu"
        )
    return session
