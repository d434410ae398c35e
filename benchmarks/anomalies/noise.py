"""What noise does to the verdicts, and whether our denoiser in front helps."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.anomalies.bench import Bench
from benchmarks.anomalies.footage import Footage
from benchmarks.denoising.denoiser import in_colour
from benchmarks.musts import Must
from runtime.images import Pixels
from runtime.model import Model
from training.card import Row
from training.evaluate import auroc, denoise
from training.graph import to_levels, to_unit
from training.noise import Corruption, Gaussian, LowLight

SIGMAS = (5, 10, 25, 50)
SEED = 0
BESIDE = 30  # frames to each side of the first change between normal and anomalous in a clip
GAINS = (1e-7, 1.0)  # between which the one that gives a sigma is looked for
HALVINGS = 24

Make = Callable[[float, Pixels], Corruption]
"""(sigma, a frame) -> noise of that RMS on such frames."""


def noise(bench: Bench) -> tuple[Must, ...]:
    """Report RAW AUROC of every shipped model on noisy frames, as they are and denoised."""
    footage = _around_changes(bench.footage)
    rows: list[Row] = [_row("clean", footage, bench)]
    conditions = [(name, make, sigma) for name, make in NOISES.items() for sigma in SIGMAS]
    for name, make, sigma in tqdm(conditions, "noise", disable=None):
        noisy = footage.showing(list(_noisy(footage, make(sigma, footage.frames.pixels[0]))))
        cleaned = footage.showing([_denoised(bench.denoiser, pixels) for pixels in noisy.frames.pixels])
        rows += [_row(f"{name}, sigma {sigma}", noisy, bench), _row(f"{name}, sigma {sigma}, denoised", cleaned, bench)]
    title = (
        f"RAW AUROC (%) in noise, {len(footage.frames)} frames: up to {BESIDE} to each side of the first change in a "
        f"clip, seed {SEED}; denoised blindly by {bench.denoiser.manifest.name}"
    )
    bench.report.add(title, rows)
    return ()


def _around_changes(footage: Footage) -> Footage:
    chosen = []
    for clip in footage.by_clip():
        changes = np.flatnonzero(np.diff(footage.anomalous[clip]))
        if len(changes):
            chosen.append(clip[max(0, changes[0] + 1 - BESIDE) : changes[0] + 1 + BESIDE])
    return footage.subset(np.concatenate(chosen))


def _row(condition: str, footage: Footage, bench: Bench) -> Row:
    found = {scorer.name: scorer.judge(footage.frames).scores for scorer in bench.models}
    return {"": condition} | {name: 100 * auroc(footage.anomalous, scores) for name, scores in found.items()}


def _noisy(footage: Footage, corruption: Corruption) -> Iterator[Pixels]:
    generator = torch.Generator().manual_seed(SEED)
    for pixels in footage.frames.pixels:
        corrupted = corruption(to_unit(torch.tensor(pixels[None])), generator)
        yield to_levels(corrupted.frames)[0].numpy()


def _denoised(denoiser: Model, pixels: Pixels) -> Pixels:
    return in_colour(lambda frame: denoise(denoiser, frame, denoiser.estimate_noise_level(frame)), pixels)


def _gaussian(sigma: float, frame: Pixels) -> Corruption:  # noqa: ARG001 - the same on every frame
    return Gaussian(sigma=(sigma, sigma))


def low_light(sigma: float, frame: Pixels) -> Corruption:
    """Return Poisson-Gaussian noise, the gain such that its RMS on a frame is `sigma`, by bisection."""
    unit = to_unit(torch.tensor(frame[None]))
    low, high = np.log(GAINS)
    for _ in range(HALVINGS):
        gain = float(np.exp((low + high) / 2))
        corruption = LowLight(gain=(gain, gain), read=(2, 2))
        noise = corruption(unit, torch.Generator().manual_seed(SEED)).frames - unit
        strong = 255 * float(noise.square().mean().sqrt()) > sigma
        low, high = (low, np.log(gain)) if strong else (np.log(gain), high)
    return corruption


NOISES: Mapping[str, Make] = {"Gaussian": _gaussian, "low light": low_light}
