"""How white Gaussian noise meets a photograph: as the papers have it, or as a camera would deliver it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.images import Pixels
from runtime.model import Floats
from training.pictures import add_gaussian

SEED = 0  # of the first image; the next has the next


@dataclass(frozen=True)
class Protocol:
    """One way to add noise. The same seed draws the same noise in all of them."""

    name: str
    add: Callable[[Pixels, float, np.random.Generator], npt.NDArray[Any]]
    """(clean [h, w, c], sigma on the 0..255 scale, generator) -> noisy [h, w, c], 0..255 scale."""

    def noisy(self, clean: Pixels, sigma: float, index: int) -> npt.NDArray[Any]:
        """Add the noise of image `index` of a set."""
        return self.add(clean, sigma, np.random.default_rng(SEED + index))


def _add_floats(clean: Pixels, sigma: float, rng: np.random.Generator) -> Floats:
    return np.asarray(clean + sigma * rng.standard_normal(clean.shape), np.float32)


NOT_CLIPPED = Protocol("not clipped", _add_floats)
CLIPPED = Protocol("clipped", add_gaussian)
