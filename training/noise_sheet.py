"""A picture of what every kind of noise does to a frame."""

from collections.abc import Mapping

import cv2
import numpy as np
import torch

from runtime.images import Pixels
from training.graph import to_levels, to_unit
from training.noise import (
    Corruption,
    Demosaicing,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Resizing,
    SaltAndPepper,
    Smoothing,
)
from training.pictures import mosaic

SIDE = 96  # pixels of the frame that are shown
ZOOM = 3
CAPTION = 26  # pixels
COLUMNS = 4

# As strong everywhere, so that what differs is how the noise is spread.
_SHOT, _READ = (3e-3, 3e-3), (2.0, 2.0)
_BLOTCHES = (Demosaicing(), Smoothing(luma=(0.6, 0.6), chroma=(2, 2), chroma_strength=(1, 1)))
PIECES: Mapping[str, Corruption] = {
    "gaussian": Gaussian(sigma=(25, 25)),
    "low light": LowLight(gain=_SHOT, read=_READ),
    "demosaicing": LowLight(gain=_SHOT, read=_READ, spread=_BLOTCHES[:1]),
    "and smoothing": LowLight(gain=_SHOT, read=_READ, spread=_BLOTCHES),
    "and resizing": LowLight(gain=_SHOT, read=_READ, spread=(*_BLOTCHES, Resizing(scale=(1.5, 1.5)))),
    "and JPEG": Jpeg(quality=(60, 60), noise=LowLight(gain=_SHOT, read=_READ, spread=_BLOTCHES)),
    "salt and pepper": SaltAndPepper(share=(0.05, 0.05)),
    "masking": Masking(),
}


def noise_sheet(frame: Pixels, seed: int) -> Pixels:
    """Show the middle of a colour frame [h, w, 3] after each piece, magnified, with its noise level."""
    top, left = (max(0, (length - SIDE) // 2) for length in frame.shape[:2])
    clean = to_unit(torch.from_numpy(np.ascontiguousarray(frame[None, top : top + SIDE, left : left + SIDE])))
    generator = torch.Generator().manual_seed(seed)
    tiles = []
    for name, piece in PIECES.items():
        noisy, level = piece(clean, generator)
        tiles.append(_captioned(to_levels(noisy)[0].numpy(), f"{name}: level {float(level):.0f}"))
    return mosaic([tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)])


def _captioned(pixels: Pixels, text: str) -> Pixels:
    large = pixels.repeat(ZOOM, 0).repeat(ZOOM, 1)
    tile = np.full((large.shape[0] + CAPTION, large.shape[1], 3), 255, np.uint8)
    tile[CAPTION:] = large
    place = (4, CAPTION - 8)
    return np.asarray(cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA))
