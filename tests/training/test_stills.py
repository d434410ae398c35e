"""The shipped recipe for stills, from a plain folder of images to a served verdict, with random features."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.inspection.sets import DEVELOPMENT, Sample
from runtime.devices import Device
from runtime.images import ImageFormat, encode
from runtime.manifest import Task
from runtime.model import Model
from training.__main__ import main

FABRIC = DEVELOPMENT[1]
FORMS = (ImageFormat.PNG, ImageFormat.JPEG, ImageFormat.BMP, ImageFormat.WEBP)


def write(samples: list[Sample], folder: Path) -> None:
    """Write stills as a user may have them: several formats, every other one with three channels."""
    folder.mkdir()
    for index, sample in enumerate(samples):
        form = FORMS[index % len(FORMS)]
        pixels = sample.pixels.repeat(3 if index % 2 else 1, axis=2)
        (folder / f"{index}{form.value.suffixes[0]}").write_bytes(encode(pixels, form))


def settings(**values: object) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


SMALL = settings(
    autoencoder__weights="random", data__pixels=9000, train__steps=2, train__batch_size=4, train__validate_every=12,
    score__false_alarm_rate=0.1,
)  # fmt: skip


def test_a_folder_of_stills_becomes_a_model_that_scores(tmp_path: Path, cpu: Device) -> None:
    write([FABRIC.sample((0, i), damaged=False) for i in range(48)], tmp_path / "normal")
    places = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert main(["make", "stills", "--data", str(tmp_path / "normal"), *places, *SMALL]) == 0
    model = Model.open(tmp_path / "models" / "stills", cpu)
    manifest = model.manifest
    assert manifest.tasks == (Task.RECONSTRUCT, Task.SCORE)
    assert (manifest.input.height, manifest.input.width) == (96, 96)
    assert manifest.calibration is not None
    assert manifest.calibration.count == 10  # a fifth, held out
    assert sum(graph.bytes for graph in manifest.graphs.present().values()) < 16 * 2**20
    normal = FABRIC.sample((1, 0), damaged=False).pixels.repeat(3, axis=2)
    torn = normal.copy()
    blocks = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (10, 10))
    torn[60:110, 60:110] = np.kron(blocks, np.ones((5, 5), np.uint8))[..., None]
    frames = np.stack([model.fit(pixels) for pixels in (normal, torn)])
    scores = model.run(frames).anomaly_score
    assert scores is not None
    assert scores[1] > max(scores[0], manifest.calibration.threshold)
    assert (tmp_path / "models" / "stills" / "README.md").is_file()


def test_too_few_stills_for_the_rate_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write([FABRIC.sample((0, i), damaged=False) for i in range(20)], tmp_path / "normal")
    arguments = ["train", "stills", "--data", str(tmp_path / "normal"), "--run", str(tmp_path / "run")]
    assert main([*arguments, "--set", "autoencoder.weights=random"]) == 2
    assert "cannot support a false-alarm rate of 0.02 a frame: at least 49 are needed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
