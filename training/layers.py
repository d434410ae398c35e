"""Building blocks that several kinds of autoencoder share: dense stacks, strided convolutions down and back up."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Dense(nn.Sequential):
    """Linear layers of the given sizes with the activation between them, and none after the last."""

    def __init__(self, sizes: Sequence[int], activation: type[nn.Module]) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
        super().__init__(*layers[:-1])


class Unflatten(nn.Module):
    """[B, C * H * W] -> [B, C, H, W]."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, flat: Tensor) -> Tensor:
        """Reshape."""
        return flat.reshape(-1, *self.shape)


def _sizes(length: int, halvings: int) -> int:
    return -(-length // (1 << halvings))


def convolutional_encoder(shape: tuple[int, int, int], widths: Sequence[int], outputs: int) -> nn.Sequential:
    """[B, C, H, W] -> [B, outputs]: one convolution of stride 2 for each width, then a linear layer."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for inputs, features in itertools.pairwise((channels, *widths)):
        layers += [nn.Conv2d(inputs, features, 3, stride=2, padding=1), nn.BatchNorm2d(features), nn.SiLU()]
    cells = widths[-1] * _sizes(height, len(widths)) * _sizes(width, len(widths))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(cells, outputs))


class ConvolutionalDecoder(nn.Module):
    """[B, latent_dim] -> [B, C, H, W] logits: the way back, doubling the size for each width."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        seed = (widths[-1], _sizes(self.height, len(widths)), _sizes(self.width, len(widths)))
        layers: list[nn.Module] = [nn.Linear(latent_dim, math.prod(seed)), Unflatten(seed)]
        for inputs, features in itertools.pairwise(reversed(widths)):
            # Nearest neighbours and a convolution: a transposed convolution leaves a checkerboard.
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, features, 3, padding=1)]
            layers += [nn.BatchNorm2d(features), nn.SiLU()]
        # The last doubling shuffles channels into pixels: features at full size would cost more than all the rest.
        layers += [nn.Conv2d(widths[0], channels * 4, 3, padding=1), nn.PixelShuffle(2)]
        self.body = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Decode, and cut what the halvings had rounded up."""
        frames: Tensor = self.body(latent)
        return frames[:, :, : self.height, : self.width]


def squared_error(frames: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error of a frame, summed over its pixels, in the mean over the batch."""
    return (reconstruction - frames).square().flatten(1).sum(1).mean()


def rademacher(like: Tensor) -> Tensor:
    """Return +1 or -1 at random, in the shape of `like`."""
    return torch.randint_like(like, 2) * 2 - 1
