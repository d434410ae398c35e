"""Every corruption: in bounds, repeatable, drawn anew for each frame, and as strong as it says."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Generator, Tensor

from training.noise import (
    AnyCorruption,
    Chain,
    Corruption,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Mixture,
    SaltAndPepper,
    noise_level,
    quantise,
)

EVERY: list[Corruption] = [
    Gaussian(),
    LowLight(),
    SaltAndPepper(),
    Masking(),
    Jpeg(),
    Chain(steps=(Gaussian(), Jpeg())),
    Mixture(choices=(Gaussian(), Masking()), weights=(1, 3)),
]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def flat(value: float, *, count: int = 4, channels: int = 1, side: int = 64) -> Tensor:
    return quantise(torch.full((count, channels, side, side), value))


def picture(count: int = 4, channels: int = 3) -> Tensor:
    """Return smooth frames with a texture."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 32), indexing="ij")
    frame = 0.5 * rows + 0.3 * columns + 0.1 * torch.sin(40 * rows * columns)
    return quantise(frame.expand(count, channels, 24, 32))


# -- what all have in common


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: corruption.type)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_a_frame_that_a_file_can_hold(corruption: Corruption, channels: int) -> None:
    clean = picture(channels=channels)
    before = clean.clone()
    noisy = corruption(clean, seeded())
    assert noisy.shape == clean.shape
    assert noisy.dtype == torch.float32
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert torch.allclose(noisy * 255, (noisy * 255).round(), atol=1e-4)
    assert torch.equal(clean, before), "the clean frames were changed"


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: corruption.type)
def test_the_same_seed_gives_the_same_noise(corruption: Corruption) -> None:
    clean = picture(8)
    assert torch.equal(corruption(clean, seeded(1)), corruption(clean, seeded(1)))
    assert not torch.equal(corruption(clean, seeded(1)), corruption(clean, seeded(2)))
    torch.manual_seed(3)
    first = corruption(clean)
    torch.manual_seed(3)
    assert torch.equal(first, corruption(clean)), "without a generator, torch's own counts"


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: corruption.type)
def test_a_recipe_says_it_and_a_manifest_repeats_it(corruption: Corruption) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyCorruption)
    assert adapter.validate_json(corruption.model_dump_json()) == corruption


@pytest.mark.parametrize(
    "corruption",
    [Gaussian(), LowLight(), SaltAndPepper(), Masking(share=(0, 0.5)), Jpeg(quality=(5, 95))],
    ids=lambda corruption: corruption.type,
)
def test_every_frame_draws_its_own_strength(corruption: Corruption) -> None:
    clean = picture(16)
    levels = noise_level(clean, corruption(clean, seeded()))
    assert levels.shape == (16,)
    assert levels.max() > 1.5 * levels.min()


def test_the_noise_level_is_the_rms_on_the_scale_of_files() -> None:
    clean = torch.zeros(2, 3, 4, 5)
    noisy = clean.clone()
    noisy[1, 0, 0, 0] = 1
    assert torch.allclose(noise_level(clean, noisy), torch.tensor([0, 255 / 60**0.5]))


def test_quantise_clips_and_rounds() -> None:
    assert torch.allclose(quantise(torch.tensor([-1, 0.5 / 255, 0.51 / 255, 2])) * 255, torch.tensor([0.0, 0, 1, 255]))


# -- each for itself


@pytest.mark.parametrize("sigma", [5, 15, 25])
def test_gaussian_noise_has_its_sigma(sigma: float) -> None:
    clean = flat(0.5, count=8)
    noise = (Gaussian(sigma=(sigma, sigma))(clean, seeded()) - clean) * 255
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.03 * sigma)
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert abs(neighbours) < 0.02, "it is not white"


def test_gaussian_noise_is_clipped_as_a_camera_clips_it() -> None:
    clean = flat(0.0)
    noisy = Gaussian(sigma=(25, 25))(clean, seeded())
    assert (noisy == 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert noise_level(clean, noisy).mean() == pytest.approx(25 / 2**0.5, rel=0.03)


def test_low_light_noise_is_shot_and_read_noise_in_linear_light() -> None:
    gain, read = 0.002, 0.01
    corruption = LowLight(gain=(gain, gain), read=(read, read), blur=(0, 0))
    for value in (0.4, 0.6, 0.8):
        clean = flat(value, count=8)
        linear = clean.pow(2.2)
        noise = corruption(clean, seeded()).pow(2.2) - linear
        expected = gain * float(linear.mean()) + read**2
        assert noise.var() == pytest.approx(expected, rel=0.05), f"at brightness {value}"


def test_low_light_noise_grows_with_brightness() -> None:
    corruption = LowLight(gain=(0.005, 0.005), read=(0, 0), blur=(0, 0))
    variances = [corruption(flat(value), seeded()).pow(2.2).var() for value in (0.2, 0.4, 0.6, 0.8)]
    assert variances == sorted(variances)
    assert corruption(flat(0.0), seeded()).max() == 0, "no light, no shot noise"


def neighbour_correlation(noise: Tensor) -> tuple[float, float]:
    """Return the correlation with the next row and with the next column."""
    noise = noise - noise.mean()
    power = noise.square().mean()
    rows = (noise[..., 1:, :] * noise[..., :-1, :]).mean() / power
    columns = (noise[..., 1:] * noise[..., :-1]).mean() / power
    return float(rows), float(columns)


def test_blur_correlates_neighbours_and_weakens_the_noise() -> None:
    clean = flat(0.5, count=8)
    sharp, soft = (
        LowLight(gain=(1e-3, 1e-3), read=(0, 0), blur=(blur, blur))(clean, seeded()) - clean for blur in (0.0, 1.0)
    )
    assert max(map(abs, neighbour_correlation(sharp))) < 0.02
    for correlation in neighbour_correlation(soft):
        assert correlation == pytest.approx(0.78, abs=0.05)  # exp(-1/4) for a Gaussian of sigma 1
    assert soft.std() / sharp.std() == pytest.approx(1 / (2 * torch.pi**0.5), rel=0.1)


def test_every_frame_has_its_own_blur_and_no_frame_leaks_into_another() -> None:
    corruption = LowLight(gain=(1e-3, 1e-3), read=(0, 0), blur=(0, 1.2))
    noise = corruption(flat(0.5, count=6), seeded()) - flat(0.5, count=6)
    correlations = [neighbour_correlation(frame)[0] for frame in noise]
    assert max(correlations) - min(correlations) > 0.2
    between = torch.corrcoef(noise.flatten(1)) - torch.eye(6)
    assert between.abs().max() < 0.25


def test_salt_and_pepper_replaces_whole_pixels() -> None:
    clean = flat(0.5, channels=3)
    noisy = SaltAndPepper(share=(0.2, 0.2))(clean, seeded())
    assert (noisy == 0).float().mean() == pytest.approx(0.1, abs=0.01)
    assert (noisy == 1).float().mean() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(noisy[:, :1].expand_as(noisy), noisy), "all channels alike"
    assert torch.equal(SaltAndPepper(share=(0, 0))(clean, seeded()), clean)


def test_masking_blackens_its_share_of_whole_pixels() -> None:
    clean = flat(0.5, channels=3)
    noisy = Masking(share=(0.25, 0.25))(clean, seeded())
    black = noisy == 0
    assert black.float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(noisy[~black], clean[~black])
    assert torch.equal(black[:, :1].expand_as(black), black), "all channels alike"
    assert Masking(share=(1, 1))(clean, seeded()).max() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_errs_less_the_better_the_quality(channels: int) -> None:
    clean = picture(2, channels)
    levels = [noise_level(clean, Jpeg(quality=(q, q))(clean, seeded())).mean() for q in (10, 50, 75, 95)]
    assert levels == sorted(levels, reverse=True)
    assert 0 < levels[-1] < 3


def test_jpeg_leaves_grey_frames_of_three_channels_about_as_grey() -> None:
    clean = picture(2, 3)
    noisy = Jpeg(quality=(75, 75))(clean, seeded())
    assert (noisy - noisy.mean(1, keepdim=True)).abs().max() * 255 < 2
    one = Jpeg(quality=(75, 75))(clean[:, :1], seeded())
    assert (noisy.mean(1, keepdim=True) - one).abs().max() * 255 < 3


# -- put together


def test_a_chain_keeps_its_order() -> None:
    masking, gaussian = Masking(share=(0.5, 0.5)), Gaussian(sigma=(20, 20))
    clean = flat(0.5)
    masked_last = Chain(steps=(gaussian, masking))(clean, seeded())
    masked_first = Chain(steps=(masking, gaussian))(clean, seeded())
    assert (masked_last == 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert (masked_first == 0).float().mean() == pytest.approx(0.25, abs=0.03), "noise on black is half clipped"
    generator = seeded()
    assert torch.equal(masked_first, gaussian(masking(clean, generator), generator))


def test_a_mixture_draws_by_weight() -> None:
    mixture = Mixture(choices=(Masking(share=(1, 1)), Gaussian(sigma=(0, 0))), weights=(1, 3))
    black = mixture(flat(0.5, count=400, side=4), seeded()).amax((1, 2, 3)) == 0
    assert black.float().mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"type": "gaussian", "sigma": [30, 10]}, "least, most"),
        ({"type": "gaussian", "sigma": [-1, 10]}, "greater than or equal to 0"),
        ({"type": "gaussian", "sigma": 25}, "valid tuple"),
        ({"type": "gaussian", "sgima": [0, 10]}, "not permitted"),
        ({"type": "low_light", "gain": [0, 0.1]}, "greater than 0"),
        ({"type": "masking", "share": [0.5, 1.5]}, "less than or equal to 1"),
        ({"type": "jpeg", "quality": [0, 50]}, "greater than or equal to 1"),
        ({"type": "jpeg", "quality": [90, 50]}, "least, most"),
        ({"type": "chain", "steps": []}, "at least 1 item"),
        ({"type": "mixture", "choices": [{"type": "gaussian"}], "weights": [1, 2]}, "one for each"),
        ({"type": "mixture", "choices": [{"type": "gaussian"}], "weights": [0]}, "positive"),
        ({"type": "rain"}, "does not match any of the expected tags"),
    ],
)
def test_a_wrong_setting_is_refused(tree: dict[str, Any], complaint: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyCorruption)
    with pytest.raises(ValidationError, match=complaint):
        adapter.validate_python(tree)
