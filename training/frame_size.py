"""One frame size for a folder of stills of any size, found from the stills themselves."""

import math
from pathlib import Path

import numpy as np

from training.config import Recipe
from training.errors import DataError
from training.sources import Reader

MULTIPLE = 32  # pixels, so that no network has to pad


def with_frame_size(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with height and width instead of `data.pixels`, or as it is where it has none.

    The proportions are those of the middle frame: what is tall stays tall. Raises DataError where there is no frame.
    """
    data = recipe.data
    if data.pixels is None:
        return recipe
    reader = Reader(root, data.channels, data.frame_stride, [])
    ratios = [pixels.shape[0] / pixels.shape[1] for source in data.sources for _, _, pixels in reader.read(source.path)]
    if not ratios:
        raise DataError(f"found no readable frame in {', '.join(source.path for source in data.sources)} under {root}")
    height, width = frame_size(data.pixels, float(np.median(ratios)))
    sized = data.model_copy(update={"pixels": None, "height": height, "width": width})
    return recipe.model_copy(update={"data": sized})


def frame_size(pixels: int, ratio: float) -> tuple[int, int]:
    """Return height and width, multiples of 32, of about so many pixels with height / width near the ratio."""
    height = _rounded(math.sqrt(pixels * ratio))
    return height, _rounded(pixels / height)


def _rounded(length: float) -> int:
    return max(1, round(length / MULTIPLE)) * MULTIPLE
