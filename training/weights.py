"""Weights out of a model folder, back into torch: to go on training from what was exported."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from runtime.manifest import Manifest, read_manifest
from training.autoencoders.base import Autoencoder, build
from training.config import Recipe, parse_recipe
from training.errors import ConfigError, WeightsError
from training.layers import ResidualBlock

WRAPPERS = frozenset({"autoencoder", "denoiser"})
"""What the networks are called inside the exported graphs: the first part of an initializer's name."""

Weights = Mapping[str, Tensor]
"""Float32 weights by the names of a state dict."""


def load_weights(folder: Path) -> tuple[Recipe, Autoencoder[Any]]:
    """Return the recipe of an exported model and its autoencoder, in evaluation mode, on the CPU.

    Raises ModelFolderInvalid where the folder is none, and WeightsError where its recipe or its weights are not
    those of this version's kinds, or where the export has folded weights into others, as it does with batch norms.
    """
    manifest = read_manifest(folder)
    recipe = _recipe(manifest, folder)
    autoencoder = build(recipe.autoencoder, recipe.shape)
    weights = read_weights(folder)
    absent = fill(autoencoder, weights)
    if absent:
        wanted = autoencoder.state_dict()
        named = ", ".join(f"{name} {list(wanted[name].shape)}{_found(name, weights)}" for name in absent[:5])
        raise WeightsError(
            f"{folder}: {len(absent)} of {len(wanted)} weights of its {recipe.autoencoder.kind} autoencoder are not "
            f"in its graphs: {named}. It was exported by another version, or its graphs do not keep all weights: "
            "take another model, or train and export this one again"
        )
    return recipe, autoencoder.eval()


def _recipe(manifest: Manifest, folder: Path) -> Recipe:
    try:
        return parse_recipe(manifest.provenance.config, f"{folder}/manifest.json: provenance.config")
    except ConfigError as error:
        raise WeightsError(f"{error}\n{folder} was made by another version: train and export it again") from error


def _found(name: str, weights: Weights) -> str:
    return f" (found {list(weights[name].shape)})" if name in weights else ""


def read_weights(folder: Path) -> Weights:
    """Return the weights in all graphs of a model folder, whatever the precision they are stored in.

    Raises ModelFolderInvalid without a manifest, WeightsError where a graph is no ONNX file.
    """
    graphs = read_manifest(folder).graphs.present().values()
    return {name: weight for graph in graphs for name, weight in _initializers(folder / graph.file)}


def _initializers(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # what protobuf raises is no part of onnx's interface
        raise WeightsError(f"{path}: cannot be read as ONNX ({error}); copy the folder again") from error
    for initializer in model.graph.initializer:
        wrapper, _, name = initializer.name.partition(".")
        if wrapper in WRAPPERS:
            yield name, torch.from_numpy(numpy_helper.to_array(initializer).astype(np.float32))


def fill(autoencoder: Autoencoder[Any], weights: Weights) -> list[str]:
    """Put in every weight that has its name and shape; return the names of those that stay as they were."""
    state = autoencoder.state_dict()
    fitting = {name: weights[name] for name in state if name in weights and weights[name].shape == state[name].shape}
    autoencoder.load_state_dict(fitting, strict=False)
    return [name for name in state if name not in fitting]


def grow(autoencoder: Autoencoder[Any], weights: Weights) -> None:
    """Make a network that may be wider and deeper compute what the smaller one did whose weights are given.

    Each weight fills the first rows and columns of its successor. What the new channels say to the old ones starts at
    zero, so that nothing changes at first; what they hear keeps its random start, so that they can learn. A residual
    block that the smaller network has not got adds nothing at first (Chen et al. 2016). Raises WeightsError where any
    other weight is missing, or larger than its successor.
    """
    new = _silence(autoencoder, weights)
    for prefix, module in autoencoder.named_modules():
        for name, successor in module.named_parameters(prefix, recurse=False):
            if name in new:
                continue
            weight = weights.get(name)
            if weight is None or not _contains(successor, weight):
                found = "missing" if weight is None else f"{list(weight.shape)}"
                raise WeightsError(
                    f"{name}: it is {found} in the model to start from, and {list(successor.shape)} here"
                )
            inputs = 0 if isinstance(module, nn.ConvTranspose2d) else 1
            with torch.no_grad():
                _embed(successor, weight, inputs)


def _silence(autoencoder: Autoencoder[Any], weights: Weights) -> set[str]:
    """Silence the residual blocks of which there are no weights, and return the names of theirs."""
    new: set[str] = set()
    for prefix, module in autoencoder.named_modules():
        names = {name for name, _ in module.named_parameters(prefix)}
        if isinstance(module, ResidualBlock) and names.isdisjoint(weights):
            module.silence()
            new |= names
    return new


def _contains(successor: Tensor, weight: Tensor) -> bool:
    return successor.ndim == weight.ndim and all(
        new >= old for new, old in zip(successor.shape, weight.shape, strict=True)
    )


def _embed(successor: Tensor, weight: Tensor, inputs: int) -> None:
    """Put a weight into the corner of its successor, and zeros where old outputs would hear new inputs."""
    if weight.ndim > 1:
        outputs = 1 - inputs
        successor.narrow(outputs, 0, weight.shape[outputs]).zero_()
    successor[tuple(slice(length) for length in weight.shape)] = weight
