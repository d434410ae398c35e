"""Optical flow: what moved is found where it is, in pixels a frame; small frames and several threads do no harm."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from runtime.devices import Device
from runtime.errors import InvalidInput
from runtime.images import Pixels
from runtime.model import Model
from runtime.motion import optical_flow
from tests.model_folders import write_motion_scorer


def texture(height: int, width: int, seed: int = 0) -> Pixels:
    """Draw something to hold on to, [h, w, 1]: noise in squares of 4 pixels."""
    coarse = np.random.default_rng(seed).integers(40, 220, (-(-height // 4), -(-width // 4)), np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)[:height, :width, None]


def gliding(height: int, width: int, time: int, rows: int, columns: int) -> Pixels:
    """Move a texture by so many pixels a frame, [time, h, w, 1]."""
    large = texture(height + 40, width + 40)
    return np.stack([large[20 - i * rows :][:height, 20 - i * columns :][:, :width] for i in range(time)])


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (0, -2), (1, 0), (-1, 1)])
@pytest.mark.parametrize("step", [1, 2])
def test_the_flow_is_how_far_things_moved_in_a_frame(rows: int, columns: int, step: int) -> None:
    flow = optical_flow(gliding(64, 96, 5, rows, columns), step, 4 // step)
    assert flow.shape == (4 // step, 64, 96, 2)
    assert flow.dtype == np.float32
    middle = np.median(flow[:, 16:48, 16:80], axis=(1, 2))
    assert np.allclose(middle, [columns, rows], atol=0.1)


def test_the_last_fields_are_those_of_the_whole_clip() -> None:
    clip = gliding(48, 64, 8, 0, 1)
    clip[1] = texture(48, 64)
    whole = optical_flow(clip[1:], 2, 3)
    assert np.array_equal(optical_flow(clip, 2, 3), whole)
    assert np.array_equal(optical_flow(clip, 2, 2), whole[1:])


def test_what_stands_has_no_flow() -> None:
    flow = optical_flow(np.stack([texture(48, 64)] * 3), 1, 2)
    assert np.abs(flow).max() < 0.01


def test_colour_is_seen_as_grey() -> None:
    grey = gliding(48, 64, 3, 0, 1)
    assert np.allclose(optical_flow(grey.repeat(3, axis=3), 1, 2), optical_flow(grey, 1, 2), atol=0.05)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (12, 40), (13, 19), (31, 33)])
def test_small_frames_do_no_harm(height: int, width: int) -> None:
    flow = optical_flow(gliding(height, width, 3, 0, 1), 1, 2)
    assert flow.shape == (2, height, width, 2)
    assert np.isfinite(flow).all()


def test_threads_do_not_disturb_one_another() -> None:
    clips = [gliding(64, 64, 4, 0, columns) for columns in (-2, -1, 1, 2)] * 8
    alone = [optical_flow(clip, 1, 3) for clip in clips[:4]] * 8
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: optical_flow(clip, 1, 3), clips))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_what_is_done_with_a_flow_does_not_change_the_next() -> None:
    clip = gliding(48, 48, 3, 0, 1)
    first = optical_flow(clip, 1, 2)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(optical_flow(clip, 1, 2), kept)


def test_a_model_of_motion_is_given_the_flow_of_its_clip(tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_motion_scorer(tmp_path / "motion"), cpu)
    clips = np.stack([gliding(32, 48, 5, 0, columns) for columns in (1, 2)])
    scores = model.run(clips).anomaly_score
    assert scores is not None
    for clip, score in zip(clips, scores, strict=True):
        assert score == pytest.approx(np.linalg.norm(optical_flow(clip, 2, 2), axis=3).max(), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 4, 32, 48, 1), (1, 5, 32, 47, 1), (5, 32, 48, 1), (1, 5, 32, 48, 3)])
def test_a_clip_of_another_shape_is_refused(shape: tuple[int, ...], tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_motion_scorer(tmp_path / "motion"), cpu)
    with pytest.raises(InvalidInput, match="takes frames"):
        model.run(np.zeros(shape, np.uint8))
