"""The two protocols: one draw of noise, kept whole or as a camera delivers it."""

import numpy as np

from benchmarks.denoising.protocol import CLIPPED, NOT_CLIPPED
from tests.training.tiny import draw

CLEAN = draw(1, channels=3, height=64, width=96)[0]


def test_noise_that_is_not_clipped_leaves_the_scale_and_has_its_sigma() -> None:
    noisy = NOT_CLIPPED.noisy(CLEAN, 50, index=0)
    assert noisy.dtype == np.float32
    assert noisy.min() < 0
    assert abs((noisy - CLEAN).std() - 50) < 1


def test_clipped_noise_is_the_same_draw_clipped_and_rounded() -> None:
    noisy = CLIPPED.noisy(CLEAN, 50, index=3)
    assert noisy.dtype == np.uint8
    whole = NOT_CLIPPED.noisy(CLEAN, 50, index=3)
    assert np.array_equal(noisy, np.clip(np.rint(whole), 0, 255))


def test_an_image_has_the_seed_of_its_index() -> None:
    first, again, second = (NOT_CLIPPED.noisy(CLEAN, 25, index) for index in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    expected = CLEAN + 25 * np.random.default_rng(1).standard_normal(CLEAN.shape)
    assert np.allclose(second, expected, atol=1e-4)
