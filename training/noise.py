"""Noise as cameras make it: each a frozen, seeded piece that turns clean frames into what a camera delivers.

Every piece maps float frames [B, C, H, W] in 0..1 to frames of the same shape, clipped and rounded to the 256
levels of uint8. Levels (sigma) are on the 0..255 scale. Randomness comes from the given torch Generator, or
from torch's global one; every frame of a batch draws its own parameters.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Generator, Tensor

from runtime.images import ImageFormat, decode, encode
from runtime.manifest import Frozen

GAMMA = 2.2  # between linear light and the levels of a file, near enough to sRGB for noise


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"a range is [least, most]; found [{bounds[0]:g}, {bounds[1]:g}]")
    return bounds


Ascending = AfterValidator(_ascending)
Share = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
Range = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Ascending]
PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], Ascending]
ShareRange = Annotated[tuple[Share, Share], Ascending]
QualityRange = Annotated[tuple[Quality, Quality], Ascending]


def quantise(frames: Tensor) -> Tensor:
    """Clip to 0..1 and round to the 256 levels that a file can hold."""
    return (frames.clamp(0, 1) * 255).round() / 255


def noise_level(clean: Tensor, noisy: Tensor) -> Tensor:
    """Return [B]: the RMS of noisy - clean of each frame, on the 0..255 scale."""
    return (noisy - clean).square().mean(dim=(1, 2, 3)).sqrt() * 255


def _uniform(like: Tensor, bounds: tuple[float, float], generator: Generator | None) -> Tensor:
    """Draw one number a frame, as [B, 1, 1, 1]."""
    low, high = bounds
    return low + (high - low) * torch.rand(len(like), 1, 1, 1, generator=generator, device=like.device)


def _normal(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)


class Corruption(Frozen, ABC):
    """A random process from clean frames to corrupted ones."""

    @abstractmethod
    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Corrupt [B, C, H, W] in 0..1."""


class Gaussian(Corruption):
    """White Gaussian noise, the test case of the literature."""

    type: Literal["gaussian"] = "gaussian"
    sigma: Range = Field((0, 55), description="0..255 scale, drawn uniformly")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Add N(0, sigma^2)."""
        sigma = _uniform(clean, self.sigma, generator) / 255
        return quantise(clean + sigma * _normal(clean, generator))


class LowLight(Corruption):
    """Poisson-Gaussian noise in linear light: shot noise that grows with brightness, and read noise.

    The variance at linear intensity x is gain * x + read^2 (Foi et al. 2008, in its Gaussian approximation).
    Demosaicing and in-camera smoothing spread it over neighbours and weaken it: the noise is blurred before it
    is added.
    """

    type: Literal["low_light"] = "low_light"
    gain: PositiveRange = Field((1e-4, 2e-2), description="shot noise: variance per unit of linear light, log-uniform")
    read: Range = Field((0, 0.02), description="read noise, standard deviation in linear light 0..1")
    blur: Range = Field((0, 1.2), description="standard deviation in pixels of the spatial correlation")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Add the noise in linear light and come back to file levels."""
        linear = clean.pow(GAMMA)
        low, high = self.gain
        gain = torch.exp(_uniform(clean, (float(np.log(low)), float(np.log(high))), generator))
        read = _uniform(clean, self.read, generator)
        noise = (gain * linear + read.square()).sqrt() * _normal(clean, generator)
        noise = _correlate(noise, _uniform(clean, self.blur, generator))
        return quantise((linear + noise).clamp_min(0).pow(1 / GAMMA))


def _correlate(noise: Tensor, blur: Tensor) -> Tensor:
    """Blur each frame of the noise with a Gaussian of its own width [B, 1, 1, 1], in pixels."""
    batch, channels, height, width = noise.shape
    offsets = torch.arange(-3, 4, device=noise.device, dtype=noise.dtype)
    taps = torch.exp(-offsets.square() / (2 * blur.reshape(batch, 1).clamp_min(0.05).square()))
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # [B * C, 7]
    flat = F.pad(noise.reshape(1, batch * channels, height, width), (3, 3, 3, 3), mode="circular")
    flat = F.conv2d(flat, taps[:, None, :, None], groups=batch * channels)
    flat = F.conv2d(flat, taps[:, None, None, :], groups=batch * channels)
    return flat.reshape(noise.shape)


class SaltAndPepper(Corruption):
    """A share of the pixels turns black or white, as dead and hot pixels do."""

    type: Literal["salt_and_pepper"] = "salt_and_pepper"
    share: ShareRange = Field((0, 0.1), description="of all pixels")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Replace whole pixels, all channels alike."""
        share = _uniform(clean, self.share, generator)
        draw = torch.rand(clean[:, :1].shape, generator=generator, device=clean.device)
        salted = torch.where(draw < share / 2, torch.zeros_like(clean), clean)
        return quantise(torch.where(draw > 1 - share / 2, torch.ones_like(clean), salted))


class Masking(Corruption):
    """A share of the pixels is set to zero: the corruption of Vincent et al. 2008."""

    type: Literal["masking"] = "masking"
    share: ShareRange = Field((0.25, 0.25), description="of all pixels")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Blacken whole pixels, all channels alike."""
        draw = torch.rand(clean[:, :1].shape, generator=generator, device=clean.device)
        return quantise(clean * (draw >= _uniform(clean, self.share, generator)))


class Jpeg(Corruption):
    """Compression to JPEG and back, as nearly every camera does; not differentiable."""

    type: Literal["jpeg"] = "jpeg"
    quality: QualityRange = Field((50, 95), description="libjpeg's scale, 1 to 100")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Encode and decode every frame at a quality of its own."""
        low, high = self.quality
        qualities = torch.randint(low, high + 1, (len(clean),), generator=_on_cpu(generator))
        pixels = (quantise(clean) * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        coded = [
            decode(encode(frame, ImageFormat.JPEG, quality=int(quality)), channels=clean.shape[1]).pixels
            for frame, quality in zip(pixels, qualities, strict=True)
        ]
        return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(clean.device, clean.dtype) / 255


def _on_cpu(generator: Generator | None) -> Generator | None:
    """Return a generator for the CPU: a GPU's own is forked by one draw."""
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return Generator().manual_seed(int(seed))


class Chain(Corruption):
    """One corruption after the other, as light passes through a camera."""

    type: Literal["chain"] = "chain"
    steps: tuple["AnyCorruption", ...] = Field(min_length=1)

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Apply every step."""
        for step in self.steps:
            clean = step(clean, generator)
        return clean


class Mixture(Corruption):
    """Each frame meets one of several corruptions, drawn by weight."""

    type: Literal["mixture"] = "mixture"
    choices: tuple["AnyCorruption", ...] = Field(min_length=1)
    weights: tuple[float, ...]

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if len(self.weights) != len(self.choices) or min(self.weights) <= 0:
            raise ValueError("weights must be positive, one for each of the choices")
        return self

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw a choice for every frame."""
        weights = torch.tensor(self.weights, device=clean.device)
        drawn = torch.multinomial(weights, len(clean), replacement=True, generator=generator)
        noisy = clean.clone()
        for index, choice in enumerate(self.choices):
            chosen = drawn == index
            if chosen.any():
                noisy[chosen] = choice(clean[chosen], generator)
        return noisy


AnyCorruption = Annotated[
    Gaussian | LowLight | SaltAndPepper | Masking | Jpeg | Chain | Mixture, Field(discriminator="type")
]
Chain.model_rebuild()
Mixture.model_rebuild()
