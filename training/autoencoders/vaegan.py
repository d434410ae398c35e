"""The variational autoencoder with an adversarial decoder (VAE-GAN, Larsen et al. 2016).

A discriminator D learns to tell frames x from what the decoder makes of codes q(z|x) and of codes N(0, I), both called
x'. The decoder learns to be taken for real, and reconstructions are also compared in D's features D_l, which look at
strokes and edges where a sum over pixels looks at each pixel by itself. The loss is what the two minimise,

    -E log p(x|z) + beta KL(q(z|x) || N(0, I)) + lambda_f |D_l(x) - D_l(x')|^2 - lambda_a E log s(D(x'))
    - E log s(D(x)) - E log s(-D(x')),

s being the sigmoid. One backward pass serves both players: in the first line D's weights are constants, in the second
x' is. Two things are unlike Larsen et al.: they compare reconstructions in D's features only, and here the pixels'
log p(x|z) stays; their encoder learns nothing from deceiving D, and here that gradient goes through reconstructions
into the encoder too. Spectral normalisation (Miyato et al. 2018) bounds D's slopes, and with them what it can do to
the decoder.
"""

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from runtime.manifest import Task
from training.autoencoders.base import AutoencoderConfig, FrameShape, Losses, register
from training.autoencoders.variational import GaussianCode, kl_divergence, reparameterise
from training.layers import (
    ConvolutionalDecoder,
    bernoulli_log_prob,
    convolutional_encoder,
    grid_shape,
    squared_error,
)


class VaeGanConfig(AutoencoderConfig):
    """Settings of the vaegan kind."""

    kind: Literal["vaegan"] = "vaegan"
    widths: tuple[int, ...] = Field((16, 32, 64), min_length=1, description="channels; each halves the size")
    latent_dim: int = Field(32, ge=1)
    beta: float = Field(1, gt=0, description="weight of the KL divergence")
    features: float = Field(1, ge=0, description="lambda_f, weight of the error in the discriminator's features")
    adversarial: float = Field(20, ge=0, description="lambda_a, weight of being taken for real, against nats a frame")


class Discriminator(nn.Module):
    """Frames [B, C, H, W] -> features [B, C', h, w], and the logit of being real [B]."""

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((shape[0], *widths)):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.head = spectral_norm(nn.Linear(math.prod(grid_shape(shape, widths)), 1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        features = self.body(frames)
        return features, self.head(features.flatten(1))[:, 0]

    def constant(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same; gradients go through to the frames, and not to the weights."""
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        judged: tuple[Tensor, Tensor] = functional_call(self, weights, (frames,))
        return judged


@register
class VaeGan(GaussianCode):
    """Convolutional, with a Bernoulli likelihood in which grey levels count as probabilities."""

    Config = VaeGanConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.ENCODE, Task.SAMPLE})

    def __init__(self, config: VaeGanConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        self.encoder = convolutional_encoder(shape.fixed, config.widths, 2 * config.latent_dim)
        self.decoder = ConvolutionalDecoder(shape.fixed, config.widths, config.latent_dim)
        self.discriminator = Discriminator(shape.fixed, config.widths)

    @property
    def latent_dim(self) -> int:
        """Dimensions of z."""
        return self.config.latent_dim

    def loss(self, frames: Tensor) -> Losses:
        """Return what both players minimise, in nats a frame but for the two weights."""
        mu, log_var = self.posterior(frames)
        logits = self.decoder(reparameterise(mu, log_var))
        pixels = -bernoulli_log_prob(frames, logits).mean()
        kl = kl_divergence(mu, log_var).mean()
        made = torch.cat([torch.sigmoid(logits), self.decode(torch.randn_like(mu))])
        strokes, real = self.discriminator(frames)
        features, taken = self.discriminator.constant(made)
        likeness = squared_error(strokes.detach(), features[: len(frames)])
        deception = F.softplus(-taken).mean()
        discrimination = F.softplus(-real).mean() + F.softplus(self.discriminator(made.detach())[1]).mean()
        total = (
            pixels
            + self.config.beta * kl
            + self.config.features * likeness
            + self.config.adversarial * deception
            + discrimination
        )
        parts = {"negative_log_prob": pixels, "kl": kl, "feature_error": likeness, "deception": deception,
                 "discrimination": discrimination}  # fmt: skip
        return Losses(total, parts)
