"""The denoisers against classical filters: PSNR and SSIM, real camera noise, harm to clean frames, milliseconds.

White Gaussian noise is clipped and rounded to uint8, and so is every output. `make bench-denoise DATA=...`
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.report import Report, arguments
from benchmarks.shipped import able_to, run_checks
from runtime.images import SUFFIXES, Pixels, read
from runtime.manifest import Task, read_manifest
from runtime.model import Model
from training.card import Row
from training.config import DenoisingCheck
from training.data import DataConfig, Source, load
from training.evaluate import denoise, psnr

SIZES = {"256x256": (256, 256), "640x480": (480, 640), "1920x1080": (1080, 1920)}
RUNS = 5


def main() -> None:
    """Print every table."""
    options = arguments(__doc__)
    report = Report("see benchmarks/denoise.py; seed 0")
    for folder, model in able_to(Task.DENOISE):
        run_checks(report, folder, model, DenoisingCheck, options.data)
        real = list(_real_noise(model, options.data / "nam25"))
        report.add(f"{folder.name}, blind, on real camera noise and on frames without noise", real)
        report.add(f"{folder.name}, milliseconds a frame, median of {RUNS}", list(_speed(folder)))
    report.write(options.json)


def _real_noise(model: Model, nam25: Path) -> Iterator[Row]:
    noisy, clean = _images(nam25 / "noisy"), _images(nam25 / "gt")
    yield {"": "Nam25, noisy input", "PSNR (dB)": _mean_psnr(clean, noisy), "estimated level": ""}
    yield _blind("Nam25, denoised", model, clean, noisy)
    yield _blind("Nam25's clean images, denoised", model, clean, clean)
    config = DataConfig(sources=(Source(path="set12"),), channels=3, minimum_frames=1)
    grey = load(config, nam25.parent).pixels
    yield _blind("Set12's clean images, denoised", model, grey, grey)


def _images(folder: Path) -> list[Pixels]:
    """Read the images of a folder in the order of their names: pairs are numbered alike."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    return [read(path, channels=3).pixels for path in paths]


def _blind(name: str, model: Model, clean: list[Pixels], noisy: list[Pixels]) -> Row:
    levels = [model.estimate_noise_level(pixels) for pixels in noisy]
    results = [denoise(model, pixels, level) for pixels, level in zip(noisy, levels, strict=True)]
    return {"": name, "PSNR (dB)": _mean_psnr(clean, results), "estimated level": float(np.mean(levels))}


def _mean_psnr(clean: list[Pixels], other: list[Pixels]) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(clean, other, strict=True)]))


def _speed(folder: Path) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    graph = read_manifest(folder).graphs.autoencoder.file
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession((folder / graph).read_bytes(), options, providers=["CPUExecutionProvider"])
        row: dict[str, str | float] = {"": f"onnxruntime, fp32, {threads} threads"}
        for name, size in SIZES.items():
            inputs = {
                "frames": rng.integers(0, 256, (1, *size, 3), np.uint8),
                "noise_level": np.array([25], np.float32),
            }
            session.run(None, inputs)
            row[name] = float(np.median([_timed(session, inputs) for _ in range(RUNS)]))
        yield row


def _timed(
    session: ort.InferenceSession, inputs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
) -> float:
    start = time.perf_counter()
    session.run(None, inputs)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
