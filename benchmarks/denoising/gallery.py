"""Pictures side by side, for those who would rather look than read."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.denoising.bench import Bench
from benchmarks.denoising.protocol import CLIPPED
from runtime.images import ImageFormat, Pixels, encode, read
from training.baselines import FILTERS
from training.card import Row
from training.evaluate import psnr
from training.pictures import mosaic

CROP = 112  # pixels
ZOOM = 2
QUALITY = 85  # of the JPEG: noise is dear, and a page should load
FILE = "denoising.jpg"


@dataclass(frozen=True)
class Example:
    """A detail of a photograph, uint8 [CROP, CROP, 3], clean and noisy."""

    name: str
    clean: Pixels
    noisy: Pixels


@dataclass(frozen=True)
class Detail:
    """A square of the photograph at `path`, below the data folder."""

    path: str
    top: int
    left: int

    def cut(self, data: Path) -> Pixels:
        """Return uint8 [CROP, CROP, 3]."""
        pixels = read(data / self.path, channels=3).pixels
        return pixels[self.top : self.top + CROP, self.left : self.left + CROP]


WHITE = {
    15.0: Detail("bsds500/cbsd68/119082.jpg", 60, 300),
    25.0: Detail("bsds500/cbsd68/253027.jpg", 100, 150),
    50.0: Detail("bsds500/cbsd68/157055.jpg", 40, 90),
}
"""By the sigma to add."""
REAL_NOISY, REAL_CLEAN = (Detail(f"nam25/{name}.png", 40, 60) for name in ("noisy/17_noise", "gt/17_gt"))


def draw(bench: Bench, folder: Path) -> None:
    """Write one sheet, a row an example: clean, noisy, the best classical filter, each of ours, blind."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: list[list[Pixels]] = []
    rows: list[Row] = []
    for example in _examples(bench.data):
        columns = {"noisy": example.noisy, "best classical": _best_classical(example)}
        columns |= {denoiser.name: denoiser.blind(example.noisy) for denoiser in bench.denoisers}
        pictures.append([_enlarged(pixels) for pixels in (example.clean, *columns.values())])
        quality = {f"{name} (dB)": psnr(example.clean, pixels) for name, pixels in columns.items()}
        rows.append({"": example.name, **quality})
    (folder / FILE).write_bytes(encode(mosaic(pictures), ImageFormat.JPEG, quality=QUALITY))
    bench.report.add(f"The rows of {FILE}, clean pictures first: PSNR of its other columns", rows)


def _examples(data: Path) -> Iterator[Example]:
    for index, (sigma, detail) in enumerate(WHITE.items()):
        clean = detail.cut(data)
        yield Example(f"{detail.path}, sigma {sigma:g}", clean, CLIPPED.noisy(clean, sigma, index))
    yield Example(REAL_NOISY.path, REAL_CLEAN.cut(data), REAL_NOISY.cut(data))


def _best_classical(example: Example) -> Pixels:
    """Return the filter and setting that come closest, told the true RMS error: all in their favour."""
    sigma = float(np.sqrt(np.mean((example.noisy - example.clean.astype(np.float64)) ** 2)))
    results = [filtered.apply(example.noisy, sigma, setting) for filtered in FILTERS for setting in filtered.settings]
    return max(results, key=lambda result: psnr(example.clean, result))


def _enlarged(pixels: Pixels) -> Pixels:
    return pixels.repeat(ZOOM, 0).repeat(ZOOM, 1)
