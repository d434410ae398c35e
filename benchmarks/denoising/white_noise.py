"""White Gaussian noise on colour and grey photographs, in both protocols, and what not knowing its level costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.denoising import published
from benchmarks.denoising.bench import Bench
from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.denoising.protocol import CLIPPED, NOT_CLIPPED, Protocol
from benchmarks.musts import Must, Side
from runtime.images import Pixels
from training.baselines import FILTERS, Filter
from training.card import Row
from training.evaluate import TUNING_IMAGES, best_setting, psnr, ssim

SIGMAS = (5.0, 15.0, 25.0, 50.0)
FIRST = 34  # images of CBSD68, by name: the half on which others published figures for clipped noise
FIRST_NAME = f"CBSD68, first {FIRST} images"

MUST_NOT_CLIPPED = {15.0: 33.80, 25.0: 31.10, 50.0: 27.85}  # dB, CBSD68, level given
MUST_CLIPPED = {15.0: 33.55, 25.0: 30.80, 50.0: 27.60}  # dB, the first images, blind
MUST_LOSS = 0.10  # dB, blind against level given


@dataclass(frozen=True)
class PhotoSet:
    """Clean photographs, uint8 [h, w, c] each."""

    name: str
    clean: Sequence[Pixels]


@dataclass(frozen=True)
class Method:
    """What takes noise away."""

    name: str
    denoise: Callable[[npt.NDArray[Any], float], Pixels]
    """(noisy [h, w, c], sigma) -> uint8 [h, w, c]."""


@dataclass(frozen=True)
class Quality:
    """PSNR (dB) and SSIM of each image, [n]."""

    psnr: npt.NDArray[np.float64]
    ssim: npt.NDArray[np.float64]


Qualities = Mapping[str, Mapping[float, Quality]]
"""By method, by sigma."""


def white_noise(bench: Bench) -> list[Must]:
    """Report every method on every set in both protocols."""
    floating, clipped = {}, {}
    for photos in _photo_sets(bench):
        floating[photos.name] = _measure(bench, photos, NOT_CLIPPED, _on_floats(bench.denoisers))
        clipped[photos.name] = _measure(bench, photos, CLIPPED, _on_pixels(bench, photos))
        others = [_published_row(other.name, other.psnr[photos.name]) for other in published.NOT_CLIPPED]
        title = f"{photos.name}, {len(photos.clean)} images, white Gaussian noise"
        bench.report.add(f"{title}, {NOT_CLIPPED.name}", _rows(floating[photos.name]) + others)
        bench.report.add(f"{title}, {CLIPPED.name}", _rows(clipped[photos.name]))
    clipped[FIRST_NAME] = _first(clipped["CBSD68"])
    others = [_published_row(name, figures) for name, figures in published.CLIPPED_FIRST.items()]
    bench.report.add(f"{FIRST_NAME}, white Gaussian noise, {CLIPPED.name}", _rows(clipped[FIRST_NAME]) + others)
    names = [denoiser.name for denoiser in bench.denoisers]
    losses = [_loss_row(name, photos, found) for name in names for photos, found in clipped.items()]
    bench.report.add("Blind against level given, clipped: dB lost", losses)
    return list(_musts(names, floating["CBSD68"], clipped[FIRST_NAME]))


def _photo_sets(bench: Bench) -> Iterator[PhotoSet]:
    yield PhotoSet("CBSD68", bench.photographs("bsds500/cbsd68"))
    yield PhotoSet("Set12", bench.photographs("set12", channels=1))
    yield PhotoSet("BSD68", bench.photographs("bsds500/cbsd68", channels=1))


def _on_floats(denoisers: Sequence[ShippedDenoiser]) -> list[Method]:
    return [Method(_given(denoiser.name), denoiser.given_floats) for denoiser in denoisers]


def _on_pixels(bench: Bench, photos: PhotoSet) -> list[Method]:
    methods = [Method("noisy input", lambda noisy, _: noisy)]
    for denoiser in bench.denoisers:
        methods += [Method(_given(denoiser.name), denoiser.given), _untold(denoiser)]
    return methods + [_tuned(bench, classical, photos) for classical in FILTERS]


def _untold(denoiser: ShippedDenoiser) -> Method:
    return Method(_blind(denoiser.name), lambda noisy, _: denoiser.blind(noisy))


def _given(name: str) -> str:
    return f"{name}, level given"


def _blind(name: str) -> str:
    return f"{name}, blind"


def _tuned(bench: Bench, classical: Filter, photos: PhotoSet) -> Method:
    """Tell a filter the level and, for each, its best setting on the first images of the very set, in its favour."""
    clean = photos.clean[:TUNING_IMAGES]

    def tune(sigma: float) -> float:
        noisy = [CLIPPED.noisy(pixels, sigma, index) for index, pixels in enumerate(clean)]
        return best_setting(classical, sigma, noisy, clean)

    settings = dict(zip(SIGMAS, bench.each(f"{photos.name}, settings of {classical.name}", tune, SIGMAS), strict=True))
    return Method(
        f"{classical.name}, level given",
        lambda noisy, sigma: classical.apply(noisy, sigma, settings[sigma]).reshape(noisy.shape),
    )


def _measure(bench: Bench, photos: PhotoSet, protocol: Protocol, methods: Sequence[Method]) -> Qualities:
    return {
        method.name: {sigma: _quality(bench, photos, protocol, method, sigma) for sigma in SIGMAS} for method in methods
    }


def _quality(bench: Bench, photos: PhotoSet, protocol: Protocol, method: Method, sigma: float) -> Quality:
    def compare(index: int) -> tuple[float, float]:
        clean = photos.clean[index]
        result = method.denoise(protocol.noisy(clean, sigma, index), sigma)
        return psnr(clean, result), ssim(clean, result)

    what = f"{photos.name}, {protocol.name}, sigma {sigma:g}, {method.name}"
    found = np.array(bench.each(what, compare, range(len(photos.clean))))
    return Quality(psnr=found[:, 0], ssim=found[:, 1])


def _first(qualities: Qualities) -> Qualities:
    return {
        method: {sigma: Quality(found.psnr[:FIRST], found.ssim[:FIRST]) for sigma, found in by_sigma.items()}
        for method, by_sigma in qualities.items()
    }


def _rows(qualities: Qualities) -> list[Row]:
    rows: list[Row] = []
    for method, by_sigma in qualities.items():
        levels = {_psnr_at(sigma): float(found.psnr.mean()) for sigma, found in by_sigma.items()}
        similarities = {f"SSIM at {sigma:g}": float(found.ssim.mean()) for sigma, found in by_sigma.items()}
        rows.append({"": method, **levels, **similarities})
    return rows


def _published_row(name: str, figures: published.Triple) -> Row:
    levels = {_psnr_at(sigma): figure for sigma, figure in zip(published.SIGMAS, figures, strict=True)}
    return {"": published.label(name), **levels}


def _psnr_at(sigma: float) -> str:
    return f"PSNR at {sigma:g} (dB)"


def _loss(name: str, sigma: float, qualities: Qualities) -> float:
    return _mean(_given(name), sigma, qualities) - _mean(_blind(name), sigma, qualities)


def _mean(method: str, sigma: float, qualities: Qualities) -> float:
    return float(qualities[method][sigma].psnr.mean())


def _loss_row(name: str, photos: str, qualities: Qualities) -> Row:
    return {"": f"{name}, {photos}", **{f"at {sigma:g} (dB)": _loss(name, sigma, qualities) for sigma in SIGMAS}}


def _musts(names: Sequence[str], floating: Qualities, clipped: Qualities) -> Iterator[Must]:
    for sigma, wanted in MUST_NOT_CLIPPED.items():
        figures = {name: _mean(_given(name), sigma, floating) for name in names}
        yield Must(f"CBSD68, not clipped, level given, sigma {sigma:g}, PSNR (dB)", Side.AT_LEAST, wanted, figures)
    for sigma, wanted in MUST_CLIPPED.items():
        figures = {name: _mean(_blind(name), sigma, clipped) for name in names}
        yield Must(f"{FIRST_NAME}, clipped, blind, sigma {sigma:g}, PSNR (dB)", Side.AT_LEAST, wanted, figures)
    for sigma in SIGMAS:
        figures = {name: _loss(name, sigma, clipped) for name in names}
        yield Must(f"{FIRST_NAME}, clipped, blind, sigma {sigma:g}, loss (dB)", Side.AT_MOST, MUST_LOSS, figures)
