"""Sharpness, samples, a class left out, and the whole part on tiny sets."""

import json

import pytest
import torch

from benchmarks.lecture import neighbours as part
from benchmarks.lecture.course import Course
from benchmarks.lecture.neighbours import bounds, draws, neighbours, scores_of, sharpness, without
from benchmarks.lecture.page import Section
from training.autoencoders.base import FrameShape
from training.autoencoders.variational import Variational, VariationalConfig
from training.autoencoders.vq import Vq, VqConfig

SMALL = {"widths": [2, 4], "codes": 4, "code_dim": 2, "prior_width": 4, "prior_layers": 2}


def small() -> Vq:
    return Vq(VqConfig.model_validate(SMALL), FrameShape(1, 8, 8)).eval()


def test_sharpness_is_the_mean_laplacian_and_a_blur_lowers_it() -> None:
    spot = torch.zeros(1, 1, 5, 5)
    spot[..., 2, 2] = 1
    assert sharpness(spot) == pytest.approx(8 / 9), "|-4| and four times 1, over 3 x 3 places"
    noise = torch.rand(4, 1, 20, 20)
    assert sharpness(torch.nn.functional.avg_pool2d(noise, 3, 1)) < 0.5 * sharpness(noise)


def test_samples_are_grey_levels_and_the_same_every_time() -> None:
    model = small()
    samples = draws(model, 9)
    assert samples.shape == (9, 1, 8, 8)
    assert torch.equal(samples, draws(model, 9))
    assert torch.allclose(samples * 255, (samples * 255).round(), atol=1e-4)


def test_the_scores_are_what_they_are_called() -> None:
    model, frames = small(), torch.rand(5, 1, 8, 8)
    plain = Variational(VariationalConfig(widths=(2, 4), latent_dim=3), FrameShape(1, 8, 8)).eval()
    pixels, codes = bounds(model, frames)
    scores = scores_of(plain, model, frames)
    with torch.no_grad():
        assert torch.allclose(codes, model.prior.negative_log_prob(model.encode(frames)).sum((1, 2)), atol=1e-4)
    assert torch.equal(scores["vq: -log p(x\\|e) - log p(k)"], pixels + codes)
    with torch.no_grad():
        errors = (frames - plain.reconstruct(frames)).square().sum((1, 2, 3))
    assert torch.allclose(scores["VAE: squared error"], errors)


def test_a_class_is_left_out_of_what_is_learnt_and_stays_in_the_test(course: Course) -> None:
    material = without(course, 1)
    for frames in (material.split.train, material.split.validation):
        assert len(frames) > 0
        assert not any((pixels[18:24, 4:24] == 255).all() for pixels in frames.pixels), "the bar of the other class"
    assert len(material.test) == 60
    assert len(without(course, 0).split.train) + len(material.split.train) == len(course.digits.split.train)


def test_the_whole_part(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "QUICK", part.Plan(3, 3, (1,), (2, 4), SMALL, 30))
    section = Section("Neighbours", course.folder / "neighbours", "tiny")
    neighbours(course, section)
    section.write()
    likelihood, code, samples, anomalies = json.loads((section.folder / "figures.json").read_text())["tables"].values()
    nats = likelihood[0]["nats"]
    assert likelihood[0]["bits a pixel"] == pytest.approx(nats / 784 / 0.6931, rel=1e-3)
    assert code[0]["-log p(k) (nats)"] + code[0]["-log p(x\\|e) (nats)"] == pytest.approx(nats, rel=1e-4)
    assert code[0]["cells"] == 49
    assert [row[""] for row in samples] == ["as many training images", "variational", "vaegan", "vq"]
    assert samples[0]["energy distance in pixels"] < min(row["energy distance in pixels"] for row in samples[1:])
    assert [row["never seen"] for row in anomalies] == ["1"]
    assert all(0 <= value <= 100 for key, value in anomalies[0].items() if key != "never seen")
    assert (section.folder / "samples.png").is_file()
