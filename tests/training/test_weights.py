"""Weights out of a model folder: the same network as before the export, and what is said where that cannot be."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import ModelFolderInvalid
from runtime.model import Model
from tests.model_folders import edit_manifest
from tests.training.conftest import Exported
from tests.training.tiny import draw, parts, recipe
from training.autoencoders.base import Denoiser, build
from training.errors import WeightsError
from training.graph import DenoiserGraph, NoiseEstimatorGraph
from training.trainer import load_run, train
from training.weights import fill, grow, load_weights, read_weights

pytestmark = pytest.mark.xdist_group("exported")


def test_the_weights_are_those_that_were_exported(exported: Exported) -> None:
    found, autoencoder = load_weights(exported.folder / "denoiser")
    assert found == exported.recipes["denoiser"]
    expected = exported.autoencoders["denoiser"].state_dict()
    state = autoencoder.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not autoencoder.training


def test_the_outputs_are_those_of_the_folder(exported: Exported, opened: dict[str, Model]) -> None:
    _, autoencoder = load_weights(exported.folder / "denoiser")
    assert isinstance(autoencoder, Denoiser)
    pixels = draw(1, channels=3)[0]
    frames = torch.from_numpy(pixels[None])
    with torch.no_grad():
        (level,) = NoiseEstimatorGraph(autoencoder)(frames)
        (clean,) = DenoiserGraph(autoencoder)(frames, level)
    model = opened["denoiser"]
    assert model.estimate_noise_level(pixels) == pytest.approx(float(level), rel=1e-4)
    answer = model.run(pixels[None], level.numpy()).reconstruction
    assert answer is not None
    assert np.abs(answer.astype(int) - clean.numpy()).max() <= 1


def test_weights_of_16_bits_come_back_in_32(copied: Path) -> None:
    before = read_weights(copied / "denoiser")
    path = copied / "denoiser" / "autoencoder.onnx"
    model = onnx.load(path)
    stored = [item for item in model.graph.initializer if item.name.startswith("denoiser.")]
    for item in stored:  # as an exporter does that halves the file: 16 bits under the old name, and a cast
        half = numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name)
        item.CopyFrom(half)
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == item.name:
                    node.input[index] = f"{item.name}.float"
        cast = helper.make_node("Cast", [item.name], [f"{item.name}.float"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    _, autoencoder = load_weights(copied / "denoiser")
    state = autoencoder.state_dict()
    assert len(stored) > 5
    for item in stored:
        name = item.name.removeprefix("denoiser.")
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], before[name].half().float())


def test_folded_weights_are_named(exported: Exported) -> None:
    with pytest.raises(WeightsError) as failure:
        load_weights(exported.folder / "scorer")
    assert "weights of its convolutional autoencoder are not in its graphs: encoder.1.weight [4]" in str(failure.value)


def test_weights_of_another_shape_are_named(copied: Path) -> None:
    edit_manifest(
        copied / "denoiser", lambda content: content["provenance"]["config"]["autoencoder"].update(widths=[4, 12])
    )
    with pytest.raises(
        WeightsError, match=r"encoders\.1\.0\.body\.0\.weight \[12, 12, 3, 3\] \(found \[8, 8, 3, 3\]\)"
    ):
        load_weights(copied / "denoiser")


def test_a_recipe_of_another_version_is_said_to_be_one(copied: Path) -> None:
    edit_manifest(copied / "denoiser", lambda content: content["provenance"]["config"]["autoencoder"].update(depth=3))
    with pytest.raises(
        WeightsError, match=r"autoencoder.*depth(.|\n)*made by another version: train and export it again"
    ):
        load_weights(copied / "denoiser")


def test_what_is_no_graph_and_no_folder(copied: Path) -> None:
    (copied / "denoiser" / "noise_estimator.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=r"noise_estimator\.onnx: cannot be read as ONNX"):
        load_weights(copied / "denoiser")
    with pytest.raises(ModelFolderInvalid, match=r"nowhere/manifest\.json"):
        load_weights(copied / "nowhere")


def test_fill_takes_what_fits_and_names_the_rest(exported: Exported) -> None:
    weights = read_weights(exported.folder / "denoiser")
    larger = recipe("denoising", autoencoder={"widths": [4, 8, 8]}, data={"channels": 3})
    autoencoder = build(larger.autoencoder, larger.shape)
    untrained = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    absent = fill(autoencoder, weights)
    state = autoencoder.state_dict()
    assert absent
    assert set(absent) < set(state)
    assert all(name.startswith(("encoders.2", "downs.1", "ups.1", "decoders.1")) for name in absent)
    for name, value in state.items():
        assert torch.equal(value, untrained[name] if name in absent else weights[name]), name


# -- growth


def test_a_wider_network_starts_where_the_narrower_one_stood(exported: Exported) -> None:
    narrow = exported.autoencoders["denoiser"]
    assert isinstance(narrow, Denoiser)
    wider = recipe(
        "denoising", autoencoder={"widths": [6, 12], "estimator_width": 5, "orientations": 3}, data={"channels": 3}
    )
    torch.manual_seed(1)
    wide = build(wider.autoencoder, wider.shape).eval()
    assert isinstance(wide, Denoiser)
    grow(wide, read_weights(exported.folder / "denoiser"))
    frames, level = torch.rand(2, 3, 16, 24), torch.tensor([0.05, 0.2])
    with torch.no_grad():
        assert torch.allclose(wide.denoise(frames, level), narrow.denoise(frames, level), atol=1e-5)
    wide.denoise(frames, level).square().mean().backward()  # type: ignore[no-untyped-call]
    gradient = wide.get_parameter("tail.weight").grad
    assert gradient is not None
    assert gradient[:, 4:].abs().max() > 0, "the new channels would never learn"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"widths": [3, 8]},
            r"head.weight: it is \[4, 16, 3, 3\] in the model to start from, and \[3, 16, 3, 3\] here",
        ),
        ({"widths": [4, 8], "blocks": 2}, "encoders.0.1.body.0.weight: it is missing"),
    ],
)
def test_what_does_not_contain_it_cannot_start_from_it(
    exported: Exported, settings: dict[str, object], complaint: str
) -> None:
    chosen = recipe("denoising", autoencoder=settings, data={"channels": 3})
    with pytest.raises(WeightsError, match=complaint):
        grow(build(chosen.autoencoder, chosen.shape), read_weights(exported.folder / "denoiser"))


def test_a_recipe_starts_from_a_model(exported: Exported, tmp_path: Path) -> None:
    folder = exported.folder / "denoiser"
    chosen = recipe("denoising", data={"channels": 3}, train={"steps": 1, "learning_rate": 1e-9, "ema_decay": 0},
                    start_from=str(folder), autoencoder={"estimator_steps": 0})  # fmt: skip
    train(chosen, parts(channels=3), tmp_path / "run", resume=False)
    state, weights = load_run(tmp_path / "run")[1].state_dict(), read_weights(folder)
    assert all(torch.allclose(state[name], weights[name], atol=1e-6) for name in state)
