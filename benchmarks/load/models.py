"""The models that are served: exported as any model is, though their weights are random."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.load.frames import draw
from runtime.manifest import read_manifest, write_manifest
from training.autoencoders.base import FrameShape, build
from training.config import Recipe, parse_recipe
from training.data import Frames, Split
from training.export import export

SIDE = 256  # pixels of the frames that the autoencoder takes
NULL_SIDE = 16
AUTOENCODER = {"kind": "convolutional", "widths": [20, 40, 64, 64], "latent_dim": 64}  # 0.72 GFLOP a frame
NULL = {"kind": "plain", "latent_dim": 1}


def write_autoencoder(folder: Path) -> Path:
    """Export a convolutional autoencoder for colour frames of 256 x 256."""
    return _write(folder, AUTOENCODER, SIDE)


def write_null(folder: Path) -> Path:
    """Export a model that costs next to nothing: what is left is the server."""
    return _write(folder, NULL, NULL_SIDE)


def write_copies(original: Path, folder: Path, count: int) -> list[str]:
    """Write the same model `count` times below a folder; return the names."""
    manifest = read_manifest(original)
    names = [f"{original.name}-{index}" for index in range(count)]
    for name in names:
        shutil.copytree(original, folder / name)
        write_manifest(manifest.model_copy(update={"name": name}), folder / name)
    return names


def _write(folder: Path, autoencoder: dict[str, Any], side: int) -> Path:
    recipe = parse_recipe(
        {
            "name": folder.name,
            "description": "for measuring servers; its weights are random",
            "licence": "Apache-2.0",
            "autoencoder": autoencoder,
            "data": {"sources": [{"path": "drawn"}], "channels": 3, "height": side, "width": side},
            "train": {"steps": 1},
            "score": {"top_share": 0.001, "false_alarm_rate": 0.1},
        },
        "benchmarks",
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        network = build(recipe.autoencoder, FrameShape(3, side, side))
    export(recipe, network, _split(recipe, side), folder)
    return folder


def _split(recipe: Recipe, side: int) -> Split:
    return Split(*(_frames(range(start, start + 16), side, recipe.seed) for start in (0, 16, 32)))


def _frames(indices: Sequence[int], side: int, seed: int) -> Frames:
    frames = Frames()
    for index in indices:
        frames.add("drawn", f"drawn/{index}.png", draw(side, side, seed + index))
    return frames
