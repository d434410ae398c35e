"""A shipped denoiser as the benchmark asks it: at a given level, blind, on float frames, on grey ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.denoising.float_graph import accepting_floats
from runtime.devices import open_session
from runtime.images import Pixels
from runtime.model import Floats, Model
from training.evaluate import denoise


class ShippedDenoiser:
    """A model folder, open. Frames are [h, w, 1 or 3], levels on the 0..255 scale. Safe to call from several threads.

    A grey frame goes in as three equal channels, and the channels of the answer are averaged, as the service does.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self.name = folder.name
        self.model = model
        graphs = model.manifest.graphs.present()
        self.graph = folder / graphs["autoencoder"].file
        self.graphs = tuple(folder / graph.file for graph in graphs.values())
        self._session_on_floats = open_session(accepting_floats(self.graph), model.device)

    def given(self, noisy: Pixels, level: float) -> Pixels:
        """Denoise a frame whose noise level is known, through `runtime.Model`."""
        return in_colour(lambda frame: denoise(self.model, frame, level), noisy)

    def given_floats(self, noisy: Floats, level: float) -> Pixels:
        """Denoise a float frame that may leave 0..255, with the weights of the shipped file."""
        return in_colour(lambda frame: self._run_on_floats(frame, level), noisy)

    def blind(self, noisy: Pixels) -> Pixels:
        """Denoise a frame at the level that the model estimates."""
        return self.given(noisy, self.estimate(noisy))

    def estimate(self, noisy: Pixels) -> float:
        """Estimate the noise level."""
        return self.model.estimate_noise_level(np.broadcast_to(noisy, (*noisy.shape[:2], 3)))

    def _run_on_floats(self, frame: Floats, level: float) -> Pixels:
        inputs = {"frames": frame[None], "noise_level": np.array([level], np.float32)}
        return np.asarray(self._session_on_floats.run(["reconstruction"], inputs)[0][0], np.uint8)


def in_colour(apply: Callable[[npt.NDArray[Any]], Pixels], noisy: npt.NDArray[Any]) -> Pixels:
    """Let a grey frame in as three equal channels, and average those of the answer."""
    if noisy.shape[2] == 3:
        return apply(noisy)
    answer = apply(noisy.repeat(3, axis=2)).mean(axis=2, keepdims=True)
    return np.asarray(np.rint(answer), np.uint8)
