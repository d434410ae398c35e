"""Which execution provider is taken, and what is said when it is not the one hoped for."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from runtime import devices
from runtime.devices import Device, DeviceChoice, open_session, select_device, usable_cores
from runtime.engines import Engine
from runtime.errors import DeviceUnavailable

NO_CUDA = "CUDAExecutionProvider" not in ort.get_available_providers()
without_cuda = pytest.mark.skipif(not NO_CUDA, reason="this onnxruntime has a CUDA provider")


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)


@pytest.fixture
def false_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let onnxruntime offer a CUDA provider that then does not start."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_the_cpu_has_a_worker_a_core_and_nothing_to_excuse() -> None:
    device = select_device(DeviceChoice.CPU)
    provider = "CPUExecutionProvider"
    assert device == Device("cpu", Engine.ONNXRUNTIME, provider, workers=usable_cores(), max_batch=1)
    assert device.note == ""


def test_workers_can_be_chosen() -> None:
    assert select_device(DeviceChoice.CPU, workers=3).workers == 3


@without_cuda
def test_cuda_by_name_does_not_fall_back() -> None:
    with pytest.raises(DeviceUnavailable, match=r"device=cuda was asked for but .* install the gpu extra"):
        select_device(DeviceChoice.CUDA)


@without_cuda
def test_auto_falls_back_and_says_so() -> None:
    device = select_device(DeviceChoice.AUTO, workers=1)
    assert (device.name, device.target) == ("cpu", "CPUExecutionProvider")
    assert device.note.startswith("running on the CPU: this onnxruntime has no CUDA provider")


@without_cuda
@pytest.mark.usefixtures("false_promise")
def test_auto_tries_cuda_before_it_promises_it() -> None:
    device = select_device(DeviceChoice.AUTO)
    assert device.name == "cpu"
    assert "cuda does not start" in device.note


@without_cuda
@pytest.mark.usefixtures("false_promise")
def test_cuda_by_name_that_does_not_start() -> None:
    with pytest.raises(DeviceUnavailable, match=r"cuda does not start .*check the driver"):
        select_device(DeviceChoice.CUDA)


@without_cuda
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_on_another_provider_is_refused() -> None:
    cuda = Device("cuda", Engine.ONNXRUNTIME, "CUDAExecutionProvider", workers=1, max_batch=1)
    with pytest.raises(DeviceUnavailable, match="CUDAExecutionProvider was asked for"):
        open_session(devices._RELU, cuda)


def test_the_trial_graph_is_a_valid_one(cpu: Device) -> None:
    onnx.checker.check_model(onnx.load_from_string(devices._RELU), full_check=True)
    assert devices._trouble(cpu) is None


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 3),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("140000 100000\n", 1),
        ("20000 100000\n", 1),
        ("900000 100000\n", 3),
        ("", 3),
        ("nonsense\n", 3),
        ("a b\n", 3),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, quota: str, cores: int) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert usable_cores(path) == cores


@pytest.mark.usefixtures("three_cores")
def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "cpu.max") == 3


def test_without_an_affinity_every_core_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores(tmp_path / "cpu.max") == 7


@without_cuda
def test_openvino_is_a_rival_of_the_cpu() -> None:
    pytest.importorskip("openvino")
    device = select_device(DeviceChoice.AUTO, workers=2)
    named = select_device(DeviceChoice.OPENVINO, workers=2)
    assert named in device.rivals
    assert (named.workers, named.max_batch) == (device.workers, device.max_batch)
    assert select_device(DeviceChoice.CPU).rivals == (), "a device that is named has no rivals"


@without_cuda
def test_without_openvino_there_is_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert select_device(DeviceChoice.AUTO).rivals == ()
    with pytest.raises(DeviceUnavailable, match=r"device=openvino was asked for but .* install the openvino extra"):
        select_device(DeviceChoice.OPENVINO)


def test_a_precision_that_the_cpu_would_imitate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(DeviceUnavailable, match=r"openvino-bf16 was asked for but this CPU does not compute in bf16"):
        select_device(DeviceChoice.OPENVINO_BF16)


@pytest.mark.gpu
def test_auto_takes_cuda() -> None:
    device = select_device(DeviceChoice.AUTO)
    assert (device.name, device.target, device.note) == ("cuda", "CUDAExecutionProvider", "")


@pytest.mark.gpu
def test_auto_with_its_gpu_hidden() -> None:
    code = "from runtime.devices import *; device = select_device(DeviceChoice.AUTO); print(device.name, device.note)"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cpu running on the CPU: cuda does not start")
