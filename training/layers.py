"""Building blocks that several kinds of autoencoder share: dense stacks, strided convolutions down and back up."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SSIM_WINDOW = 7  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # of frames in 0..1


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


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, of the same size, without a bias."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(width, width), nn.ReLU(inplace=True), convolution(width, width))

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape."""
        residual: Tensor = self.body(features)
        return features + residual

    def silence(self) -> None:
        """Add nothing, and be able to learn to."""
        for weight in self.body[-1].parameters():
            nn.init.zeros_(weight)


def _sizes(length: int, halvings: int) -> int:
    return -(-length // (1 << halvings))


def grid_shape(shape: tuple[int, int, int], widths: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, rows, columns) of what is left of frames (C, H, W) after one halving for each width."""
    return widths[-1], _sizes(shape[1], len(widths)), _sizes(shape[2], len(widths))


def halvings(channels: int, widths: Sequence[int]) -> list[nn.Module]:
    """[B, channels, H, W] -> [B, widths[-1], rows, columns]: one convolution of stride 2 for each width."""
    layers: list[nn.Module] = []
    for inputs, features in itertools.pairwise((channels, *widths)):
        layers += [nn.Conv2d(inputs, features, 3, stride=2, padding=1), nn.BatchNorm2d(features), nn.SiLU()]
    return layers


def doublings(channels: int, widths: Sequence[int]) -> list[nn.Module]:
    """[B, widths[-1], rows, columns] -> [B, channels, H, W], rounded up: the way back, doubling for each width."""
    layers: list[nn.Module] = []
    for inputs, features in itertools.pairwise(reversed(widths)):
        # Nearest neighbours and a convolution: a transposed convolution leaves a checkerboard.
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, features, 3, padding=1)]
        layers += [nn.BatchNorm2d(features), nn.SiLU()]
    # The last doubling shuffles channels into pixels: features at full size would cost more than all the rest.
    return [*layers, nn.Conv2d(widths[0], channels * 4, 3, padding=1), nn.PixelShuffle(2)]


def convolutional_encoder(shape: tuple[int, int, int], widths: Sequence[int], outputs: int) -> nn.Sequential:
    """[B, C, H, W] -> [B, outputs]: halvings, then a linear layer."""
    cells = math.prod(grid_shape(shape, widths))
    return nn.Sequential(*halvings(shape[0], widths), nn.Flatten(), nn.Linear(cells, outputs))


class ConvolutionalDecoder(nn.Module):
    """[B, latent_dim] -> [B, C, H, W] logits: a linear layer, then doublings."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        seed = grid_shape(shape, widths)
        start = nn.Linear(latent_dim, math.prod(seed)), Unflatten(seed)
        self.body = nn.Sequential(*start, *doublings(channels, widths))

    def forward(self, latent: Tensor) -> Tensor:
        """Decode, and cut what the halvings had rounded up."""
        frames: Tensor = self.body(latent)
        return frames[:, :, : self.height, : self.width]


def squared_error(frames: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error of a frame, summed over its pixels, in the mean over the batch."""
    return (reconstruction - frames).square().flatten(1).sum(1).mean()


def bernoulli_log_prob(frames: Tensor, logits: Tensor) -> Tensor:
    """Return log p(x) of frames [B, C, H, W] in nats, [B]; grey levels count as probabilities of white."""
    return -F.binary_cross_entropy_with_logits(logits, frames, reduction="none").flatten(1).sum(1)


def gaussian_log_prob(frames: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return log N(x; mean, scale^2) of frames [B, C, H, W] in nats, [B]; one scale for all pixels."""
    apart = ((frames - mean) / log_scale.exp()).square()
    return -0.5 * (apart + 2 * log_scale + math.log(2 * math.pi)).flatten(1).sum(1)


def rademacher(like: Tensor) -> Tensor:
    """Return +1 or -1 at random, in the shape of `like`."""
    return torch.randint_like(like, 2) * 2 - 1


def structural_error(frames: Tensor, reconstruction: Tensor, scales: int = 3) -> Tensor:
    """Return 1 - MS-SSIM (Wang et al. 2003), in the mean over [B, C, H, W] in 0..1 and over the scales that fit.

    Windows are squares of 7 pixels; each scale halves the frames. Means of the scales, not their product: a product
    has no gradient where one factor is 0.
    """
    errors = []
    for _ in range(scales):
        errors.append(1 - _ssim(frames, reconstruction).mean())
        if min(frames.shape[2:]) < 2 * SSIM_WINDOW:
            break
        frames, reconstruction = F.avg_pool2d(frames, 2), F.avg_pool2d(reconstruction, 2)
    return torch.stack(errors).mean()


def _ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return the structural similarity of every window."""
    window = min(SSIM_WINDOW, *one.shape[2:])

    def mean(of: Tensor) -> Tensor:
        return F.avg_pool2d(of, window, stride=1)

    means = mean(one), mean(other)
    variances = mean(one.square()) - means[0].square(), mean(other.square()) - means[1].square()
    covariance = mean(one * other) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + SSIM_C1) / (means[0].square() + means[1].square() + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variances[0] + variances[1] + SSIM_C2)
