"""The denoisers beside classical filters and published figures: noise, real noise, harm, cost, milliseconds, bf16.

`make bench-denoise DATA=...` exits with 1 where a must is missed. OpenVINO comes with the extra `openvino`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.denoising.bench import Bench, Section
from benchmarks.denoising.clean_frames import clean_frames
from benchmarks.denoising.cost import cost
from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.denoising.gallery import draw
from benchmarks.denoising.precision import precision
from benchmarks.denoising.real_noise import real_noise
from benchmarks.denoising.speed import speed
from benchmarks.denoising.white_noise import white_noise
from benchmarks.musts import judge
from benchmarks.report import Arguments, Report, parser
from benchmarks.shipped import able_to
from runtime.manifest import Task

PROTOCOL = (
    "outputs rounded to uint8; not clipped: noise added in float; clipped: clipped and rounded to uint8; "
    "seed of an image: 0 + its index by name; grey frames as three equal channels, PSNR on the mean of the answer's"
)
SECTIONS: tuple[Section, ...] = (white_noise, real_noise, clean_frames, cost, speed, precision)


@dataclass(frozen=True)
class Options(Arguments):
    """What this benchmark takes besides."""

    limit: int | None
    only: str | None
    pictures: Path | None


def main() -> None:
    """Print every table, the musts last."""
    options = _options()
    bench = Bench(_denoisers(options.only), options.data, options.limit, Report(PROTOCOL))
    musts = [must for section in SECTIONS for must in section(bench)]
    if options.pictures is not None:
        draw(bench, options.pictures)
    title = "Musts" if options.limit is None else f"Musts, by {options.limit} images a set: for a quick look only"
    judge(bench.report, musts, options.json, title)


def _options() -> Options:
    options = parser(__doc__)
    options.add_argument("--limit", type=int, metavar="N", help="only the first N images of a set, for a quick look")
    options.add_argument("--only", metavar="NAME", help="only this model")
    options.add_argument("--pictures", type=Path, metavar="DIR", help="also write pictures side by side to this folder")
    return Options(**vars(options.parse_args()))


def _denoisers(only: str | None) -> list[ShippedDenoiser]:
    found = [ShippedDenoiser(*opened) for opened in able_to(Task.DENOISE)]
    chosen = [denoiser for denoiser in found if only in {None, denoiser.name}]
    if not chosen:
        names = ", ".join(denoiser.name for denoiser in found) or "none"
        sys.exit(f"no such denoiser in models/; there is {names}")
    return chosen


if __name__ == "__main__":
    main()
