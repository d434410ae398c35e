"""The contractive autoencoder (Rifai et al. 2011): a code that small changes of the frame hardly move.

loss = |x - x'|^2 + lambda |J|_F^2 with J the Jacobian of the encoder. For one sigmoid layer
|J|_F^2 = sum_j (h_j (1 - h_j))^2 sum_i W_ji^2, exactly; for deeper encoders it is estimated without bias by
Hutchinson's trick: E |v'J|^2 over random signs v. The decoder's weights are the encoder's, transposed: otherwise
the encoder could shrink and the decoder grow, and the penalty would mean nothing.
"""

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import Autoencoder, AutoencoderConfig, FrameShape, Losses, register
from training.layers import rademacher, squared_error


class ContractiveConfig(AutoencoderConfig):
    """Settings of the contractive kind."""

    kind: Literal["contractive"] = "contractive"
    hidden_sizes: tuple[int, ...] = Field((), description="layers before the code; none makes the penalty exact")
    latent_dim: int = Field(64, ge=1)
    contraction: float = Field(0.1, ge=0, description="lambda, the weight of the penalty")
    probes: int = Field(1, ge=1, description="random vectors of the estimate, for deep encoders")


@register
class Contractive(Autoencoder[Tensor]):
    """Sigmoid layers with tied weights and a penalty on the encoder's Jacobian."""

    Config = ContractiveConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE})

    def __init__(self, config: ContractiveConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        sizes = (math.prod(shape.fixed), *config.hidden_sizes, config.latent_dim)
        self.layers = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]
        self.encoder = nn.ModuleList(self.layers)
        self.decoder_biases = nn.ParameterList(torch.zeros(size) for size in sizes[:-1])

    @property
    def latent_dim(self) -> int:
        """Units of the code layer."""
        return self.config.latent_dim

    def encode(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, latent_dim] in 0..1."""
        activity = frames.flatten(1)
        for layer in self.layers:
            activity = torch.sigmoid(layer(activity))
        return activity

    def decode(self, code: Tensor) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]."""
        for layer, bias in zip(reversed(self.layers), reversed(self.decoder_biases), strict=True):
            code = torch.sigmoid(F.linear(code, layer.weight.T, bias))
        return code.reshape(-1, *self.shape.fixed)

    def jacobian_norm(self, frames: Tensor) -> Tensor:
        """Return |J|_F^2 of every frame as [B]: exact for one layer, else an unbiased estimate."""
        if len(self.layers) > 1:
            return self._estimated_norm(frames)
        code = self.encode(frames)
        return (code * (1 - code)).square() @ self.layers[0].weight.square().sum(1)

    def _estimated_norm(self, frames: Tensor) -> Tensor:
        with torch.enable_grad():  # in validation too
            inputs = frames.detach().requires_grad_()
            code = self.encode(inputs)
            total = torch.zeros(len(frames), device=frames.device)
            for _ in range(self.config.probes):
                (row,) = torch.autograd.grad(code, inputs, rademacher(code), create_graph=True)  # v'J
                total = total + row.flatten(1).square().sum(1)
        return total / self.config.probes

    def loss(self, frames: Tensor) -> Losses:
        """Squared error plus lambda times the squared norm of the Jacobian."""
        error = squared_error(frames, self.reconstruct(frames))
        norm = self.jacobian_norm(frames).mean()
        return Losses(error + self.config.contraction * norm, {"squared_error": error, "jacobian_norm": norm})
