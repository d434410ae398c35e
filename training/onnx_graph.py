"""One graph to one ONNX file, and onnxruntime held to what torch computes."""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from tqdm import tqdm

from runtime.devices import DeviceChoice, open_session, select_device
from runtime.manifest import File, Graph
from runtime.model import GOLDEN_LEVELS, GOLDEN_RTOL
from training.data import Frames
from training.errors import ExportError

PARITY_SIZES = ((1, 1), (17, 33), (45, 61), (64, 96), (130, 70))
PARITY_BATCHES = (1, 7)
SQUARE = 8
FRAME_AXES = 4
HALF_FROM = 1024  # weights: smaller arrays are not worth a node
FLOAT = onnx.TensorProto.FLOAT

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ExportedGraph:
    """A graph to export: the module, its inputs' names and which of their axes vary."""

    module: nn.Module
    outputs: tuple[str, ...]
    inputs: Mapping[str, tuple[int | str, ...]]
    """Shape of each input, with names for the axes that vary."""


def write_onnx(graph: ExportedGraph, path: Path) -> None:
    """Export the graph with its varying axes named. Raises ExportError where torch returns nothing."""
    examples = _examples(graph, Frames(), 2, (45, 61), seed=0)
    axes = {axis for shape in graph.inputs.values() for axis in shape if isinstance(axis, str)}
    dims = {axis: torch.export.Dim(axis, min=1, max=2**16) for axis in sorted(axes)}
    dynamic = {
        name: {index: dims[axis] for index, axis in enumerate(shape) if isinstance(axis, str)}
        for name, shape in graph.inputs.items()
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports what torchvision would have added
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            graph.module.eval(),
            tuple(torch.from_numpy(example) for example in examples.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing")
    model = program.model_proto
    _name_axes(model, graph)
    _strip(model)
    _store_in_half(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _name_axes(model: onnx.ModelProto, graph: ExportedGraph) -> None:
    """Give outputs the axis names of the frames, where the exporter wrote a formula for the cropped size."""
    frames = graph.inputs.get("frames", ())
    for output in model.graph.output:
        for index, dim in enumerate(output.type.tensor_type.shape.dim):
            if dim.dim_param:
                named = frames[index] if index < len(frames) else "batch"
                dim.dim_param = str(named) if isinstance(named, str) else "batch"


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes beside the graph: stack traces, with the paths of this machine."""
    for graph in _nested(model.graph):
        inner = (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
        for part in (model, *inner):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")


def _nested(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph, and those inside its nodes, as the body of a Loop is."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nested(attribute.g)


def round_to_half(module: nn.Module) -> None:
    """Round the weights to half precision, which write_onnx then stores at half the size."""
    for weight in module.parameters():
        if _is_large(weight.numel()) and weight.abs().max() < torch.finfo(torch.float16).max:
            weight.data = weight.data.half().float()


def _is_large(count: int) -> bool:
    return count >= HALF_FROM


def _store_in_half(model: onnx.ModelProto) -> None:
    """Store weights that half precision holds exactly in it; a Cast, folded as the file is opened, brings them back."""
    casts = []
    for initializer in model.graph.initializer:
        weights = numpy_helper.to_array(initializer)
        if weights.dtype != np.float32 or not _is_large(weights.size):
            continue
        with np.errstate(over="ignore"):
            halves = weights.astype(np.float16)
        if np.array_equal(halves.astype(np.float32), weights):
            initializer.CopyFrom(numpy_helper.from_array(halves, initializer.name))
            casts.append(onnx.helper.make_node("Cast", [initializer.name], [f"{initializer.name}.float"], to=FLOAT))
    renamed = {cast.input[0]: cast.output[0] for cast in casts}
    for graph in _nested(model.graph):
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _examples(graph: ExportedGraph, frames: Frames, batch: int, size: tuple[int, int], seed: int) -> Arrays:
    """Make inputs of any shape the graph takes: real frames where there are some, else random ones."""
    rng = np.random.default_rng(seed)
    axes = {"batch": batch, "height": size[0], "width": size[1]}
    examples: Arrays = {}
    for name, shape in graph.inputs.items():
        sizes = tuple(axes[axis] if isinstance(axis, str) else axis for axis in shape)
        if name == "flow":
            examples[name] = _in_squares(rng.standard_normal(sizes, np.float32))
            continue
        if name != "frames":
            spread = 50 * rng.random(sizes) if name == "noise_level" else rng.standard_normal(sizes)
            examples[name] = spread.astype(np.float32)
            continue
        pixels = rng.integers(0, 256, sizes, np.uint8)
        pixels = _in_squares(pixels) if len(sizes) > FRAME_AXES else pixels
        tall, wide = sizes[-3:-1]
        for slot in range(0, batch if len(frames) else 0, 2):  # every other one is real, as far as it reaches
            real = frames.pixels[int(rng.integers(len(frames)))][:tall, :wide]
            pixels[slot, ..., : real.shape[0], : real.shape[1], :] = real
        examples[name] = pixels
    return examples


def _in_squares(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Repeat one of 8 x 8 pixels of [..., h, w, c] in the others: clips and flows at every pixel would be megabytes."""
    rows, columns = (np.arange(length) // SQUARE * SQUARE for length in values.shape[-3:-1])
    return values[..., rows, :, :][..., columns, :]


def _parity_inputs(graph: ExportedGraph, frames: Frames) -> Iterator[Arrays]:
    """Yield real, random, black and white inputs of every size and batch."""
    free = any("height" in shape for shape in graph.inputs.values())
    for seed, size in enumerate(PARITY_SIZES if free else PARITY_SIZES[:1]):
        for batch in PARITY_BATCHES:
            examples = _examples(graph, frames, batch, size, seed)
            yield examples
            if "frames" in examples:
                yield examples | {"frames": np.zeros_like(examples["frames"])}
                yield examples | {"frames": np.full_like(examples["frames"], 255)}


def check_parity(graph: ExportedGraph, path: Path, frames: Frames) -> None:
    """Raise ExportError where onnxruntime and torch differ by more than a level, or a thousandth, on any input."""
    session = open_session(path.read_bytes(), select_device(DeviceChoice.CPU))
    largest = dict.fromkeys(graph.outputs, 1e-6)
    for inputs in tqdm(_parity_inputs(graph, frames), f"parity of {path.name}", unit="input", disable=None):
        with torch.no_grad():
            expected: Sequence[Tensor] = graph.module(*(torch.from_numpy(value) for value in inputs.values()))
        found = session.run(list(graph.outputs), inputs)
        for name, torch_value, onnx_value in zip(graph.outputs, expected, found, strict=True):
            wanted = torch_value.numpy().astype(np.float64)
            apart = float(np.abs(onnx_value.astype(np.float64) - wanted).max())
            is_pixels = torch_value.dtype == torch.uint8
            # On a white frame the units of a code may all but vanish: what counts is how large they are on others.
            largest[name] = max(largest[name], float(np.abs(wanted).max()))
            allowed = GOLDEN_LEVELS if is_pixels else GOLDEN_RTOL * largest[name]
            if not apart <= allowed:
                shapes = {key: list(value.shape) for key, value in inputs.items()}
                raise ExportError(f"{path.name}: {name} differs from torch by {apart:g} on inputs {shapes}")


def golden_arrays(name: str, graph: ExportedGraph, path: Path, frames: Frames) -> Arrays:
    """Return an input and what the file answers to it: every later load repeats it."""
    inputs = _examples(graph, frames, 2, (64, 96), seed=7)
    session = open_session(path.read_bytes(), select_device(DeviceChoice.CPU))
    outputs = [tensor.name for tensor in session.signature.outputs]
    answers = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    return {f"{name}.in.{key}": value for key, value in inputs.items()} | {
        f"{name}.out.{key}": value for key, value in answers.items()
    }


def describe_file(path: Path) -> File:
    """Return what the manifest says of a file."""
    data = path.read_bytes()
    return File(file=path.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def describe_graph(path: Path) -> Graph:
    """Return what the manifest says of a graph, as onnxruntime reads it."""
    session = open_session(path.read_bytes(), select_device(DeviceChoice.CPU))
    found = session.signature
    tensors = {side: [tensor.model_dump() for tensor in getattr(found, side)] for side in ("inputs", "outputs")}
    return Graph.model_validate(describe_file(path).model_dump() | tensors)
