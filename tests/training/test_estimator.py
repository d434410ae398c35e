"""The noise estimator: what it answers, what it is judged by, and that it learns to tell noise from none."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from training.estimator import NoiseEstimator, fit, misjudgement
from training.noise import Gaussian


def frames(count: int, side: int = 32) -> Tensor:
    """Return soft gradients of random directions, [count, 1, side, side]."""
    slopes = torch.rand(count, 2, 1, 1)
    rows, columns = torch.meshgrid(torch.linspace(0, 0.5, side), torch.linspace(0, 0.5, side), indexing="ij")
    return (slopes[:, :1] * rows + slopes[:, 1:] * columns)[:, None].reshape(count, 1, side, side)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 4, 4), (3, 16, 24), (3, 64, 8)])
def test_one_level_a_frame(channels: int, height: int, width: int) -> None:
    level = NoiseEstimator(channels, 4)(torch.rand(5, channels, height, width))
    assert level.shape == (5,)
    assert (level >= 0).all()


def test_a_misjudgement_is_a_ratio_and_below_a_level_nearly_nothing() -> None:
    level = torch.tensor([0.0, 0.5, 20.0, 20.0]) / 255
    estimate = torch.tensor([0.5, 0.0, 40.0, 10.0]) / 255
    expected = torch.tensor([1.5, 1.5, 41 / 21, 21 / 11]).log()
    assert torch.allclose(misjudgement(estimate, level), expected, atol=1e-5)
    assert misjudgement(level, level).tolist() == [0] * 4


def test_it_learns_the_level_and_goes_round_short_data() -> None:
    torch.manual_seed(0)
    estimator, noise = NoiseEstimator(1, 8), Gaussian(sigma=(0, 50))
    passes: list[None] = []

    def batches() -> Iterator[Tensor]:
        passes.append(None)
        for _ in range(20):
            yield frames(16)

    fit(estimator, noise, batches, 150)
    assert len(passes) == 8, "20 batches a pass"
    noisy, level = noise(frames(64))
    with torch.no_grad():
        assert misjudgement(estimator(noisy), level / 255).mean() < 0.25


def noisy_frames() -> Tensor:
    return (frames(3, side=64) + 0.1 * torch.randn(3, 1, 64, 64)).clamp(0, 1)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_what_is_perfectly_flat_has_no_say_beside_noise(value: float) -> None:
    torch.manual_seed(0)
    estimator = NoiseEstimator(1, 4)
    masked = noisy_frames()
    masked[:, :, 16:48, :32] = value
    with torch.no_grad():
        level = estimator(masked)
        masked[:, :, 28:36, :20] = 1 - 0.5 * value  # another flat colour, far from what is left
        assert torch.allclose(estimator(masked), level, atol=1e-5)


def test_a_frame_that_is_nearly_all_flat_is_judged_whole() -> None:
    torch.manual_seed(0)
    estimator = NoiseEstimator(1, 4)
    with torch.no_grad():
        flat = torch.full((1, 1, 64, 64), 0.5)
        alone = estimator(flat)
        flat[:, :, 30, 30] = 1
        assert torch.isclose(estimator(flat), alone, rtol=0.2), "one dot does not decide"


def test_no_steps_change_nothing() -> None:
    estimator = NoiseEstimator(1, 4)
    before = [weight.clone() for weight in estimator.parameters()]
    fit(estimator, Gaussian(), lambda: iter(()), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, estimator.parameters(), strict=True))
