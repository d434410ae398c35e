"""The model card: what a model is, how good, on what, and where it fails; written from the manifest alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from runtime.manifest import Manifest, Metric
from runtime.model import Model
from training.data import Frames
from training.pictures import draw

CAPTIONS = {
    "camera.jpg": "Held-out patches | by the general model | by this one | means of other frames.",
    "camera-noise.png": "The camera's noise.",
    "denoised.jpg": "Held-out frames with Gaussian noise, sigma 25 | denoised blindly | clean.",
    "reconstructions.jpg": "Held-out frames, their reconstructions and, where calibrated, their heat maps.",
    "samples.jpg": "Samples: latents drawn from N(0, I), decoded.",
    "interpolations.jpg": "Walks through the latent space from one held-out frame to another.",
    "highest.jpg": "Test frames that score highest, one a clip: frame, reconstruction, heat map.",
    "roc.png": "Test frames under one threshold, beside what learns nothing.",
    "scores.png": "Scores of normal and anomalous test frames.",
}


BEFORE_EXPORT = "torch, before export"
WHOLE = 1000  # figures from here on are shown without decimals
"""Protocol of the figures that the export measures; an evaluation keeps them."""


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
    if metrics:
        yield from ("## Figures", "")
    for title, rows in tables(metrics).items():
        yield from (f"{title}.", "", markdown(rows), "")


Row = Mapping[str, str | float]


def tables(metrics: Iterable[Metric]) -> dict[str, list[Row]]:
    """Arrange metrics in one table for each data set and protocol: a row a method, a column a figure."""
    found: dict[str, dict[str, dict[str, str | float]]] = {}
    for metric in metrics:
        rows = found.setdefault(f"{metric.data_set}: {metric.protocol}", {})
        column = metric.name + (f" ({metric.unit})" if metric.unit else "")
        rows.setdefault(metric.method, {"": metric.method})[column] = metric.value
    return {title: list(rows.values()) for title, rows in found.items()}


def markdown(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table; the columns are those of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= WHOLE else f"{value:.4g}"


def _training(manifest: Manifest) -> Iterator[str]:
    origin = manifest.provenance
    recipe = origin.config if isinstance(origin.config, dict) else {}
    limits = recipe.get("limitations")
    if limits:
        yield from ("## Where it fails", "", str(limits).strip(), "")
    versions = ", ".join(f"{name} {version}" for name, version in origin.libraries.items())
    command = origin.command or f"python -m training make {recipe.get('name')} --data DATA"
    yield from ("## Make it again", "", "```", command, "```", "")
    yield f"Made at commit `{origin.commit}` with {versions}. The resolved recipe is in `manifest.json`."
    yield ""
