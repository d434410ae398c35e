"""From a run folder to a model folder: ONNX graphs, parity with torch, golden input, calibration, model card."""

import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from tqdm import tqdm

from runtime.devices import DeviceChoice, open_session, select_device
from runtime.manifest import File, FrameInput, Graph, Graphs, Manifest, Metric, Provenance, Task, write_manifest
from runtime.manifest import Tensor as TensorSpec
from runtime.model import GOLDEN_LEVELS, GOLDEN_RTOL, Model
from training.autoencoders.base import Autoencoder, Denoiser
from training.calibrate import calibrate
from training.card import write_card
from training.config import Recipe
from training.data import Frames, Split
from training.errors import ExportError
from training.graph import AutoencoderGraph, DenoiserGraph, GeneratorGraph, NoiseEstimatorGraph
from training.trainer import environment

MEASURED_FRAMES = 500
PARITY_SIZES = ((1, 1), (17, 33), (45, 61), (64, 96), (130, 70))
PARITY_BATCHES = (1, 7)

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ExportedGraph:
    """A graph to export: the module, its inputs' names and which of their axes vary."""

    module: nn.Module
    outputs: tuple[str, ...]
    inputs: Mapping[str, tuple[int | str, ...]]
    """Shape of each input, with names for the axes that vary."""


def export(recipe: Recipe, autoencoder: Autoencoder[Any], split: Split, out: Path) -> Manifest:
    """Write the model folder `out`, whole or not at all; its name becomes the model's name.

    Raises ExportError when onnxruntime and torch disagree by more than a level or a thousandth.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as workshop:
        folder = Path(workshop) / out.name
        folder.mkdir()
        manifest = _write_folder(recipe, autoencoder.eval(), split, folder)
        _swap(folder, out)
    return manifest


def _write_folder(recipe: Recipe, autoencoder: Autoencoder[Any], split: Split, folder: Path) -> Manifest:
    graphs = _graphs(recipe, autoencoder)
    files: dict[str, Graph] = {}
    golden: Arrays = {}
    for name, graph in graphs.items():
        path = folder / f"{name}.onnx"
        _write_onnx(graph, path)
        _check_parity(graph, path, split.validation)
        files[name] = _describe(path)
        golden |= _golden(name, path, _examples(graph, split.validation, 2, (64, 96), seed=7))
    np.savez_compressed(folder / "golden.npz", allow_pickle=False, **golden)
    manifest = _manifest(recipe, autoencoder, split, Graphs(**files), _file(folder / "golden.npz")).model_copy(
        update={"name": folder.name}
    )
    write_manifest(manifest, folder)
    model = Model.open(folder, select_device(DeviceChoice.CPU))
    if recipe.score is not None:
        calibration = calibrate(
            model, split.calibration, recipe.score.false_alarm_rate, _provenance_of(split.calibration)
        )
        manifest = manifest.model_copy(update={"calibration": calibration})
        write_manifest(manifest, folder)
        model = Model.open(folder, model.device)
    write_card(model, folder, split.validation)
    return manifest


def _graphs(recipe: Recipe, autoencoder: Autoencoder[Any]) -> dict[str, ExportedGraph]:
    shape = autoencoder.shape
    frames = ("batch", shape.height or "height", shape.width or "width", shape.channels)
    if isinstance(autoencoder, Denoiser):
        denoiser, estimator = DenoiserGraph(autoencoder), NoiseEstimatorGraph(autoencoder)
        return {
            "autoencoder": ExportedGraph(denoiser, denoiser.outputs, {"frames": frames, "noise_level": ("batch",)}),
            "noise_estimator": ExportedGraph(estimator, estimator.outputs, {"frames": frames}),
        }
    graph = AutoencoderGraph(autoencoder, recipe.score)
    graphs = {"autoencoder": ExportedGraph(graph, graph.outputs, {"frames": frames})}
    if Task.SAMPLE in autoencoder.tasks and autoencoder.latent_dim is not None:
        generator = GeneratorGraph(autoencoder)
        latent = {"latent": ("batch", autoencoder.latent_dim)}
        graphs["generator"] = ExportedGraph(generator, generator.outputs, latent)
    return graphs


def _write_onnx(graph: ExportedGraph, path: Path) -> None:
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


def _examples(graph: ExportedGraph, frames: Frames, batch: int, size: tuple[int, int], seed: int) -> Arrays:
    """Make inputs of any shape the graph takes: real frames where there are some, else random ones."""
    rng = np.random.default_rng(seed)
    axes = {"batch": batch, "height": size[0], "width": size[1]}
    examples: Arrays = {}
    for name, shape in graph.inputs.items():
        sizes = tuple(axes[axis] if isinstance(axis, str) else axis for axis in shape)
        if name != "frames":
            spread = 50 * rng.random(sizes) if name == "noise_level" else rng.standard_normal(sizes)
            examples[name] = spread.astype(np.float32)
            continue
        pixels = rng.integers(0, 256, sizes, np.uint8)
        for slot in range(0, batch if len(frames) else 0, 2):  # every other one is real, as far as it reaches
            real = frames.pixels[int(rng.integers(len(frames)))][: sizes[1], : sizes[2]]
            pixels[slot, : real.shape[0], : real.shape[1]] = real
        examples[name] = pixels
    return examples


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


def _check_parity(graph: ExportedGraph, path: Path, frames: Frames) -> None:
    session = open_session(path.read_bytes(), select_device(DeviceChoice.CPU))
    for inputs in tqdm(_parity_inputs(graph, frames), f"parity of {path.name}", unit="input", disable=None):
        with torch.no_grad():
            expected: Sequence[Tensor] = graph.module(*(torch.from_numpy(value) for value in inputs.values()))
        found = session.run(list(graph.outputs), inputs)
        for name, torch_value, onnx_value in zip(graph.outputs, expected, found, strict=True):
            wanted = torch_value.numpy().astype(np.float64)
            apart = float(np.abs(onnx_value - wanted).max())
            is_pixels = torch_value.dtype == torch.uint8
            allowed = GOLDEN_LEVELS if is_pixels else GOLDEN_RTOL * max(1e-6, float(np.abs(wanted).max()))
            if not apart <= allowed:
                shapes = {key: list(value.shape) for key, value in inputs.items()}
                raise ExportError(f"{path.name}: {name} differs from torch by {apart:g} on inputs {shapes}")


def _golden(name: str, path: Path, inputs: Arrays) -> Arrays:
    session = open_session(path.read_bytes(), select_device(DeviceChoice.CPU))
    outputs = [node.name for node in session.get_outputs()]
    answers = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    return {f"{name}.in.{key}": value for key, value in inputs.items()} | {
        f"{name}.out.{key}": value for key, value in answers.items()
    }


def _file(path: Path) -> File:
    data = path.read_bytes()
    return File(file=path.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _describe(path: Path) -> Graph:
    session = open_session(path.read_bytes(), select_device(DeviceChoice.CPU))
    inputs, outputs = (
        tuple(
            TensorSpec(name=node.name, dtype="uint8" if "uint8" in node.type else "float32", shape=tuple(node.shape))
            for node in nodes
        )
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return Graph(**_file(path).model_dump(), inputs=inputs, outputs=outputs)


def _manifest(recipe: Recipe, autoencoder: Autoencoder[Any], split: Split, graphs: Graphs, golden: File) -> Manifest:
    tasks = autoencoder.tasks if recipe.score else autoencoder.tasks - {Task.SCORE}
    shape, facts = autoencoder.shape, environment()
    geometry = FrameInput.model_validate({"channels": shape.channels, "height": shape.height, "width": shape.width})
    if isinstance(autoencoder, Denoiser):
        reach = {"stride": autoencoder.stride, "receptive_field": autoencoder.receptive_field}
        geometry = geometry.model_copy(update=reach)
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        kind=recipe.autoencoder.kind,
        description=recipe.description,
        licence=recipe.licence,
        tasks=tuple(task for task in Task if task in tasks),
        input=geometry,
        graphs=graphs,
        golden=golden,
        parameters=sum(parameter.numel() for parameter in autoencoder.parameters()),
        latent_dim=autoencoder.latent_dim,
        noise=autoencoder.noise if isinstance(autoencoder, Denoiser) else None,
        metrics=_kind_metrics(recipe, autoencoder, split.validation),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=facts["commit"],
            libraries=facts["libraries"],
            config=recipe.model_dump(mode="json"),
        ),
    )


def _kind_metrics(recipe: Recipe, autoencoder: Autoencoder[Any], frames: Frames) -> tuple[Metric, ...]:
    """Measure what only the kind knows how to, on held-out frames."""
    if autoencoder.shape.height is None:
        return ()
    chosen = np.linspace(0, len(frames) - 1, min(MEASURED_FRAMES, len(frames))).astype(int)
    batch = torch.from_numpy(frames.batch(list(chosen))).permute(0, 3, 1, 2).float() / 255
    torch.manual_seed(recipe.seed)
    with torch.no_grad():
        measured = autoencoder.measure(batch)
    held_out = f"{len(chosen)} held-out frames of {', '.join(source.path for source in recipe.data.sources)}"
    return tuple(
        Metric(name=name, value=value, unit=unit, data_set=held_out, protocol="torch, before export", seed=recipe.seed)
        for (name, unit), value in measured.items()
    )


def _provenance_of(frames: Frames) -> str:
    clips = sorted(set(frames.clips))
    named = ", ".join(clips[:8]) + (f" and {len(clips) - 8} more" if len(clips) > 8 else "")
    return f"{len(frames)} normal frames held out from training: {named}"


def _swap(folder: Path, out: Path) -> None:
    """Put the new folder in the place of the old; a reader never sees half of one."""
    if out.exists():
        retired = folder.parent / "retired"
        out.rename(retired)
        folder.rename(out)
        shutil.rmtree(retired)
    else:
        folder.rename(out)
