"""Both engines answer alike, from several threads, and say what a graph takes and gives."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from runtime.devices import Device, DeviceChoice, open_session, select_device
from runtime.engines import Arrays, OpenVinoSession
from runtime.errors import ModelFolderInvalid
from runtime.manifest import Tensor, read_manifest
from runtime.model import Model
from tests.model_folders import edit_manifest, write_denoiser, write_scorer

Array = npt.NDArray[np.generic]


@pytest.fixture(scope="module")
def openvino() -> Device:
    """Give OpenVINO with two workers."""
    pytest.importorskip("openvino")
    return select_device(DeviceChoice.OPENVINO, workers=2)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scorer(tmp_path_factory.mktemp("models") / "scorer")


def random_frames(*shape: int) -> Arrays:
    return {"frames": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}


def graph_of(folder: Path) -> bytes:
    return (folder / read_manifest(folder).graphs.autoencoder.file).read_bytes()


def test_a_model_opens_on_openvino_and_answers_as_on_onnxruntime(scorer: Path, cpu: Device, openvino: Device) -> None:
    frames = random_frames(3, 32, 48, 1)["frames"].astype(np.uint8)
    here, there = Model.open(scorer, cpu).run(frames), Model.open(scorer, openvino).run(frames)
    assert here.reconstruction is not None
    assert there.reconstruction is not None
    assert np.abs(here.reconstruction.astype(int) - there.reconstruction).max() <= 1
    assert there.anomaly_score == pytest.approx(here.anomaly_score, rel=1e-4)


def test_a_graph_that_the_engine_gets_wrong_is_refused(
    tmp_path: Path, cpu: Device, openvino: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that plans for a size must not answer another size as before."""
    folder = write_denoiser(tmp_path / "denoiser")
    run = OpenVinoSession.run

    def stale(session: OpenVinoSession, outputs: Sequence[str], inputs: Arrays) -> list[Array]:
        frames = inputs["frames"]
        return run(
            session, outputs, inputs | ({} if frames.shape[1] > 1 else {"frames": np.zeros((1, 9, 9, 3), np.uint8)})
        )

    monkeypatch.setattr(OpenVinoSession, "run", stale)
    with pytest.raises(ModelFolderInvalid, match=r"on openvino, reconstruction should have the shape \[1, 1, 1, 3\]"):
        Model.open(folder, openvino)
    Model.open(folder, cpu)


@pytest.mark.parametrize("choice", [DeviceChoice.CPU, DeviceChoice.OPENVINO])
def test_the_signature(scorer: Path, choice: DeviceChoice) -> None:
    if choice is DeviceChoice.OPENVINO:
        pytest.importorskip("openvino")
    signature = open_session(graph_of(scorer), select_device(choice)).signature
    (frames,) = signature.inputs
    assert frames.agrees(Tensor(name="frames", dtype="uint8", shape=("batch", 32, 48, 1)))
    expected = read_manifest(scorer).graphs.autoencoder.outputs
    assert all(map(Tensor.agrees, expected, signature.outputs))


@pytest.mark.parametrize("alone", [False, True])
def test_results_stay_what_they_were_when_the_next_frame_is_run(scorer: Path, openvino: Device, *, alone: bool) -> None:
    session = open_session(graph_of(scorer), openvino, alone=alone)
    first = session.run(["reconstruction"], random_frames(1, 32, 48, 1))[0]
    kept = first.copy()
    session.run(["reconstruction"], {"frames": np.zeros((1, 32, 48, 1), np.uint8)})
    assert np.array_equal(first, kept)


def test_threads_do_not_mix_their_frames(scorer: Path, openvino: Device) -> None:
    model = Model.open(scorer, openvino)
    frames = [np.full((1, 32, 48, 1), value, np.uint8) for value in range(0, 250, 5)]
    expected = [model.run(each).anomaly_score for each in frames]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: model.run(each).anomaly_score, frames * 4))
    assert np.array_equal(np.stack(found), np.stack(expected * 4))  # type: ignore[arg-type]


def test_a_run_alone_gives_the_same(scorer: Path, cpu: Device) -> None:
    model = Model.open(scorer, replace(cpu, workers=2))
    frames = random_frames(1, 32, 48, 1)["frames"].astype(np.uint8)
    one, all_ = model.run(frames).anomaly_score, model.run(frames, alone=True).anomaly_score
    assert all_ == pytest.approx(one, rel=1e-5)


def test_openvino_refuses_a_folder_as_onnxruntime_does(openvino: Device, tmp_path: Path) -> None:
    folder = write_scorer(tmp_path / "scorer")
    edit_manifest(folder, lambda content: content["graphs"]["autoencoder"]["outputs"].reverse())
    with pytest.raises(ModelFolderInvalid, match="outputs should be"):
        Model.open(folder, openvino)
