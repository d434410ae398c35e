"""From a run folder to a model folder: ONNX graphs, parity with torch, golden input, calibration, model card."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from runtime.clips import Window
from runtime.conformal import FalseAlarms
from runtime.devices import DeviceChoice, select_device
from runtime.images import Pixels, fingerprint
from runtime.manifest import (
    MANIFEST_FILE,
    File,
    FrameInput,
    Graph,
    Graphs,
    Manifest,
    Metric,
    ModelName,
    Provenance,
    Task,
    write_manifest,
)
from runtime.model import Model
from runtime.motion import optical_flow
from training.autoencoders.base import Autoencoder, ClipAutoencoder, Denoiser
from training.calibrate import calibrate, in_batches
from training.card import BEFORE_EXPORT, write_card
from training.config import Recipe
from training.data import Frames, Split, full_windows
from training.errors import ExportError
from training.gaussian import LatentGaussian
from training.graph import (
    AutoencoderGraph,
    ClipGraph,
    DenoiserGraph,
    GeneratorGraph,
    NoiseEstimatorGraph,
    to_unit,
)
from training.onnx_graph import (
    Arrays,
    ExportedGraph,
    check_parity,
    describe_file,
    describe_graph,
    golden_arrays,
    round_to_half,
    write_onnx,
)
from training.trainer import environment

MEASURED_FRAMES = 500
FINGERPRINTS = 1000


def export(recipe: Recipe, autoencoder: Autoencoder[Any], split: Split, out: Path) -> Manifest:
    """Write the model folder `out`, whole or not at all; its name becomes the model's name.

    Raises ExportError when onnxruntime and torch disagree by more than a level or a thousandth, when `out` cannot be
    a model's name, or when something else than a model would be overwritten.
    """
    out = out.resolve()
    check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as workshop:
        folder = Path(workshop) / out.name
        folder.mkdir()
        manifest = _write_folder(recipe, autoencoder.eval(), split, folder)
        _swap(folder, out)
    return manifest


def check_target(out: Path) -> None:
    """Raise ExportError where `out` cannot be a model's name, or is there and no model folder."""
    try:
        TypeAdapter(ModelName).validate_python(out.name)
    except ValidationError as error:
        raise ExportError(f"{out}: {out.name!r} is no name for a model; use a-z, 0-9, - and _") from error
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"{out} is there and is no model folder; name another with --out, or remove it")


def _write_folder(recipe: Recipe, autoencoder: Autoencoder[Any], split: Split, folder: Path) -> Manifest:
    round_to_half(autoencoder)
    if isinstance(autoencoder, ClipAutoencoder):
        autoencoder.learn_normal(partial(_normal_clips, autoencoder, split))
    graphs = _graphs(recipe, autoencoder, _gaussian(recipe, autoencoder, split.train))
    files: dict[str, Graph] = {}
    golden: Arrays = {}
    for name, graph in graphs.items():
        path = folder / f"{name}.onnx"
        write_onnx(graph, path)
        check_parity(graph, path, split.validation)
        files[name] = describe_graph(path)
        golden |= golden_arrays(name, graph, path, split.validation)
    np.savez_compressed(folder / "golden.npz", allow_pickle=False, **golden)
    manifest = _manifest(recipe, autoencoder, Graphs(**files), describe_file(folder / "golden.npz"))
    figures = _kind_metrics(recipe, autoencoder, split.validation)
    provenance = manifest.provenance.model_copy(update={"trained_on": _fingerprints(recipe, split.train)})
    manifest = manifest.model_copy(update={"name": folder.name, "metrics": figures, "provenance": provenance})
    write_manifest(manifest, folder)
    model = Model.open(folder, select_device(DeviceChoice.CPU))
    if recipe.score is not None:
        calibration = calibrate(
            model, split.calibration, FalseAlarms(recipe.score.false_alarm_rate), _provenance_of(split.calibration)
        )
        manifest = manifest.model_copy(update={"calibration": calibration})
        write_manifest(manifest, folder)
        model = Model.open(folder, model.device)
    write_card(model, folder, split.validation)
    return manifest


def _gaussian(recipe: Recipe, autoencoder: Autoencoder[Any], normal: Frames) -> LatentGaussian | None:
    """Fit the Gaussian of normal codes, where the recipe scores by it."""
    if recipe.score is None or recipe.score.latent is None:
        return None
    with torch.no_grad():
        codes = in_batches(normal, "codes", lambda pixels: autoencoder.encode(to_unit(torch.from_numpy(pixels))))
        return LatentGaussian.fit(codes, recipe.score.latent)


def _graphs(recipe: Recipe, autoencoder: Autoencoder[Any], gaussian: LatentGaussian | None) -> dict[str, ExportedGraph]:
    shape = autoencoder.shape
    frames = ("batch", shape.height or "height", shape.width or "width", shape.channels)
    if isinstance(autoencoder, Denoiser):
        denoiser, estimator = DenoiserGraph(autoencoder), NoiseEstimatorGraph(autoencoder)
        return {
            "autoencoder": ExportedGraph(denoiser, denoiser.outputs, {"frames": frames, "noise_level": ("batch",)}),
            "noise_estimator": ExportedGraph(estimator, estimator.outputs, {"frames": frames}),
        }
    if isinstance(autoencoder, ClipAutoencoder):
        return {"autoencoder": _clip_graph(autoencoder, frames)}
    graph = AutoencoderGraph(autoencoder, recipe.score, gaussian)
    graphs = {"autoencoder": ExportedGraph(graph, graph.outputs, {"frames": frames})}
    if Task.SAMPLE in autoencoder.tasks and autoencoder.latent_dim is not None:
        generator = GeneratorGraph(autoencoder)
        latent = {"latent": ("batch", autoencoder.latent_dim)}
        graphs["generator"] = ExportedGraph(generator, generator.outputs, latent)
    return graphs


def _clip_graph(autoencoder: ClipAutoencoder, frames: tuple[int | str, ...]) -> ExportedGraph:
    graph = ClipGraph(autoencoder)
    batch, height, width, _ = frames
    flow = (batch, autoencoder.flow_fields, height, width, 2)
    inputs = {"frames": (batch, autoencoder.time, *frames[1:]), "flow": flow}
    return ExportedGraph(graph, graph.outputs, inputs)


def _normal_clips(autoencoder: ClipAutoencoder, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all full clips but those that set the threshold, as the graph will see them."""
    time = autoencoder.time
    for part in (split.train, split.validation):
        window, ends = Window.whole(time), full_windows(part, time)
        yield from in_batches(part, "normal clips", partial(_seen, autoencoder), window, ends)


def _seen(autoencoder: ClipAutoencoder, clips: Pixels) -> tuple[Tensor, Tensor]:
    flow = np.stack([optical_flow(clip, autoencoder.flow_step, autoencoder.flow_fields) for clip in clips])
    return torch.from_numpy(clips), torch.from_numpy(flow)


def _manifest(recipe: Recipe, autoencoder: Autoencoder[Any], graphs: Graphs, golden: File) -> Manifest:
    tasks = autoencoder.tasks if recipe.score else autoencoder.tasks - {Task.SCORE}
    shape, facts = autoencoder.shape, environment()
    geometry = FrameInput.model_validate({"channels": shape.channels, "height": shape.height, "width": shape.width})
    if isinstance(autoencoder, Denoiser):
        reach = {"stride": autoencoder.stride, "receptive_field": autoencoder.receptive_field}
        geometry = geometry.model_copy(update=reach)
    if isinstance(autoencoder, ClipAutoencoder):
        clip = {name: getattr(autoencoder, name) for name in ("time", "warm_up", "flow_step", "flow_fields")}
        geometry = geometry.model_copy(update=clip)
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        kind=recipe.autoencoder.kind,
        description=recipe.description,
        licence="; ".join(filter(None, (recipe.licence, autoencoder.licence))),
        tasks=tuple(task for task in Task if task in tasks),
        input=geometry,
        graphs=graphs,
        golden=golden,
        parameters=sum(parameter.numel() for parameter in autoencoder.parameters()),
        latent_dim=autoencoder.latent_dim,
        noise=autoencoder.noise if isinstance(autoencoder, Denoiser) else None,
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
    chosen = frames.subset(np.linspace(0, len(frames) - 1, min(MEASURED_FRAMES, len(frames))).astype(int))
    means: defaultdict[tuple[str, str], float] = defaultdict(float)
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        for batch in in_batches(chosen, "measuring", lambda pixels: to_unit(torch.from_numpy(pixels))):
            for figure, value in autoencoder.measure(batch).items():
                means[figure] += value * len(batch) / len(chosen)
    held_out = f"{len(chosen)} held-out frames of {', '.join(source.path for source in recipe.data.sources)}"
    return tuple(
        Metric(name=name, value=value, unit=unit, data_set=held_out, protocol=BEFORE_EXPORT, seed=recipe.seed)
        for (name, unit), value in means.items()
    )


def _fingerprints(recipe: Recipe, frames: Frames) -> tuple[str, ...]:
    """Return what tells frames of the training, or a thousand of them, so that no threshold is set on them."""
    if recipe.score is None:
        return ()
    chosen = np.linspace(0, len(frames) - 1, min(FINGERPRINTS, len(frames))).astype(int)
    return tuple(sorted({fingerprint(frames.pixels[index]) for index in chosen}))


def _provenance_of(frames: Frames) -> str:
    clips = sorted(set(frames.clips))
    named = ", ".join(clips[:8]) + (f" and {len(clips) - 8} more" if len(clips) > 8 else "")
    return f"{len(frames)} normal frames held out from training: {named}"


def _swap(folder: Path, out: Path) -> None:
    """Put the new folder in the place of the old; a reader never sees half of one."""
    if out.exists():
        retired = folder.parent / "retired"
        out.rename(retired)
        try:
            folder.rename(out)
        except OSError:
            retired.rename(out)
            raise
    else:
        folder.rename(out)
