"""Measure a model folder through `runtime.Model`, that is through the exported file, beside what learns nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import precision_recall_curve
from tqdm import tqdm

from runtime.images import Pixels
from runtime.manifest import Manifest, Metric, write_manifest
from runtime.model import Model
from training.baselines import FILTERS, MOTION_STATISTICS, Filter
from training.calibrate import outputs_of
from training.card import BEFORE_EXPORT, write_text
from training.config import AnomalyCheck, Check, DenoisingCheck, Recipe, ReconstructionCheck
from training.data import Frames, Source, load
from training.errors import DataError
from training.labels import PIXEL_STEP, read_labels, read_masks
from training.pictures import add_gaussian, draw_highest, draw_histogram, draw_roc

SEED = 0
TUNING_IMAGES = 8  # on which a filter's best setting is found: test images, in the filter's favour
BOOTSTRAPS = 1000
PSNR_OF_EQUALS = 100.0  # dB
MEAN_FRAME_STRIDE = 5  # the mean frame is the mean of every fifth
SHORTEST_CLIP = max(statistic.time for statistic in MOTION_STATISTICS)  # frames

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What a check needs."""

    model: Model
    recipe: Recipe
    root: Path
    folder: Path

    def load(self, source: Source, **changes: int | None) -> Frames:
        """Read every test frame as the recipe says, but for the changes to its `data:` section."""
        all_of_it = {"sources": (source,), "frame_stride": 1, "minimum_frames": 1}
        return load(self.recipe.data.model_copy(update=all_of_it | changes), self.root)


def evaluate(folder: Path, model: Model, recipe: Recipe, root: Path) -> Manifest:
    """Run every check of the recipe, write the figures to the manifest and the card, the plots beside them."""
    evaluation = Evaluation(model, recipe, root, folder)
    kept = tuple(metric for metric in model.manifest.metrics if metric.protocol == BEFORE_EXPORT)
    found = [metric for check in recipe.evaluate for metric in measure(check, evaluation)]
    manifest = model.manifest.model_copy(update={"metrics": kept + tuple(found)})
    write_manifest(manifest, folder)
    write_text(manifest, folder)
    return manifest


def measure(check: Check, evaluation: Evaluation) -> Iterator[Metric]:
    """Run one check; plots go into the evaluation's folder."""
    return CHECKS[type(check)](check, evaluation)


def psnr(clean: Pixels, other: Pixels) -> float:
    """Return 10 log10(255^2 / MSE) over all pixels and channels of uint8 images, no border cut, in dB.

    Equal images count as 100 dB instead of infinitely many, so that a mean over images stays a number.
    """
    if np.array_equal(clean, other):
        return PSNR_OF_EQUALS
    value: float = peak_signal_noise_ratio(clean, other, data_range=255)  # type: ignore[no-untyped-call]
    return float(value)


def ssim(clean: Pixels, other: Pixels) -> float:
    """Return the structural similarity (Wang et al. 2004), Gaussian window of sigma 1.5, mean over channels."""
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    value: float = structural_similarity(clean, other, channel_axis=2, data_range=255, **window)  # type: ignore[no-untyped-call]
    return float(value)


def _thinned(frames: Frames, limit: int | None) -> Frames:
    if limit is None or len(frames) <= limit:
        return frames
    return frames.subset(np.linspace(0, len(frames) - 1, limit).astype(int))


def _check_reconstruction(check: ReconstructionCheck, evaluation: Evaluation) -> Iterator[Metric]:
    frames = _thinned(evaluation.load(check.frames), check.limit)
    answers = [outputs.reconstruction for outputs in outputs_of(evaluation.model, frames, check.name)]
    reconstructions = np.concatenate([answer for answer in answers if answer is not None])
    pairs = list(zip(frames.pixels, reconstructions, strict=True))
    apart = [np.square((clean.astype(np.float64) - other) / 255).sum() for clean, other in pairs]
    figures = {
        ("PSNR", "dB"): np.mean([psnr(clean, other) for clean, other in pairs]),
        ("SSIM", ""): np.mean([ssim(clean, other) for clean, other in pairs]),
        ("squared error a frame", "pixels in 0..1"): np.mean(apart),
    }
    yield from _metrics(figures, check.name, f"reconstruction of {len(frames)} frames, output rounded to uint8")


def _metrics(
    figures: dict[tuple[str, str], Any], data_set: str, protocol: str, method: str = "this model"
) -> Iterator[Metric]:
    for (name, unit), value in figures.items():
        yield Metric(name=name, value=float(value), unit=unit, data_set=data_set, protocol=protocol, seed=SEED,
                     method=method)  # fmt: skip


def _check_denoising(check: DenoisingCheck, evaluation: Evaluation) -> Iterator[Metric]:
    frames = _thinned(evaluation.load(check.frames), check.limit)
    protocol = "white Gaussian noise, clipped and rounded to uint8; output rounded to uint8"
    for sigma in check.sigmas:
        noisy = [
            add_gaussian(clean, sigma, np.random.default_rng([SEED, index]))
            for index, clean in enumerate(frames.pixels)
        ]
        bar = tqdm(_denoisers(evaluation.model, sigma, noisy, frames.pixels), f"{check.name} sigma {sigma:g}",
                   unit="method", disable=None)  # fmt: skip
        for method, apply in bar:
            results = [apply(pixels) for pixels in noisy]
            figures = {
                (f"PSNR at sigma {sigma:g}", "dB"): np.mean(list(map(psnr, frames.pixels, results))),
                (f"SSIM at sigma {sigma:g}", ""): np.mean(list(map(ssim, frames.pixels, results))),
            }
            yield from _metrics(figures, f"{check.name}, {len(frames)} images", protocol, method)


Denoise = Callable[[Pixels], Pixels]


def _denoisers(
    model: Model, sigma: float, noisy: Sequence[Pixels], clean: Sequence[Pixels]
) -> Iterator[tuple[str, Denoise]]:
    yield "noisy input", lambda pixels: pixels
    yield "this model, level given", lambda pixels: denoise(model, pixels, sigma)
    yield "this model, blind", lambda pixels: denoise(model, pixels, model.estimate_noise_level(pixels))
    for classical in FILTERS:
        setting = best_setting(classical, sigma, noisy[:TUNING_IMAGES], clean[:TUNING_IMAGES])
        yield classical.name, _fixed(classical, sigma, setting)


def denoise(model: Model, pixels: Pixels, level: float) -> Pixels:
    """Denoise one [h, w, c] frame at a noise level on the 0..255 scale."""
    answer = model.run(pixels[None], np.array([level], np.float32))[0].reconstruction
    if answer is None:
        raise ValueError(f"{model.manifest.name} has no reconstruction")
    return answer


def _fixed(classical: Filter, sigma: float, setting: float) -> Denoise:
    return lambda pixels: classical.apply(pixels, sigma, setting).reshape(pixels.shape)


def best_setting(classical: Filter, sigma: float, noisy: Sequence[Pixels], clean: Sequence[Pixels]) -> float:
    """Return the setting of a filter with the highest mean PSNR over pairs of frames, [h, w, c] each."""

    def quality(setting: float) -> float:
        apply = _fixed(classical, sigma, setting)
        return float(np.mean([psnr(target, apply(pixels)) for pixels, target in zip(noisy, clean, strict=True)]))

    return max(classical.settings, key=quality)


def _check_anomaly(check: AnomalyCheck, evaluation: Evaluation) -> Iterator[Metric]:
    frames = evaluation.load(check.frames)
    truth = read_labels(evaluation.root / check.labels, check.frames.path, frames)
    labels, clips = truth.anomalous, np.asarray(frames.clips)
    maps, scores = _anomaly_outputs(evaluation.model, frames, check.name)
    methods = {"this model": scores} | _baseline_scores(check, evaluation)
    for method, values in methods.items():
        yield from _metrics(_frame_figures(labels, values, clips), check.name, _protocol(labels), method)
    yield from _metrics(_operating_point(evaluation.model, labels, scores), check.name, "at the default threshold")
    if check.masks is not None:
        masks = read_masks(evaluation.root / check.masks, truth)
        figure = {("pixel AUROC", "%"): 100 * pixel_auroc(maps, masks)}
        yield from _metrics(figure, check.name, f"every {PIXEL_STEP}th row and column of the map")
    draw_roc(evaluation.folder / "roc.png", labels, methods)
    draw_highest(evaluation.model, evaluation.folder, frames, scores)
    calibration = evaluation.model.manifest.calibration
    if calibration is not None:
        draw_histogram(evaluation.folder / "scores.png", labels, scores, calibration.threshold)


def _protocol(labels: npt.NDArray[np.bool_]) -> str:
    return (
        f"{len(labels)} frames, {labels.mean():.0%} anomalous (always alarm: F1 {2 / (1 + 1 / labels.mean()):.3f}); "
        "RAW: one threshold for all clips; MINMAX: scores rescaled a clip, which no live service can do"
    )


def _anomaly_outputs(model: Model, frames: Frames, label: str) -> tuple[npt.NDArray[np.float32], Scores]:
    maps, scores = [], []
    for outputs in outputs_of(model, frames, label):
        if outputs.anomaly_map is not None and outputs.anomaly_score is not None:
            maps.append(outputs.anomaly_map[:, ::PIXEL_STEP, ::PIXEL_STEP])
            scores.append(outputs.anomaly_score)
    return np.concatenate(maps), np.concatenate(scores).astype(np.float64)


def _baseline_scores(check: AnomalyCheck, evaluation: Evaluation) -> dict[str, Scores]:
    """Score grey clips at their own size by what learns nothing but, for one, the mean frame of the sources."""
    grey = evaluation.load(check.frames, channels=1, height=None, width=None)
    mean = _mean_frame(evaluation, *grey.pixels[0].shape[:2])
    scores = {statistic.name: np.empty(len(grey)) for statistic in MOTION_STATISTICS}
    clips = np.asarray(grey.clips)
    for clip in tqdm(np.unique(clips), "baselines", unit="clip", disable=None):
        chosen = np.flatnonzero(clips == clip)
        if len(chosen) < SHORTEST_CLIP:
            raise DataError(f"{clip} has {len(chosen)} frames; motion is measured in clips of {SHORTEST_CLIP} and more")
        for statistic in MOTION_STATISTICS:
            scores[statistic.name][chosen] = statistic.score(grey.batch(chosen.tolist())[..., 0], mean)
    return scores


def _mean_frame(evaluation: Evaluation, height: int, width: int) -> Scores:
    data = evaluation.recipe.data
    changes = {"height": height, "width": width, "channels": 1, "minimum_frames": 1}
    changes["frame_stride"] = MEAN_FRAME_STRIDE * data.frame_stride
    normal = load(data.model_copy(update=changes), evaluation.root)
    return np.asarray(np.mean(normal.batch(range(len(normal))), axis=(0, 3)))


def minmax_by_clip(scores: Scores, clips: npt.NDArray[np.str_]) -> Scores:
    """Rescale scores to 0..1 within each clip, as the papers do."""
    scaled = np.empty_like(scores)
    for clip in np.unique(clips):
        chosen = clips == clip
        low, high = scores[chosen].min(), scores[chosen].max()
        scaled[chosen] = (scores[chosen] - low) / max(high - low, 1e-12)
    return scaled


def auroc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Return the chance that an anomalous score is above a normal one, ties counted half (Mann and Whitney 1947).

    Without the checks that make sklearn's a hundred times slower: a bootstrap asks for thousands.
    """
    _, tie, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[tie]  # 1 for the lowest; equal scores share their mean rank
    anomalous = int(labels.sum())
    above = ranks[labels].sum() - anomalous * (anomalous + 1) / 2
    return float(above / (anomalous * (len(labels) - anomalous)))


def separation(normal: Scores, anomalous: Scores) -> float:
    """Return the AUROC of two samples of scores."""
    labels = np.repeat([False, True], [len(normal), len(anomalous)])
    return auroc(labels, np.concatenate([normal, anomalous]))


def _frame_figures(
    labels: npt.NDArray[np.bool_], scores: Scores, clips: npt.NDArray[np.str_]
) -> dict[tuple[str, str], float]:
    low, high = bootstrap_auroc(labels, scores, clips)
    chosen = [clips == clip for clip in np.unique(clips)]
    by_clip = [auroc(labels[clip], scores[clip]) for clip in chosen if 0 < labels[clip].mean() < 1]
    precision, recall, _ = precision_recall_curve(labels, scores)
    figures = {
        ("AUROC RAW", "%"): 100 * auroc(labels, scores),
        ("RAW, 95 % from", "%"): 100 * low,
        ("to", "%"): 100 * high,
        ("AUROC MINMAX", "%"): 100 * auroc(labels, minmax_by_clip(scores, clips)),
        ("F1-max", ""): float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()),
    }
    return figures | {("AUROC macro", "%"): 100 * float(np.mean(by_clip))} if by_clip else figures


def bootstrap_auroc(labels: npt.NDArray[np.bool_], scores: Scores, clips: npt.NDArray[np.str_]) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC over clips drawn with replacement: frames of a clip are correlated."""
    rng = np.random.default_rng(SEED)
    by_clip = [np.flatnonzero(clips == clip) for clip in np.unique(clips)]
    found = []
    for _ in range(BOOTSTRAPS):
        drawn = np.concatenate([by_clip[i] for i in rng.integers(len(by_clip), size=len(by_clip))])
        if 0 < labels[drawn].mean() < 1:
            found.append(auroc(labels[drawn], scores[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _operating_point(model: Model, labels: npt.NDArray[np.bool_], scores: Scores) -> dict[tuple[str, str], float]:
    calibration = model.manifest.calibration
    if calibration is None:
        return {}
    alarms = scores > calibration.threshold
    return {
        ("false-alarm rate promised", "%"): 100 * calibration.false_alarm_rate,
        ("false-alarm rate on normal test frames", "%"): 100 * float(alarms[~labels].mean()),
        ("recall", "%"): 100 * float(alarms[labels].mean()),
    }


def pixel_auroc(maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]) -> float:
    """Return the AUROC over pixels; maps of another size are sampled at the masks' pixels."""
    rows = np.linspace(0, maps.shape[1] - 1, masks.shape[1]).round().astype(int)
    columns = np.linspace(0, maps.shape[2] - 1, masks.shape[2]).round().astype(int)
    return auroc(masks.ravel(), maps[:, rows][:, :, columns].ravel())


CHECKS: dict[type[Check], Callable[[Any, Evaluation], Iterator[Metric]]] = {
    ReconstructionCheck: _check_reconstruction,
    DenoisingCheck: _check_denoising,
    AnomalyCheck: _check_anomaly,
}
