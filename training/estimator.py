"""A small network that tells the noise level of frames from the frames alone."""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from tqdm import tqdm

from training.noise import Corrupted

UNSHUFFLE = 2
RATE = 2e-3  # Adam's, at the start of its cosine
UNIT = 10 / 255  # noise of this level has the magnitude 1 inside the network
CELL = 4  # pixels a side that are judged as one
DRAWN_REACH = 2  # cells around flat ones that the edge of what was drawn may reach into
SMALLEST_DETAIL = 1e-3  # a tenth of what one pixel makes that is one of 255 levels off
LEAST_SHARE = 1 / 8  # of a frame: with less left to judge by, all of it counts


class NoiseEstimator(nn.Module):
    """Two bands of the frame, free of brightness, through convolutions to one mean over the frame.

    The fine band shows white noise; the coarse one, of 4x4 block means, the blotches that a camera's smoothing makes
    of it. Every position gives a level and a say; the level of the frame is their weighted mean, so that flat areas,
    where noise is easy to see, may speak louder than textures.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            _conv(channels * UNSHUFFLE**2, width), nn.ReLU(inplace=True),
            _conv(width, width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 2, stride=2), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.body = nn.Sequential(
            _conv(width + 2 * channels, 2 * width), nn.ReLU(inplace=True),
            _conv(2 * width, 2 * width), nn.ReLU(inplace=True),
            _conv(2 * width, 2),
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        """[B, C, H, W] in 0..1 -> [B], noise level in 0..1. Height and width are multiples of 4."""
        detail = _detail(frames)
        fine = self.fine(F.pixel_unshuffle(detail, UNSHUFFLE))
        coarse = F.avg_pool2d(frames, CELL)
        # Brightness goes along, for noise is clipped in the dark.
        features: Tensor = self.body(torch.cat([fine, _detail(coarse), coarse], 1)).float()
        level, say = features[:, 0], features[:, 1].clamp(-8, 8).exp() * _alive(detail)  # [B, h, w] each
        mean: Tensor = (F.softplus(level) * say).sum((1, 2)) / say.sum((1, 2))
        return mean * UNIT


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    # Zeros around the frame would look like less noise, and the more so the smaller the frame.
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _detail(frames: Tensor) -> Tensor:
    """Return what is left of [B, C, H, W] without the mean of each 3x3 neighbourhood, in units of the network."""
    return (frames - F.avg_pool2d(frames, 3, stride=1, padding=1, count_include_pad=False)) / UNIT


def _alive(detail: Tensor) -> Tensor:
    """Return 1 for the cells of `detail` [B, C, H, W] that are neither flat nor next to such, else 0: [B, h, w]."""
    flat = (F.max_pool2d(detail.abs().amax(1), CELL) < SMALLEST_DETAIL).float()
    alive = 1 - F.max_pool2d(flat, 2 * DRAWN_REACH + 1, stride=1, padding=DRAWN_REACH)
    return torch.where(alive.mean((1, 2), keepdim=True) < LEAST_SHARE, torch.ones_like(alive), alive)


def misjudgement(estimate: Tensor, level: Tensor) -> Tensor:
    """Return how far estimates [B] are from levels [B], both 0..1: |log ratio|, with one level of 255 for free."""
    return torch.log((estimate * 255 + 1) / (level * 255 + 1)).abs()


def fit(
    estimator: NoiseEstimator,
    corrupt: Callable[[Tensor], Corrupted],
    batches: Callable[[], Iterable[Tensor]],
    steps: int,
) -> None:
    """Train with Adam on `steps` of the clean frames [B, C, H, W] in 0..1 that `batches()` yields, pass after pass."""
    optimiser = torch.optim.Adam(estimator.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    bar = tqdm(total=steps, desc="noise estimator", unit="step", mininterval=1, disable=None)
    for _, frames in zip(range(steps), _endless(batches), strict=False):
        noisy, level = corrupt(frames)
        error = misjudgement(estimator(noisy), level / 255).mean()
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if bar.update(1):
            bar.set_postfix(misjudged=f"{float(error.detach()):.3f}", refresh=False)
    bar.close()


def _endless(batches: Callable[[], Iterable[Tensor]]) -> Iterator[Tensor]:
    while True:
        yield from batches()
