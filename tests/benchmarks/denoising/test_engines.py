"""The engines answer alike."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.denoising.engines import ONNXRUNTIME, OPENVINO, OPENVINO_BF16, Engine
from benchmarks.denoising.speed import FrameSize, milliseconds
from tests.model_folders import write_denoiser
from tests.training.tiny import draw

FRAMES = draw(1, channels=3, height=24, width=33)
LEVEL = np.array([10], np.float32)


@pytest.mark.parametrize(("engine", "levels"), [(OPENVINO, 1), (OPENVINO_BF16, 4)])
def test_openvino_computes_what_onnxruntime_does(tmp_path: Path, engine: Engine, levels: int) -> None:
    pytest.importorskip("openvino")
    path = write_denoiser(tmp_path / "tiny") / "autoencoder.onnx"
    expected = ONNXRUNTIME.open(path, 1).run(FRAMES, LEVEL)
    found = engine.open(path, 1).run(FRAMES, LEVEL)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= levels


def test_every_graph_is_timed(tmp_path: Path) -> None:
    path = write_denoiser(tmp_path / "tiny") / "autoencoder.onnx"
    graphs = [ONNXRUNTIME.open(path, threads) for threads in (1, 2)]
    found = milliseconds(graphs, FrameSize(32, 24, runs=3), runs=3)
    assert len(found) == 2
    assert min(found) > 0
