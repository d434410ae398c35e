"""Restricted Boltzmann machines trained by one step of contrastive divergence (Hinton 2002)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from tqdm import tqdm

RATE = 0.1
RATE_LINEAR = 0.001  # linear hidden units have no ceiling: a larger step diverges
MOMENTUM = (0.5, 0.9)  # in the first epoch, and after
WEIGHT_DECAY = 2e-4


class RestrictedBoltzmannMachine:
    """Logistic visible units in 0..1 and logistic, or linear unit-variance, hidden units.

    Energy E(v, h) = -b'v - c'h - h'Wv; learned by CD-1: dW = <h v'>_data - <h v'>_one step. The constants are
    those of Hinton and Salakhutdinov 2006, but for the momentum, which they raise after five epochs.
    """

    def __init__(self, visible: int, hidden: int, *, linear: bool = False) -> None:
        self.weight = torch.randn(hidden, visible) * 0.1  # [hidden, visible], as in nn.Linear
        self.hidden_bias = torch.zeros(hidden)
        self.visible_bias = torch.zeros(visible)
        self.linear = linear

    def hidden(self, visible: Tensor) -> Tensor:
        """Return P(h = 1 | v), or the mean of linear units: [B, visible] -> [B, hidden]."""
        field = visible @ self.weight.T + self.hidden_bias
        return field if self.linear else torch.sigmoid(field)

    def visible(self, hidden: Tensor) -> Tensor:
        """Return P(v = 1 | h): [B, hidden] -> [B, visible]."""
        return torch.sigmoid(hidden @ self.weight + self.visible_bias)

    def sample_hidden(self, mean: Tensor) -> Tensor:
        """Draw hidden states from their means."""
        return mean + torch.randn_like(mean) if self.linear else torch.bernoulli(mean)

    @torch.no_grad()
    def gradient(self, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the CD-1 estimate of d log p for weight, hidden bias and visible bias, in the mean of a batch."""
        hidden = self.hidden(data)
        fantasy = self.visible(self.sample_hidden(hidden))
        fantasy_hidden = self.hidden(fantasy)
        weight = (hidden.T @ data - fantasy_hidden.T @ fantasy) / len(data)
        return weight, (hidden - fantasy_hidden).mean(0), (data - fantasy).mean(0)

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterable[Tensor]], epochs: int, label: str) -> None:
        """Learn from `epochs` passes over `batches()`, each [B, visible] in 0..1."""
        parameters = (self.weight, self.hidden_bias, self.visible_bias)
        speeds = [torch.zeros_like(parameter) for parameter in parameters]
        rate = RATE_LINEAR if self.linear else RATE
        for epoch in tqdm(range(epochs), label, unit="epoch", disable=None):
            momentum = MOMENTUM[min(epoch, 1)]
            for data in batches():
                for parameter, speed, gradient in zip(parameters, speeds, self.gradient(data), strict=True):
                    decay = WEIGHT_DECAY * parameter if parameter is self.weight else 0.0
                    speed.mul_(momentum).add_(rate * (gradient - decay))
                    parameter.add_(speed)
