"""Models that fail after they were opened: by a frame, for good, for want of memory; and who computes them."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.devices import _RELU, Device, DeviceChoice, open_session, select_device
from runtime.engines import Session, Signature
from runtime.errors import ModelNotReady, OutOfMemory
from runtime.images import Pixels
from runtime.model import Model, Sessions
from tests.model_folders import write_scorer, write_treacherous

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 1), np.uint8)
WHITE = np.full((1, 32, 48, 1), 255, np.uint8)


class Broken(Session):
    """Raises an error as long as it has one."""

    def __init__(self, session: Session, error: Exception | None) -> None:
        self.error = error
        self.runs = 0
        self._session = session

    @property
    def signature(self) -> Signature:
        return self._session.signature

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.generic]]:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return self._session.run(outputs, inputs)


def break_it(model: Model, error: Exception) -> Broken:
    broken = Broken(model._sessions.shared["autoencoder"], error)
    sessions = {"autoencoder": broken}
    model._sessions = Sessions(sessions, sessions, model._sessions.refuge)
    return broken


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scorer(tmp_path / "scorer")


def score(model: Model, frames: Pixels) -> list[float]:
    scores = model.run(frames).anomaly_score
    assert scores is not None
    return [float(value) for value in scores]


def test_a_graph_that_fails_on_its_golden_input_too_is_not_run_again(
    folder: Path, cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model.open(folder, cpu)
    broken = break_it(model, RuntimeError("the driver is gone"))
    with pytest.raises(ModelNotReady, match="golden input"):
        model.run(FRAMES)
    assert broken.runs == 2
    with pytest.raises(ModelNotReady, match="cannot be used"):
        model.run(FRAMES)
    assert broken.runs == 2
    assert "driver" not in str(model.fault), "that is for the log"
    assert "the driver is gone" in caplog.text


def test_a_frame_that_makes_a_graph_fail_leaves_the_model_as_it_was(tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_treacherous(tmp_path / "treacherous", hangs=False), cpu)
    with pytest.raises(Exception, match="out of data bounds"):
        model.run(WHITE)
    assert model.fault is None
    assert len(score(model, FRAMES)) == 2


def test_without_memory_a_frame_fails_and_the_model_does_not(folder: Path, cpu: Device) -> None:
    model = Model.open(folder, cpu)
    expected = score(model, FRAMES)
    broken = break_it(model, OutOfMemory("no room"))
    with pytest.raises(OutOfMemory):
        model.run(FRAMES[:1])
    broken.error = None
    assert model.fault is None
    assert score(model, FRAMES) == expected


def test_without_memory_a_single_frame_is_computed_in_the_refuge(
    folder: Path, cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model.open(folder, replace(cpu, refuge=cpu))
    expected = score(model, FRAMES[:1])
    break_it(model, OutOfMemory("no room"))
    assert score(model, FRAMES[:1]) == expected
    assert "out of memory" in caplog.text
    with pytest.raises(OutOfMemory):
        model.run(FRAMES)  # smaller batches come first


@pytest.mark.parametrize("words", ["Failed to allocate memory for requested buffer of size 9", "CUDA: out of memory"])
def test_the_engines_words_for_a_full_memory(cpu: Device, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(_RELU, cpu)

    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError(words)

    monkeypatch.setattr(session, "_session", Full())
    with pytest.raises(OutOfMemory, match="smaller"):
        session.run(["y"], {"x": np.zeros(1, np.float32)})


def test_a_cpu_needs_no_refuge() -> None:
    assert select_device(DeviceChoice.CPU, cpu_fallback=True).refuge is None


def test_the_thread_that_computes_is_known(folder: Path, cpu: Device) -> None:
    model = Model.open(folder, cpu)
    seen = []

    class Watched(Broken):
        def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.generic]]:
            seen.append(model.runs_in(threading.get_ident()))
            return super().run(outputs, inputs)

    watched = {"autoencoder": Watched(model._sessions.shared["autoencoder"], None)}
    model._sessions = Sessions(watched, watched)
    model.run(FRAMES)
    assert seen == [True]
    assert not model.runs_in(threading.get_ident())


def test_every_session_is_of_the_bytes_that_were_verified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be replaced while it is opened: what is run alone must not be of other weights."""
    reads: list[str] = []
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        reads.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    Model.open(folder, select_device(DeviceChoice.CPU, workers=2))
    assert reads.count("autoencoder.onnx") == 1
