"""From a camera's footage to a denoiser of its own, or to the reason why it needs none."""

from dataclasses import dataclass
from typing import Any

from runtime.images import Pixels
from training.autoencoders.base import Denoiser
from training.camera.comparison import Comparison, blind, denoise_patches
from training.camera.finetune import finetune
from training.camera.footage import clips_of, cut
from training.camera.noise import CameraNoise, independent_lag, measure, temporal_correlation
from training.camera.pairs import Pairs, find_pairs
from training.config import TrainConfig
from training.data import Frames
from training.errors import DataError

FEWEST_FRAMES = 36
BATCH_SIZE = 16
LEARNING_RATE = 1e-4  # a tenth of what the general training starts with: what it has learnt is to stay
WARMUP_STEPS = 20
EMA_DECAY = 0.99


@dataclass(frozen=True)
class Study:
    """What footage tells of a camera."""

    frames: Frames
    stride: int
    """Frames this far apart have independent noise."""
    training: Pairs
    held_out: Pairs
    noise: CameraNoise


def study(frames: Frames, seed: int) -> Study:
    """Measure the noise, and find pairs to learn from and to measure on; raise DataError where there are too few."""
    if len(frames) < FEWEST_FRAMES:
        raise DataError(f"{len(frames)} frames are too few: {FEWEST_FRAMES} at the least, some hundreds to learn well")
    clips = clips_of(frames)
    temporal = temporal_correlation(frames, clips)
    stride = independent_lag(temporal)
    training, held_out = find_pairs(frames, cut(clips, stride), stride, seed)
    return Study(frames, stride, training, held_out, measure(training, temporal))


def settings(steps: int) -> TrainConfig:
    """Return how a camera's noise is learnt: gently and briefly."""
    return TrainConfig(steps=steps, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, warmup_steps=WARMUP_STEPS,
                       ema_decay=EMA_DECAY)  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """A denoiser before and after it has learnt a camera's noise, on the held-out pairs."""

    denoiser: Denoiser[Any]
    comparison: Comparison
    general: Pixels
    """Patches [n, PATCH, PATCH, c] that the general denoiser makes of the noisy ones."""
    camera: Pixels
    """The same, of the camera's own."""


def teach(denoiser: Denoiser[Any], camera: Study, general: Pixels, config: TrainConfig, seed: int) -> Lesson:
    """Fine-tune the denoiser and measure what came of it; `general` is what it made of the held-out patches before."""
    learnt = finetune(denoiser, camera.training, config, seed)
    held_out = camera.held_out
    patches = denoise_patches(blind(learnt), camera.frames, held_out, "measuring the camera's model")
    figures = Comparison(*(held_out.psnr(found) for found in (held_out.noisy, general, patches)))
    return Lesson(learnt, figures, general, patches)
