"""What scores stills: a linear pixel autoencoder, a memory bank of features, and recipes of this project.

Every detector learns from the same frames of one size and answers with a map for each frame and one score, the mean
of the worst 3 per mille of the map.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from runtime.devices import DeviceChoice, select_device
from runtime.images import Pixels, resize
from runtime.model import Floats, Model
from training.config import read_recipe
from training.data import load, split
from training.efficientnet import EfficientNetLite, Weights
from training.export import export
from training.frame_size import with_frame_size
from training.graph import pool
from training.trainer import load_run, train

TOP_SHARE = 0.003
RATE = "score.false_alarm_rate=0.05"  # so that small sets will do; AUROCs know no threshold


@dataclass(frozen=True)
class Answer:
    """What a detector says of one frame."""

    anomaly_map: Floats  # [h, w]
    score: float
    seconds: float


class Detector(ABC):
    """Learns from a folder of normal images, then scores others of any size."""

    name: str

    @abstractmethod
    def fit(self, folder: Path, workshop: Path) -> None:
        """Learn from the images below `folder`; `workshop` is an empty place for files."""

    @abstractmethod
    def map(self, pixels: Pixels) -> Floats:
        """Return the anomaly map of [h, w, 3] pixels, at a size of its own."""

    def answer(self, pixels: Pixels) -> Answer:
        """Score [h, w, 3] pixels."""
        start = time.perf_counter()
        found = self.map(pixels)
        seconds = time.perf_counter() - start
        return Answer(found, float(pool(torch.from_numpy(found)[None], TOP_SHARE)), seconds)


def _stack(folder: Path, height: int, width: int) -> Pixels:
    recipe = read_recipe("stills", [f"data.height={height}", f"data.width={width}", "data.pixels=null"])
    frames = load(recipe.data, folder)
    return frames.batch(range(len(frames)))


class PixelPCA(Detector):
    """A linear autoencoder of whole frames: the error of 32 principal components, averaged over 5 x 5 pixels."""

    name = "linear pixel autoencoder"
    side, components = 64, 32

    def fit(self, folder: Path, workshop: Path) -> None:  # noqa: ARG002
        """Find mean and components."""
        flat = _stack(folder, self.side, self.side).mean(3).reshape(-1, self.side**2) / 255
        self._mean = flat.mean(0)
        self._axes = np.linalg.svd(flat - self._mean, full_matrices=False)[2][: self.components]

    def map(self, pixels: Pixels) -> Floats:
        """Return the squared error."""
        flat = resize(pixels, self.side, self.side).mean(2).ravel() / 255 - self._mean
        error = np.square(flat - flat @ self._axes.T @ self._axes).reshape(self.side, self.side)
        return np.asarray(cv2.blur(error.astype(np.float32), (5, 5)), np.float32)


class MemoryBank(Detector):
    """Distance to the nearest of 4000 normal features at strides 8 and 16, after PatchCore (Roth et al. 2022)."""

    name = "feature memory bank"
    side, size = 256, 4000

    def __init__(self, weights: Weights = "imagenet") -> None:
        self._network = EfficientNetLite(5, weights).eval()

    @torch.no_grad()
    def _features(self, pixels: Pixels) -> Tensor:
        frame = torch.from_numpy(resize(pixels, self.side, self.side)).permute(2, 0, 1)[None] / 255
        found = self._network(frame)
        fine, coarse = (F.avg_pool2d(f, 3, 1, 1) for f in (found[2], torch.cat(found[3:5], 1)))
        return torch.cat([fine, F.interpolate(coarse, fine.shape[2:], mode="bilinear")], 1)[0]

    def fit(self, folder: Path, workshop: Path) -> None:  # noqa: ARG002
        """Keep a random part of all features: a coreset gains little once there are thousands."""
        generator = torch.Generator().manual_seed(0)
        rows = [self._features(pixels).flatten(1).T for pixels in _stack(folder, self.side, self.side)]
        share = [r[torch.randperm(len(r), generator=generator)[: 1 + self.size // len(rows)]] for r in rows]
        self._bank = torch.cat(share)[: self.size]

    def map(self, pixels: Pixels) -> Floats:
        """Return the distances."""
        features = self._features(pixels)
        nearest = torch.cdist(features.flatten(1).T, self._bank).min(1).values
        return np.asarray(nearest.reshape(features.shape[1:]).numpy(), np.float32)


class Recipe(Detector):
    """A recipe of this project, trained, exported and run as the service runs it."""

    def __init__(self, name: str, recipe: str, *settings: str) -> None:
        self.name, self._recipe, self._settings = name, recipe, settings

    def fit(self, folder: Path, workshop: Path) -> None:
        """Train and export."""
        recipe = with_frame_size(read_recipe(self._recipe, self._settings), folder)
        parts = split(load(recipe.data, folder), recipe.data, recipe.seed)
        train(recipe, parts, workshop / "run", resume=False)
        export(*load_run(workshop / "run"), parts, workshop / recipe.name)
        self._model = Model.open(workshop / recipe.name, select_device(DeviceChoice.CPU))

    def map(self, pixels: Pixels) -> Floats:
        """Run the exported graph."""
        found = self._model.run(self._model.fit(pixels)[None]).anomaly_map
        if found is None:
            raise ValueError(f"{self._recipe} gives no anomaly map")
        return np.asarray(found[0], np.float32)


def detectors(convolutional_steps: int, decoder_steps: int) -> tuple[Detector, ...]:
    """Return all of them; without the convolutional autoencoder where it is to take no steps.

    The score of `stills` does not depend on the steps of its decoder, which paints what is shown beside it.
    """
    still = ("data.split=image", "data.calibration_share=0.2", f"train.steps={convolutional_steps}", RATE)
    convolutional = (Recipe("convolutional autoencoder", "camera", *still),) if convolutional_steps else ()
    stills = Recipe("stills", "stills", f"train.steps={decoder_steps}", RATE)
    return PixelPCA(), *convolutional, MemoryBank(), stills
