"""What the denoiser promises by its shape: untouched at level 0, homogeneous, local, grey where the frame is grey."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import batch, fit, recipe
from training.autoencoders import denoising
from training.autoencoders.base import build
from training.autoencoders.denoising import Denoising, turned, turned_back
from training.noise import Corrupted, Gaussian, noise_level, quantise, root_mean_square


def made(*, channels: int = 1, positive: bool = False, **settings: Any) -> Denoising:  # noqa: ANN401
    """Return a denoiser with random weights everywhere; positive ones keep every path open."""
    chosen = recipe("denoising", autoencoder=settings, data={"channels": channels})
    denoiser = build(chosen.autoencoder, chosen.shape)
    assert isinstance(denoiser, Denoising)
    for parameter in denoiser.parameters():
        spread = 0.5 / max(1.0, parameter[0].numel() ** 0.5)
        random = 0.5 + torch.rand_like(parameter) if positive else torch.randn_like(parameter)
        parameter.data = random * spread
    return denoiser.eval()


def denoise(denoiser: Denoising, frames: Tensor, level: float) -> Tensor:
    with torch.no_grad():
        return denoiser.denoise(frames, torch.full((len(frames),), level / 255))


# -- level and contrast


def test_at_level_0_the_frames_come_back_bit_by_bit() -> None:
    frames = torch.rand(2, 1, 16, 32)
    assert torch.equal(denoise(made(), frames, 0), frames)
    assert not torch.equal(denoise(made(), frames, 1), frames)


def test_the_faintest_noise_is_removed_in_part() -> None:
    denoiser, frames = made(), torch.rand(2, 1, 16, 16)
    part, network = denoise(denoiser, frames, 1), denoiser.decode
    with torch.no_grad():
        level_map = torch.full_like(frames[:, :1], 1 / 255)
        residual = network(denoiser.encode(torch.cat([frames, level_map], 1)))
    assert torch.allclose(part, frames + residual / 3, atol=1e-6)


def test_each_frame_has_its_own_level() -> None:
    denoiser, frames = made(), torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        mixed = denoiser.denoise(frames, torch.tensor([0, 25 / 255]))
    assert torch.equal(mixed[0], frames[0])
    assert torch.allclose(mixed[1:], denoise(denoiser, frames[1:], 25), atol=1e-6)


def test_an_untrained_denoiser_changes_nothing() -> None:
    chosen, frames = recipe("denoising"), torch.rand(2, 1, 16, 16)
    fresh = build(chosen.autoencoder, chosen.shape)
    assert isinstance(fresh, Denoising)
    assert torch.equal(denoise(fresh, frames, 25), frames)


def test_twice_the_contrast_and_twice_the_noise_give_twice_the_result() -> None:
    denoiser, frames = made(), torch.rand(1, 1, 16, 16)
    for factor in (0.2, 2.0, 10.0):
        assert torch.allclose(
            denoise(denoiser, factor * frames, factor * 25),
            factor * denoise(denoiser, frames, 25),
            rtol=1e-3,
            atol=1e-5,
        )


def test_no_weight_of_the_network_is_a_bias() -> None:
    names = [name for name, _ in made().named_parameters() if not name.startswith("estimator.")]
    assert all(name.endswith(".weight") for name in names)


# -- orientations


def test_there_are_eight_orientations_and_a_way_back_from_each() -> None:
    frame = torch.rand(1, 1, 8, 16)
    seen = [turned(frame, index) for index in range(8)]
    assert all(torch.equal(turned_back(one, index), frame) for index, one in enumerate(seen))
    assert all(
        one.shape != other.shape or not torch.equal(one, other) for one, other in itertools.combinations(seen, 2)
    )


def test_the_result_is_the_mean_over_the_orientations() -> None:
    one, three = made(), made(orientations=3)
    three.load_state_dict(one.state_dict())
    frames = torch.rand(2, 1, 16, 32)
    parts = [turned_back(denoise(one, turned(frames, index), 25), index) for index in range(3)]
    assert torch.allclose(denoise(three, frames, 25), torch.stack(parts).mean(0), atol=1e-6)


def test_all_orientations_together_prefer_none() -> None:
    denoiser, frames = made(orientations=8), torch.rand(1, 1, 16, 32)
    expected = denoise(denoiser, frames, 25)
    for index in range(8):
        assert torch.allclose(turned_back(denoise(denoiser, turned(frames, index), 25), index), expected, atol=1e-6)


def test_training_takes_one_orientation(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, passes = made(orientations=3), []
    monkeypatch.setattr(denoiser, "encode", lambda frames: passes.append(frames) or Denoising.encode(denoiser, frames))
    for training, expected in ((True, 1), (False, 3)):
        passes.clear()
        denoise(denoiser.train(training), torch.rand(1, 1, 16, 16), 25)
        assert len(passes) == expected


# -- what a pixel looks at


@pytest.mark.parametrize(
    "settings",
    [{"widths": [2, 2]}, {"widths": [2, 2, 2]}, {"widths": [2, 2], "blocks": 2}, {"widths": [2, 2], "orientations": 3}],
)
def test_a_pixel_changes_nothing_outside_the_receptive_field(settings: dict[str, Any]) -> None:
    denoiser = made(positive=True, **settings).double()
    reach, stride = denoiser.receptive_field, denoiser.stride
    side = 2 * reach + 4 * stride
    side += -side % stride
    furthest = 0
    for offset in range(0, stride, max(1, stride - 1)):  # in the first and in the last pixel of a coarse cell
        row = side // 2 // stride * stride + offset
        frames = torch.full((2, 1, side, side), 0.5, dtype=torch.float64)
        frames[1, 0, row, row] = 1.0
        before, after = denoise(denoiser, frames, 25)
        changed = (before != after)[0].nonzero()
        furthest = max(furthest, int((changed - row).abs().max()))
    assert furthest <= reach, "tiles that overlap by the receptive field would show seams"
    assert furthest > reach - 2 * stride, "the stated receptive field is wasteful"


def test_a_tile_gives_what_the_whole_frame_gives() -> None:
    denoiser = made(widths=[4, 4])
    reach = denoiser.receptive_field
    frame = torch.rand(1, 1, 16, 2 * reach + 32)
    whole = denoise(denoiser, frame, 25)
    tile = denoise(denoiser, frame[..., : reach + 16], 25)
    assert torch.allclose(tile[..., :16], whole[..., :16], atol=1e-6)
    assert not torch.allclose(tile[..., -4:], whole[..., reach + 12 : reach + 16], atol=1e-6), "the edge does differ"


def test_a_frame_moved_by_the_stride_gives_a_result_moved_by_the_stride() -> None:
    denoiser = made(widths=[4, 4])
    reach, stride = denoiser.receptive_field, denoiser.stride
    side = 2 * reach + 6 * stride
    frame = torch.rand(1, 1, side, side)
    moved = torch.roll(frame, (stride, 2 * stride), (2, 3))
    inner = slice(reach + 2 * stride, -reach - 2 * stride)
    expected = torch.roll(denoise(denoiser, frame, 25), (stride, 2 * stride), (2, 3))
    assert torch.allclose(denoise(denoiser, moved, 25)[..., inner, inner], expected[..., inner, inner], atol=1e-6)


# -- the loss


def test_the_loss_is_the_error_of_the_clean_frame() -> None:
    denoiser = made(corruption={"type": "gaussian", "sigma": [20, 30]}, level_jitter=0, blind_share=0)
    frames = batch(4)[..., :16]
    torch.manual_seed(3)
    loss = denoiser.loss(frames).total
    torch.manual_seed(3)
    noisy, level = Gaussian(sigma=(20, 30))(frames)
    with torch.no_grad():
        error = denoiser.denoise(noisy, level / 255) - frames
        squares = error.square().mean((1, 2, 3)) + denoising.MEAN_WEIGHT * error.mean((2, 3)).square().mean(1)
        assert torch.allclose(loss, squares.sqrt().mean(), rtol=1e-3)


def told(monkeypatch: pytest.MonkeyPatch, denoiser: Denoising, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the frames and levels that the network gets in one loss."""
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(frames: Tensor, level: Tensor) -> Tensor:
        seen.append((frames, level * 255))
        return frames + 0 * level.sum()

    monkeypatch.setattr(denoiser, "denoise", spy)
    denoiser.loss(frames)
    return seen


def test_the_level_it_is_told_is_a_little_wrong_and_never_beyond_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = {"type": "gaussian", "sigma": [40, 40]}
    denoiser = made(corruption=noise, level_jitter=0.1, blind_share=0, maximum_level=42)
    ((_, levels),) = told(monkeypatch, denoiser, torch.full((200, 1, 32, 32), 0.5))
    assert levels.max() == pytest.approx(42)
    assert levels.min() > 40 * 0.5
    assert (levels < 38).float().mean() == pytest.approx(0.31, abs=0.1), "a normal error of a tenth"


def test_a_share_of_the_frames_is_told_what_the_estimator_says(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = made(corruption={"type": "gaussian", "sigma": [40, 40]}, level_jitter=0, blind_share=0.25)
    monkeypatch.setattr(denoiser, "estimate_noise_level", lambda frames: torch.full((len(frames),), 7 / 255))
    ((_, levels),) = told(monkeypatch, denoiser, torch.full((200, 1, 32, 32), 0.5))
    assert (levels - 7 < 1e-4).float().mean() == pytest.approx(0.25, abs=0.08)
    assert (levels > 35).float().mean() == pytest.approx(0.75, abs=0.08)


def test_of_smeared_noise_anything_between_its_rms_and_its_level_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    blurred = {"type": "smoothing", "luma": [3, 3]}
    noise = {"type": "low_light", "gain": [1e-3, 1e-3], "read": [0, 0], "spread": [blurred]}
    denoiser = made(corruption=noise, level_jitter=0, blind_share=0)
    clean = torch.full((200, 1, 32, 32), 0.5)
    (((noisy, levels),)) = told(monkeypatch, denoiser, clean)
    low, high = root_mean_square(noisy - clean) * 255, noise_level(clean, noisy)
    assert (high > 2.5 * low).all(), "else it is not smeared"
    place = (levels - low) / (high - low)
    assert -1e-3 < place.min() < 0.1
    assert 0.9 < place.max() < 1.001


def test_an_error_of_one_sign_counts_more_than_one_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.full((2, 3, 16, 16), 128 / 255)
    signs = torch.ones(16, 16)
    signs[::2] = -1
    denoiser = made(channels=3, corruption={"type": "gaussian", "sigma": [0, 0]})
    losses = []
    for error in (signs, torch.ones(16, 16)):
        monkeypatch.setattr(denoiser, "denoise", lambda noisy, _, error=error: noisy + 0.01 * error)
        losses.append(float(denoiser.loss(frames).total))
    assert losses[0] == pytest.approx(0.01, rel=0.01)
    assert losses[1] > 3 * losses[0]


def test_grey_frames_get_grey_noise_and_colour_frames_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = torch.rand(1, 3, 16, 16)
    frames = torch.cat([colour[:, :1].expand(-1, 3, -1, -1), colour])
    (((grey, coloured), _),) = told(monkeypatch, made(channels=3), frames)
    assert torch.equal(grey, grey[:1].expand_as(grey))
    assert not torch.equal(grey, colour[0, :1].expand_as(grey)), "there is no noise at all"
    noise = (coloured - colour[0]).flatten(1)
    assert torch.corrcoef(noise)[0, 1].abs() < 0.3


def test_training_beats_the_noisy_frame() -> None:
    """The same square, trained for a second: the clean frame is nearer than the noisy one was."""
    torch.manual_seed(0)
    chosen = recipe("denoising", autoencoder={"corruption": {"type": "gaussian", "sigma": [25, 25]}})
    denoiser = build(chosen.autoencoder, chosen.shape)
    assert isinstance(denoiser, Denoising)
    frames = batch(16)[..., :16]
    fit(denoiser, frames, 200)
    noisy = Gaussian(sigma=(25, 25))(frames).frames
    error = (denoise(denoiser, noisy, 25) - frames).square().mean().sqrt()
    assert error < 0.8 * (noisy - frames).square().mean().sqrt()


# -- the noise estimator


def test_the_estimator_is_trained_first_and_the_network_leaves_it_alone() -> None:
    denoiser = made(corruption={"type": "gaussian", "sigma": [5, 50]}, estimator_steps=3)
    frames = batch(4)[..., :16]
    start = copy.deepcopy(denoiser.state_dict())

    def changed() -> set[str]:
        return {name for name, value in denoiser.state_dict().items() if not torch.equal(value, start[name])}

    denoiser.pretrain(lambda: [frames])
    assert changed() == {name for name in start if name.startswith("estimator.")}
    start = copy.deepcopy(denoiser.state_dict())
    fit(denoiser, frames, 2)
    assert changed() == {name for name in start if not name.startswith("estimator.")}


def test_the_estimator_sees_clean_frames_too(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = made(corruption={"type": "gaussian", "sigma": [20, 20]})
    frames = quantise(torch.rand(400, 1, 4, 4))
    levels: list[Tensor] = []

    def spy(_: nn.Module, corrupt: Callable[[Tensor], Corrupted], *__: object) -> None:
        noisy, level = corrupt(frames)
        assert torch.equal(level == 0, (noisy == frames).flatten(1).all(1))
        levels.append(level)

    monkeypatch.setattr(denoising, "fit", spy)
    denoiser.pretrain(lambda: [frames])
    assert (levels[0] == 0).float().mean() == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_estimate_is_a_level_even_for_constant_frames(value: float, scale: float) -> None:
    denoiser = made()
    for parameter in denoiser.estimator.parameters():
        parameter.data.mul_(scale)
    with torch.no_grad():
        level = denoiser.estimate_noise_level(torch.full((2, 1, 16, 16), value))
    assert level.shape == (2,)
    assert level.isfinite().all()
    assert (level >= 0).all()


def test_a_fresh_estimate_is_a_sane_one() -> None:
    chosen = recipe("denoising")
    fresh = build(chosen.autoencoder, chosen.shape)
    assert isinstance(fresh, Denoising)
    with torch.no_grad():
        level = fresh.estimate_noise_level(torch.rand(4, 1, 16, 16)) * 255
    assert ((level > 5) & (level < 50)).all()


def test_reconstruct_is_blind_denoising() -> None:
    denoiser, frames = made(), torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        level = denoiser.estimate_noise_level(frames)
        assert torch.equal(denoiser.reconstruct(frames), denoiser.denoise(frames, level))


def test_the_manifest_is_told_what_noise_it_knows() -> None:
    noise = made(corruption={"type": "gaussian", "sigma": [0, 30]}, maximum_level=30).noise
    assert noise.description == '{"type":"gaussian","sigma":[0.0,30.0],"clipped":true}'
    assert (noise.minimum_level, noise.maximum_level) == (0, 30)
