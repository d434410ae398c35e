"""The whole benchmark on a tiny model and tiny photographs."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import denoise, shipped
from benchmarks.denoising import speed
from runtime.images import ImageFormat, encode
from tests.model_folders import write_denoiser
from tests.training.tiny import draw


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name, channels in (("bsds500/cbsd68", 3), ("set12", 1), ("nam25/noisy", 3), ("nam25/gt", 3)):
        (folder / name).mkdir(parents=True)
        for index, pixels in enumerate(draw(2, channels=channels, height=24, width=32)):
            (folder / name / f"{index:02d}.png").write_bytes(encode(pixels, ImageFormat.PNG))
    return folder


def test_a_model_that_does_too_little_is_told_what_it_missed(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_denoiser(tmp_path / "models" / "denoiser")
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "models")
    monkeypatch.setattr(speed, "SIZES", (speed.FrameSize(32, 24, runs=1),))
    figures = tmp_path / "figures.json"
    command = ["denoise", "--data", str(photographs), "--limit", "1", "--only", "denoiser", "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"missed: CBSD68, not clipped, level given, sigma 15, PSNR \(dB\) >= 33.8"):
        denoise.main()
    printed = capsys.readouterr().out
    assert "| denoiser, level given |" in printed
    assert "| DnCNN (published) |" in printed
    assert "### CBSD68, 1 images" in printed
    tables = json.loads(figures.read_text())["tables"]
    assert {row["ok"] for row in tables["Musts, by 1 images a set: for a quick look only"]} == {"yes", "NO"}


def test_a_name_that_no_denoiser_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_denoiser(tmp_path / "models" / "denoiser")
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "models")
    monkeypatch.setattr(sys, "argv", ["denoise", "--only", "denoizer"])
    with pytest.raises(SystemExit, match="there is denoiser"):
        denoise.main()
