"""The fastest device wins a model, if it is as right as the first."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.contest import open_fastest
from runtime.devices import Device, DeviceChoice, select_device
from runtime.engines import Engine
from runtime.errors import ModelFolderInvalid
from runtime.model import Model
from tests.model_folders import write_scorer


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scorer(tmp_path_factory.mktemp("models") / "scorer")


@pytest.fixture
def rivals(cpu: Device) -> Device:
    """Give the CPU with one rival, which is the CPU by another name."""
    return replace(cpu, rivals=(replace(cpu, name="rival"),))


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that lets the golden input take these many milliseconds on each device."""

    def set_times(**milliseconds: float) -> None:
        clock = [0.0]

        def rehearse(model: Model) -> None:
            clock[0] += milliseconds[model.device.name] / 1000

        monkeypatch.setattr(Model, "rehearse", rehearse)
        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    return set_times


def test_the_faster_one_wins(scorer: Path, rivals: Device, takes: Callable[..., None]) -> None:
    takes(cpu=10, rival=5)
    model, trials = open_fastest(scorer, rivals)
    assert model.device.name == "rival"
    assert list(map(str, trials)) == ["cpu 10.00 ms", "rival 5.00 ms"]


def test_a_rival_that_is_hardly_faster_does_not(scorer: Path, rivals: Device, takes: Callable[..., None]) -> None:
    takes(cpu=10, rival=9.7)
    assert open_fastest(scorer, rivals)[0].device.name == "cpu"


def test_slow_models_have_few_rounds(scorer: Path, rivals: Device, takes: Callable[..., None]) -> None:
    takes(cpu=900, rival=700)
    started = time.perf_counter()
    open_fastest(scorer, rivals)
    assert time.perf_counter() - started == pytest.approx(1.6)


def test_a_rival_with_other_golden_outputs_is_passed_over(
    scorer: Path, rivals: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Model.open

    def wrong_on_the_rival(folder: Path, device: Device) -> Model:
        if device.name == "rival":
            raise ModelFolderInvalid("golden output reconstruction differs by 3")
        return opened(folder, device)

    monkeypatch.setattr(Model, "open", wrong_on_the_rival)
    model, trials = open_fastest(scorer, rivals)
    assert model.device.name == "cpu"
    assert [str(trial) for trial in trials] == ["cpu untimed", "rival golden output reconstruction differs by 3"]


def test_without_rivals_nothing_is_timed(scorer: Path, cpu: Device) -> None:
    model, trials = open_fastest(scorer, cpu)
    assert model.device == cpu
    assert [trial.milliseconds for trial in trials] == [None]


def test_a_folder_that_the_device_cannot_open_is_refused(tmp_path: Path, rivals: Device) -> None:
    with pytest.raises(ModelFolderInvalid):
        open_fastest(tmp_path / "nothing", rivals)


def test_onnxruntime_against_openvino(scorer: Path) -> None:
    pytest.importorskip("openvino")
    cpu = replace(select_device(DeviceChoice.CPU, 1), rivals=(select_device(DeviceChoice.OPENVINO, 1),))
    model, trials = open_fastest(scorer, cpu)
    assert {trial.device for trial in trials} == {"cpu", "openvino"}
    least = min(trials, key=lambda trial: trial.milliseconds or float("inf"))
    assert model.device.engine in {Engine.OPENVINO, Engine.ONNXRUNTIME}
    assert model.device.name in {"cpu", least.device}
