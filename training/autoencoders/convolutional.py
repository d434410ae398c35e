"""The convolutional autoencoder: strided convolutions down to a bottleneck of latent_dim numbers, and back."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, register
from training.layers import ConvolutionalDecoder, convolutional_encoder, squared_error


class ConvolutionalConfig(AutoencoderConfig):
    """Settings of the convolutional kind."""

    kind: Literal["convolutional"] = "convolutional"
    widths: tuple[int, ...] = Field((16, 32, 64, 64, 64), min_length=1, description="channels; each halves the size")
    latent_dim: int = Field(100, ge=1)


@register
class Convolutional(Autoencoder[Tensor]):
    """Squared error through a narrow bottleneck."""

    Config = ConvolutionalConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE})

    def __init__(self, config: ConvolutionalConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        self.encoder = convolutional_encoder(shape.fixed, config.widths, config.latent_dim)
        self.decoder = ConvolutionalDecoder(shape.fixed, config.widths, config.latent_dim)

    @property
    def latent_dim(self) -> int:
        """Numbers in the bottleneck."""
        return self.config.latent_dim

    def encode(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, latent_dim]."""
        code: Tensor = self.encoder(frames)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]."""
        return torch.sigmoid(self.decoder(code))

    def loss(self, frames: Tensor) -> Losses:
        """Squared error."""
        return Losses(squared_error(frames, self.reconstruct(frames)))
