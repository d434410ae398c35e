"""Tiny recipes, frames and autoencoders, which the tests of training share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime.images import Pixels
from training.autoencoders.base import Autoencoder, ClipAutoencoder, find_kind
from training.config import Recipe, parse_recipe
from training.data import Frames, Split
from training.graph import to_unit

HEIGHT, WIDTH = 16, 24

# The smallest of each kind. A kind that is not listed is tested with its defaults.
KINDS: Mapping[str, dict[str, Any]] = {
    "contractive": {"hidden_sizes": [12], "latent_dim": 8},
    "convolutional": {"widths": [4, 8], "latent_dim": 8},
    "deep": {"hidden_sizes": [24, 16, 12], "latent_dim": 6},
    "denoising": {"widths": [4, 8], "blocks": 1, "estimator_width": 4, "estimator_steps": 2},
    "feature": {"weights": "random", "bottleneck": 0.2},
    "plain": {"latent_dim": 8},
    "spatiotemporal": {
        "widths": [4, 8],
        "latent_dim": 8,
        "shrink": 1,
        "clip": 5,
        "flow_step": 1,
        "moments": 1,
        "cell": 4,
        "speed_width": 4,
        "speed_blocks": 1,
        "speed_steps": 2,
    },
    "vaegan": {"widths": [4, 8], "latent_dim": 4},
    "variational": {"hidden_sizes": [24], "latent_dim": 4},
    "vq": {"widths": [4, 8], "codes": 8, "code_dim": 4, "prior_width": 8, "prior_layers": 2},
}


def recipe(kind: str = "plain", *, autoencoder: Mapping[str, Any] | None = None, **sections: Any) -> Recipe:  # noqa: ANN401
    """Return a recipe of a few steps on frames of 16 x 24; sections are merged with what it has."""
    size = {"crop": 16} if kind == "denoising" else {"height": HEIGHT, "width": WIDTH}
    tree: dict[str, Any] = {
        "name": "tiny",
        "description": "nothing that anybody should use",
        "licence": "none",
        "autoencoder": {"kind": kind, **KINDS.get(kind, {}), **(autoencoder or {})},
        "data": {"sources": [{"path": "frames"}], "channels": 1, **size, **sections.pop("data", {})},
        "train": {"steps": 6, "batch_size": 4, "warmup_steps": 0, "validate_every": 4, "threads": 1,
                  "learning_rate": 0.01, "ema_decay": 0.9, **sections.pop("train", {})},
    }  # fmt: skip
    if issubclass(find_kind(kind), ClipAutoencoder):
        sections = {"score": {"false_alarm_rate": 0.1}} | sections
    return parse_recipe(tree | sections, "tests")


def draw(count: int, *, channels: int = 1, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Draw [count, h, w, c]: a soft gradient, faint noise, and a bright square that walks from left to right."""
    rng = np.random.default_rng(seed)
    pixels = np.linspace(40, 90, height)[:, None, None] + rng.normal(0, 2, (count, height, width, channels))
    for index in range(count):
        left = index * 3 % (width - 6)
        pixels[index, 5:11, left : left + 6] += 110
    return np.asarray(np.rint(pixels.clip(0, 255)), np.uint8)


def frames(count: int, *, channels: int = 1, clips: int = 4, seed: int = 0) -> Frames:
    """Return frames that belong to `clips` clips."""
    found = Frames()
    for index, pixels in enumerate(draw(count, channels=channels, seed=seed)):
        clip = f"frames/{index * clips // count:02d}"
        found.add(clip, f"{clip}/{index:03d}.png", pixels)
    return found


def parts(*, channels: int = 1) -> Split:
    """Return enough frames for a calibrated threshold."""
    train, validation, calibration = (frames(n, channels=channels, seed=s) for n, s in ((24, 0), (8, 1), (40, 2)))
    return Split(train, validation, calibration)


def batch(count: int, *, channels: int = 1, seed: int = 0) -> Tensor:
    """Return frames as the networks take them, [count, c, h, w] in 0..1."""
    return to_unit(torch.from_numpy(draw(count, channels=channels, seed=seed)))


def fit(autoencoder: Autoencoder[Any], data: Tensor, steps: int) -> list[float]:
    """Train on all the data at once; return the loss of every step."""
    optimiser = torch.optim.Adam(autoencoder.parameters(), lr=0.01)
    losses = []
    autoencoder.train()
    for _ in range(steps):
        loss = autoencoder.loss(data).total
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    autoencoder.eval()
    return losses


def taught(loss: Tensor, autoencoder: Autoencoder[Any]) -> set[str]:
    """Return the parts of the network that a loss teaches."""
    autoencoder.zero_grad()
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    return {
        name.partition(".")[0] for name, weight in autoencoder.named_parameters()
        if weight.grad is not None and weight.grad.any()
    }  # fmt: skip
