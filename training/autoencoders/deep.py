"""The deep autoencoder of Hinton and Salakhutdinov 2006: two symmetric halves of several layers.

The hidden units are logistic and the code is linear. With `pretrain_epochs` the layers are first trained one by
one as restricted Boltzmann machines (a deep belief network), then unrolled and fine-tuned together.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, register
from training.boltzmann import RestrictedBoltzmannMachine
from training.layers import Dense, squared_error


class DeepConfig(AutoencoderConfig):
    """Settings of the deep kind."""

    kind: Literal["deep"] = "deep"
    hidden_sizes: tuple[int, ...] = Field((1000, 500, 250), min_length=3, max_length=4, description="units a layer")
    latent_dim: int = Field(30, ge=1)
    pretrain_epochs: int = Field(0, ge=0, description="of each Boltzmann machine; 0 for none")


@register
class Deep(Autoencoder[Tensor]):
    """Four to five layers each way, optionally pretrained layer by layer."""

    Config = DeepConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE})

    def __init__(self, config: DeepConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        sizes = (math.prod(shape.fixed), *config.hidden_sizes, config.latent_dim)
        self.encoder = Dense(sizes, nn.Sigmoid)
        self.decoder = Dense(sizes[::-1], nn.Sigmoid)
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.Linear):  # without this, sigmoids four deep start out dead
                nn.init.xavier_normal_(layer.weight, gain=nn.init.calculate_gain("sigmoid") * 2)

    @property
    def latent_dim(self) -> int:
        """Units of the code layer."""
        return self.config.latent_dim

    def encode(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, latent_dim]."""
        code: Tensor = self.encoder(frames.flatten(1))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]."""
        return torch.sigmoid(self.decoder(code)).reshape(-1, *self.shape.fixed)

    def loss(self, frames: Tensor) -> Losses:
        """Squared error."""
        return Losses(squared_error(frames, self.reconstruct(frames)))

    @torch.no_grad()
    def pretrain(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Train each layer as a Boltzmann machine on what the layer below says, then unroll the stack.

        The weights of a machine serve the encoder as they are and the decoder transposed.
        """
        if self.config.pretrain_epochs == 0:
            return
        sizes = (math.prod(self.shape.fixed), *self.config.hidden_sizes, self.config.latent_dim)
        machines: list[RestrictedBoltzmannMachine] = []
        for depth, (visible, hidden) in enumerate(itertools.pairwise(sizes)):
            machine = RestrictedBoltzmannMachine(visible, hidden, linear=depth == len(sizes) - 2)

            def inputs(below: tuple[RestrictedBoltzmannMachine, ...] = tuple(machines)) -> Iterable[Tensor]:
                for frames in batches():
                    activity = frames.flatten(1)
                    for lower in below:
                        activity = lower.hidden(activity)
                    yield activity

            machine.fit(inputs, self.config.pretrain_epochs, label=f"pretraining layer {depth + 1}")
            machines.append(machine)
        self._unroll(machines)

    def _unroll(self, machines: list[RestrictedBoltzmannMachine]) -> None:
        encoders = [layer for layer in self.encoder if isinstance(layer, nn.Linear)]
        decoders = [layer for layer in self.decoder if isinstance(layer, nn.Linear)][::-1]
        for machine, encoder, decoder in zip(machines, encoders, decoders, strict=True):
            encoder.weight.copy_(machine.weight)
            encoder.bias.copy_(machine.hidden_bias)
            decoder.weight.copy_(machine.weight.T)
            decoder.bias.copy_(machine.visible_bias)
