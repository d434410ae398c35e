"""What a denoiser makes of a camera's held-out frames, blind as in service, and when there is nothing to be had."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from runtime.images import Pixels
from training.autoencoders.base import Denoiser
from training.camera.footage import as_channels
from training.camera.pairs import Pairs
from training.data import Frames
from training.graph import DenoiserGraph, NoiseEstimatorGraph

CLEAN_PSNR = 45.0
"""dB, an RMS of 1.4 levels: a denoiser changes even clean frames by about as much, so it can but harm cleaner ones."""

LEAST_GAIN = 0.1
"""dB over the general denoiser; for less a model of one's own is not worth its keep."""

Blind = Callable[[Pixels], Pixels]
"""Takes the noise out of one uint8 frame [h, w, c] without being told its level."""


def blind(denoiser: Denoiser[Any]) -> Blind:
    """Return the denoiser as the service asks it: estimate the level of the whole frame, then denoise it at that."""
    estimator, graph = NoiseEstimatorGraph(denoiser.eval()), DenoiserGraph(denoiser.eval())

    def denoise(pixels: Pixels) -> Pixels:
        frames = torch.tensor(as_channels(pixels, denoiser.shape.channels)[None])
        with torch.no_grad():
            (clean,) = graph(frames, *estimator(frames))
        return np.asarray(clean[0].numpy(), np.uint8)

    return denoise


def denoise_patches(apply: Blind, frames: Frames, pairs: Pairs, label: str) -> Pixels:
    """Denoise the whole frames that the pairs are from; return the patches [n, PATCH, PATCH, c] of the places."""
    chosen = sorted({place.frame for place in pairs.places})
    results = {index: apply(frames.pixels[index]) for index in tqdm(chosen, label, unit="frame", disable=None)}
    patches = np.stack([place.cut(results[place.frame]) for place in pairs.places])
    return patches[..., : pairs.clean.shape[3]]  # of grey footage one channel


@dataclass(frozen=True)
class Comparison:
    """PSNR of held-out frames against the clean patches, dB."""

    noisy: float
    general: float
    camera: float

    @property
    def gain(self) -> float:
        """Of the camera's own model over the general one, dB."""
        return self.camera - self.general

    @property
    def worth_it(self) -> bool:
        """Whether the camera's own model is better than the general one, and than none."""
        return self.gain >= LEAST_GAIN and self.camera > self.noisy
