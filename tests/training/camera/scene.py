"""A fixed camera whose truth is known: a textured scene, a walker, and noise of one's choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.images import ImageFormat, Pixels, encode
from training.data import Frames

HEIGHT, WIDTH = 136, 200
WALKER = 16  # pixels wide

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """Frames as the camera delivers them, and without their noise; where the walker is, [n, HEIGHT, WIDTH]."""

    frames: Frames
    truth: Pixels
    walker: npt.NDArray[np.bool_]


def background(channels: int = 1) -> Floats:
    """Return [HEIGHT, WIDTH, channels]: a slope with a texture, from 40 to 220."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    texture = 12 * np.sin(rows / 3) * np.cos(columns / 5)
    return np.repeat((55 + 0.75 * columns + texture)[..., None], channels, axis=2)


def record(
    clips: Sequence[int] = (60, 40),
    *,
    sigma: float = 12,
    memory: float = 0,
    channels: int = 1,
    walks: bool = True,
    light: Sequence[float] = (1,),
    seed: int = 0,
) -> Recording:
    """Record clips of so many frames; `memory` is the correlation of the noise from one frame to the next.

    The walker, darker than the scene, crosses the upper left of it. `light` is repeated over the frames.
    """
    rng = np.random.default_rng(seed)
    found, truths, walkers = Frames(), [], []
    for clip, length in enumerate(clips):
        noise = rng.normal(0, sigma, (HEIGHT, WIDTH, channels))
        for time in range(length):
            scene, walker = background(channels), np.zeros((HEIGHT, WIDTH), bool)
            if walks:
                left = time * 4 % 128
                walker[24:48, left : left + WALKER] = True
            scene[walker] *= 0.4
            scene *= light[time % len(light)]
            fresh = rng.normal(0, sigma, scene.shape)
            noise = memory * noise + np.sqrt(1 - memory**2) * fresh
            found.add(f"clip{clip}", f"clip{clip}/{time:03d}.png", _levels(scene + noise))
            truths.append(_levels(scene))
            walkers.append(walker)
    return Recording(found, np.stack(truths), np.stack(walkers))


def _levels(scene: Floats) -> Pixels:
    return np.asarray(np.rint(scene.clip(0, 255)), np.uint8)


def write(frames: Frames, folder: Path) -> Path:
    """Write the frames as files, clips as subfolders."""
    for key, pixels in zip(frames.keys, frames.pixels, strict=True):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels, ImageFormat.PNG))
    return folder
