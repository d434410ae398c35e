"""One thread and one seed for every test of training, and three exported models for those that open one."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.training.tiny import batch, fit, parts, recipe
from training.autoencoders.base import build
from training.config import Recipe
from training.export import export


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the model folders scorer, sampler and denoiser; tests that change one take a copy."""
    folder = tmp_path_factory.mktemp("exported")
    for name, chosen in RECIPES.items():
        torch.manual_seed(0)
        autoencoder = build(chosen.autoencoder, chosen.shape)
        channels = chosen.data.channels
        fit(autoencoder, batch(24, channels=channels)[:, :, :, :16] if name == "denoiser" else batch(24), 60)
        export(chosen, autoencoder, parts(channels=channels), folder / name)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """Give a copy of the exported folder, to be changed at will."""
    return Path(shutil.copytree(exported, tmp_path / "models"))


RECIPES: dict[str, Recipe] = {
    "scorer": recipe(
        "convolutional",
        score={"window": 3, "top_share": 0.05, "false_alarm_rate": 0.1},
        limitations="It has seen one square.",
    ),
    "sampler": recipe("variational"),
    "denoiser": recipe("denoising", data={"channels": 3}),
}
