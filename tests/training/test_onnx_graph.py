"""One graph, one ONNX file: the axes have names, and onnxruntime is held to what torch computes."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tests.training.conftest import Exported
from tests.training.tiny import frames
from training.errors import ExportError
from training.graph import AutoencoderGraph, DenoiserGraph
from training.onnx_graph import (
    ExportedGraph,
    check_parity,
    describe_file,
    describe_graph,
    golden_arrays,
    round_to_half,
    write_onnx,
)
from training.pixelcnn import repeat

pytestmark = pytest.mark.xdist_group("exported")


def graph_of(exported: Exported, name: str) -> ExportedGraph:
    autoencoder = exported.autoencoders[name]
    if name == "denoiser":
        module = DenoiserGraph(autoencoder)  # type: ignore[arg-type]
        shapes = {"frames": ("batch", "height", "width", 3), "noise_level": ("batch",)}
        return ExportedGraph(module, module.outputs, shapes)
    scored = AutoencoderGraph(autoencoder, exported.recipes[name].score)
    return ExportedGraph(scored, scored.outputs, {"frames": ("batch", 16, 24, 1)})


def axes(values: list[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def test_the_axes_of_inputs_and_outputs_have_names(exported: Exported) -> None:
    scorer = onnx.load(exported.folder / "scorer" / "autoencoder.onnx").graph
    assert axes(list(scorer.input)) == {"frames": ["batch", 16, 24, 1]}
    assert axes(list(scorer.output)) == {
        "reconstruction": ["batch", 16, 24, 1],
        "anomaly_map": ["batch", 16, 24],
        "anomaly_score": ["batch"],
        "latent": ["batch", 8],
    }
    generator = onnx.load(exported.folder / "sampler" / "generator.onnx").graph
    assert axes([*generator.input, *generator.output]) == {"latent": ["batch", 4], "samples": ["batch", 16, 24, 1]}
    denoiser = onnx.load(exported.folder / "denoiser" / "autoencoder.onnx").graph
    any_size = ["batch", "height", "width", 3]
    assert axes(list(denoiser.input)) == {"frames": any_size, "noise_level": ["batch"]}
    assert axes(list(denoiser.output)) == {"reconstruction": any_size}


def test_the_files_are_what_the_oldest_allowed_onnxruntime_reads(exported: Exported) -> None:
    for path in exported.folder.glob("*/*.onnx"):
        model = onnx.load(path)
        assert model.ir_version <= 10, path
        assert [opset.version <= 21 for opset in model.opset_import if not opset.domain] == [True], path


def test_the_names_of_no_machine_are_in_the_files(exported: Exported) -> None:
    names = [str(Path(__file__).parents[2]), sys.prefix, str(Path.home()), "site-packages", ".py"]
    for path in exported.folder.glob("*/*.onnx"):
        content = path.read_bytes()
        assert not [name for name in names if name.encode() in content], path


@pytest.mark.parametrize("name", ["scorer", "denoiser"])
def test_a_graph_that_computes_something_else_is_refused(exported: Exported, name: str) -> None:
    graph, path = graph_of(exported, name), exported.folder / name / "autoencoder.onnx"
    held_out = frames(4, channels=exported.recipes[name].data.channels)
    check_parity(graph, path, held_out)
    with torch.no_grad():
        weights = [parameter for parameter in graph.module.parameters() if parameter.ndim > 1]
        before = [parameter.clone() for parameter in weights]
        try:
            for parameter in weights:
                parameter.mul_(1.1)
            with pytest.raises(ExportError, match=r"autoencoder.onnx: .* differs from torch by .* on inputs {'frames'"):
                check_parity(graph, path, held_out)
        finally:
            for parameter, value in zip(weights, before, strict=True):
                parameter.copy_(value)


def test_what_vanishes_on_some_inputs_is_judged_by_how_large_it_is_on_others(tmp_path: Path) -> None:
    class Half(torch.nn.Module):
        def __init__(self, stray: float) -> None:
            super().__init__()
            self.stray = stray

        def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor]:
            return (1 - frames.float().mean((1, 2, 3)) / 255 + self.stray,)

    inputs = {"frames": ("batch", 16, 24, 1)}
    path = tmp_path / "mean.onnx"
    write_onnx(ExportedGraph(Half(0), ("latent",), inputs), path)
    check_parity(ExportedGraph(Half(1e-4), ("latent",), inputs), path, frames(4))  # on white frames it is all there is
    with pytest.raises(ExportError, match="latent differs from torch by "):
        check_parity(ExportedGraph(Half(2e-3), ("latent",), inputs), path, frames(4))


def test_a_graph_that_answers_nan_is_refused(exported: Exported) -> None:
    graph, path = graph_of(exported, "scorer"), exported.folder / "scorer" / "autoencoder.onnx"

    class Broken(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(value * torch.nan if value.is_floating_point() else value for value in graph.module(pixels))

    with pytest.raises(ExportError, match="differs from torch by nan"):
        check_parity(ExportedGraph(Broken(), graph.outputs, graph.inputs), path, frames(4))


def test_the_golden_arrays_are_inputs_and_what_the_file_answers(exported: Exported) -> None:
    graph, path = graph_of(exported, "scorer"), exported.folder / "scorer" / "autoencoder.onnx"
    golden = golden_arrays("autoencoder", graph, path, frames(4))
    assert set(golden) == {"autoencoder.in.frames", *(f"autoencoder.out.{name}" for name in graph.outputs)}
    with torch.no_grad():
        expected = graph.module(torch.from_numpy(golden["autoencoder.in.frames"]))
    for name, value in zip(graph.outputs, expected, strict=True):
        assert np.allclose(
            golden[f"autoencoder.out.{name}"], value.numpy(), atol=1 if name == "reconstruction" else 1e-3
        )


def test_a_file_is_described_by_size_and_checksum(exported: Exported) -> None:
    path = exported.folder / "scorer" / "autoencoder.onnx"
    data = path.read_bytes()
    found = describe_file(path)
    assert (found.file, found.bytes, found.sha256) == (path.name, len(data), hashlib.sha256(data).hexdigest())
    described = describe_graph(path)
    assert [str(tensor) for tensor in described.inputs] == ["frames uint8['batch', 16, 24, 1]"]
    assert [tensor.name for tensor in described.outputs] == ["reconstruction", "anomaly_map", "anomaly_score", "latent"]


# -- half precision


class Wide(nn.Module):
    """Two products: of a matrix worth halving, and of one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(64, 64, bias=False), nn.Linear(64, 4)

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor]:
        """[batch, 64] -> [batch, 4]."""
        return (self.small(self.large(latent)),)


class Again(Wide):
    """The same, twice over, in a Loop: its body is a graph of its own, which reads the weights from outside."""

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor]:
        """[batch, 64] -> [batch, 4]."""
        return (self.small(repeat(2, lambda _, state: self.large(state), latent)),)


def written(module: nn.Module, path: Path) -> onnx.ModelProto:
    write_onnx(ExportedGraph(module, ("samples",), {"latent": ("batch", 64)}), path)
    return onnx.load(path)


def types(model: onnx.ModelProto) -> dict[str, int]:
    return {weight.name: weight.data_type for weight in model.graph.initializer}


@pytest.mark.parametrize("kind", [Wide, Again])
def test_rounded_weights_are_stored_at_half_the_size_and_give_the_same(tmp_path: Path, kind: type[Wide]) -> None:
    module = kind()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    round_to_half(module)
    assert not torch.equal(module.large.weight, before["large.weight"])
    assert torch.allclose(module.large.weight, before["large.weight"], rtol=2**-11, atol=1e-7)
    assert torch.equal(module.small.weight, before["small.weight"]), "too small to be worth it"
    model = written(module, tmp_path / "wide.onnx")
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert {"large.weight": half, "small.weight": single, "small.bias": single}.items() <= types(model).items()
    assert half not in {kept for name, kept in types(model).items() if name != "large.weight"}
    assert b".py" not in (tmp_path / "wide.onnx").read_bytes(), "traces of this machine, in the graph or inside it"
    latent = torch.randn(3, 64)
    session = onnxruntime.InferenceSession(tmp_path / "wide.onnx")
    (found,) = session.run(None, {"latent": latent.numpy()})
    assert torch.allclose(torch.from_numpy(found), module(latent)[0], atol=1e-5)


@pytest.mark.parametrize("value", [1 / 3, 1e6])
def test_weights_that_half_precision_cannot_hold_stay_as_they_are(tmp_path: Path, value: float) -> None:
    module = Wide()
    with torch.no_grad():
        module.large.weight[0, 0] = value
    assert types(written(module, tmp_path / "wide.onnx"))["large.weight"] == onnx.TensorProto.FLOAT


def test_weights_beyond_the_range_are_not_rounded() -> None:
    module = Wide()
    with torch.no_grad():
        module.large.weight[0, 0] = 1e6
    before = module.large.weight.clone()
    round_to_half(module)
    assert torch.equal(module.large.weight, before)
