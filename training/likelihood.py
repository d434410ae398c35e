"""What a decoder's logits say of pixels: Bernoulli, or Gaussian with one learned variance (Rybkin et al. 2021)."""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from training.autoencoders.base import Autoencoder, AutoencoderConfig
from training.layers import bernoulli_log_prob, gaussian_log_prob

FIRST_SCALE = 0.1  # of the range: an optimiser takes thousands of steps to bring it down from 1


class LikelihoodConfig(AutoencoderConfig):
    """Settings of kinds whose loss is a likelihood of pixels."""

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    binarise: bool = Field(default=False, description="learn black and white frames, drawn anew with grey as chance")

    @model_validator(mode="after")
    def _black_and_white(self) -> Self:
        if self.binarise and self.likelihood != "bernoulli":
            raise ValueError("binarise makes frames black and white: the likelihood must be bernoulli")
        return self


class LikelihoodAutoencoder(Autoencoder[Tensor]):
    """An autoencoder whose decoder gives the logits of the mean of p(x|code)."""

    config: LikelihoodConfig
    log_scale: nn.Parameter

    def _make_scale(self) -> None:
        """Make the logarithm of the deviation, which only the Gaussian likelihood learns."""
        learned = self.config.likelihood == "gaussian"
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)), requires_grad=learned)

    def seen(self, frames: Tensor) -> Tensor:
        """Return frames as the model learns them: themselves, or black and white ones drawn with grey as chance."""
        return torch.bernoulli(frames) if self.config.binarise else frames

    def _log_prob(self, frames: Tensor, logits: Tensor) -> Tensor:
        """Return log p(x|code) in nats, [B]; with the Bernoulli likelihood grey levels count as probabilities."""
        if self.config.likelihood == "bernoulli":
            return bernoulli_log_prob(frames, logits)
        return gaussian_log_prob(frames, torch.sigmoid(logits), self.log_scale)
