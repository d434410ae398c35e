"""What a denoiser costs on any machine: weights and multiply-accumulates."""

from benchmarks.denoising import published
from benchmarks.denoising.bench import Bench
from benchmarks.denoising.macs import multiply_accumulates
from benchmarks.musts import Must, Side
from training.card import Row

SIDE = 256  # pixels
MUST_GMAC = {"denoiser-fast": 5.0, "denoiser": 14.0}

PARAMETERS, GMAC = "weights (millions)", f"GMAC for {SIDE} x {SIDE}"


def cost(bench: Bench) -> list[Must]:
    """Report ours, with the noise estimator that a blind run needs, beside the published."""
    gmac = {
        denoiser.name: sum(multiply_accumulates(path, SIDE, SIDE) for path in denoiser.graphs) / 1e9
        for denoiser in bench.denoisers
    }
    rows: list[Row] = [
        {"": denoiser.name, PARAMETERS: denoiser.model.manifest.parameters / 1e6, GMAC: gmac[denoiser.name]}
        for denoiser in bench.denoisers
    ]
    rows += [
        {"": published.label(other.name), PARAMETERS: other.parameters or "", GMAC: other.gmac or ""}
        for other in published.NOT_CLIPPED
    ]
    bench.report.add("Cost", rows)
    return [
        Must(f"{name}, {GMAC}", Side.AT_MOST, wanted, {name: gmac[name]})
        for name, wanted in MUST_GMAC.items()
        if name in gmac
    ]
