"""What learns nothing: classical filters and motion statistics that a model must beat to earn its place."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from skimage.restoration import denoise_nl_means

from runtime.images import Pixels

Scores = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]
"""A clip of grey frames, [n, h, w]."""


@dataclass(frozen=True)
class Filter:
    """A denoising filter with one setting, tried at several values, the best of which counts."""

    name: str
    settings: tuple[float, ...]
    apply: Callable[[Pixels, float, float], Pixels]
    """(pixels [h, w, c], sigma, setting) -> pixels."""


def _median(pixels: Pixels, sigma: float, setting: float) -> Pixels:  # noqa: ARG001 - it knows no noise level
    return np.asarray(cv2.medianBlur(pixels, int(setting)), np.uint8)


def _bilateral(pixels: Pixels, sigma: float, setting: float) -> Pixels:
    return np.asarray(cv2.bilateralFilter(pixels, 9, setting * sigma, 3.0), np.uint8)


def _non_local_means(pixels: Pixels, sigma: float, setting: float) -> Pixels:
    """Buades et al. 2005, told the noise level; scikit-image's is over a dB better than OpenCV's."""
    frame, axis = (pixels, 2) if pixels.shape[2] > 1 else (pixels[..., 0], None)  # it knows no axis of one channel
    levels = {"h": setting * sigma / 255, "sigma": sigma / 255}
    unit = denoise_nl_means(frame / 255, patch_size=5, patch_distance=6, fast_mode=True, channel_axis=axis, **levels)
    return np.asarray(np.rint(np.clip(unit, 0, 1) * 255), np.uint8)


FILTERS = (
    Filter("median", (3, 5, 7), _median),
    Filter("bilateral", (1.5, 2.5, 3.5, 5), _bilateral),
    Filter("non-local means", (0.2, 0.3, 0.4, 0.5, 0.6, 0.8), _non_local_means),
)


@dataclass(frozen=True)
class MotionStatistic:
    """A score for every frame of a clip, without learning."""

    name: str
    score: Callable[[Grey, Scores], Scores]
    """(clip [n, h, w], mean normal frame [h, w]) -> [n]."""

    time: int
    """Frames in a row that the score of the last of them looks at; a clip must have as many."""


def _mean_frame_difference(clip: Grey, mean: Scores) -> Scores:
    return np.asarray(np.abs(clip.astype(np.float64) - mean).mean(axis=(1, 2)))


def _frame_difference(clip: Grey, mean: Scores) -> Scores:  # noqa: ARG001
    apart = np.abs(np.diff(clip.astype(np.float64), axis=0)).mean(axis=(1, 2))
    return np.concatenate([apart[:1], apart])


def _motion_by_gradient(clip: Grey, mean: Scores) -> Scores:  # noqa: ARG001
    """Mean |dI/dt| / (mean |grad I| + 0.02) in blocks of 16 pixels, the largest; intensities in 0..1."""
    unit = clip.astype(np.float32) / 255
    rows, columns = np.gradient(unit, axis=(1, 2))
    change = np.abs(np.diff(unit, axis=0))
    ratio = _blocks(change, 16) / (_blocks(np.hypot(rows, columns)[1:], 16) + 0.02)
    scores = ratio.max(axis=(1, 2)).astype(np.float64)
    return np.concatenate([scores[:1], scores])


def _optical_flow(clip: Grey, mean: Scores) -> Scores:  # noqa: ARG001
    """Dense flow (DIS) over two frames where the brightness changed, in blocks of 12 pixels: the five largest."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    scores = []
    for before, after in zip(clip[:-2], clip[2:], strict=True):
        motion = np.linalg.norm(flow.calc(before, after, np.zeros((*before.shape, 2), np.float32)), axis=2)
        motion[cv2.absdiff(before, after) <= 12] = 0
        scores.append(np.sort(_blocks(motion[None], 12).ravel())[-5:].mean())
    return np.asarray([scores[0], scores[0], *scores], np.float64)


def _blocks(maps: npt.NDArray[np.floating], side: int) -> npt.NDArray[np.floating]:
    """Average [n, h, w] over whole square blocks; a frame smaller than one is a block by itself."""
    count, height, width = maps.shape
    side = min(side, height, width)
    rows, columns = height // side, width // side
    cut = maps[:, : rows * side, : columns * side].reshape(count, rows, side, columns, side)
    return np.asarray(cut.mean(axis=(2, 4)))


MOTION_STATISTICS = (
    MotionStatistic("mean-frame difference", _mean_frame_difference, 1),
    MotionStatistic("frame difference", _frame_difference, 2),
    MotionStatistic("motion by gradient", _motion_by_gradient, 2),
    MotionStatistic("optical flow (DIS)", _optical_flow, 3),
)
