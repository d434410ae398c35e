"""Noise as cameras make it: each a frozen, seeded piece that turns clean frames into what a camera delivers.

Every piece maps float frames [B, C, H, W] in 0..1 to frames of the same shape and tells the noise level of each.
Levels (sigma) are on the 0..255 scale. Randomness comes from the given torch Generator, or from torch's global one;
every frame of a batch draws its own parameters.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Generator, Tensor

from runtime.images import Pixels
from runtime.manifest import Frozen

GAMMA = 2.2  # between linear light and the levels of a file, near enough to sRGB for noise
LUMA = (0.299, 0.587, 0.114)
COARSE = 4  # pixels: white noise keeps its strength when blocks of this side are averaged, blotches do not fade


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"a range is [least, most]; found [{bounds[0]:g}, {bounds[1]:g}]")
    return bounds


Ascending = AfterValidator(_ascending)
Share = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
Scale = Annotated[float, Field(ge=1, le=4)]
Range = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Ascending]
PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], Ascending]
ShareRange = Annotated[tuple[Share, Share], Ascending]
QualityRange = Annotated[tuple[Quality, Quality], Ascending]
ScaleRange = Annotated[tuple[Scale, Scale], Ascending]


class Corrupted(NamedTuple):
    """What a camera delivers of clean frames."""

    frames: Tensor
    """[B, C, H, W]."""
    level: Tensor
    """[B], on the 0..255 scale: see noise_level."""


def quantise(frames: Tensor) -> Tensor:
    """Clip to 0..1 and round to the 256 levels that a file can hold."""
    return (frames.clamp(0, 1) * 255).round() / 255


def noise_level(clean: Tensor, noisy: Tensor) -> Tensor:
    """Return [B]: how strong the noise of each frame is, as the sigma of white noise, on the 0..255 scale.

    For white noise this is its RMS. Noise that a camera has smeared into blotches has a small RMS and is no easier
    to remove: what counts is its power where pictures have theirs, at low spatial frequencies. So the level is four
    times the RMS of the means of 4x4 blocks (for white noise the same), and never less than the plain RMS.
    """
    noise = noisy - clean
    coarse = COARSE * root_mean_square(F.avg_pool2d(noise, COARSE, ceil_mode=True))
    return torch.maximum(root_mean_square(noise), coarse) * 255


def root_mean_square(noise: Tensor) -> Tensor:
    """Return that of each frame of [B, C, H, W], as [B]."""
    return noise.square().mean((1, 2, 3)).sqrt()


def _draw(like: Tensor, bounds: tuple[float, float], generator: Generator | None) -> Tensor:
    """Draw one number a frame, uniformly, as [B, 1, 1, 1]."""
    low, high = bounds
    return low + (high - low) * torch.rand(len(like), 1, 1, 1, generator=generator, device=like.device)


def _draw_log(like: Tensor, bounds: tuple[float, float], generator: Generator | None) -> Tensor:
    """Draw one number a frame, uniformly in its logarithm, as [B, 1, 1, 1]."""
    low, high = bounds
    return torch.exp(_draw(like, (math.log(low), math.log(high)), generator))


def _normal(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)


class Corruption(Frozen, ABC):
    """A random process from clean frames to corrupted ones."""

    @abstractmethod
    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Corrupt [B, C, H, W] in 0..1."""


class Gaussian(Corruption):
    """White Gaussian noise, the test case of the literature."""

    type: Literal["gaussian"] = "gaussian"
    sigma: Range = Field((0, 55), description="0..255 scale, drawn uniformly")
    clipped: bool = Field(default=True, description="clip and round as a camera does; papers often do not")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Add N(0, sigma^2); the level is the RMS of what clipping leaves of it."""
        noisy = clean + _draw(clean, self.sigma, generator) / 255 * _normal(clean, generator)
        frames = quantise(noisy) if self.clipped else noisy
        return Corrupted(frames, root_mean_square(frames - clean) * 255)


class Spread(Frozen, ABC):
    """What a camera's processing does to white noise: it correlates neighbouring pixels, or channels."""

    @abstractmethod
    def __call__(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Return noise of the same shape [B, C, H, W]; its strength may change."""


class Demosaicing(Spread):
    """One colour a pixel under an RGGB filter, the other two interpolated; one channel stays as it is."""

    type: Literal["demosaicing"] = "demosaicing"

    def __call__(self, noise: Tensor, generator: Generator | None = None) -> Tensor:  # noqa: ARG002 - draws nothing
        """Sample the mosaic and interpolate it bilinearly."""
        if noise.shape[1] != len(LUMA):
            return noise
        mosaic = torch.zeros_like(noise)
        for channel, rows, columns in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
            mosaic[:, channel, rows::2, columns::2] = noise[:, channel, rows::2, columns::2]
        sparse = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], device=noise.device) / 4
        dense = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]], device=noise.device) / 4
        kernels = torch.stack([sparse, dense, sparse])[:, None]
        return F.conv2d(F.pad(mosaic, (1, 1, 1, 1), mode="circular"), kernels, groups=3)


class Smoothing(Spread):
    """In-camera noise reduction: it blurs brightness a little and colour a lot, which leaves coloured blotches."""

    type: Literal["smoothing"] = "smoothing"
    luma: Range = Field((0, 1), description="standard deviation of the blur of brightness, in pixels")
    chroma: Range = Field((0, 2.5), description="the same for colour")
    chroma_strength: Range = Field((0.2, 1.5), description="RMS of the colour noise that is left, beside brightness")

    def __call__(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Blur brightness and colour apart."""
        weights = torch.tensor(LUMA if noise.shape[1] == len(LUMA) else (1.0,), device=noise.device)
        luma = torch.einsum("bchw,c->bhw", noise, weights)[:, None]
        chroma = noise - luma
        luma = _unit(_blur(luma, _draw(noise, self.luma, generator)))
        if noise.shape[1] != len(LUMA):
            return luma
        chroma = _unit(_blur(chroma, _draw(noise, self.chroma, generator)))
        return luma + chroma * _draw(noise, self.chroma_strength, generator)


class Resizing(Spread):
    """Digital zoom, or a sensor smaller than the picture: noise is stretched over more pixels."""

    type: Literal["resizing"] = "resizing"
    scale: ScaleRange = Field((1, 2), description="times as many pixels a side")

    def __call__(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Stretch a part of each frame over the whole, with bicubic interpolation."""
        scales = _draw(noise, self.scale, generator).flatten().tolist()
        return torch.cat([_stretched(frame[None], scale) for frame, scale in zip(noise, scales, strict=True)])


def _stretched(noise: Tensor, scale: float) -> Tensor:
    height, width = noise.shape[2:]
    part = noise[:, :, : math.ceil(height / scale), : math.ceil(width / scale)]
    return F.interpolate(part, (height, width), mode="bicubic", align_corners=False)


def _unit(noise: Tensor) -> Tensor:
    """Scale each frame to an RMS of 1."""
    return noise / root_mean_square(noise).clamp_min(1e-6).reshape(-1, 1, 1, 1)


def _blur(noise: Tensor, blur: Tensor) -> Tensor:
    """Blur each frame of the noise with a Gaussian of its own width [B, 1, 1, 1], in pixels."""
    height, width = noise.shape[2:]
    rows, columns = torch.fft.fftfreq(height, device=noise.device), torch.fft.rfftfreq(width, device=noise.device)
    frequency = rows[:, None].square() + columns.square()
    transfer = torch.exp(-2 * (math.pi * blur).square() * frequency)  # [B, 1, H, W / 2 + 1]
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * transfer, (height, width))
    return blurred


AnySpread = Annotated[Demosaicing | Smoothing | Resizing, Field(discriminator="type")]


class LowLight(Corruption):
    """Poisson-Gaussian noise in linear light: shot noise that grows with brightness, and read noise.

    A pixel that collects n of at most 1 / gain electrons has the variance gain * x + (gain * read)^2 at linear
    intensity x in 0..1 (Foi et al. 2008). What the camera does then is told by `spread`, in order; it changes how
    the noise is shared among neighbours and channels, not its RMS.
    """

    type: Literal["low_light"] = "low_light"
    gain: PositiveRange = Field((1e-4, 8e-3), description="1 / electrons at white, drawn log-uniformly")
    read: Range = Field((0, 4), description="read noise, electrons")
    spread: tuple[AnySpread, ...] = ()

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Add the noise in linear light and come back to file levels."""
        linear = clean.clamp(0, 1).pow(GAMMA)
        gain = _draw_log(clean, self.gain, generator)
        read = _draw(clean, self.read, generator)
        noise = _normal(clean, generator)
        for step in self.spread:
            noise = step(noise, generator)
        noise = _unit(noise) * (gain * linear + (gain * read).square()).sqrt()
        noisy = quantise((linear + noise).clamp_min(0).pow(1 / GAMMA))
        return Corrupted(noisy, noise_level(clean, noisy))


class SaltAndPepper(Corruption):
    """A share of the pixels turns black or white, as dead and hot pixels do."""

    type: Literal["salt_and_pepper"] = "salt_and_pepper"
    share: ShareRange = Field((0, 0.1), description="of all pixels")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Replace whole pixels, all channels alike."""
        share = _draw(clean, self.share, generator)
        draw = torch.rand(clean[:, :1].shape, generator=generator, device=clean.device)
        salted = torch.where(draw < share / 2, torch.zeros_like(clean), clean)
        noisy = quantise(torch.where(draw > 1 - share / 2, torch.ones_like(clean), salted))
        return Corrupted(noisy, noise_level(clean, noisy))


class Masking(Corruption):
    """A share of the pixels is set to zero: the corruption of Vincent et al. 2008."""

    type: Literal["masking"] = "masking"
    share: ShareRange = Field((0.25, 0.25), description="of all pixels")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Blacken whole pixels, all channels alike."""
        draw = torch.rand(clean[:, :1].shape, generator=generator, device=clean.device)
        noisy = quantise(clean * (draw >= _draw(clean, self.share, generator)))
        return Corrupted(noisy, noise_level(clean, noisy))


class Jpeg(Corruption):
    """Compression to JPEG and back, as nearly every camera does to its noisy frames; not differentiable.

    Artefacts do not count as noise, and noise that the compression wipes out does not count either: the level is that
    of the difference between the noisy frame and the clean one, both compressed alike.
    """

    type: Literal["jpeg"] = "jpeg"
    quality: QualityRange = Field((50, 95), description="libjpeg's scale, 1 to 100")
    noise: "AnyCorruption | None" = Field(None, description="what the frames meet before")

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Encode and decode every frame at a quality of its own."""
        low, high = self.quality
        qualities = torch.randint(low, high + 1, (len(clean),), generator=_on_cpu(generator)).tolist()
        if self.noise is None:
            return Corrupted(_coded(clean, qualities), clean.new_zeros(len(clean)))
        noisy = _coded(self.noise(clean, generator).frames, qualities)
        return Corrupted(noisy, noise_level(_coded(clean, qualities), noisy))


def _coded(frames: Tensor, qualities: Sequence[int]) -> Tensor:
    """Return [B, C, H, W] in 0..1 after a trip through libjpeg, frame by frame."""
    pixels = (quantise(frames) * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    coded = [_compressed(frame, quality) for frame, quality in zip(pixels, qualities, strict=True)]
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(frames.device, frames.dtype) / 255


def _compressed(frame: Pixels, quality: int) -> Pixels:
    """Return [H, W, C] uint8 after a trip through libjpeg, colour at half resolution as cameras store it."""
    _, code = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))  # OpenCV thinks in BGR
    mode = cv2.IMREAD_GRAYSCALE if frame.shape[2] == 1 else cv2.IMREAD_COLOR
    return np.asarray(cv2.imdecode(code, mode), np.uint8).reshape(frame.shape)[..., ::-1]


def _on_cpu(generator: Generator | None) -> Generator | None:
    """Return a generator for the CPU: a GPU's own is forked by one draw."""
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return Generator().manual_seed(int(seed))


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

    def __call__(self, clean: Tensor, generator: Generator | None = None) -> Corrupted:
        """Draw a choice for every frame."""
        weights = torch.tensor(self.weights, device=clean.device)
        drawn = torch.multinomial(weights, len(clean), replacement=True, generator=generator)
        noisy, levels = clean.clone(), clean.new_zeros(len(clean))
        for index, choice in enumerate(self.choices):
            chosen = drawn == index
            if chosen.any():
                noisy[chosen], levels[chosen] = choice(clean[chosen], generator)
        return Corrupted(noisy, levels)


AnyCorruption = Annotated[Gaussian | LowLight | SaltAndPepper | Masking | Jpeg | Mixture, Field(discriminator="type")]
Jpeg.model_rebuild()
Mixture.model_rebuild()
