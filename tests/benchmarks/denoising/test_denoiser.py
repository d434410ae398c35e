"""A shipped denoiser, asked in every way."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.denoising.denoiser import ShippedDenoiser
from runtime.devices import Device
from runtime.model import Model
from tests.model_folders import write_denoiser
from tests.training.tiny import draw

COLOUR = draw(1, channels=3, height=24, width=32)[0]
GREY = draw(1, channels=1, height=24, width=32)[0]


@pytest.fixture
def denoiser(tmp_path: Path, cpu: Device) -> ShippedDenoiser:
    folder = write_denoiser(tmp_path / "tiny")
    return ShippedDenoiser(folder, Model.open(folder, cpu))


def test_floats_that_are_whole_give_what_uint8_gives(denoiser: ShippedDenoiser) -> None:
    floats = COLOUR.astype(np.float32)
    assert np.array_equal(denoiser.given_floats(floats, 15), denoiser.given(COLOUR, 15))


def test_grey_frames_are_three_equal_channels(denoiser: ShippedDenoiser) -> None:
    in_colour = denoiser.given(GREY.repeat(3, axis=2), 15)
    assert denoiser.given(GREY, 15).shape == GREY.shape
    assert np.array_equal(denoiser.given(GREY, 15), in_colour[..., :1])
    assert denoiser.estimate(GREY) == denoiser.estimate(GREY.repeat(3, axis=2))


def test_blind_is_at_the_estimated_level(denoiser: ShippedDenoiser) -> None:
    assert denoiser.estimate(COLOUR) > 0
    assert np.array_equal(denoiser.blind(COLOUR), denoiser.given(COLOUR, denoiser.estimate(COLOUR)))
    assert not np.array_equal(denoiser.blind(COLOUR), COLOUR)
