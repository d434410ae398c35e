"""Which execution provider runs the graphs, and with which options: the one room that knows of CUDA."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import onnxruntime as ort

from runtime.errors import DeviceUnavailable


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


def usable_cores() -> int:
    """Count the cores this process may really use: its affinity mask, cut by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def select_device(choice: DeviceChoice, workers: int | None = None) -> Device:
    """Resolve a choice on this machine. Raises DeviceUnavailable: a named device never falls back silently."""
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if choice is DeviceChoice.CUDA and not has_cuda:
        raise DeviceUnavailable(
            "device=cuda was asked for but this onnxruntime has no CUDA provider; "
            "install the gpu extra in place of cpu, or ask for device=auto or cpu"
        )
    if has_cuda and choice is not DeviceChoice.CPU:
        return Device("cuda", "CUDAExecutionProvider", workers or 2, max_batch=16, options={"device_id": "0"})
    note = "" if choice is DeviceChoice.CPU else "no CUDA provider in this onnxruntime: running on the CPU"
    # A convolution fills a core by itself, so batches buy nothing on CPUs: one worker a core, one frame a run.
    return Device("cpu", "CPUExecutionProvider", workers or usable_cores(), max_batch=1, note=note)


def open_session(graph: bytes, device: Device) -> ort.InferenceSession:
    """Open an ONNX graph on the device; raise DeviceUnavailable if onnxruntime quietly took another provider."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its warnings go past our JSON log
    options.intra_op_num_threads = 1  # the workers are the threads; more would take cores from one another
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=[(device.provider, dict(device.options))])
    if session.get_providers()[0] != device.provider:
        raise DeviceUnavailable(
            f"{device.provider} was asked for but onnxruntime fell back to {session.get_providers()[0]}; "
            "check the driver and the CUDA libraries, or ask for device=cpu"
        )
    return session
