"""Every corruption: in bounds, repeatable, drawn anew for each frame, and as strong as it says."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Generator, Tensor

from training.noise import (
    AnyCorruption,
    Corrupted,
    Corruption,
    Demosaicing,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Mixture,
    Resizing,
    SaltAndPepper,
    Smoothing,
    Spread,
    noise_level,
    quantise,
)

SPREADS: list[Spread] = [Demosaicing(), Smoothing(), Resizing()]
EVERY: list[Corruption] = [
    Gaussian(),
    LowLight(),
    LowLight(spread=tuple(SPREADS)),
    SaltAndPepper(),
    Masking(),
    Jpeg(),
    Jpeg(noise=LowLight()),
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
    noisy, level = corruption(clean, seeded())
    assert noisy.shape == clean.shape
    assert noisy.dtype == torch.float32
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert torch.allclose(noisy * 255, (noisy * 255).round(), atol=1e-4)
    assert torch.equal(clean, before), "the clean frames were changed"
    assert level.shape == (len(clean),)
    assert (level >= 0).all()
    assert level.isfinite().all()


def same(first: Corrupted, second: Corrupted) -> bool:
    return torch.equal(first.frames, second.frames) and torch.equal(first.level, second.level)


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: corruption.type)
def test_the_same_seed_gives_the_same_noise(corruption: Corruption) -> None:
    clean = picture(8)
    assert same(corruption(clean, seeded(1)), corruption(clean, seeded(1)))
    assert not same(corruption(clean, seeded(1)), corruption(clean, seeded(2)))
    torch.manual_seed(3)
    first = corruption(clean)
    torch.manual_seed(3)
    assert same(first, corruption(clean)), "without a generator, torch's own counts"


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: corruption.type)
def test_a_recipe_says_it_and_a_manifest_repeats_it(corruption: Corruption) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyCorruption)
    assert adapter.validate_json(corruption.model_dump_json()) == corruption


@pytest.mark.parametrize(
    "corruption",
    [Gaussian(), LowLight(), SaltAndPepper(), Masking(share=(0, 0.5))],
    ids=lambda corruption: corruption.type,
)
def test_every_frame_draws_its_own_strength_and_tells_it(corruption: Corruption) -> None:
    clean = picture(16)
    noisy, level = corruption(clean, seeded())
    assert level.max() > 1.5 * level.min()
    assert torch.corrcoef(torch.stack([level, noise_level(clean, noisy)]))[0, 1] > 0.95


# -- the noise level


def test_the_level_of_white_noise_is_its_standard_deviation() -> None:
    clean = torch.full((3, 3, 256, 256), 0.5)
    sigma = torch.tensor([2.0, 10, 40])
    noisy = clean + sigma.reshape(3, 1, 1, 1) / 255 * torch.randn(clean.shape, generator=seeded())
    assert torch.allclose(noise_level(clean, noisy), sigma, rtol=0.02)


def test_the_level_of_blotches_is_that_of_white_noise_as_strong_at_low_frequencies() -> None:
    clean = torch.full((1, 1, 256, 256), 0.5)
    white = torch.randn(clean.shape, generator=seeded()) * 20 / 255
    blotches = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1)
    rms = (blotches.square().mean().sqrt() * 255).item()
    assert rms == pytest.approx(20 / 3, rel=0.05)
    level = noise_level(clean, clean + blotches).item()
    assert 2 * rms < level < 20


def test_one_wrong_pixel_counts_with_its_rms_at_least() -> None:
    clean = torch.zeros(2, 3, 4, 5)
    noisy = clean.clone()
    noisy[1, 0, 0, 0] = 1
    assert noise_level(clean, noisy).tolist() == pytest.approx([0, 255 / 60**0.5])


def test_quantise_clips_and_rounds() -> None:
    assert torch.allclose(quantise(torch.tensor([-1, 0.5 / 255, 0.51 / 255, 2])) * 255, torch.tensor([0.0, 0, 1, 255]))


# -- each for itself


@pytest.mark.parametrize("sigma", [5, 15, 25])
def test_gaussian_noise_has_its_sigma(sigma: float) -> None:
    clean = flat(0.5, count=8)
    noisy, level = Gaussian(sigma=(sigma, sigma))(clean, seeded())
    noise = (noisy - clean) * 255
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.03 * sigma)
    assert max(map(abs, neighbour_correlation(noise))) < 0.02, "it is not white"
    assert level.tolist() == pytest.approx([sigma] * 8, rel=0.05)


def test_gaussian_noise_is_clipped_as_a_camera_clips_it_and_counts_as_far_as_it_is_left() -> None:
    clean = flat(0.0)
    noisy, level = Gaussian(sigma=(25, 25))(clean, seeded())
    assert (noisy == 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert level.tolist() == pytest.approx([25 / 2**0.5] * 4, rel=0.05)


def test_gaussian_noise_as_papers_have_it_is_neither_clipped_nor_rounded() -> None:
    noisy = Gaussian(sigma=(25, 25), clipped=False)(flat(0.0), seeded()).frames
    assert noisy.min() < -0.1
    assert (noisy * 255 - (noisy * 255).round()).abs().max() > 0.4
    assert noisy.mean() == pytest.approx(0, abs=0.005)


def test_low_light_noise_is_shot_and_read_noise_in_linear_light() -> None:
    gain, electrons = 0.002, 5
    corruption = LowLight(gain=(gain, gain), read=(electrons, electrons))
    for value in (0.4, 0.6, 0.8):
        clean = flat(value, count=8)
        linear = clean.pow(2.2)
        noise = corruption(clean, seeded()).frames.pow(2.2) - linear
        expected = gain * float(linear.mean()) + (gain * electrons) ** 2
        assert noise.var() == pytest.approx(expected, rel=0.05), f"at brightness {value}"


def test_low_light_noise_grows_with_brightness() -> None:
    corruption = LowLight(gain=(0.005, 0.005), read=(0, 0))
    variances = [corruption(flat(value), seeded()).frames.pow(2.2).var() for value in (0.2, 0.4, 0.6, 0.8)]
    assert variances == sorted(variances)
    assert corruption(flat(0.0), seeded()).frames.max() == 0, "no light, no shot noise"


def neighbour_correlation(noise: Tensor) -> tuple[float, float]:
    """Return the correlation with the next row and with the next column."""
    noise = noise - noise.mean()
    power = noise.square().mean()
    rows = (noise[..., 1:, :] * noise[..., :-1, :]).mean() / power
    columns = (noise[..., 1:] * noise[..., :-1]).mean() / power
    return float(rows), float(columns)


# -- what the processing in a camera makes of it


def white(count: int = 4, channels: int = 3, side: int = 64) -> Tensor:
    return torch.randn(count, channels, side, side, generator=seeded(9))


@pytest.mark.parametrize("spread", SPREADS, ids=lambda spread: spread.type)
@pytest.mark.parametrize(("channels", "side"), [(1, 17), (3, 17), (3, 1)])
def test_noise_stays_noise_of_its_shape(spread: Spread, channels: int, side: int) -> None:
    before = white(2, channels, side)
    after = spread(before.clone(), seeded())
    assert after.shape == before.shape
    assert after.isfinite().all()


def test_demosaicing_keeps_the_measured_colour_and_interpolates_the_others() -> None:
    noise = white()
    after = Demosaicing()(noise)
    assert torch.allclose(after[:, 0, ::2, ::2], noise[:, 0, ::2, ::2]), "red is measured there"
    assert torch.allclose(after[:, 1, 1::2, ::2], noise[:, 1, 1::2, ::2]), "green"
    assert torch.allclose(after[:, 2, 1::2, 1::2], noise[:, 2, 1::2, 1::2]), "blue"
    between = (noise[:, 0, ::2, 0:-2:2] + noise[:, 0, ::2, 2::2]) / 2
    assert torch.allclose(after[:, 0, ::2, 1:-1:2], between, atol=1e-6)
    assert torch.allclose(Demosaicing()(torch.ones(1, 3, 6, 6)), torch.ones(1, 3, 6, 6)), "an even area stays even"
    assert min(neighbour_correlation(after)) > 0.3


def test_smoothing_correlates_as_a_gaussian_of_its_width_does() -> None:
    blurred = Smoothing(luma=(1, 1))(white(8, 1), seeded())
    for correlation in neighbour_correlation(blurred):
        assert correlation == pytest.approx(0.78, abs=0.03)  # exp(-1 / 4) for a standard deviation of 1
    assert blurred.square().mean() == pytest.approx(1, rel=1e-3), "its strength is told apart from its width"


def test_smoothing_blurs_colour_apart_from_brightness() -> None:
    smoothing = Smoothing(luma=(0, 0), chroma=(2, 2), chroma_strength=(0.5, 0.5))
    after = smoothing(white(8), seeded())
    luma = torch.einsum("bchw,c->bhw", after, torch.tensor([0.299, 0.587, 0.114]))[:, None]
    chroma = after - luma
    assert abs(neighbour_correlation(luma)[0]) < 0.05
    assert neighbour_correlation(chroma)[0] > 0.9
    assert chroma.square().mean().sqrt() / luma.square().mean().sqrt() == pytest.approx(0.5, rel=0.01)


def test_resizing_stretches() -> None:
    assert torch.allclose(Resizing(scale=(1, 1))(white()), white(), atol=1e-5)
    assert min(neighbour_correlation(Resizing(scale=(2, 2))(white()))) > 0.5


@pytest.mark.parametrize("spread", SPREADS, ids=lambda spread: spread.type)
def test_low_light_keeps_its_strength_however_the_noise_is_spread(spread: Spread) -> None:
    strength = {"gain": (1e-3, 1e-3), "read": (0.0, 0.0)}
    clean = flat(0.5, count=8, channels=3)
    plain = LowLight(**strength)(clean, seeded()).frames - clean
    spread_out = LowLight(**strength, spread=(spread,))(clean, seeded()).frames - clean
    assert spread_out.std() == pytest.approx(plain.std().item(), rel=0.03)


def test_every_frame_is_spread_in_its_own_way_and_does_not_leak_into_another() -> None:
    corruption = LowLight(gain=(1e-3, 1e-3), spread=(Smoothing(luma=(0, 1.2)),))
    noise = corruption(flat(0.5, count=6), seeded()).frames - flat(0.5, count=6)
    correlations = [neighbour_correlation(frame)[0] for frame in noise]
    assert max(correlations) - min(correlations) > 0.2
    between = torch.corrcoef(noise.flatten(1)) - torch.eye(6)
    assert between.abs().max() < 0.25


# -- single pixels and compression


def test_salt_and_pepper_replaces_whole_pixels() -> None:
    clean = flat(0.5, channels=3)
    noisy = SaltAndPepper(share=(0.2, 0.2))(clean, seeded()).frames
    assert (noisy == 0).float().mean() == pytest.approx(0.1, abs=0.01)
    assert (noisy == 1).float().mean() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(noisy[:, :1].expand_as(noisy), noisy), "all channels alike"
    assert torch.equal(SaltAndPepper(share=(0, 0))(clean, seeded()).frames, clean)


def test_masking_blackens_its_share_of_whole_pixels() -> None:
    clean = flat(0.5, channels=3)
    noisy = Masking(share=(0.25, 0.25))(clean, seeded()).frames
    black = noisy == 0
    assert black.float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(noisy[~black], clean[~black])
    assert torch.equal(black[:, :1].expand_as(black), black), "all channels alike"
    assert Masking(share=(1, 1))(clean, seeded()).frames.max() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_errs_less_the_better_the_quality(channels: int) -> None:
    clean = picture(2, channels)
    errors = [(Jpeg(quality=(q, q))(clean, seeded()).frames - clean).abs().mean() * 255 for q in (10, 50, 75, 95)]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[-1] < 3


def test_compression_is_no_noise() -> None:
    assert Jpeg()(picture(), seeded()).level.tolist() == [0] * 4


def test_jpeg_leaves_grey_frames_of_three_channels_about_as_grey() -> None:
    clean = picture(2, 3)
    noisy = Jpeg(quality=(75, 75))(clean, seeded()).frames
    assert (noisy - noisy.mean(1, keepdim=True)).abs().max() * 255 < 2
    one = Jpeg(quality=(75, 75))(clean[:, :1], seeded()).frames
    assert (noisy.mean(1, keepdim=True) - one).abs().max() * 255 < 3


# -- put together


def test_compressed_noise_counts_as_far_as_it_survives() -> None:
    noise = Gaussian(sigma=(2, 2))
    fine = Jpeg(quality=(100, 100), noise=noise)(flat(0.5), seeded())
    coarse = Jpeg(quality=(30, 30), noise=noise)(flat(0.5), seeded())
    assert fine.level.tolist() == pytest.approx([2] * 4, rel=0.1)
    assert coarse.level.max() == 0, "so faint a noise is quantised away"
    assert torch.equal(coarse.frames, flat(0.5))


def test_the_artefacts_of_compression_are_no_noise() -> None:
    clean = picture()
    level = Jpeg(quality=(30, 30), noise=Gaussian(sigma=(0, 0)))(clean, seeded()).level
    assert level.tolist() == [0] * 4
    assert not torch.equal(Jpeg(quality=(30, 30))(clean, seeded()).frames, clean)


def test_a_mixture_draws_by_weight_and_tells_the_level_of_what_it_drew() -> None:
    mixture = Mixture(choices=(Gaussian(sigma=(40, 40)), Gaussian(sigma=(0, 0))), weights=(1, 3))
    clean = flat(0.5, count=400, side=4)
    noisy, level = mixture(clean, seeded())
    assert ((level > 20) == (noisy != clean).flatten(1).any(1)).all()
    assert (level > 20).float().mean() == pytest.approx(0.25, abs=0.06)
    assert (level[level <= 20] == 0).all()


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"type": "gaussian", "sigma": [30, 10]}, "least, most"),
        ({"type": "gaussian", "sigma": [-1, 10]}, "greater than or equal to 0"),
        ({"type": "gaussian", "sigma": 25}, "valid tuple"),
        ({"type": "gaussian", "sgima": [0, 10]}, "not permitted"),
        ({"type": "low_light", "gain": [0, 0.1]}, "greater than 0"),
        ({"type": "low_light", "spread": [{"type": "rain"}]}, "does not match any of the expected tags"),
        ({"type": "low_light", "spread": [{"type": "resizing", "scale": [0.5, 1]}]}, "greater than or equal to 1"),
        ({"type": "masking", "share": [0.5, 1.5]}, "less than or equal to 1"),
        ({"type": "jpeg", "quality": [0, 50]}, "greater than or equal to 1"),
        ({"type": "jpeg", "quality": [90, 50]}, "least, most"),
        ({"type": "jpeg", "noise": {"type": "rain"}}, "does not match any of the expected tags"),
        ({"type": "mixture", "choices": [{"type": "gaussian"}], "weights": [1, 2]}, "one for each"),
        ({"type": "mixture", "choices": [{"type": "gaussian"}], "weights": [0]}, "positive"),
        ({"type": "rain"}, "does not match any of the expected tags"),
    ],
)
def test_a_wrong_setting_is_refused(tree: dict[str, Any], complaint: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyCorruption)
    with pytest.raises(ValidationError, match=complaint):
        adapter.validate_python(tree)
