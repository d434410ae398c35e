"""The models behind the figures as small model folders, and back from there into torch."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from runtime.errors import ClearwatchError
from runtime.manifest import read_manifest
from training.autoencoders.base import Autoencoder, build
from training.config import Recipe, parse_recipe
from training.data import Split
from training.errors import TrainingError, WeightsError
from training.export import export
from training.runs import COST_FILE
from training.weights import load_weights

WEIGHTS_FILE = "weights.pt"
"""A state dict, beside graphs that weights cannot be read back from: exports fold batch norms, and drop what only
training needs."""


def write_shipped(recipe: Recipe, autoencoder: Autoencoder[Any], parts: Split, run: Path, folder: Path) -> None:
    """Write the model folder of a run, with what it cost; the autoencoder is left with the rounded weights of it."""
    export(recipe, autoencoder, parts, folder)
    shutil.copy(run / COST_FILE, folder)
    try:
        load_weights(folder)
    except WeightsError:
        state = autoencoder.state_dict()
        torch.save({name: _halved(weight) for name, weight in state.items()}, folder / WEIGHTS_FILE)


def _halved(weight: torch.Tensor) -> torch.Tensor:
    """Store in half precision what it holds exactly: the export has rounded large weights to it."""
    half = weight.half()
    return half if torch.equal(half.to(weight.dtype), weight) else weight


def read_shipped(folder: Path, recipe: Recipe) -> tuple[Autoencoder[Any], float] | None:
    """Return a shipped autoencoder, in evaluation mode, and the seconds it cost.

    None where there is none of this recipe, or none that can be read; what is there and is not taken is named.
    """
    if not folder.is_dir():
        return None
    try:
        made_by, autoencoder = _read(folder)
        seconds = float(json.loads((folder / COST_FILE).read_text(encoding="utf-8"))["cpu_seconds"])
    except (ClearwatchError, TrainingError, OSError, RuntimeError, ValueError) as error:
        reason = str(error)
    else:
        if made_by == recipe:
            return autoencoder, seconds
        reason = "it was made with other settings"
    print(f"{folder} is not taken, the model is trained instead: {reason}", flush=True)
    return None


def _read(folder: Path) -> tuple[Recipe, Autoencoder[Any]]:
    kept = folder / WEIGHTS_FILE
    if not kept.is_file():
        return load_weights(folder)
    recipe = parse_recipe(read_manifest(folder).provenance.config, f"{folder}/manifest.json: provenance.config")
    autoencoder = build(recipe.autoencoder, recipe.shape)
    autoencoder.load_state_dict(torch.load(kept, map_location="cpu", weights_only=True))
    return recipe, autoencoder.eval()
