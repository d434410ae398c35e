"""The vector-quantised autoencoder (van den Oord et al. 2017): a grid of discrete codes, and a PixelCNN as their prior.

The encoder gives a vector z for each cell of a grid, and the nearest of K codes, e, is what the decoder gets. The loss
is -log p(x|e) + beta |z - e|^2 - log p(k), in nats a frame: the decoder's likelihood, whose gradient is passed straight
through the rounding; the encoder's commitment to the codes that it has chosen; and a gated PixelCNN's surprise at the
indices k of the codes, which teaches the PixelCNN alone. -log p(x|e) - log p(k) is an upper bound of -log p(x). The
PixelCNN draws a sample cell by cell, which is then decoded; what it finds improbable in a frame is the anomaly.
"""

import math
from typing import Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field, model_validator
from torch import Tensor, nn

from runtime.manifest import Task
from training.autoencoders.base import FrameShape, Losses, register
from training.codebook import Codebook, straight_through
from training.layers import doublings, grid_shape, halvings, squared_error
from training.likelihood import LikelihoodAutoencoder, LikelihoodConfig
from training.pixelcnn import PixelCnn

ANOMALY = "the prior's surprise at the codes, the pixels' error, or both as nats of one likelihood"


class VqConfig(LikelihoodConfig):
    """Settings of the vq kind."""

    kind: Literal["vq"] = "vq"
    widths: tuple[int, ...] = Field((32, 64), min_length=1, description="channels; each halves the size of the grid")
    codes: int = Field(64, ge=2, description="K, how many there are")
    code_dim: int = Field(16, ge=1, description="numbers in a code")
    decay: float = Field(0.99, gt=0, lt=1, description="of the moving averages that the codes are")
    commitment: float = Field(0.25, gt=0, description="beta, how strongly the encoder is held to its codes")
    prior_width: int = Field(32, ge=1, description="channels of the PixelCNN")
    prior_layers: int = Field(5, ge=1, description="of the PixelCNN; it looks back one cell more than it has layers")
    likelihood: Literal["bernoulli", "gaussian"] = "gaussian"
    anomaly: Literal["likelihood", "error", "both"] = Field("likelihood", description=ANOMALY)

    @model_validator(mode="after")
    def _anomaly_fits(self) -> Self:
        if self.anomaly == "both" and self.likelihood != "gaussian":
            raise ValueError("anomaly: both weighs the error by the learnt variance: the likelihood must be gaussian")
        return self


@register
class Vq(LikelihoodAutoencoder):
    """Convolutional; its code is a grid of indices [B, h, w], a latent is one normal number for each cell."""

    Config = VqConfig
    config: VqConfig
    tasks = frozenset({Task.RECONSTRUCT, Task.SCORE, Task.SAMPLE})

    def __init__(self, config: VqConfig, shape: FrameShape) -> None:
        super().__init__(shape)
        self.config = config
        channels, *_ = fixed = shape.fixed
        width, *self.grid = grid_shape(fixed, config.widths)
        self.encoder = nn.Sequential(*halvings(channels, config.widths), nn.Conv2d(width, config.code_dim, 1))
        self.codebook = Codebook(config.codes, config.code_dim, config.decay)
        self.decoder = nn.Sequential(
            nn.Conv2d(config.code_dim, width, 3, padding=1), *doublings(channels, config.widths)
        )
        self.prior = PixelCnn(config.codes, (self.grid[0], self.grid[1]), config.prior_width, config.prior_layers)
        self._make_scale()

    @property
    def latent_dim(self) -> int:
        """Cells of the grid: each is drawn with one number."""
        return math.prod(self.grid)

    def encode(self, frames: Tensor) -> Tensor:
        """Return the indices of the codes, [B, h, w]."""
        return self.codebook.nearest(self.encoder(frames))

    def decode(self, code: Tensor) -> Tensor:
        """Return the mean of p(x|e), [B, h, w] -> [B, C, H, W]."""
        return torch.sigmoid(self._logits(self.codebook.look_up(code)))

    def _logits(self, vectors: Tensor) -> Tensor:
        _, height, width = self.shape.fixed
        logits: Tensor = self.decoder(vectors)
        return logits[:, :, :height, :width]  # what the halvings had rounded up

    def sample(self, latent: Tensor) -> Tensor:
        """Draw a grid from the prior and decode it: each number's share of the normal distribution chooses a code."""
        return self.decode(self.prior.draw(torch.special.ndtr(latent)))

    def loss(self, frames: Tensor) -> Losses:
        """Return the negative log-likelihoods of pixels and codes and the commitment, in nats a frame."""
        frames = self.seen(frames)
        vectors = self.encoder(frames)
        indices = self.codebook.nearest(vectors)
        codes = self.codebook.look_up(indices)
        pixels = -self.log_prob(frames, straight_through(vectors, codes)).mean()
        commitment = self.config.commitment * squared_error(vectors, codes)
        surprise = self.prior.negative_log_prob(indices).sum((1, 2)).mean()
        if self.training:
            self.codebook.follow(vectors, indices)
        parts = {"negative_log_prob": pixels, "commitment": commitment, "code_surprise": surprise}
        return Losses(pixels + commitment + surprise, parts)

    def log_prob(self, frames: Tensor, vectors: Tensor) -> Tensor:
        """Return log p(x|e) in nats, [B]; `vectors` are the codes e [B, D, h, w]."""
        return self._log_prob(frames, self._logits(vectors))

    def anomaly_map(self, code: Tensor, error: Tensor) -> Tensor:
        """Return [B, H, W]: the prior's surprise in nats a pixel, the pixels' error, or their sum in nats a pixel."""
        if self.config.anomaly == "error":
            return error
        channels, height, width = self.shape.fixed
        side = 1 << len(self.config.widths)  # pixels of a cell
        surprise = self.prior.negative_log_prob(code)[:, None] / side**2
        large = F.interpolate(surprise, scale_factor=side, mode="bilinear")[:, 0, :height, :width]
        if self.config.anomaly == "likelihood":
            return large
        return large + channels * error / (2 * (2 * self.log_scale).exp())

    def bound(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return -log p(x|e) and -log p(k) in nats, [B] each: their sum is no less than -log p(x)."""
        code = self.encode(frames)
        surprise = self.prior.negative_log_prob(code).sum((1, 2))
        return -self.log_prob(frames, self.codebook.look_up(code)), surprise

    def measure(self, frames: Tensor) -> dict[tuple[str, str], float]:
        """Return the bound of log p(x) and the bits that a code costs, of held-out frames."""
        pixels, surprise = self.bound(self.seen(frames))
        return {
            ("bound of log p(x)", "nats a frame"): float(-(pixels + surprise).mean()),
            ("code", "bits a cell"): float(surprise.mean()) / self.latent_dim / math.log(2),
        }
