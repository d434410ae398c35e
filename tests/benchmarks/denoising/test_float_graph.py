"""The graph on floats: the same weights, nothing clipped, nothing rounded on the way in."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.denoising.float_graph import accepting_floats
from runtime.model import Floats
from tests.model_folders import write_denoiser
from tests.training.tiny import draw, recipe
from training.autoencoders.base import Denoiser, build
from training.graph import DenoiserGraph
from training.onnx_graph import ExportedGraph, write_onnx


def run(graph: bytes, frames: Floats, level: float) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {"frames": frames, "noise_level": np.full(len(frames), level, np.float32)}
    return np.asarray(session.run(["reconstruction"], inputs)[0], np.uint8)


def test_what_a_uint8_frame_cannot_hold_reaches_the_network(tmp_path: Path) -> None:
    graph = accepting_floats(write_denoiser(tmp_path / "tiny") / "autoencoder.onnx")
    rows, columns = np.indices((8, 10))
    board = np.where((rows + columns) % 2, 400, -100).astype(np.float32)
    frames = np.repeat(board[None, :, :, None], 3, 3)
    assert np.all(run(graph, frames, 25) == 150)  # clipped first, it would be the mean of 0 and 255
    assert np.all(run(graph, np.full_like(frames, 99.6), 25) == 100)  # cut to uint8 first, it would be 99


def write_exported(path: Path) -> DenoiserGraph:
    """Export an untrained denoiser to the file; return it as torch runs it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = recipe("denoising", data={"channels": 3})
    denoiser = build(chosen.autoencoder, chosen.shape)
    assert isinstance(denoiser, Denoiser)
    for weights in denoiser.parameters():  # as it is made it returns its input
        torch.nn.init.normal_(weights, std=0.2)
    graph = DenoiserGraph(denoiser).eval()
    inputs: dict[str, tuple[int | str, ...]] = {"frames": ("batch", "height", "width", 3), "noise_level": ("batch",)}
    write_onnx(ExportedGraph(graph, graph.outputs, inputs), path)
    return graph


def test_an_exported_denoiser_does_what_torch_does(tmp_path: Path) -> None:
    graph = write_exported(tmp_path / "autoencoder.onnx")
    clean = draw(2, channels=3, height=45, width=61)
    frames = (clean + np.random.default_rng(0).normal(0, 50, clean.shape)).astype(np.float32)
    with torch.no_grad():
        expected = graph(torch.from_numpy(frames), torch.full((2,), 50.0))[0].numpy()
    found = run(accepting_floats(tmp_path / "autoencoder.onnx"), frames, 50)
    assert expected.std() > 10
    assert np.abs(found.astype(int) - expected).max() <= 1
