"""Filters as pictures, and the whole part on tiny sets beside a real denoiser's folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import shipped
from benchmarks.lecture import bottleneck, contractive, denoising, neighbours
from benchmarks.lecture.course import Course, Trained
from benchmarks.lecture.page import Section
from tests.model_folders import write_denoiser
from training.autoencoders.base import FrameShape
from training.autoencoders.plain import Plain, PlainConfig


def test_filters_are_grey_where_they_look_at_nothing(tmp_path: Path) -> None:
    model = Plain(PlainConfig(latent_dim=3), FrameShape(1, 2, 2))
    model.encoder.weight.data = torch.tensor([[0.0, 2.0, -1.0, 0.0], [0.1, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -3.0]])
    found = [picture.ravel().tolist() for picture in denoising.filters(Trained(model, 0, tmp_path))]
    assert found == [[128, 255, 64, 128], [255, 128, 128, 128], [128, 128, 128, 0]]


def test_the_mean_of_the_frames_psnr() -> None:
    clean = np.zeros((2, 4, 4, 1), np.uint8)
    other = np.stack([clean[0] + 255, clean[0] + 51])  # 0 dB, and 20 log10 5
    assert denoising.mean_psnr(clean, other) == pytest.approx(10 * np.log10(5), abs=1e-6)


def test_who_takes_away_more_than_it_loses_is_read_from_the_table() -> None:
    figures = {"noisy": 20.0, "PCA": 19.5, "plain": 21.0, "deep": 15.0, "denoiser-fast": 30.25}
    rows: list[denoising.Cells] = [{"": name, "sigma 25": value} for name, value in figures.items()]
    assert denoising.outcome(rows, "sigma 25") == (
        "At sigma 25, 1 of 3 bring frames nearer to the clean ones than the noise left them; the most does plain, "
        "+1.0 dB, beside +10.2 dB of denoiser-fast."
    )


def test_every_kind_is_held_to_a_real_denoiser(course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_denoiser(tmp_path / "models" / denoising.DENOISER)
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "models")
    monkeypatch.setattr(denoising, "QUICK", denoising.Plan((0, 0.5), 4, 100, 3))
    monkeypatch.setattr(bottleneck, "QUICK", bottleneck.Plan((2, 5), 2, (3,), 2, epochs=1, pretrain_epochs=0))
    monkeypatch.setattr(contractive, "QUICK", contractive.Plan((0.5,), 4, (4,), 6, 100))
    small = {"widths": [2, 4], "codes": 4, "code_dim": 2, "prior_width": 4, "prior_layers": 2}
    monkeypatch.setattr(neighbours, "QUICK", neighbours.Plan(3, 3, (1,), (2, 4), small, 30))
    section = Section("Denoising", course.folder / "denoising", "tiny")
    denoising.denoising(course, section)
    section.write()
    probes, digits, footage = json.loads((section.folder / "figures.json").read_text())["tables"].values()
    assert [row["σ in training"] for row in probes] == ["0", "0.5"]
    assert all(0 <= row["accuracy (%)"] <= 100 for row in probes)
    names = [row[""] for row in digits]
    assert names[0] == "noisy"
    assert names[-1] == denoising.DENOISER
    assert {"plain, 144 units, σ = 0.5", "contractive, λ = 0.5", "vaegan", "vq"} <= set(names)
    assert digits[0]["sigma 25"] > digits[0]["sigma 50"] > 10
    assert [row[""] for row in footage][1:4] == ["PCA, 3 numbers", "plain, 3 numbers", "deep, 3 numbers"]
    assert (section.folder / "filters.png").is_file()
