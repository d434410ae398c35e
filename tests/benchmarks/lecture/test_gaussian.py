"""Which score finds what, and the whole part on tiny sets."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.lecture import bottleneck, variational
from benchmarks.lecture import gaussian as part
from benchmarks.lecture.course import Course
from benchmarks.lecture.gaussian import SCORES, Generator, gaussian, scores_of
from benchmarks.lecture.page import Section
from runtime.images import ImageFormat, encode
from tests.training.tiny import draw
from training.autoencoders.base import FrameShape
from training.autoencoders.variational import Variational, VariationalConfig


class Means(nn.Module):
    """A code of the means of both halves; the reconstruction is flat."""

    def encode(self, frames: Tensor) -> Tensor:
        means: Tensor = frames.reshape(len(frames), 2, -1).mean(2)
        return means

    def reconstruct(self, frames: Tensor) -> Tensor:
        halves = self.encode(frames).repeat_interleave(frames[0].numel() // 2, dim=1)
        return halves.reshape(frames.shape)


def test_the_code_and_the_error_find_different_things() -> None:
    normal = torch.rand(500, 1, 1, 1) * 0.2 + 0.4 + 0.01 * torch.randn(500, 1, 24, 24)
    unusual_code = normal[:1].clone()
    unusual_code[:, :, :12] += 0.1  # halves that differ, each within its range
    unusual_error = normal[1:2].clone()
    unusual_error[:, :, 3:6, 3:6] += 0.4
    unusual_error[:, :, 6:9, 3:6] -= 0.4
    distance, _, largest = scores_of(Means(), normal, torch.cat([normal[2:100], unusual_code, unusual_error]))  # type: ignore[arg-type]
    assert len(SCORES) == 3
    assert np.argmax(distance) == 98
    assert distance[99] < 5
    assert np.argmax(largest) == 99


def test_codes_of_a_variational_model_are_draws() -> None:
    model = Variational(VariationalConfig(hidden_sizes=(6,), latent_dim=2, binarise=True), FrameShape(1, 4, 4))
    generator = Generator("variational", model)
    frames = torch.rand(5, 1, 4, 4)
    assert not torch.equal(generator.codes(frames), generator.codes(frames))
    assert generator.pictures(torch.randn(7, 2)).shape == (7, 1, 4, 4)


@pytest.fixture
def labelled(data: Path) -> Path:
    """Add two test clips, the second half of each anomalous."""
    rows = []
    for clip in range(2):
        folder = data / "ped2" / "test" / f"{clip:02d}"
        folder.mkdir(parents=True)
        for index, pixels in enumerate(draw(40, height=64, width=96, seed=9 + clip)):
            shown = 255 - pixels if index >= 20 else pixels
            (folder / f"{index:03d}.png").write_bytes(encode(shown, ImageFormat.PNG))
            rows.append([f"{clip:02d}", f"{index:03d}", int(index >= 20)])
    with (data / "ped2" / "test_frame_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["clip", "frame", "anomalous"], *rows])
    return data


@pytest.mark.usefixtures("labelled")
def test_the_part_scores_footage_and_draws_digits(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bottleneck, "QUICK", bottleneck.Plan((2, 5), 2, (3,), 2, epochs=1, pretrain_epochs=0))
    plan = variational.Plan(1, 3, 1, (20, 20), 2, 1, 100, 0.001, None, 20, 10, (1,), 1)
    monkeypatch.setattr(variational, "QUICK", plan)
    monkeypatch.setattr(part, "QUICK_DRAWS", 30)
    section = Section("Gaussian", course.folder / "gaussian", "tiny")
    gaussian(course, section)
    section.write()
    footage, digits = json.loads((section.folder / "figures.json").read_text())["tables"].values()
    assert [row[""] for row in footage] == ["convolutional, 3 numbers", "variational, 3 numbers"]
    assert all(0 <= row[score] <= 100 for row in footage for score in SCORES)
    assert [row["codes from"] for row in digits] == 2 * ["N(μ, Σ)", "N(0, I)", "training images"]
    assert all(row["in pixels"] > 0 for row in digits), "models of two steps draw no digits"
    assert (section.folder / "samples.png").is_file()
