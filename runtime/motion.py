"""Dense optical flow: how far everything has moved from frame to frame, for graphs that take `flow` as an input.

It is computed here and nowhere else, for training, calibration and service alike.
"""

import itertools
import threading
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from runtime.images import Pixels

Flow = npt.NDArray[np.float32]
"""[h, w, 2]: columns and rows, in pixels a frame."""

SMALLEST = 32  # pixels: OpenCV's search fails, and badly, on sides much shorter than this

DESCENT, REFINEMENT = 8, 3  # iterations; the preset has 25 and 5

REMEMBERED = 128  # flow fields: of the clips of some twenty cameras, for the next frames' clips share most of them

_thread = threading.local()


def optical_flow(clip: Pixels, step: int, fields: int) -> Flow:
    """Return [fields, h, w, 2]: where each pixel came from, `step` frames earlier, in pixels a frame.

    `clip` is [time, h, w, c]; the last field ends at its last frame, the others `step`, 2 `step`, ... earlier. By
    dense inverse search (Kroeger et al. 2016): OpenCV's preset "medium" with fewer iterations, which differs from it by
    a twentieth of a pixel where something moves, in three quarters of the time.
    """
    grey = [_grey(frame) for frame in clip[len(clip) - 1 - fields * step :: step]]
    shape = clip.shape[1:3]
    flow = np.empty((fields, *shape, 2), np.float32)
    for field, (before, now) in zip(flow, itertools.pairwise(grey), strict=True):
        np.divide(_dis(now.tobytes(), before.tobytes(), shape), -step, out=field)
    return flow


def _grey(frame: Pixels) -> Pixels:
    return frame[..., 0] if frame.shape[2] == 1 else np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


@lru_cache(REMEMBERED)
def _dis(now: bytes, before: bytes, shape: tuple[int, int]) -> Flow:
    """Return the displacement from `now` to `before`, in pixels; the same array again while it is remembered."""
    if not hasattr(_thread, "search"):  # it keeps buffers, so no two threads may share one
        _thread.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        _thread.search.setGradientDescentIterations(DESCENT)
        _thread.search.setVariationalRefinementIterations(REFINEMENT)
    now_grey, before_grey = (_continued(np.frombuffer(pixels, np.uint8).reshape(shape)) for pixels in (now, before))
    # From zero: without a flow to start from, OpenCV goes on from what this search found last, in whatever frames.
    found: Flow = _thread.search.calc(now_grey, before_grey, np.zeros((*now_grey.shape, 2), np.float32))
    return found[: shape[0], : shape[1]]


def _continued(grey: Pixels) -> Pixels:
    """Repeat the last row and column of a frame that is too small."""
    below, right = (max(0, SMALLEST - length) for length in grey.shape)
    return np.asarray(cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
