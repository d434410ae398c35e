"""The model card: what a model is, how good, on what, and where it fails; written from the manifest alone."""

from collections.abc import Iterator
from pathlib import Path

from runtime.manifest import Manifest, Metric
from runtime.model import Model
from training.data import Frames
from training.pictures import draw

CAPTIONS = {
    "denoised.jpg": "Held-out frames with Gaussian noise, sigma 25 | denoised blindly | clean.",
    "reconstructions.jpg": "Held-out frames, their reconstructions and, where calibrated, their heat maps.",
    "samples.jpg": "Samples: latents drawn from N(0, I), decoded.",
    "interpolations.jpg": "Walks through the latent space from one held-out frame to another.",
    "roc.png": "Test frames under one threshold, beside what learns nothing.",
    "scores.png": "Scores of normal and anomalous test frames.",
}


def write_card(model: Model, folder: Path, frames: Frames, seed: int = 0) -> None:
    """Draw the pictures from held-out frames and write README.md."""
    draw(model, folder, frames, seed)
    write_text(model.manifest, folder)


def write_text(manifest: Manifest, folder: Path) -> None:
    """Write README.md around the pictures that are in the folder."""
    lines = [*_facts(manifest), *_pictures(folder), *_figures(manifest.metrics), *_training(manifest)]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _facts(manifest: Manifest) -> Iterator[str]:
    size = manifest.input
    frame = "any size" if size.height is None else f"{size.width} x {size.height} (others are scaled)"
    yield from (f"# {manifest.name}", "", manifest.description, "", "| | |", "|---|---|")
    yield f"| kind | {manifest.kind} autoencoder, version {manifest.version} |"
    yield f"| tasks | {', '.join(manifest.tasks)} |"
    yield f"| frames | {frame}, {'grey' if size.channels == 1 else 'colour'} |"
    yield f"| weights | {manifest.parameters:,} |"
    if manifest.latent_dim is not None:
        yield f"| latent_dim | {manifest.latent_dim} |"
    if manifest.calibration is not None:
        cal = manifest.calibration
        yield f"| default threshold | {cal.threshold:.6g}, for a false-alarm rate of {cal.false_alarm_rate:g} a frame |"
        yield f"| calibrated on | {cal.source} |"
    yield f"| licence | {manifest.licence} |"
    yield ""


def _pictures(folder: Path) -> Iterator[str]:
    for file, caption in CAPTIONS.items():
        if (folder / file).is_file():
            yield from (f"![{caption}]({file})", "", f"*{caption}*", "")


def _figures(metrics: tuple[Metric, ...]) -> Iterator[str]:
    """Yield one table for each data set and protocol: a row for each method, a column for each figure."""
    if metrics:
        yield from ("## Figures", "")
    for data_set, protocol in dict.fromkeys((metric.data_set, metric.protocol) for metric in metrics):
        chosen = [metric for metric in metrics if (metric.data_set, metric.protocol) == (data_set, protocol)]
        columns = list(dict.fromkeys(metric.name + (f" ({metric.unit})" if metric.unit else "") for metric in chosen))
        cells = {(m.method, m.name + (f" ({m.unit})" if m.unit else "")): f"{m.value:.4g}" for m in chosen}
        yield from (f"{data_set}: {protocol}.", "")
        yield "| " + " | ".join(["", *columns]) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for method in dict.fromkeys(metric.method for metric in chosen):
            yield "| " + " | ".join([method, *(cells.get((method, column), "") for column in columns)]) + " |"
        yield ""


def _training(manifest: Manifest) -> Iterator[str]:
    origin = manifest.provenance
    limits = origin.config.get("limitations") if isinstance(origin.config, dict) else None
    if limits:
        yield from ("## Where it fails", "", str(limits).strip(), "")
    versions = ", ".join(f"{name} {version}" for name, version in origin.libraries.items())
    yield from ("## Make it again", "", "```", f"python -m training make {manifest.name} --data DATA", "```", "")
    yield f"Made at commit `{origin.commit}` with {versions}. The resolved recipe is in `manifest.json`."
    yield ""
