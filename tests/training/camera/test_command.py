"""The command denoise-camera on real folders: what it writes, and when it writes nothing and why."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.devices import Device
from runtime.model import Model
from tests.training.camera.scene import record, write
from tests.training.conftest import Exported
from training.__main__ import main
from training.camera import learn
from training.camera.command import denoise_camera
from training.camera.order import Order
from training.weights import load_weights

pytestmark = pytest.mark.xdist_group("exported")


@pytest.fixture
def order(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    """Give an order on noisy footage; a tiny network may learn faster than a real one."""
    monkeypatch.setattr(learn, "LEARNING_RATE", 0.01)
    monkeypatch.setattr(learn, "EMA_DECAY", 0.8)
    footage = write(record((50, 40), sigma=20, channels=3).frames, tmp_path / "door")
    return Order(footage, tmp_path / "models" / "door", exported.folder / "denoiser", 60, 0, 1, force=False)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_noisy_camera_gets_a_model_of_its_own(order: Order, cpu: Device) -> None:
    messages = list(denoise_camera(order))
    assert messages[0].startswith("90 colour frames of 200 x 136 pixels, 2 clips; ")
    assert "noise: level 20" in messages[0]
    assert "| denoiser, blind | " in messages[1]
    assert "dB beside denoiser on held-out frames" in messages[2]
    model = Model.open(order.out, cpu)
    assert model.manifest.name == "door"
    assert model.manifest.provenance.command == order.command
    figures = {metric.method: metric.value for metric in model.manifest.metrics if metric.name == "PSNR"}
    assert figures["this model, blind"] > figures["denoiser, blind"] + 0.1
    card = (order.out / "README.md").read_text()
    assert order.command in card
    assert "](camera-noise.png)" in card
    assert "](camera.jpg)" in card
    assert "denoised.jpg" not in card
    recipe, _ = load_weights(order.out)  # it can be taught again
    assert [source.path for source in recipe.data.sources] == ["door"]


def test_a_clean_camera_needs_none(order: Order, tmp_path: Path) -> None:
    clean = write(record((50, 40), sigma=0.5).frames, tmp_path / "clean")
    messages = list(denoise_camera(replace(order, footage=clean)))
    assert messages[-1].startswith("nothing to remove: where nothing moves, the noise leaves frames at ")
    assert messages[-1].endswith("No model is written")
    assert not order.out.exists()


def test_too_short_a_lesson_is_not_worth_a_model_unless_forced(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "LEARNING_RATE", 1e-9)
    messages = list(denoise_camera(replace(order, steps=1)))
    assert messages[-1].startswith("not worth a model of its own: it gains +0.00 dB on denoiser")
    assert not order.out.exists()
    assert list(denoise_camera(replace(order, steps=1, force=True)))[-1].startswith(f"{order.out}: ")
    assert (order.out / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--out", "models/A b"], "'A b' is no name for a model"),
        (["--model", "nowhere"], "nowhere/manifest.json: cannot be read"),
        (["--model", "{models}/scorer"], "are not in its graphs"),
        (["--model", "{models}/denoiser", "--out", "{models}/denoiser"], "is the model to start from; name another"),
        (["--model", "{models}/denoiser"], "nowhere: no such folder of frames"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_what_the_user_can_cure_is_one_message_and_code_2(
    changes: list[str],
    expected: str,
    exported: Exported,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.format(models=exported.folder) for word in changes]
    assert main(["denoise-camera", "nowhere", "--out", "models/mycam", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert expected in shown


@pytest.mark.parametrize("option", ["--steps", "--every"])
def test_numbers_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["denoise-camera", "nowhere", "--out", "models/mycam", option, "0"])
    assert ended.value.code == 2
    assert "0 is less than 1" in capsys.readouterr().err
