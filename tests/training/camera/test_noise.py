"""The measured noise against the noise that was added."""

import cv2
import numpy as np
import pytest

from tests.training.camera.scene import HEIGHT, WIDTH, record
from training.camera.learn import Study, study
from training.camera.noise import FRAME_LAGS, independent_lag, temporal_correlation
from training.data import Frames
from training.errors import DataError


def measured(frames: Frames) -> Study:
    return study(frames, seed=0)


def test_white_noise() -> None:
    noise = measured(record((60, 60), sigma=8, channels=3).frames).noise
    assert noise.rms == pytest.approx(8, rel=0.05)
    assert noise.level == pytest.approx(8, rel=0.05)
    assert noise.psnr == pytest.approx(20 * np.log10(255 / 8), abs=0.3)
    for correlation in (*noise.spatial, noise.temporal):
        assert np.abs(correlation.values).max() < 0.1, correlation.name
    assert [series.name for series in noise.spatial] == [
        "luma, along rows", "luma, along columns", "chroma, along rows", "chroma, along columns"
    ]  # fmt: skip
    for line in noise.lines:
        assert line.slope * 128 + line.offset == pytest.approx(64, rel=0.1)


def test_noise_that_lasts_from_frame_to_frame() -> None:
    frames = record((150,), sigma=8, memory=0.7, walks=False).frames
    correlation = temporal_correlation(frames, [range(150)])
    assert correlation.lags == tuple(lag for lag in FRAME_LAGS if lag <= 50)
    for lag in (1, 2, 3):
        assert correlation.values[correlation.lags.index(lag)] == pytest.approx(0.7**lag, abs=0.08)
    assert independent_lag(correlation) == 6  # 0.7^6 = 0.12


def test_noise_that_is_blurred_along_rows() -> None:
    recording = record((60, 60), sigma=0, walks=False)
    rng = np.random.default_rng(0)
    for index, pixels in enumerate(recording.frames.pixels):
        blurred = cv2.blur(rng.normal(0, 20, (HEIGHT, WIDTH)), (4, 1))[..., None]
        recording.frames.pixels[index] = np.rint(pixels + blurred).clip(0, 255).astype(np.uint8)
    noise = measured(recording.frames).noise
    rows, columns = noise.spatial
    assert rows.values[:4] == pytest.approx([0.75, 0.5, 0.25, 0], abs=0.05)
    assert np.abs(columns.values).max() < 0.05
    assert noise.rms == pytest.approx(10, rel=0.05)
    assert noise.level == pytest.approx(20 * 4 / 4 * np.sqrt(44 / 64), rel=0.1)  # see the sum in the comment below
    # The mean of 4 x 4 pixels holds 7 columns of white noise with the weights 1 2 3 4 3 2 1 / 16, in 4 rows:
    # variance 20^2 * 44 / 256 / 4; four times its root is 20 * sqrt(44 / 64).


def test_noise_that_grows_with_brightness() -> None:
    recording = record((60, 60), sigma=0, walks=False)
    rng = np.random.default_rng(0)
    for index, pixels in enumerate(recording.frames.pixels):
        noisy = rng.normal(pixels, np.sqrt(0.6 * pixels + 20.0))
        recording.frames.pixels[index] = np.rint(noisy).clip(0, 255).astype(np.uint8)
    noise = measured(recording.frames).noise
    assert noise.lines[0].slope == pytest.approx(0.6, rel=0.15)
    assert noise.lines[0].offset == pytest.approx(20, abs=10)
    assert noise.variances.shape == (1, len(noise.brightness))


def test_a_camera_without_noise() -> None:
    noise = measured(record((60, 60), sigma=0, walks=False).frames).noise
    assert noise.psnr == pytest.approx(100)
    assert noise.level == 0
    assert set(noise.temporal.values) == {0.0}


def test_too_few_frames_to_begin_with() -> None:
    with pytest.raises(DataError, match="35 frames are too few: 36 at the least"):
        measured(record((35,)).frames)
