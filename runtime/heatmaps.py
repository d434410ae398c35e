"""Anomaly maps as people look at them: colours on the calibrated scale, overlays, and boxes around regions."""

from dataclasses import dataclass

import cv2
import numpy as np

from runtime.images import Pixels
from runtime.manifest import Calibration
from runtime.model import Floats

OVERLAY_OPACITY = 0.6
STRIP_PIXELS = 2**20  # blended at once: the weights are floats, and a frame may be large
MAX_REGIONS = 20


@dataclass(frozen=True)
class Region:
    """A connected area above the map threshold: `box` is x1, y1, x2, y2 in 0..1, `score` its largest value."""

    box: tuple[float, float, float, float]
    score: float


def colour(anomaly_map: Floats, calibration: Calibration, height: int, width: int) -> Pixels:
    """Draw a [h, w] map as [height, width, 3] RGB on a fixed scale.

    Black is what a normal pixel shows, the middle of the scale is the map threshold: the same colour means the
    same error in every frame. Scaling each frame by itself would make every normal frame glow.
    """
    return _palette(_heat(anomaly_map, calibration, height, width))


def overlay(frame: Pixels, anomaly_map: Floats, calibration: Calibration) -> Pixels:
    """Lay the heat map over a [h, w, c] frame, the more opaque the hotter; return RGB of the frame's size."""
    height, width = frame.shape[:2]
    heat = _heat(anomaly_map, calibration, height, width)
    drawn = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        drawn[strip] = _laid_over(frame[strip], heat[strip])
    return drawn


def _laid_over(frame: Pixels, heat: Pixels) -> Pixels:
    opacity = OVERLAY_OPACITY * np.minimum(1.0, heat * np.float32(2 / 255))  # [h, w]
    base = np.broadcast_to(frame, (*heat.shape, 3))
    return np.asarray(cv2.blendLinear(base, _palette(heat), 1 - opacity, opacity), np.uint8)


def _palette(heat: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)


def _heat(anomaly_map: Floats, calibration: Calibration, height: int, width: int) -> Pixels:
    span = max(2 * (calibration.map_threshold - calibration.map_low), 1e-12)
    heat = np.rint(255 * np.clip((anomaly_map - calibration.map_low) / span, 0, 1)).astype(np.uint8)
    # Rounded first: in floats a large frame would take four times the memory, and a level is not to be seen.
    return np.asarray(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def regions(anomaly_map: Floats, calibration: Calibration) -> list[Region]:
    """Return the connected regions above the calibrated map threshold, the strongest first."""
    height, width = anomaly_map.shape
    if not anomaly_map.max() > calibration.map_threshold:  # as most; to look for regions costs more than a small model
        return []
    above = anomaly_map > calibration.map_threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    peaks = np.full(count, -np.inf)  # count includes the background, label 0
    np.maximum.at(peaks, np.asarray(labels, np.intp)[above], anomaly_map[above])
    strongest = 1 + np.argsort(-peaks[1:], kind="stable")[:MAX_REGIONS]
    found = []
    for label in strongest:
        left, top, wide, tall = (int(value) for value in stats[label, :4])
        box = (left / width, top / height, (left + wide) / width, (top + tall) / height)
        found.append(Region(box, float(peaks[label])))
    return found
