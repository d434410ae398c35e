"""The command line: help, errors of one line, Ctrl-C in a real process, and the whole way from frames to a card."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from runtime.manifest import Manifest, read_manifest
from tests.training.conftest import Exported
from tests.training.tiny import draw, recipe
from training.__main__ import main
from training.autoencoders.base import kinds

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("exported")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a working folder with data/frames.npz and tiny.yaml, a recipe of a few steps on it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "frames.npz", x=draw(60), test=draw(12, seed=1))
    tree = recipe(
        data={"sources": [{"path": "frames.npz:x"}], "split": "image", "calibration_share": 0.3},
        score={"window": 3, "false_alarm_rate": 0.1},
        evaluate=[{"type": "reconstruction", "name": "test frames", "frames": {"path": "frames.npz:test"}}],
    ).model_dump(mode="json")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


def step_of(run: Path, name: str = "last") -> int:
    return int(torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"])


# -- help


def test_kinds_lists_every_kind_with_its_settings_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kinds"]) == 0
    shown = capsys.readouterr().out
    for name, kind in kinds().items():
        assert re.search(rf"^{name}: The .*autoencoder", shown, re.MULTILINE), name
        for setting in kind.Config.model_fields.keys() - {"kind"}:
            assert f"    {setting} = " in shown
    assert "tasks: encode, reconstruct, sample, score" in shown


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["export"],
        ["evaluate"],
        ["make"],
        ["kinds"],
        ["calibrate"],
        ["noise"],
        ["denoise-camera"],
        ["compare"],
    ],
)
def test_every_command_and_option_has_a_help_text(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "python -m training" in shown
    options = shown.partition("\noptions:\n")[2].partition("\nexamples:")[0]
    entries = re.split(r"\n  (?=-)", "\n" + options)[1:]
    assert entries
    assert all(len(entry.split()) > 3 for entry in entries), "an option without a help text"


def test_help_does_not_wait_for_torch() -> None:
    script = "import sys, training.__main__ as m; m._parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("argv", [[], ["fly"], ["train"], ["export"]])
def test_a_wrong_command_line_is_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err


# -- errors


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["train", "walkwey"], "no recipe 'walkwey'"),
        (["train", "tiny.yaml", "--set", "train.stpes=3"], "did you mean 'steps'?"),
        (["train", "tiny.yaml", "--data", "nowhere"], "nowhere/frames.npz: cannot read the array 'x'"),
        (["train", "tiny.yaml", "--run", "data"], "data exists: go on with --resume"),
        (["train", "tiny.yaml", "--resume"], "--resume: there is no run runs/tiny"),
        (["train", "tiny.yaml", "--set", "score.false_alarm_rate=0.01"], "18 normal frames cannot support"),
        (["export", "data"], "data is no run folder"),
        (["evaluate", "data"], "data/manifest.json: cannot be read"),
    ],
)
@pytest.mark.usefixtures("place")
def test_what_the_user_can_cure_is_one_message_and_code_2(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert expected in shown
    assert "Traceback" not in shown


def test_a_model_without_checks_says_where_they_are_described(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(exported.folder / "sampler"), "--device", "cpu"]) == 2
    assert "the recipe of tiny names nothing under `evaluate:`; see docs/training.md" in capsys.readouterr().err


def test_ctrl_c_before_the_training_is_code_130(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.data.load", press)
    assert main(["train", "tiny.yaml"]) == 130
    assert "stopped" in capsys.readouterr().err
    assert not (place / "runs").exists()


# -- Ctrl-C, as it is pressed


def test_ctrl_c_saves_says_how_to_go_on_and_resuming_finishes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "tiny.yaml", "--set", "train.learning_rate=0.02", "--set", "train.steps=1000000"]
    command = [sys.executable, "-m", "training", *argv]
    with subprocess.Popen(
        command, cwd=place, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        give_up = time.monotonic() + 60
        while not (place / "runs/tiny/checkpoints/last.ckpt").is_file():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < give_up, "the training does not begin"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    expected = "python -m training train tiny.yaml --data data --run runs/tiny --resume --set train.learning_rate=0.02"
    assert f"stopped and saved; go on with: {expected} --set train.steps=1000000" in shown
    run = place / "runs" / "tiny"
    step = step_of(run, "interrupted")
    assert step >= step_of(run) > 0

    assert main(["train", "tiny.yaml"]) == 2, "the run is not overwritten"
    total = step + 6
    assert (
        main(["train", "tiny.yaml", "--resume", "--set", "train.learning_rate=0.02", "--set", f"train.steps={total}"])
        == 0
    )
    assert step_of(run) == total
    assert not (run / "checkpoints" / "interrupted.ckpt").exists()
    assert "next: python -m training export runs/tiny --data data" in capsys.readouterr().err


# -- the whole way


def test_make_trains_exports_and_evaluates_and_goes_on_where_it_stopped(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["make", "tiny.yaml", "--device", "cpu", "--set", "train.steps=8"]) == 0
    shown = capsys.readouterr()
    assert "36 frames to train on, 6 to validate, 18 to calibrate" in shown.err
    assert "models/tiny: tiny version 1, can reconstruct, score, encode" in shown.err
    assert "# tiny" in shown.out
    assert "test frames: reconstruction of 12 frames" in shown.out
    manifest = read_manifest(place / "models" / "tiny")
    assert manifest.calibration is not None
    assert manifest.calibration.count == 18
    assert {metric.name for metric in manifest.metrics} == {"PSNR", "SSIM", "squared error a frame"}

    before = (place / "runs/tiny/checkpoints/best.ckpt").read_bytes()
    exports: list[object] = []

    def note(*arguments: object) -> Manifest:
        exports.append(arguments[-1])
        return manifest

    monkeypatch.setattr("training.export.export", note)
    assert main(["make", "tiny.yaml", "--device", "cpu", "--set", "train.steps=8"]) == 0
    assert exports == [Path("models/tiny")]
    assert (place / "runs/tiny/checkpoints/best.ckpt").read_bytes() == before, "a finished run is not trained again"


def test_unreadable_files_are_named_on_the_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "pyproject.toml", place / "data" / "broken.png")
    argv = ["train", "tiny.yaml", "--set", "data.sources=[{path: frames.npz:x}, {path: .}]", "--set", "train.steps=1"]
    assert main([*argv, "--set", "data.unreadable_share=0.5"]) == 0
    assert "1 unreadable files left out, broken.png first" in capsys.readouterr().err


def test_noise_draws_every_corruption_of_a_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(draw(1, channels=3, height=120, width=160)[0]).save(place / "frame.png")
    assert main(["noise", "frame.png", "--out", "noise.jpg"]) == 0
    assert "noise.jpg" in capsys.readouterr().err
    with Image.open(place / "noise.jpg") as sheet:
        assert sheet.width > 1000
    assert main(["noise", "missing.png", "--out", "noise.jpg"]) == 2
    assert "missing.png is no file" in capsys.readouterr().err
