"""The plain autoencoder: one hidden layer each way, h = s(W x + b) and x' = s(W' h + b') with the sigmoid s.

With `corruption` it is the denoising autoencoder of Vincent et al. 2010: the code is that of a noisy frame, and the
error that of its reconstruction against the clean one.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, register
from training.layers import squared_error


class PlainConfig(AutoencoderConfig):
    """Settings of the plain kind."""

    kind: Literal["plain"] = "plain"
    latent_dim: int = Field(64, ge=1, description="hidden units")
    corruption: float = Field(0, ge=0, description="sigma, in 0..1, of the noise that is added to frames in training")


@register
class Plain(Autoencoder[Tensor]):
    """Sigmoid encoder, sigmoid decoder, squared error."""

    Config = PlainConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE})

    def __init__(self, config: PlainConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.corruption = config.corruption
        pixels = math.prod(shape.fixed)
        self.encoder = nn.Linear(pixels, config.latent_dim)
        self.decoder = nn.Linear(config.latent_dim, pixels)

    @property
    def latent_dim(self) -> int:
        """Hidden units."""
        return self.encoder.out_features

    def encode(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, latent_dim] in 0..1."""
        return torch.sigmoid(self.encoder(frames.flatten(1)))

    def decode(self, code: Tensor) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]."""
        return torch.sigmoid(self.decoder(code)).reshape(-1, *self.shape.fixed)

    def loss(self, frames: Tensor) -> Losses:
        """Squared error of the clean frame."""
        corrupted = frames + self.corruption * torch.randn_like(frames) if self.corruption else frames
        return Losses(squared_error(frames, self.reconstruct(corrupted)))
