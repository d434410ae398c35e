"""The whole benchmark on tiny models, tiny clips and made-up truth."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import anomaly, shipped
from benchmarks.anomalies import noise, speed
from benchmarks.anomalies.footage import find_ped2
from runtime.images import ImageFormat, encode
from tests.model_folders import write_denoiser, write_motion_scorer, write_scorer
from tests.training.test_pseudo_anomalies import CLIPS, HEIGHT, TIME, WIDTH, walk
from training.graph import to_unit


@pytest.fixture
def ped2(tmp_path: Path) -> Path:
    """Write walks; in the second half of each test clip everything is brighter, and that is the anomaly."""
    folder = tmp_path / "data" / "ped2"
    for name, clip in zip(("train/01", "train/02", "test/01", "test/02"), [*CLIPS[:3], walk(9)], strict=True):
        (folder / name).mkdir(parents=True)
        for index, frame in enumerate(clip):
            bright = name.startswith("test") and index >= TIME // 2
            pixels = (frame.astype(int) + 60 * bright).clip(0, 255).astype(np.uint8)[..., None]
            (folder / name / f"{index:03d}.png").write_bytes(encode(pixels, ImageFormat.PNG))
    rows = [(clip, f"{index:03d}", int(index >= TIME // 2)) for clip in ("01", "02") for index in range(TIME)]
    with (folder / "test_frame_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip", "frame", "anomalous"), *rows])
    masks = np.zeros((2 * TIME, HEIGHT, WIDTH), np.uint8)
    masks[[bool(label) for _, _, label in rows], 20:60, 40:80] = 1
    np.savez(folder / "test_pixel_masks.npz", masks_packed=np.packbits(masks, axis=-1))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["anomaly", *arguments])
    anomaly.main()


def test_every_section_reports_and_what_is_missed_is_told(
    tmp_path: Path, ped2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_motion_scorer(tmp_path / "models" / "motion")
    write_scorer(tmp_path / "models" / "looks")
    write_denoiser(tmp_path / "models" / "denoiser-fast")
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "models")
    monkeypatch.setattr(speed, "RUNS", 2)
    monkeypatch.setattr(noise, "SIGMAS", (25,))
    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    with pytest.raises(SystemExit, match=r"missed: AUROC RAW \(%\) >= 97.5"):
        run(monkeypatch, "--data", str(ped2), "--json", str(figures), "--pictures", str(pictures))
    tables = json.loads(figures.read_text())["tables"]
    titles = " ".join(tables)
    for section in ("Frames and pixels", "warms up", "Alarms", "Cost", "Standing things", "in noise", "Musts"):
        assert section in titles
    frames = next(rows for title, rows in tables.items() if title.startswith("Frames and pixels"))
    assert [row[""] for row in frames][-2:] == ["looks", "motion"]
    assert {"optical flow (DIS)", "mean-frame difference"} <= {row[""] for row in frames}
    assert sorted(path.name for path in pictures.iterdir()) == ["curves-looks.png", "curves-motion.png"]
    assert "| clean |" in capsys.readouterr().out


def test_data_may_be_the_set_or_the_folder_that_holds_it(ped2: Path) -> None:
    assert find_ped2(ped2) == find_ped2(ped2.parent) == ped2


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_low_light_is_as_strong_as_asked_for(sigma: float) -> None:
    frame = CLIPS[0][0][..., None]
    corruption = noise.low_light(sigma, frame)
    unit = to_unit(torch.from_numpy(frame[None].copy()))
    noisy = corruption(unit, torch.Generator().manual_seed(noise.SEED)).frames
    assert 255 * float((noisy - unit).square().mean().sqrt()) == pytest.approx(sigma, rel=0.05)
