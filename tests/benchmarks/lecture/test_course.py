"""Models are trained once, kept, gone on with, and never taken for others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.lecture.course import Course
from runtime.devices import DeviceChoice, select_device
from runtime.manifest import read_manifest
from runtime.model import Model
from training import runs
from training.errors import RunError

PLAIN = {"kind": "plain", "latent_dim": 3}


def refuse(*_: object, **__: object) -> Path:
    pytest.fail("trained again")


def test_a_model_is_trained_once_and_kept(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    first = course.trained("plain-0.5", course.digits, PLAIN, 12)
    assert first.minutes > 0
    assert not first.autoencoder.training
    monkeypatch.setattr(runs, "train", refuse)
    again = course.trained("plain-0.5", course.digits, PLAIN, 12)
    assert again.minutes == first.minutes
    frames = course.digits.test[:4]
    assert torch.equal(again.autoencoder.reconstruct(frames), first.autoencoder.reconstruct(frames))


def test_one_that_was_interrupted_goes_on_and_its_cost_adds_up(course: Course) -> None:
    course.trained("plain", course.digits, PLAIN, 6)
    cost = course.folder / "models" / "plain" / "cost.json"
    cost.write_text(json.dumps({"cpu_seconds": 600.0}))
    trained = course.trained("plain", course.digits, PLAIN, 12)
    assert 10 < trained.minutes < 12
    assert course.minutes == {"plain": trained.minutes}
    assert course.cpu_seconds == pytest.approx(60 * trained.minutes)
    last = torch.load(cost.parent / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12


def test_other_settings_under_a_kept_name_are_refused(course: Course) -> None:
    course.trained("plain", course.digits, PLAIN, 6)
    with pytest.raises(RunError, match="latent_dim = 3"):
        course.trained("plain", course.digits, PLAIN | {"latent_dim": 4}, 6)


def test_a_kept_model_that_was_trained_otherwise_is_not_taken(course: Course) -> None:
    course.trained("plain", course.digits, PLAIN, 6, learning_rate=0.002)
    for steps in (6, 12):
        with pytest.raises(RunError, match=r"was trained with train.learning_rate = 0.002: take the same settings"):
            course.trained("plain", course.digits, PLAIN, steps)
    with pytest.raises(RunError, match=r"train.steps = 6.*, or the same and more steps"):
        course.trained("plain", course.digits, PLAIN, 5, learning_rate=0.002)


def test_the_labels_are_those_of_the_images_to_learn_from(course: Course) -> None:
    known, test = course.labels
    frames = course.digits.split.train
    bars = [bool((pixels[18:24, 4:24] == 255).all()) for pixels in frames.pixels]
    assert len(frames) == 228
    assert known.astype(bool).tolist() == bars
    assert len(test) == len(course.digits.test) == 60


def test_footage_is_tested_on_clips_that_are_held_out(course: Course) -> None:
    footage = course.footage
    assert footage.test.shape == (8, 1, 64, 96), "every fifth frame of one clip in four"
    assert set(footage.split.calibration.clips).isdisjoint(footage.split.train.clips)


def test_a_shipped_model_is_measured_without_training(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(course, quick=False, shipped=tmp_path / "shipped", ships=True)
    made = full.trained("plain", full.digits, PLAIN, 6, ship=True, ema_decay=0)
    elsewhere = replace(full, folder=tmp_path / "elsewhere")
    monkeypatch.setattr(runs, "train", refuse)
    found = elsewhere.trained("plain", elsewhere.digits, PLAIN, 6, ship=True, ema_decay=0)
    assert found.minutes == made.minutes
    frames = full.digits.test[:4]
    assert torch.equal(found.autoencoder.reconstruct(frames), made.autoencoder.reconstruct(frames))


@pytest.mark.parametrize("kind", ["convolutional", "vaegan"])
def test_one_whose_graphs_do_not_keep_all_weights_is_shipped_with_them(
    kind: str, course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(course, quick=False, shipped=tmp_path / "shipped", ships=True)
    config = {"kind": kind, "latent_dim": 3, "widths": [16, 32]}
    made = full.trained(kind, full.digits, config, 6, ship=True, ema_decay=0).autoencoder
    monkeypatch.setattr(runs, "train", refuse)
    elsewhere = replace(full, folder=tmp_path / "elsewhere")
    found = elsewhere.trained(kind, full.digits, config, 6, ship=True, ema_decay=0).autoencoder
    assert found.state_dict().keys() == made.state_dict().keys()
    for name, weight in made.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight)
    assert Model.open(tmp_path / "shipped" / kind, select_device(DeviceChoice.CPU)).manifest.kind == kind
    kept = (full.folder / "models" / kind / "checkpoints" / "best.ckpt").stat().st_size
    assert (tmp_path / "shipped" / kind / "weights.pt").stat().st_size < kept / 3


@pytest.mark.parametrize("damaged", ["manifest.json", "cost.json", "autoencoder.onnx"])
def test_a_shipped_model_that_cannot_be_read_is_named_and_trained(
    damaged: str, course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = replace(course, quick=False, shipped=tmp_path / "shipped", ships=True)
    full.trained("plain", full.digits, PLAIN, 6, ship=True, ema_decay=0)
    (tmp_path / "shipped" / "plain" / damaged).write_text("torn")
    elsewhere = replace(full, folder=tmp_path / "elsewhere", ships=False)
    elsewhere.trained("plain", elsewhere.digits, PLAIN, 6, ship=True, ema_decay=0)
    assert "plain is not taken, the model is trained instead: " in capsys.readouterr().out
    assert (elsewhere.folder / "models" / "plain" / "config.yaml").is_file()


def test_a_shipped_model_of_other_settings_is_not_taken(
    course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = replace(course, quick=False, shipped=tmp_path / "shipped", ships=True)
    full.trained("plain", full.digits, PLAIN, 6, ship=True, ema_decay=0)
    elsewhere = replace(full, folder=tmp_path / "elsewhere", ships=False)
    trained = elsewhere.trained("plain", elsewhere.digits, PLAIN | {"latent_dim": 4}, 6, ship=True, ema_decay=0)
    assert trained.autoencoder.encode(course.digits.test[:1]).shape == (1, 4)
    assert read_manifest(tmp_path / "shipped" / "plain").latent_dim == 3
    assert (
        "plain is not taken, the model is trained instead: it was made with other settings" in capsys.readouterr().out
    )
