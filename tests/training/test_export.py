"""Real model folders: they open, agree with torch, say what they are, and are replaced whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.devices import Device
from runtime.errors import ModelFolderInvalid, TooFewFrames
from runtime.images import Pixels
from runtime.manifest import Task, read_manifest
from runtime.model import Model
from tests.training.conftest import Exported
from tests.training.tiny import batch, draw, frames, parts
from training.autoencoders.base import Denoiser
from training.autoencoders.variational import Variational
from training.card import BEFORE_EXPORT
from training.config import Recipe, parse_recipe
from training.data import Split
from training.errors import ExportError
from training.export import export
from training.graph import AutoencoderGraph, DenoiserGraph, NoiseEstimatorGraph

pytestmark = pytest.mark.xdist_group("exported")

PICTURES = {
    "scorer": {"reconstructions.jpg"},
    "sampler": {"reconstructions.jpg", "samples.jpg", "interpolations.jpg"},
    "denoiser": {"denoised.jpg"},
}
GRAPHS = {
    "scorer": {"autoencoder.onnx"},
    "sampler": {"autoencoder.onnx", "generator.onnx"},
    "denoiser": {"autoencoder.onnx", "noise_estimator.onnx"},
}


def near(found: object, expected: torch.Tensor) -> bool:
    """Tell whether both agree: to a level for pixels, to a thousandth for the rest."""
    wanted = expected.numpy().astype(np.float64)
    allowed = 1 if expected.dtype == torch.uint8 else 1e-3 * max(1e-6, float(np.abs(wanted).max()))
    return float(np.abs(np.asarray(found).astype(np.float64) - wanted).max()) <= allowed


# -- the folders


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_the_folder_holds_what_the_manifest_names_and_the_card(exported: Exported, name: str) -> None:
    found = {path.name for path in (exported.folder / name).iterdir()}
    assert found == {"manifest.json", "golden.npz", "README.md"} | GRAPHS[name] | PICTURES[name]
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(GRAPHS), "there is litter beside it"


def test_the_tasks_follow_from_kind_and_recipe(opened: dict[str, Model]) -> None:
    tasks = {name: set(model.manifest.tasks) for name, model in opened.items()}
    assert tasks == {
        "scorer": {Task.RECONSTRUCT, Task.SCORE, Task.ENCODE},
        "sampler": {Task.RECONSTRUCT, Task.ENCODE, Task.SAMPLE},
        "denoiser": {Task.DENOISE},
    }


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_the_manifest_says_what_the_model_is(exported: Exported, opened: dict[str, Model], name: str) -> None:
    manifest, autoencoder = opened[name].manifest, exported.autoencoders[name]
    weights = list(autoencoder.parameters())
    assert manifest.name == name
    assert manifest.kind == exported.recipes[name].autoencoder.kind
    assert manifest.latent_dim == autoencoder.latent_dim
    assert manifest.parameters == sum(weight.numel() for weight in weights)
    assert parse_recipe(manifest.provenance.config, "manifest") == exported.recipes[name]
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= manifest.provenance.libraries.keys()
    assert manifest.graphs.present().keys() == {Path(file).stem for file in GRAPHS[name]}


def test_a_denoiser_says_where_tiles_may_be_cut_and_what_noise_it_knows(
    opened: dict[str, Model], exported: Exported
) -> None:
    manifest, denoiser = opened["denoiser"].manifest, exported.autoencoders["denoiser"]
    assert isinstance(denoiser, Denoiser)
    assert (manifest.input.height, manifest.input.width) == (None, None)
    assert (manifest.input.stride, manifest.input.receptive_field) == (denoiser.stride, denoiser.receptive_field)
    assert manifest.noise is not None
    assert manifest.noise.maximum_level == 55


def test_only_a_scorer_is_calibrated_and_on_frames_it_never_saw(opened: dict[str, Model]) -> None:
    assert opened["sampler"].manifest.calibration is None
    calibration = opened["scorer"].manifest.calibration
    assert calibration is not None
    assert (calibration.count, calibration.false_alarm_rate) == (40, 0.1)
    assert calibration.source == "40 normal frames held out from training: frames/00, frames/01, frames/02, frames/03"
    scores = opened["scorer"].run(draw(40, seed=2)).anomaly_score
    assert scores is not None
    assert (scores > calibration.threshold).sum() <= 4


def test_figures_that_only_the_kind_can_tell_are_measured(opened: dict[str, Model], exported: Exported) -> None:
    metrics = {metric.name: metric for metric in opened["sampler"].manifest.metrics}
    assert metrics.keys() == {"ELBO", "KL divergence", "log p(x), 100 importance samples"}
    assert {metric.protocol for metric in metrics.values()} == {BEFORE_EXPORT}
    assert {metric.data_set for metric in metrics.values()} == {"8 held-out frames of frames"}
    autoencoder = exported.autoencoders["sampler"]
    assert isinstance(autoencoder, Variational)
    with torch.no_grad():
        kl = autoencoder.measure(batch(8, seed=1))["KL divergence", "nats a frame"]
    assert metrics["KL divergence"].value == pytest.approx(kl, rel=1e-4)
    assert opened["scorer"].manifest.metrics == ()


# -- parity


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("name", ["scorer", "sampler"])
def test_a_vector_kind_answers_as_torch_does(
    exported: Exported, opened: dict[str, Model], name: str, count: int
) -> None:
    graph, pixels = AutoencoderGraph(exported.autoencoders[name], exported.recipes[name].score), draw(count, seed=9)
    outputs = opened[name].run(pixels)
    with torch.no_grad():
        expected = dict(zip(graph.outputs, graph(torch.from_numpy(pixels)), strict=True))
    for output, value in expected.items():
        assert near(getattr(outputs, output), value), output
    assert (outputs.anomaly_score is None) == (name == "sampler")


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 24), (33, 17)])
def test_a_denoiser_answers_as_torch_does_at_any_size(
    exported: Exported, opened: dict[str, Model], size: tuple[int, int], count: int
) -> None:
    denoiser = exported.autoencoders["denoiser"]
    assert isinstance(denoiser, Denoiser)
    pixels: Pixels = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    levels = np.linspace(0, 50, count, dtype=np.float32)
    found = opened["denoiser"].run(pixels, levels)
    with torch.no_grad():
        (expected,) = DenoiserGraph(denoiser)(torch.from_numpy(pixels), torch.from_numpy(levels))
        (estimate,) = NoiseEstimatorGraph(denoiser)(torch.from_numpy(pixels[:1]))
    assert near(found.reconstruction, expected)
    assert found.reconstruction is not None
    assert np.array_equal(found.reconstruction[0], pixels[0]), "the first level is 0"
    assert opened["denoiser"].estimate_noise_level(pixels[0]) == pytest.approx(float(estimate), rel=1e-3)


def test_samples_are_decoded_latents(exported: Exported, opened: dict[str, Model]) -> None:
    latents = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    with torch.no_grad():
        expected = exported.autoencoders["sampler"].decode(torch.from_numpy(latents))
    samples = opened["sampler"].generate(latents)
    assert samples.shape == (5, 16, 24, 1)
    assert np.abs(samples / 255 - expected.permute(0, 2, 3, 1).numpy()).max() < 1.01 / 255


def test_the_golden_input_guards_the_folder(copied: Path, cpu: Device) -> None:
    """A graph in the place of another of the same signature is caught though its checksum is right."""
    scorer = copied / "scorer"
    with np.load(scorer / "golden.npz") as archive:
        arrays = dict(archive)
    assert arrays["autoencoder.in.frames"].shape[0] == 2
    arrays["autoencoder.out.anomaly_score"] *= 1.01
    np.savez(scorer / "golden.npz", allow_pickle=False, **arrays)
    with pytest.raises(ModelFolderInvalid, match="sha256"):
        Model.open(scorer, cpu)
    content = json.loads((scorer / "manifest.json").read_text(encoding="utf-8"))
    content["golden"] = describe(scorer / "golden.npz")
    (scorer / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelFolderInvalid, match="golden output anomaly_score differs by"):
        Model.open(scorer, cpu)


def describe(path: Path) -> dict[str, Any]:
    from training.onnx_graph import describe_file  # noqa: PLC0415

    return describe_file(path).model_dump()


# -- replacing a folder. The graphs are copied from the first export, for writing them anew takes seconds.


@pytest.fixture
def again(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> Exported:
    source = exported.folder / "scorer"
    monkeypatch.setattr("training.export.write_onnx", lambda _, path: shutil.copy(source / path.name, path))
    return exported


def scorer_of(made: Exported, **changes: Any) -> tuple[Recipe, Any]:  # noqa: ANN401
    return made.recipes["scorer"].model_copy(update=changes), made.autoencoders["scorer"]


def test_a_second_export_replaces_the_first_whole(again: Exported, copied: Path, cpu: Device) -> None:
    (copied / "scorer" / "stale.png").write_bytes(b"of the old model")
    export(*scorer_of(again, version="2"), parts(), copied / "scorer")
    assert read_manifest(copied / "scorer").version == "2"
    assert not (copied / "scorer" / "stale.png").exists()
    assert sorted(path.name for path in copied.iterdir()) == ["denoiser", "sampler", "scorer"]
    assert Model.open(copied / "scorer", cpu).manifest.version == "2"


def test_the_folders_name_is_the_models_name(again: Exported, tmp_path: Path, cpu: Device) -> None:
    manifest = export(*scorer_of(again), parts(), tmp_path / "deep" / "back-door")
    assert manifest.name == "back-door"
    model = Model.open(tmp_path / "deep" / "back-door", cpu)
    assert model.manifest == manifest
    assert "python -m training make tiny" in (tmp_path / "deep" / "back-door" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", ["write_onnx", "check_parity", "calibrate", "write_card", "_swap"])
def test_an_export_that_fails_leaves_the_old_folder_and_no_litter(
    again: Exported, copied: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise ExportError("in the middle")

    monkeypatch.setattr(f"training.export.{step}", fail)
    with pytest.raises(ExportError, match="in the middle"):
        export(*scorer_of(again, version="2"), parts(), copied / "scorer")
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in copied.iterdir()) == ["denoiser", "sampler", "scorer"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    again: Exported, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copied / "scorer" / "manifest.json").read_bytes()
    rename = Path.rename

    def refuse_the_new(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".export-") and self.name == "scorer":
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(OSError, match="disk full"):
        export(*scorer_of(again, version="2"), parts(), copied / "scorer")
    assert (copied / "scorer" / "manifest.json").read_bytes() == before


def test_what_is_no_model_folder_is_never_overwritten(again: Exported, copied: Path) -> None:
    """`--out models` instead of `--out models/scorer` must not cost all the models."""
    with pytest.raises(ExportError, match="models is there and is no model folder; name another with --out"):
        export(*scorer_of(again), parts(), copied)
    assert len(list(copied.glob("*/manifest.json"))) == 3


@pytest.mark.parametrize("name", ["Front Door", "UPPER", "-dash", ".hidden"])
def test_a_folder_that_cannot_be_a_models_name_is_refused_at_once(again: Exported, tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=f"'{name}' is no name for a model; use a-z, 0-9, - and _"):
        export(*scorer_of(again), parts(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_too_few_calibration_frames_say_how_many_are_needed(again: Exported, tmp_path: Path) -> None:
    whole = parts()
    with pytest.raises(TooFewFrames, match=r"8 normal frames .* at least 9 are needed"):
        export(*scorer_of(again), Split(whole.train, whole.validation, frames(8)), tmp_path / "scorer")
    assert list(tmp_path.iterdir()) == []
