"""One thread and one seed for every test of training, and three exported models for those that open one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.devices import Device
from runtime.model import Model
from tests.training.tiny import batch, fit, parts, recipe
from training.autoencoders.base import Autoencoder, build
from training.config import Recipe
from training.export import export

RECIPES: dict[str, Recipe] = {
    "scorer": recipe(
        "convolutional",
        score={"window": 3, "top_share": 0.05, "false_alarm_rate": 0.1},
        limitations="It has seen one square.",
    ),
    "sampler": recipe("variational"),
    "denoiser": recipe("denoising", autoencoder={"orientations": 3}, data={"channels": 3}),
}


@dataclass(frozen=True)
class Exported:
    """The model folders scorer, sampler and denoiser, and what they were made from. Not to be changed."""

    folder: Path
    autoencoders: dict[str, Autoencoder[Any]]
    recipes: dict[str, Recipe]


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export one model of every sort; it takes seconds, so the modules that use it share an xdist group."""
    torch.set_num_threads(1)
    made = Exported(tmp_path_factory.mktemp("exported"), {}, RECIPES)
    for name, chosen in RECIPES.items():
        torch.manual_seed(0)
        autoencoder = build(chosen.autoencoder, chosen.shape)
        frames = batch(24, channels=chosen.data.channels)
        fit(autoencoder, frames[..., : chosen.data.crop], 60)
        export(chosen, autoencoder, parts(channels=chosen.data.channels), made.folder / name)
        made.autoencoders[name] = autoencoder
    return made


@pytest.fixture(scope="session")
def opened(exported: Exported, cpu: Device) -> dict[str, Model]:
    """Open the exported models."""
    return {name: Model.open(exported.folder / name, cpu) for name in exported.recipes}


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Path:
    """Give a copy of the exported folder, to be changed at will."""
    return Path(shutil.copytree(exported.folder, tmp_path / "models"))
