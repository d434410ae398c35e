"""Fine-tuning learns a camera's pairs, and comparison measures it as the service would see it."""

import pytest
import torch

from tests.training.camera.scene import record
from tests.training.tiny import recipe
from training.autoencoders.base import Denoiser, build
from training.camera.comparison import Comparison, blind, denoise_patches
from training.camera.finetune import finetune
from training.camera.learn import Study, study
from training.config import TrainConfig
from training.graph import DenoiserGraph, NoiseEstimatorGraph

QUICK = TrainConfig(steps=200, batch_size=8, learning_rate=0.01, warmup_steps=5, ema_decay=0.8)


@pytest.fixture
def camera() -> Study:
    return study(record((60, 60), sigma=20).frames, seed=0)


def untrained(channels: int = 1) -> Denoiser[object]:
    torch.manual_seed(0)
    chosen = recipe("denoising", data={"channels": channels})
    denoiser = build(chosen.autoencoder, chosen.shape)
    assert isinstance(denoiser, Denoiser)
    return denoiser


def test_it_learns_the_noise_and_its_level(camera: Study) -> None:
    denoiser = untrained()
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    learnt = finetune(denoiser, camera.training, QUICK, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    held_out = camera.held_out
    found = held_out.psnr(denoise_patches(blind(learnt), camera.frames, held_out, "tests"))
    assert found > held_out.psnr(held_out.noisy) + 3
    frames = torch.from_numpy(camera.frames.pixels[-1][None])
    with torch.no_grad():
        (level,) = NoiseEstimatorGraph(learnt)(frames)
    assert float(level) == pytest.approx(20, rel=0.2)


def test_the_same_seed_gives_the_same_weights(camera: Study) -> None:
    config = QUICK.model_copy(update={"steps": 3})
    one, other, third = (finetune(untrained(), camera.training, config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_a_colour_model_learns_from_grey_frames(camera: Study) -> None:
    learnt = finetune(untrained(channels=3), camera.training, QUICK.model_copy(update={"steps": 2}), seed=0)
    assert denoise_patches(blind(learnt), camera.frames, camera.held_out, "tests").shape == camera.held_out.noisy.shape


def test_blind_is_what_the_exported_graphs_do(camera: Study) -> None:
    denoiser = untrained()
    torch.nn.init.normal_(denoiser.get_parameter("tail.weight"), std=0.1)
    pixels = camera.frames.pixels[0][:50, :61]
    frames = torch.from_numpy(pixels[None].copy())
    with torch.no_grad():
        (level,) = NoiseEstimatorGraph(denoiser)(frames)
        (expected,) = DenoiserGraph(denoiser)(frames, level)
    assert torch.equal(torch.from_numpy(blind(denoiser)(pixels.copy())), expected[0])


@pytest.mark.parametrize(
    ("noisy", "general", "camera_own", "worth_it"),
    [(20, 25, 26, True), (20, 25, 25.05, False), (20, 25, 24, False), (30, 25, 26, False)],
)
def test_what_is_worth_a_model(noisy: float, general: float, camera_own: float, *, worth_it: bool) -> None:
    assert Comparison(noisy, general, camera_own).worth_it == worth_it
