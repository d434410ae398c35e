"""Drawn frames, as hard to compress as those of a camera."""

import cv2
import numpy as np

from runtime.images import ImageFormat, Pixels, encode

QUALITY = 85
GRAIN = 9.0  # levels


def draw(height: int, width: int, seed: int = 0) -> Pixels:
    """Draw [h, w, 3]: soft shapes of every size down to a pixel, and grain."""
    rng = np.random.default_rng(seed)
    frame = np.full((height, width, 3), 110, np.float32)
    cells = 2
    while cells < min(height, width):
        coarse = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        frame += 60 / cells**0.6 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cells *= 2
    frame += rng.normal(0, GRAIN, frame.shape[:2])[..., None]
    return np.asarray(np.rint(frame.clip(0, 255)), np.uint8)


def jpeg(height: int, width: int, seed: int = 0) -> bytes:
    """Return such a frame as a JPEG; one of 256 x 256 has about 20 kB."""
    return encode(draw(height, width, seed), ImageFormat.JPEG, quality=QUALITY)
