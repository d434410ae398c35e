"""What a person would rather look at than read: mosaics of frames, ROC curves, histograms."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from runtime.heatmaps import overlay
from runtime.images import ImageFormat, Pixels, encode
from runtime.manifest import Task
from runtime.model import Model
from training.data import Frames

MARGIN = 4  # pixels between the pictures of a mosaic
SMALL = 64  # frames smaller than this are drawn enlarged
SIGMA = 25.0
CROP = 192


def mosaic(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Lay pictures of one size out in rows, [h, w, 1 or 3] each, on white."""
    height, width = rows[0][0].shape[:2]
    tall, wide = len(rows) * (height + MARGIN) - MARGIN, len(rows[0]) * (width + MARGIN) - MARGIN
    sheet = np.full((tall, wide, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height + MARGIN), j * (width + MARGIN)
            sheet[top : top + height, left : left + width] = picture
    zoom = max(1, SMALL // min(height, width))
    return sheet.repeat(zoom, 0).repeat(zoom, 1)


def draw(model: Model, folder: Path, frames: Frames, seed: int) -> None:
    """Write the pictures that the model's tasks call for into the folder, from held-out frames."""
    rng = np.random.default_rng(seed)
    tasks = model.manifest.tasks
    picked = np.resize(rng.permutation(len(frames)), 4).tolist()  # again from the first, if fewer
    chosen = [frames.pixels[i] for i in picked]
    if Task.DENOISE in tasks:
        _write(folder / "denoised.jpg", [_denoised(model, pixels, rng) for pixels in chosen[:3]])
    if Task.RECONSTRUCT in tasks:
        _write(folder / "reconstructions.jpg", _transpose([_reconstructed(model, frames, int(i)) for i in picked]))
    if Task.SAMPLE in tasks and model.manifest.latent_dim is not None:
        latents = rng.standard_normal((32, model.manifest.latent_dim)).astype(np.float32)
        samples = list(model.generate(latents))
        _write(folder / "samples.jpg", [samples[i : i + 8] for i in range(0, 32, 8)])
    if {Task.SAMPLE, Task.ENCODE} <= set(tasks):
        _write(folder / "interpolations.jpg", [_interpolated(model, chosen[i], chosen[i + 1]) for i in (0, 2)])


def draw_highest(model: Model, folder: Path, frames: Frames, scores: npt.NDArray[np.floating]) -> None:
    """Write the frames of four clips that score highest, one a clip, as draw does: what the model finds unusual."""
    if Task.RECONSTRUCT not in model.manifest.tasks:
        return
    highest: dict[str, int] = {}
    for index in np.argsort(-scores):
        highest.setdefault(frames.clips[index], int(index))
    columns = [_reconstructed(model, frames, index) for index in list(highest.values())[:4]]
    _write(folder / "highest.jpg", _transpose(columns))


def _write(path: Path, rows: Sequence[Sequence[Pixels]]) -> None:
    path.write_bytes(encode(mosaic(rows), ImageFormat.JPEG))


def _transpose(columns: Sequence[Sequence[Pixels]]) -> list[list[Pixels]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _denoised(model: Model, pixels: Pixels, rng: np.random.Generator) -> list[Pixels]:
    """Return noisy, denoised (blind), clean."""
    clean = pixels[:CROP, :CROP]
    clean = np.pad(clean, [(0, CROP - clean.shape[0]), (0, CROP - clean.shape[1]), (0, 0)], mode="symmetric")
    noisy = add_gaussian(clean, SIGMA, rng)
    level = np.array([model.estimate_noise_level(noisy)], np.float32)
    answer = model.run(noisy[None], level).reconstruction
    return [noisy, clean if answer is None else answer[0], clean]


def add_gaussian(clean: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Add white noise, clipped and rounded to uint8 as a camera delivers it; grey frames get grey noise."""
    channels = 1 if (clean == clean[..., :1]).all() else clean.shape[2]
    noisy = clean + sigma * rng.standard_normal((*clean.shape[:2], channels))
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def _reconstructed(model: Model, frames: Frames, index: int) -> list[Pixels]:
    """Return frame, reconstruction and, for a calibrated model, the frame under its heat map."""
    seen = frames.seen_at([index], model.manifest.input.window)
    pixels = seen[0] if seen.ndim == 4 else seen[0, -1]
    outputs = model.run(seen)[0]
    column = [pixels] if outputs.reconstruction is None else [pixels, outputs.reconstruction]
    calibration = model.manifest.calibration
    if outputs.anomaly_map is not None and calibration is not None:
        column.append(overlay(pixels, outputs.anomaly_map, calibration))
    return column


def _interpolated(model: Model, first: Pixels, last: Pixels) -> list[Pixels]:
    """Walk from one frame to another in the latent space, in eight steps."""
    ends = model.run(np.stack([first, last])).latent
    if ends is None:
        return [first, last]
    share = np.linspace(0, 1, 8, dtype=np.float32)[:, None]
    return list(model.generate((1 - share) * ends[:1] + share * ends[1:]))


def draw_roc(path: Path, labels: npt.NDArray[np.bool_], scores: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Plot one ROC curve for each method, all frames under one threshold."""
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, values in scores.items():
        false_alarms, recall, _ = roc_curve(labels, values)
        axes.plot(false_alarms, recall, label=name, linewidth=2.5 if name == "this model" else 1)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.set(xlabel="false-alarm rate", ylabel="recall", title="ROC, one threshold for all clips")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=100)


def draw_histogram(
    path: Path, labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating], threshold: float
) -> None:
    """Plot how normal and anomalous frames score, with the default threshold."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    bins = np.linspace(scores.min(), np.quantile(scores, 0.995), 60).tolist()
    for name, chosen in (("normal", ~labels), ("anomalous", labels)):
        axes.hist(scores[chosen], bins, density=True, alpha=0.6, label=f"{name} ({chosen.sum()})")
    axes.axvline(threshold, color="black", linestyle="--", label="default threshold")
    axes.set(xlabel="anomaly score", ylabel="density", title="Scores of the test frames")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)
