"""The figures against their definitions, and whole evaluations through exported models."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from runtime.devices import Device
from runtime.images import ImageFormat, Pixels, encode
from runtime.manifest import Metric, read_manifest
from runtime.model import Model
from tests.training.conftest import Exported
from tests.training.tiny import draw, frames
from training.card import BEFORE_EXPORT
from training.config import AnomalyCheck, DenoisingCheck, Recipe, ReconstructionCheck
from training.data import Source
from training.errors import DataError
from training.evaluate import (
    PSNR_OF_EQUALS,
    Evaluation,
    _frame_figures,
    _thinned,
    auroc,
    bootstrap_auroc,
    denoise,
    evaluate,
    measure,
    minmax_by_clip,
    pixel_auroc,
    psnr,
    ssim,
)

pytestmark = pytest.mark.xdist_group("exported")

Booleans = npt.NDArray[np.bool_]
CLIPS = 3
LENGTH = 10


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate.BOOTSTRAPS", 200)


# -- definitions


def test_psnr_by_hand() -> None:
    clean = np.full((2, 3, 3), 100, np.uint8)
    other = clean.copy()
    other[0, 0] = (110, 100, 95)
    assert psnr(clean, other) == pytest.approx(10 * math.log10(255**2 / ((100 + 25) / 18)))
    assert psnr(clean, clean) == PSNR_OF_EQUALS
    assert psnr(np.zeros((1, 1, 1), np.uint8), np.full((1, 1, 1), 255, np.uint8)) == 0


def test_ssim_is_that_of_the_paper() -> None:
    """Of two constant images only the luminance term is left: (2ab + C1) / (a^2 + b^2 + C1), C1 = (0.01 * 255)^2."""
    first, second = (np.full((16, 24, 3), value, np.uint8) for value in (100, 150))
    c1 = (0.01 * 255) ** 2
    assert ssim(first, second) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))
    assert ssim(first, first) == pytest.approx(1)
    noisy = draw(1, channels=3)[0]
    assert ssim(noisy, np.asarray(255 - noisy, np.uint8)) < 0.5


def test_minmax_rescales_each_clip_by_itself() -> None:
    scores, clips = np.array([1.0, 3, 2, 10, 30, 7]), np.array(["a", "a", "a", "b", "b", "c"])
    assert minmax_by_clip(scores, clips) == pytest.approx([0, 1, 0.5, 0, 1, 0])


def synthetic(separation: float = 1.0) -> tuple[Booleans, npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    rng = np.random.default_rng(0)
    labels = rng.random(240) < 0.4
    return labels, rng.normal(size=240) + separation * labels, np.repeat([f"clip{i}" for i in range(12)], 20)


def test_the_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    labels, scores, clips = synthetic()
    pairs = scores[labels][:, None] - scores[~labels][None]
    figures = _frame_figures(labels, scores, clips)
    assert figures["AUROC RAW", "%"] == pytest.approx(100 * ((pairs > 0).mean() + (pairs == 0).mean() / 2))
    by_clip = [
        (scores[(clips == c) & labels][:, None] > scores[(clips == c) & ~labels][None]).mean() for c in np.unique(clips)
    ]
    assert figures["AUROC macro", "%"] == pytest.approx(100 * np.mean(by_clip))


def test_the_auroc_is_that_of_sklearn_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    for levels in (2, 5, 1000):
        labels, scores = rng.random(300) < 0.3, rng.integers(0, levels, 300).astype(float)
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_f1_max_is_the_best_of_all_thresholds() -> None:
    labels, scores, clips = synthetic()
    best = 0.0
    for threshold in scores:
        alarms = scores >= threshold
        hits = (alarms & labels).sum()
        best = max(best, 2 * hits / (alarms.sum() + labels.sum()))
    assert _frame_figures(labels, scores, clips)["F1-max", ""] == pytest.approx(best)


@pytest.mark.parametrize("separation", [0.0, 1.0, 10.0])
def test_the_interval_contains_the_point_and_widens_with_doubt(separation: float) -> None:
    labels, scores, clips = synthetic(separation)
    point = _frame_figures(labels, scores, clips)["AUROC RAW", "%"] / 100
    low, high = bootstrap_auroc(labels, scores, clips)
    assert low <= point <= high
    assert (high - low < 0.01) == (separation == 10)


def test_frames_of_one_clip_are_drawn_together() -> None:
    """Twelve clips of equal frames hold twelve observations, so that more frames must not narrow the interval."""
    labels, scores, clips = synthetic()
    few = bootstrap_auroc(labels[::20], scores[::20], clips[::20])
    many = bootstrap_auroc(labels[::20].repeat(20), scores[::20].repeat(20), clips)
    assert many == pytest.approx(few)


def test_without_a_clip_of_both_classes_there_is_no_macro_average() -> None:
    labels, scores, clips = np.array([False, False, True, True]), np.arange(4.0), np.array(["a", "a", "b", "b"])
    figures = _frame_figures(labels, scores, clips)
    assert ("AUROC macro", "%") not in figures
    assert all(math.isfinite(value) for value in figures.values())


def test_pixel_auroc_samples_maps_of_another_size() -> None:
    masks = np.zeros((2, 8, 12), bool)
    masks[0, 2:5, 3:9] = True
    maps = masks.repeat(2, 1).repeat(3, 2).astype(np.float32)
    assert pixel_auroc(maps, masks) > 0.95
    assert pixel_auroc(masks.astype(np.float32), masks) == 1
    assert pixel_auroc(np.zeros_like(maps), masks) == 0.5


def test_a_limit_takes_frames_from_end_to_end() -> None:
    whole = frames(40)
    assert [key[-7:-4] for key in _thinned(whole, 3).keys] == ["000", "019", "039"]
    assert _thinned(whole, None) is _thinned(whole, 40) is whole


# -- whole evaluations


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a data folder: normal frames, test clips whose second halves have a dark bar, labels and masks."""
    rows, masks = ["clip,frame,anomalous"], []
    for number in range(4):
        write(tmp_path / "frames" / f"{number:02d}", draw(LENGTH, seed=number))
    for number in range(CLIPS):
        pixels = draw(LENGTH, seed=10 + number)
        for index in range(LENGTH):
            anomalous = index >= LENGTH // 2
            mask = np.zeros((16, 24), bool)
            mask[12:16, 4:20] = anomalous
            pixels[index][mask] = 0
            rows.append(f"{number:02d},{index:03d},{int(anomalous)}")
            masks.append(mask)
        write(tmp_path / "test" / f"{number:02d}", pixels)
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    np.savez(tmp_path / "masks.npz", masks_packed=np.packbits(np.stack(masks), axis=-1))
    for index, pixels in enumerate(draw(3, channels=3, height=40, width=56)):
        write(tmp_path / "clean" / f"{index}", pixels[None])
    return tmp_path


def write(folder: Path, pixels: Pixels) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(pixels):
        (folder / f"{index:03d}.png").write_bytes(encode(frame, ImageFormat.PNG))


def checked(exported: Exported, name: str, *checks: AnomalyCheck | DenoisingCheck | ReconstructionCheck) -> Recipe:
    return exported.recipes[name].model_copy(update={"evaluate": checks})


ANOMALY = AnomalyCheck(name="bars", frames=Source(path="test"), labels="labels.csv", masks="masks.npz")


def values(metrics: tuple[Metric, ...], method: str = "this model") -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics if metric.method == method}


def test_an_anomaly_check_finds_the_bars(exported: Exported, copied: Path, root: Path, cpu: Device) -> None:
    folder = copied / "scorer"
    model = Model.open(folder, cpu)
    manifest = evaluate(folder, model, checked(exported, "scorer", ANOMALY), root)
    assert read_manifest(folder) == manifest
    Model.open(folder, cpu)
    found = values(manifest.metrics)
    assert found["AUROC RAW"] > 90
    assert found["pixel AUROC"] > 80
    assert found["RAW, 95 % from"] <= found["AUROC RAW"] <= found["to"]
    assert found["false-alarm rate promised"] == 10
    assert found["recall"] > 50
    methods = {metric.method for metric in manifest.metrics}
    assert methods == {
        "this model",
        "mean-frame difference",
        "frame difference",
        "motion by gradient",
        "optical flow (DIS)",
    }
    assert all(metric.data_set == "bars" and metric.seed == 0 for metric in manifest.metrics)
    protocols = {metric.protocol for metric in manifest.metrics}
    assert any("30 frames, 50% anomalous (always alarm: F1 0.667)" in protocol for protocol in protocols)
    assert {"roc.png", "scores.png", "highest.jpg"} <= {path.name for path in folder.iterdir()}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| optical flow (DIS) |" in card
    assert f"| this model | {found['AUROC RAW']:.4g} |" in card
    assert "![" in card
    assert "roc.png" in card


def test_masks_may_be_in_another_order_than_the_frames(
    exported: Exported, opened: dict[str, Model], root: Path
) -> None:
    evaluation = Evaluation(opened["scorer"], checked(exported, "scorer", ANOMALY), root, root)
    before = values(tuple(measure(ANOMALY, evaluation)))
    head, *rows = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([head, *reversed(rows)]))
    with np.load(root / "masks.npz") as archive:
        packed = archive["masks_packed"]
    np.savez(root / "masks.npz", masks_packed=packed[::-1])
    assert values(tuple(measure(ANOMALY, evaluation))) == before


def test_clips_too_short_for_motion_are_named(exported: Exported, opened: dict[str, Model], root: Path) -> None:
    for index in range(2, LENGTH):
        (root / "test" / "01" / f"{index:03d}.png").unlink()
    evaluation = Evaluation(opened["scorer"], checked(exported, "scorer", ANOMALY), root, root)
    with pytest.raises(DataError, match="test/01 has 2 frames; motion is measured in clips of 3 and more"):
        list(measure(ANOMALY, evaluation))


def test_a_denoising_check_measures_what_the_definitions_say(
    exported: Exported, copied: Path, root: Path, cpu: Device
) -> None:
    folder, model = copied / "denoiser", Model.open(copied / "denoiser", cpu)
    check = DenoisingCheck(name="photos", frames=Source(path="clean"), sigmas=(25,), limit=2)
    manifest = evaluate(folder, model, checked(exported, "denoiser", check), root)
    methods = [metric.method for metric in manifest.metrics if metric.unit == "dB"]
    assert methods == [
        "noisy input", "this model, level given", "this model, blind", "median", "bilateral", "non-local means",
    ]  # fmt: skip
    assert {metric.data_set for metric in manifest.metrics} == {"photos, 2 images"}
    noisy = values(manifest.metrics, "noisy input")["PSNR at sigma 25"]
    assert noisy == pytest.approx(20.3, abs=0.5)
    assert values(manifest.metrics, "non-local means")["PSNR at sigma 25"] > noisy + 3
    assert "photos, 2 images: white Gaussian noise, clipped and rounded" in (folder / "README.md").read_text(
        encoding="utf-8"
    )


def test_a_reconstruction_check_keeps_the_figures_of_the_export(
    exported: Exported, copied: Path, root: Path, cpu: Device
) -> None:
    folder, model = copied / "sampler", Model.open(copied / "sampler", cpu)
    check = ReconstructionCheck(name="normal", frames=Source(path="frames"), limit=20)
    for _ in range(2):  # a second evaluation replaces the first
        manifest = evaluate(folder, model, checked(exported, "sampler", check), root)
        assert [metric.name for metric in manifest.metrics] == [
            "ELBO", "KL divergence", "log p(x), 100 importance samples", "PSNR", "SSIM", "squared error a frame",
        ]  # fmt: skip
    assert sum(metric.protocol == BEFORE_EXPORT for metric in manifest.metrics) == 3
    found = values(manifest.metrics)
    pixels = np.concatenate([draw(LENGTH, seed=number) for number in range(4)])
    kept = pixels[np.linspace(0, 39, 20).astype(int)]
    reconstruction = model.run(kept).reconstruction
    assert reconstruction is not None
    error = np.square((kept.astype(np.float64) - reconstruction) / 255).sum((1, 2, 3))
    assert found["squared error a frame"] == pytest.approx(error.mean())
    assert found["PSNR"] == pytest.approx(np.mean([psnr(a, b) for a, b in zip(kept, reconstruction, strict=True)]))


def test_denoise_runs_one_frame(opened: dict[str, Model]) -> None:
    pixels = draw(1, channels=3, height=5, width=7)[0]
    assert np.array_equal(denoise(opened["denoiser"], pixels, 0), pixels)
