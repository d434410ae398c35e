"""What 16-bit arithmetic costs: the same file in fp32 and with OpenVINO asked for bf16."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from benchmarks.denoising.bench import Bench
from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.denoising.engines import ONNXRUNTIME, OPENVINO_BF16, OpenGraph, has_openvino
from benchmarks.denoising.protocol import CLIPPED
from benchmarks.denoising.white_noise import SIGMAS
from benchmarks.musts import Must
from runtime.devices import usable_cores
from runtime.images import Pixels
from training.card import Row
from training.evaluate import psnr

IMAGES = 8


def precision(bench: Bench) -> tuple[Must, ...]:
    """Report the PSNR lost on the first images of CBSD68, clipped, level given."""
    clean = bench.photographs("bsds500/cbsd68")[:IMAGES]
    rows = [_row(denoiser, clean) for denoiser in bench.denoisers] if has_openvino() else [_ABSENT]
    title = f"bf16 against fp32 ({ONNXRUNTIME.name}): dB lost on the first {len(clean)} images of CBSD68, clipped"
    bench.report.add(title, rows)
    return ()


def _column(sigma: float) -> str:
    return f"at {sigma:g} (dB)"


_ABSENT: Row = {"": OPENVINO_BF16.name, "convolutions ran in": "not installed", **{_column(s): "" for s in SIGMAS}}


def _row(denoiser: ShippedDenoiser, clean: Sequence[Pixels]) -> Row:
    exact, short = (engine.open(denoiser.graph, usable_cores()) for engine in (ONNXRUNTIME, OPENVINO_BF16))
    bar = tqdm(SIGMAS, f"precision of {denoiser.name}", disable=None)
    losses = {_column(sigma): _mean_psnr(exact, clean, sigma) - _mean_psnr(short, clean, sigma) for sigma in bar}
    return {"": f"{denoiser.name}, {OPENVINO_BF16.name}", "convolutions ran in": short.precision, **losses}


def _mean_psnr(graph: OpenGraph, clean: Sequence[Pixels], sigma: float) -> float:
    level = np.array([sigma], np.float32)
    return float(
        np.mean(
            [
                psnr(pixels, graph.run(CLIPPED.noisy(pixels, sigma, index)[None], level)[0])
                for index, pixels in enumerate(clean)
            ]
        )
    )
