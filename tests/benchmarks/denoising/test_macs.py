"""Multiply-accumulates, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.denoising.macs import multiply_accumulates
from tests.model_folders import Net, write_denoiser

CONV = 8 * 5 * 6 * (3 * 3 * 3)  # 8 channels of 5 x 6, each a sum over 3 channels x 3 x 3
GROUPED = 8 * 5 * 6 * (2 * 1 * 1)  # four groups of two channels
TRANSPOSED = 8 * 5 * 6 * (4 * 2 * 2)  # each of the 8 x 5 x 6 inputs is spread over 4 channels x 2 x 2
GEMM = 4 * 7  # one row of 4 to one of 7


def write(path: Path, *, transposed: int) -> Path:
    """Write a graph that takes uint8 frames of any size."""
    net = Net(frames=("uint8", ("batch", "height", "width", 3)))
    weights = np.ones((4, 7))
    pixels = net("Transpose", net("Cast", "frames", to=1), perm=[0, 3, 1, 2])
    half = net("Conv", pixels, net.floats(np.ones((8, 3, 3, 3))), strides=[2, 2], pads=[1, 1, 1, 1])
    mixed = net("Conv", half, net.floats(np.ones((8, 2, 1, 1))), group=4)
    whole = net("ConvTranspose", mixed, net.floats(np.ones((8, 4, 2, 2))), strides=[2, 2])
    means = net("ReduceMean", whole, net.ints(2, 3), keepdims=0)
    result = net("Gemm", means, net.floats(weights.T if transposed else weights), transB=transposed)
    net.output("result", result, "float32", ("batch", 7))
    path.write_bytes(net.build())
    return path


@pytest.mark.parametrize("transposed", [0, 1])
def test_every_operator_counts_what_it_does(tmp_path: Path, transposed: int) -> None:
    path = write(tmp_path / "tiny.onnx", transposed=transposed)
    assert multiply_accumulates(path, 10, 12) == CONV + GROUPED + TRANSPOSED + GEMM


def test_convolutions_grow_with_the_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.onnx", transposed=0)
    assert multiply_accumulates(path, 20, 24) - GEMM == 4 * (CONV + GROUPED + TRANSPOSED)


def test_a_graph_without_weights_costs_nothing(tmp_path: Path) -> None:
    assert multiply_accumulates(write_denoiser(tmp_path / "tiny") / "autoencoder.onnx", 10, 12) == 0
