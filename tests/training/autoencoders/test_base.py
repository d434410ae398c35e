"""The register of the kinds, and that a seventh one is a file and nothing else."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import training.autoencoders
from runtime.devices import Device
from runtime.manifest import Task
from runtime.model import Model
from tests.training.tiny import HEIGHT, WIDTH, batch, draw, fit, parts, recipe
from training.__main__ import main
from training.autoencoders import base
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, build, find_kind, kinds
from training.errors import ConfigError
from training.export import export

SEVENTH = '''"""The sparse autoencoder: squared error and an L1 penalty on the code."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, register
from training.layers import squared_error


class SparseConfig(AutoencoderConfig):
    kind: Literal["sparse"] = "sparse"
    latent_dim: int = Field(6, ge=1)
    sparsity: float = Field(0.001, ge=0, description="weight of the penalty")


@register
class Sparse(Autoencoder[Tensor]):
    Config = SparseConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE})

    def __init__(self, config: SparseConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        pixels = math.prod(shape.fixed)
        self.encoder = nn.Linear(pixels, config.latent_dim)
        self.decoder = nn.Linear(config.latent_dim, pixels)

    @property
    def latent_dim(self) -> int:
        return self.config.latent_dim

    def encode(self, frames: Tensor) -> Tensor:
        return torch.relu(self.encoder(frames.flatten(1)))

    def decode(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(code)).reshape(-1, *self.shape.fixed)

    def loss(self, frames: Tensor) -> Losses:
        code = self.encode(frames)
        error, penalty = squared_error(frames, self.decode(code)), code.abs().sum(1).mean()
        return Losses(error + self.config.sparsity * penalty, {"squared_error": error, "penalty": penalty})
'''


@pytest.fixture
def _seventh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a file beside those of the package, as far as Python can tell."""
    (tmp_path / "sparse.py").write_text(SEVENTH)
    monkeypatch.setattr(training.autoencoders, "__path__", [*training.autoencoders.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield
    base._KINDS.pop("sparse", None)
    if sys.modules.pop("training.autoencoders.sparse", None) is not None:
        delattr(training.autoencoders, "sparse")


@pytest.mark.usefixtures("_seventh")
def test_a_seventh_kind_is_one_file(tmp_path: Path, cpu: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sparse" in kinds()
    assert main(["kinds"]) == 0
    assert "sparse: The sparse autoencoder: squared error and an L1 penalty on the code." in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean 'sparsity'"):
        recipe("sparse", autoencoder={"sparcity": 0.1})

    chosen = recipe("sparse", score={"false_alarm_rate": 0.1}, autoencoder={"sparsity": 0.01})
    autoencoder = build(chosen.autoencoder, chosen.shape)
    losses = fit(autoencoder, batch(16), 20)
    assert losses[-1] < losses[0]

    manifest = export(chosen, autoencoder, parts(), tmp_path / "sparse-camera")
    model = Model.open(tmp_path / "sparse-camera", cpu)
    assert manifest.kind == "sparse"
    assert set(model.manifest.tasks) == {Task.RECONSTRUCT, Task.SCORE, Task.ENCODE}
    outputs = model.run(draw(3))
    assert outputs.latent is not None
    assert outputs.anomaly_score is not None
    with torch.no_grad():
        assert np.allclose(outputs.latent, autoencoder.encode(batch(3)).numpy(), atol=1e-4)


def test_without_its_file_the_seventh_kind_is_gone() -> None:
    assert "sparse" not in kinds()


def test_the_register_finds_every_file() -> None:
    files = {path.stem for path in Path(base.__file__).parent.glob("[!_]*.py")} - {"base"}
    assert {kind.__module__.rpartition(".")[2] for kind in kinds().values()} == files
    assert list(kinds()) == sorted(kinds())


def test_a_name_is_registered_once() -> None:
    class AnotherConfig(AutoencoderConfig):
        kind: Literal["plain"] = "plain"

    class Another(Autoencoder[Tensor]):
        Config = AnotherConfig
        tasks = frozenset({Task.RECONSTRUCT})

    plain = kinds()["plain"]
    with pytest.raises(ValueError, match=r"two autoencoders are registered as 'plain': .*Plain.* and .*Another"):
        base.register(Another)
    assert kinds()["plain"] is plain


@pytest.mark.parametrize(
    ("name", "hint"),
    [("convolutionl", "did you mean 'convolutional'?"), ("pixels", "there are contractive, convolutional, deep")],
)
def test_an_unknown_kind_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"no autoencoder kind '{name}'; ") as caught:
        find_kind(name)
    assert hint in str(caught.value)


def test_a_kind_without_a_method_cannot_be_made() -> None:
    class Half(Autoencoder[Tensor]):
        def encode(self, frames: Tensor) -> Tensor:
            return frames

    with pytest.raises(TypeError, match=r"abstract method.*decode.*loss"):
        Half(FrameShape(1))  # type: ignore[abstract]


def test_a_kind_may_leave_out_what_most_do_not_need() -> None:
    class Identity(Autoencoder[Tensor]):
        def encode(self, frames: Tensor) -> Tensor:
            return frames / 2

        def decode(self, code: Tensor) -> Tensor:
            return code * 2

        def loss(self, frames: Tensor) -> Losses:
            return Losses(frames.sum() * 0)

    autoencoder, frames = Identity(FrameShape(1, HEIGHT, WIDTH)), batch(2)
    assert autoencoder.latent_dim is None
    assert torch.equal(autoencoder.reconstruct(frames), frames)
    assert autoencoder.measure(frames) == {}
    assert autoencoder.loss(frames).parts == {}
    autoencoder.pretrain(lambda: [frames])


def test_a_shape_is_fixed_or_says_what_to_set() -> None:
    assert FrameShape(3, 4, 5).fixed == (3, 4, 5)
    with pytest.raises(ValueError, match=r"set data\.height and data\.width"):
        _ = FrameShape(3, width=5).fixed
