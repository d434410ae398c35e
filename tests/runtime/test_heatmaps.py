"""Heat maps on one scale for all frames, overlays, and the boxes around what is strange."""

import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.heatmaps import MAX_REGIONS, OVERLAY_OPACITY, Region, colour, overlay, regions
from runtime.images import Pixels
from runtime.manifest import Calibration
from runtime.model import Floats

LOW, THRESHOLD = 0.1, 0.3
MAPS = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 1, width=32))


def calibration(low: float = LOW, threshold: float = THRESHOLD) -> Calibration:
    return Calibration(
        scores=(0.0,),
        count=1,
        threshold=1,
        false_alarm_rate=0.01,
        map_low=low,
        map_threshold=threshold,
        source="a test",
    )


def flat(value: float, height: int = 4, width: int = 6) -> Floats:
    return np.full((height, width), value, np.float32)


def colour_at(anomaly_map: Floats, row: int, column: int) -> tuple[int, ...]:
    drawn = colour(anomaly_map, calibration(), *anomaly_map.shape)
    return tuple(int(value) for value in drawn[row, column])


# -- colours


def test_the_same_error_has_the_same_colour_in_every_frame() -> None:
    quiet, busy = flat(LOW), flat(LOW)
    quiet[1, 2] = busy[1, 2] = 0.2
    busy[3, 5] = 1000.0
    assert colour_at(quiet, 1, 2) == colour_at(busy, 1, 2)
    assert colour_at(quiet, 0, 0) == colour_at(busy, 0, 0)


def test_a_normal_frame_does_not_glow() -> None:
    drawn = colour(flat(LOW) + np.float32(0.001) * np.eye(4, 6, dtype=np.float32), calibration(), 40, 60)
    assert drawn.max() < 16


def test_the_scale_runs_from_low_over_the_threshold_to_its_end() -> None:
    palette = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_INFERNO)
    for value, place in ((LOW, 0), (THRESHOLD, 128), (2 * THRESHOLD - LOW, 255), (-5.0, 0), (9.0, 255)):
        nearby = palette[0, max(place - 1, 0) : place + 1, ::-1].tolist()
        assert list(colour_at(flat(value), 0, 0)) in nearby


@given(value=st.floats(-1, 2, width=32), step=st.floats(0, 1, width=32))
def test_more_error_is_never_darker(value: float, step: float) -> None:
    one, other = (np.dot(colour_at(flat(level), 0, 0), [0.299, 0.587, 0.114]) for level in (value, value + step))
    assert other >= one - 1  # the palette itself rounds


@pytest.mark.parametrize("size", [(4, 6), (40, 60), (7, 5), (1, 1)])
def test_a_heat_map_has_the_size_that_is_asked_for(size: tuple[int, int]) -> None:
    drawn = colour(flat(0.5), calibration(), *size)
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize("level", [0.0, 0.25, 1e6])
def test_a_calibration_on_constant_maps(level: float) -> None:
    """A model that reconstructs its normal frames alike: what is normal stays black, what exceeds it is hot."""
    constant = calibration(low=level, threshold=level)
    anomaly_map = flat(level)
    anomaly_map[2, 3] = level + 1
    drawn = colour(anomaly_map, constant, 4, 6)
    assert drawn[0, 0].max() < 8
    assert drawn[2, 3].max() > 200
    assert len(regions(anomaly_map, constant)) == 1


# -- overlays


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(4, 6), (37, 53)])
def test_an_overlay_has_the_size_of_the_frame(size: tuple[int, int], channels: int) -> None:
    laid = overlay(np.full((*size, channels), 90, np.uint8), flat(0.5), calibration())
    assert laid.shape == (*size, 3)
    assert laid.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_where_nothing_is_strange_the_frame_shows_unchanged(channels: int) -> None:
    frame: Pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    assert np.array_equal(overlay(frame, flat(LOW), calibration()), np.broadcast_to(frame, (20, 30, 3)))


def test_where_all_is_strange_the_heat_shows_and_the_frame_below() -> None:
    frame: Pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    heat = colour(flat(9.0), calibration(), 20, 30)
    expected = frame * (1 - OVERLAY_OPACITY) + heat * OVERLAY_OPACITY
    assert np.abs(overlay(frame, flat(9.0), calibration()) - expected).max() <= 0.51


# -- regions


def test_regions_are_boxes_around_what_exceeds_the_threshold() -> None:
    anomaly_map = flat(LOW, 10, 20)
    anomaly_map[1:3, 4:8] = 0.5
    anomaly_map[2, 5] = 0.75
    anomaly_map[6:10, 18:20] = 0.875
    assert regions(anomaly_map, calibration()) == [
        Region((18 / 20, 6 / 10, 1.0, 1.0), 0.875),
        Region((4 / 20, 1 / 10, 8 / 20, 3 / 10), 0.75),
    ]


def test_corners_that_touch_are_one_region() -> None:
    anomaly_map = flat(0)
    anomaly_map[0, 0] = anomaly_map[1, 1] = 1
    assert [region.box for region in regions(anomaly_map, calibration())] == [(0, 0, 2 / 6, 2 / 4)]


def test_at_the_threshold_there_is_no_region() -> None:
    assert regions(flat(0.25), calibration(threshold=0.25)) == []
    assert regions(flat(0.0), calibration(low=0.0, threshold=0.0)) == []


def test_a_region_within_the_hole_of_another() -> None:
    anomaly_map = flat(1.0, 7, 7)
    anomaly_map[1:6, 1:6] = 0
    anomaly_map[3, 3] = 2
    inner, outer = regions(anomaly_map, calibration())
    assert inner == Region((3 / 7, 3 / 7, 4 / 7, 4 / 7), 2.0)
    assert outer == Region((0, 0, 1, 1), 1.0)


def test_only_the_strongest_regions_are_told_and_quickly() -> None:
    anomaly_map = flat(0, 512, 512)
    anomaly_map[::2, ::2] = np.random.default_rng(0).random((256, 256), np.float32) + 1  # 65536 regions
    started = time.perf_counter()
    found = regions(anomaly_map, calibration())
    assert time.perf_counter() - started < 1
    assert [region.score for region in found] == sorted(anomaly_map.ravel().tolist())[: -MAX_REGIONS - 1 : -1]


@given(anomaly_map=MAPS)
def test_regions_of_any_map(anomaly_map: Floats) -> None:
    found = regions(anomaly_map, calibration())
    height, width = anomaly_map.shape
    assert [region.score for region in found] == sorted((region.score for region in found), reverse=True)
    assert len(found) <= MAX_REGIONS
    assert bool(found) == bool((anomaly_map > np.float32(THRESHOLD)).any())
    for region in found:
        left, top, right, bottom = region.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        rows = slice(round(top * height), round(bottom * height))
        columns = slice(round(left * width), round(right * width))
        assert region.score > np.float32(THRESHOLD)
        assert region.score in anomaly_map[rows, columns]


def test_a_large_overlay_is_drawn_in_strips_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 256, (50, 70, 3), np.uint8)
    anomaly_map = generator.random((12, 9), np.float32)
    whole = overlay(frame, anomaly_map, calibration())
    monkeypatch.setattr("runtime.heatmaps.STRIP_PIXELS", 4 * 70)
    np.testing.assert_array_equal(overlay(frame, anomaly_map, calibration()), whole)


@pytest.mark.skipif(sys.platform != "linux", reason="measures its memory the way of Linux")
def test_a_large_overlay_takes_few_bytes_a_pixel() -> None:
    """3 bytes for the frame, 3 for what is drawn, 1 for the heat, and a strip."""
    done = subprocess.run([sys.executable, "-c", LARGE_OVERLAY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8


LARGE_OVERLAY = """
import resource, numpy as np
from runtime.heatmaps import overlay
from runtime.manifest import Calibration
side, heat = 4000, np.random.default_rng(0).random((32, 48), np.float32)
calibration = Calibration(scores=(0.0,), count=1, threshold=1, false_alarm_rate=0.01, map_low=0.1, map_threshold=0.3,
                          source="a test")
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
overlay(np.ones((1000, 1000, 3), np.uint8), heat, calibration)  # what a strip takes, and the libraries
before = peak()
overlay(np.ones((side, side, 3), np.uint8), heat, calibration)
print((peak() - before) / side**2)
"""
