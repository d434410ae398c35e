"""What the parts of the lecture share: pictures to learn from, and models that are trained once and kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.lecture.shipping import read_shipped, write_shipped
from training.autoencoders.base import Autoencoder
from training.checkpoints import RECIPE_FILE
from training.config import Recipe, parse_recipe
from training.data import DataConfig, Frames, Split, load, split
from training.graph import to_unit
from training.runs import COST_FILE, finish
from training.trainer import load_run

SHIPPED = Path("models/lecture")
SEED = 0
BATCH = 100

Kind = TypeVar("Kind", bound=Autoencoder[Any])
Labels = npt.NDArray[np.integer[Any]]

DIGITS = {
    "sources": [{"path": "mnist/mnist.npz:x_train"}], "channels": 1, "height": 28, "width": 28,
    "split": "image", "validation_share": 0.05, "calibration_share": 0,
}  # fmt: skip
FOOTAGE = {
    "sources": [{"path": "ped2/train"}], "channels": 1, "height": 64, "width": 96,
    "split": "clip", "validation_share": 0.1, "calibration_share": 0.25,
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """Pictures of one sort: `data` says how they are read, `test` are those that nothing was learned from."""

    key: str
    """What files are named after."""

    name: str
    data: Mapping[str, Any]
    split: Split
    test: Tensor
    """[n, C, H, W] in 0..1."""

    @cached_property
    def learned(self) -> Tensor:
        """The pictures to learn from, in the same form."""
        return as_tensor(self.split.train)


@dataclass(frozen=True)
class Trained:
    """An autoencoder in evaluation mode, and what it cost."""

    autoencoder: Autoencoder[Any]
    minutes: float
    """Of one core, in training."""

    run: Path
    """The folder for what is kept of it."""

    def of_kind(self, kind: type[Kind]) -> Kind:
        """Return the autoencoder as one of this kind; raise TypeError where it is another."""
        if not isinstance(self.autoencoder, kind):
            raise TypeError(f"a {kind.__name__} is needed, this is a {type(self.autoencoder).__name__}")
        return self.autoencoder


@dataclass(frozen=True)
class Course:
    """Data sets, and the folder that keeps trained models; `quick` is for settings that take minutes.

    What is to be `shipped` is taken from that folder of model folders where it is there and was not trained anew; with
    `ships` it is written there.
    """

    root: Path
    folder: Path
    quick: bool
    shipped: Path = SHIPPED
    ships: bool = False
    minutes: dict[str, float] = field(default_factory=dict)
    """Of training, by the models that were handed out so far."""

    @cached_property
    def digits(self) -> Material:
        """MNIST: 57,000 images to learn from, 3,000 to choose the checkpoint, the 10,000 test images."""
        config = DataConfig.model_validate(DIGITS)
        parts = split(load(config, self.root), config, SEED)
        test = DataConfig.model_validate(DIGITS | {"sources": [{"path": "mnist/mnist.npz:x_test"}]})
        return Material("mnist", "MNIST", DIGITS, parts, as_tensor(load(test, self.root)))

    @cached_property
    def labels(self) -> tuple[Labels, Labels]:
        """Which digit it is, of the images to learn from and of the test images."""
        with np.load(self.root / "mnist" / "mnist.npz") as archive:
            known, test = archive["y_train"], archive["y_test"]
        numbers = [int(key.rpartition("/")[2]) for key in self.digits.split.train.keys]
        return known[numbers], test

    @cached_property
    def footage(self) -> Material:
        """UCSD Ped2, normal frames at 96 x 64; tested on clips that are held out."""
        data = FOOTAGE | {"frame_stride": 5 if self.quick else 1}
        config = DataConfig.model_validate(data)
        parts = split(load(config, self.root), config, SEED)
        return Material("ped2", "UCSD Ped2", data, parts, as_tensor(parts.calibration))

    @property
    def cpu_seconds(self) -> float:
        """What all training in the folder took so far."""
        costs = self.folder.glob(f"models/**/{COST_FILE}")
        return sum(float(json.loads(cost.read_text(encoding="utf-8"))["cpu_seconds"]) for cost in costs)

    def trained(
        self,
        name: str,
        material: Material,
        autoencoder: Mapping[str, Any],
        steps: int,
        *,
        ship: bool = False,
        **settings: Any,  # noqa: ANN401
    ) -> Trained:
        """Train, or take what is kept, or go on where it was interrupted; `settings` are keys of `train:`.

        With `ship` it is one of those that are shipped. Raises RunError where the folder keeps a model of that name
        with other settings.
        """
        name = name.replace(".", "-")  # what a recipe may be called
        recipe = parse_recipe(
            {
                "name": name, "description": "of the lecture", "licence": "Apache-2.0", "seed": SEED,
                "autoencoder": autoencoder, "data": material.data,
                "train": {"steps": steps, "batch_size": BATCH, "warmup_steps": min(200, steps // 10),
                          "ema_decay": 0.99 if self.quick else 0.999, "validate_every": min(500, steps), **settings},
            },
            name,
        )  # fmt: skip
        found = self._trained(recipe, material, ship=ship and not self.quick)
        self.minutes[name] = found.minutes
        return found

    def _trained(self, recipe: Recipe, material: Material, *, ship: bool) -> Trained:
        run, target = self.folder / "models" / recipe.name, self.shipped / recipe.name
        if ship and not (run / RECIPE_FILE).exists() and (known := read_shipped(target, recipe)):
            autoencoder, seconds = known
            return Trained(autoencoder, seconds / 60, run)
        seconds = finish(recipe, material.split, run)
        autoencoder = load_run(run)[1]
        if ship and self.ships:
            write_shipped(recipe, autoencoder, material.split, run, target)
        return Trained(autoencoder, seconds / 60, run)


def as_tensor(frames: Frames) -> Tensor:
    """Stack frames to [n, C, H, W] in 0..1."""
    return to_unit(torch.from_numpy(frames.batch(range(len(frames)))))
