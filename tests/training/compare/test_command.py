"""The command compare: what it prints and keeps, that a second call trains nothing, and errors of one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.devices import Device
from runtime.images import read
from runtime.model import Model
from tests.training.compare.conftest import write_clips
from training import runs
from training.__main__ import main
from training.compare.command import CAPTION, compare
from training.compare.order import Order

pytestmark = pytest.mark.xdist_group("compared")


def refuse(*_: object, **__: object) -> Path:
    pytest.fail("trained again")


def test_a_second_call_trains_nothing_and_finds_the_same(
    kept: Order, monkeypatch: pytest.MonkeyPatch, cpu: Device
) -> None:
    monkeypatch.setattr(runs, "train", refuse)
    (first, table, *sentences), (_, again, *_) = list(compare(kept)), list(compare(kept))
    assert first.startswith("8 clips at 32 x 32, grey: 48 to learn, 16 to choose checkpoints")
    assert recalls(again) == recalls(table)
    assert sum("Pick: " in sentence for sentence in sentences) == 1
    assert "denoising is left out: it gives no anomaly score." in sentences
    text = (kept.out / "compare.md").read_text(encoding="utf-8")
    assert recalls(text) == recalls(table)
    assert kept.command in text
    assert f"![{CAPTION}](compare.png)" in text
    picture = read(kept.out / "compare.png").pixels
    assert picture.shape[0] > picture.shape[1], "six sorts below each other, two kinds beside the anomaly"
    model = Model.open(kept.out / "models" / "plain", cpu)
    assert model.manifest.calibration is not None


def recalls(text: str) -> list[list[str]]:
    """Return the cells of the table up to the false alarms: times differ from call to call."""
    return [[cell.strip() for cell in line.split("|")[1:11]] for line in text.splitlines() if line.startswith("|")]


def test_the_command_line_asks_for_the_same_again(order: Order) -> None:
    words = replace(order, steps=None, minutes=0.5).command.split()
    assert words[:4] == ["python", "-m", "training", "compare"]
    assert words[words.index("--minutes") + 1] == "0.5"
    assert words[words.index("--kinds") + 1 :] == ["contractive", "denoising", "plain"]
    assert "--steps 6" in order.command


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a few frames in `few` and none in `none`."""
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path / "few", 2, 4)
    (tmp_path / "none").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "0.png").write_bytes(b"torn")
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["nowhere"], "nowhere: no such folder of frames, and no such video or archive"),
        (["none"], "none: holds no frame that can be read; give a folder of images or videos"),
        (["torn"], "torn: holds no frame that can be read"),
        (["few"], "few: 8 frames are too few: 2 of them would set the thresholds"),
        (["few", "--kinds", "plian"], "--kinds: no kind 'plian'; there are contractive"),
        (["few", "--false-alarm-rate", "2"], "--false-alarm-rate 2: give a share of the frames above 0 and below 1"),
        (["few", "--minutes", "0"], "--minutes 0: give a time above 0"),
        (["few.npz:x"], "few.npz: cannot read the array 'x'"),
    ],
)
def test_what_the_user_can_cure_is_one_message_and_code_2(
    argv: list[str], expected: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *argv]) == 2
    shown = capsys.readouterr().err
    assert sum(line.startswith("error: ") for line in shown.splitlines()) == 1
    assert expected in shown
    assert "Traceback" not in shown
    assert not (elsewhere / "runs").exists()


def test_ctrl_c_while_it_trains_says_how_to_go_on(
    footage: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: object, **__: object) -> Path:
        raise SystemExit(0)  # as Lightning does

    monkeypatch.setattr(runs, "train", press)
    options = ["--kinds", "plain", "--steps", "3", "--false-alarm-rate", "0.1", "--pixels", "1024"]
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(footage), *options])
    assert ended.value.code == 130
    assert "stopped and saved; the same command goes on" in capsys.readouterr().err
    assert (elsewhere / "runs" / "compare-door" / "frames.json").is_file()
