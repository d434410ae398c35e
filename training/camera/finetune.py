"""Fine-tune a denoiser on one camera's pairs of noisy and clean patches.

The denoiser is told the level of its input, and its estimator has to find that level: so both learn. The level of a
pair is that of its stretch of footage, not of its patch, for in service one level is estimated for a whole frame; how
noise varies with brightness within the frame is for the denoiser to learn. A fixed camera shows nearly one level only,
from which the two would learn that there is no other. So some of the noise is made weaker or stronger, its level with
it, and the denoiser goes on learning its general noise, on the camera's clean patches.
"""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.autoencoders.base import Denoiser
from training.camera.footage import as_channels
from training.camera.pairs import Pairs
from training.config import TrainConfig
from training.estimator import misjudgement
from training.graph import to_unit
from training.noise import quantise

SCALED_SHARE = 0.25  # of the pairs, whose noise is made weaker or stronger
STRONGEST = 1.5  # times the noise
GENERAL_SHARE = 0.25  # of a batch's patches, and of the loss, for the general noise
LEVEL_JITTER = 0.05  # relative error of the level that the denoiser is told: estimates err too
ESTIMATOR_WEIGHT = 0.02  # of the noise estimate in the loss: it shares no weights with the denoiser


def finetune(denoiser: Denoiser[Any], pairs: Pairs, config: TrainConfig, seed: int) -> Denoiser[Any]:
    """Return a copy of the denoiser that has learnt the pairs, its weights averaged over the last steps."""
    rng = np.random.default_rng(seed)
    learner = copy.deepcopy(denoiser).train().requires_grad_()  # the estimator too, which some kinds freeze
    average = copy.deepcopy(denoiser)
    optimiser = torch.optim.AdamW(learner.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        bar = tqdm(range(config.steps), "learning the camera's noise", unit="step", disable=None)
        for _ in bar:
            loss = _loss(learner, *_batch(pairs, config.batch_size, learner.shape.channels, rng))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            _follow(average, learner, config.ema_decay)
            bar.set_postfix(loss=f"{float(loss.detach()):.4g}", refresh=False)
    return average.eval()


@torch.no_grad()
def _follow(average: Denoiser[Any], learner: Denoiser[Any], decay: float) -> None:
    """Move the averaged weights on by a small step towards those in training."""
    for mean, weight in zip(average.parameters(), learner.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


def _rate(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _batch(pairs: Pairs, size: int, channels: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw noisy and clean patches [size, channels, PATCH, PATCH] in 0..1, mirrored at random, and levels [size]."""
    chosen = rng.integers(len(pairs), size=size)
    mirrored = tuple(axis for axis in (2, 3) if rng.random() < 0.5)  # a sensor's rows are no columns: never turned
    noisy = torch.from_numpy(as_channels(pairs.noisy[chosen], channels))
    clean = torch.from_numpy(as_channels(pairs.clean[chosen], channels))
    return to_unit(noisy).flip(mirrored), to_unit(clean).flip(mirrored), torch.from_numpy(pairs.levels[chosen])


def _loss(denoiser: Denoiser[Any], noisy: Tensor, clean: Tensor, level: Tensor) -> Tensor:
    """Mean absolute error, that of the estimated level, and the kind's own loss on clean patches."""
    scaled = torch.rand(len(level)) < SCALED_SHARE
    strength = torch.where(scaled, STRONGEST * torch.rand(len(level)), 1.0)
    noisy, level = quantise(clean + strength[:, None, None, None] * (noisy - clean)), strength * level
    told = level * (1 + LEVEL_JITTER * torch.randn_like(level))
    error = (denoiser.denoise(noisy, told.clamp(0, denoiser.noise.maximum_level) / 255) - clean).abs().mean()
    misjudged = misjudgement(denoiser.estimate_noise_level(noisy), level / 255).mean()
    general = denoiser.loss(clean[: math.ceil(GENERAL_SHARE * len(clean))]).total
    return (1 - GENERAL_SHARE) * (error + ESTIMATOR_WEIGHT * misjudged) + GENERAL_SHARE * general
