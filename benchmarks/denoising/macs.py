"""Multiply-accumulates of an ONNX file: the size of its arithmetic, on whatever machine."""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

COUNTED: Mapping[str, Callable[[Shape, Shape, Shape], int]] = {
    # Each element of the output is a sum over its filter: weights [out, in / groups, kernel...].
    "Conv": lambda _, weights, output: prod(output) * prod(weights[1:]),
    # Each element of the input is spread over its filter: weights [in, out / groups, kernel...].
    "ConvTranspose": lambda data, weights, _: prod(data) * prod(weights[1:]),
    # Each row of the output meets all weights, be they transposed or not.
    "Gemm": lambda _, weights, output: output[0] * prod(weights),
}
"""(data, weights, output) -> multiply-accumulates, by operator; all others are left out, as papers do."""


def multiply_accumulates(path: Path, height: int, width: int) -> int:
    """Count what the convolutions and matrix products of a graph do for one frame of that size.

    The file is run once to see the shapes: a graph that computes its padding hides them from shape inference.
    """
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in COUNTED]
    ends = [(*node.input[:2], node.output[0]) for node in nodes]
    shapes = _shapes(model, {name for names in ends for name in names}, height, width)
    return sum(
        COUNTED[node.op_type](*(shapes[name] for name in names)) for node, names in zip(nodes, ends, strict=True)
    )


def _shapes(model: onnx.ModelProto, tensors: Iterable[str], height: int, width: int) -> Shapes:
    """Let the graph tell the shapes of its tensors, as further outputs."""
    asked = {name: f"shape of {name}" for name in tensors}
    for name, answer in asked.items():
        model.graph.node.append(helper.make_node("Shape", [name], [answer]))
        model.graph.output.append(helper.make_tensor_value_info(answer, onnx.TensorProto.INT64, [None]))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    axes = {"batch": 1, "height": height, "width": width}
    inputs = {tensor.name: _zeros(tensor, axes) for tensor in model.graph.input}
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    return {name: tuple(map(int, found[answer])) for name, answer in asked.items()}


def _zeros(tensor: onnx.ValueInfoProto, axes: Mapping[str, int]) -> np.ndarray[Shape, np.dtype[np.generic]]:
    kind = tensor.type.tensor_type
    shape = [axes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in kind.shape.dim]
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
