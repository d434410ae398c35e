"""Calibration of an exported model: at its export, and later by the command, from frames it has not learnt from."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from runtime.calibrations import Calibrations
from runtime.conformal import FalseAlarms
from runtime.devices import Device
from runtime.errors import TooFewFrames
from runtime.images import ImageFormat, encode, fingerprint
from runtime.manifest import read_manifest
from runtime.model import Model
from tests.model_folders import edit_manifest, normal_frames, write_clip_scorer, write_denoiser, write_scorer
from tests.training.tiny import recipe
from training.__main__ import main
from training.calibrate import Order, calibrate, calibrate_folder, check_enough, in_batches, outputs_of, score_normal
from training.data import Frames
from training.errors import DataError

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, cpu: Device) -> Model:
    return Model.open(write_scorer(tmp_path_factory.mktemp("models") / "scorer"), cpu)


def as_frames(pixels: Pixels) -> Frames:
    found = Frames()
    for index, frame in enumerate(pixels):
        found.add("clip", f"clip/{index}.png", frame)
    return found


def write_frames(folder: Path, pixels: Pixels) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(pixels):
        (folder / f"{index:03d}.png").write_bytes(encode(frame, ImageFormat.PNG))
    return folder


# -- a whole model


def test_a_calibration_says_what_normal_frames_score(scorer: Model) -> None:
    pixels = normal_frames(50, scorer.manifest.input, seed=5)
    found = calibrate(scorer, as_frames(pixels), FalseAlarms(0.1, 2), "fifty frames")
    outputs = scorer.run(pixels)
    assert outputs.anomaly_score is not None
    assert outputs.anomaly_map is not None
    scores = np.sort(outputs.anomaly_score.astype(np.float64))
    assert found.scores == pytest.approx(scores)
    assert (found.count, found.clips) == (50, 1)
    assert found.threshold == pytest.approx(scores[45])  # ceil(0.9 * 51) = 46th
    assert (scores > found.threshold).sum() <= 5
    peaks = np.sort(outputs.anomaly_map.max(axis=(1, 2)))
    assert found.map_threshold == pytest.approx(peaks[45])
    assert found.map_low == pytest.approx(np.median(np.median(outputs.anomaly_map, axis=(1, 2))))
    assert (found.source, found.false_alarm_rate, found.frames_per_second) == ("fifty frames", 0.1, 2)
    assert found.p_value(scores[-1] + 1) == pytest.approx(1 / 51)


def test_too_few_frames_are_refused(scorer: Model) -> None:
    with pytest.raises(TooFewFrames, match=r"8 normal frames .* at least 9 are needed"):
        calibrate(scorer, as_frames(normal_frames(8, scorer.manifest.input)), FalseAlarms(0.1), "eight")
    with pytest.raises(DataError, match=r"at least 9 are needed.*data\.calibration_share, score\.false_alarm_rate"):
        check_enough(8, 0.1)
    check_enough(9, 0.1)


def test_a_clip_model_sees_each_frame_with_those_before_it_in_its_clip(tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_clip_scorer(tmp_path / "clips"), cpu)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 24, 1), np.uint8)
    clips = ["a"] * 9 + ["b"] * 3 + ["c"] * 8  # b is too short to be scored
    found = score_normal(model, ((clip, str(i), pixels[i]) for i, clip in enumerate(clips)))
    ends = [*range(3, 9), *range(15, 20)]
    expected = [model.run(pixels[None, end - 3 : end + 1])[0].anomaly_score for end in ends]
    assert found.scores == pytest.approx([float(score) for score in expected])  # type: ignore[arg-type]
    assert found.clips.tolist() == [0] * 6 + [1] * 5
    with pytest.raises(DataError, match="no clip of 4 frames in a row"):
        score_normal(model, (("a", str(i), pixels[i]) for i in range(3)))


def test_frames_of_any_size_are_scaled_as_they_are_served(scorer: Model) -> None:
    large = np.random.default_rng(1).integers(0, 256, (64, 96, 1), np.uint8)
    small = normal_frames(1, scorer.manifest.input)[0]
    found = score_normal(scorer, [("a", "large", large), ("a", "small", small)])
    expected = scorer.run(np.stack([scorer.fit(large), small])).anomaly_score
    assert found.scores == pytest.approx(expected)


def test_a_score_that_is_no_number_names_its_frame(scorer: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.calibrate._scored", lambda *_: (np.zeros((3, 2, 2)), np.array([1, np.nan, 3])))
    pixels = normal_frames(3, scorer.manifest.input)
    with pytest.raises(DataError, match="the score of f1 is nan"):
        score_normal(scorer, ((("clip", f"f{i}", pixels[i])) for i in range(3)))


# -- the command


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a folder with models/scorer, whose recipe is ours, and footage/a and footage/b of normal frames."""
    folder = write_scorer(tmp_path / "models" / "scorer")
    config = recipe(
        data={"sources": [{"path": "footage/train"}]},
        score={"window": 3, "false_alarm_rate": 0.1},
        evaluate=[{"type": "anomaly", "name": "t", "frames": {"path": "footage/test"}, "labels": "labels.csv"}],
    )
    geometry = read_manifest(folder).input
    learnt = normal_frames(1, geometry, seed=9)
    facts = {"config": config.model_dump(mode="json"), "trained_on": [fingerprint(learnt[0])]}
    edit_manifest(folder, lambda content: content["provenance"].update(facts))
    for seed, clip in enumerate("ab"):
        write_frames(tmp_path / "footage" / clip, normal_frames(30, geometry, seed=seed))
    write_frames(tmp_path / "footage" / "learnt", learnt)
    write_frames(tmp_path / "footage" / "test", normal_frames(3, geometry, seed=4))
    return tmp_path


def run(place: Path, frames: str, *options: str) -> int:
    return main(["calibrate", str(place / "models" / "scorer"), str(place / frames), "--device", "cpu", *options])


def only(place: Path) -> Path:
    """Give a folder of the clips a and b alone."""
    for name in ("learnt", "test"):
        (place / "footage" / name).rename(place / name)
    return place / "footage"


def test_a_camera_is_calibrated_beside_the_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only(place)
    options = ("--camera", "door", "--false-alarms-per-hour", "360", "--fps", "2")
    assert run(place, "footage", *options) == run(place, "footage", *options) == 0
    manifest = read_manifest(place / "models" / "scorer")
    made = Calibrations(place / "models" / "calibrations").find(manifest, "door")
    assert (made.version, made.count, made.clips, made.source) == (2, 60, 2, "60 normal frames of footage")
    assert made.false_alarms_per_hour == pytest.approx(360)
    said = capsys.readouterr().out
    assert f"camera door, version 2: the threshold is {made.threshold:.6g}" in said
    assert "set for 360 false alarms an hour at 2 frames/s (0.05 a frame), from 60 normal frames in 2 clips" in said
    assert "95 % interval of the rate" in said
    assert manifest.calibration is not None
    assert "made by the tests" in manifest.calibration.source


def test_without_a_camera_the_models_own_threshold_is_set(place: Path) -> None:
    only(place)
    assert run(place, "footage", "--false-alarm-rate", "0.2", "--every", "2") == 0
    manifest = read_manifest(place / "models" / "scorer")
    assert manifest.calibration is not None
    assert (manifest.calibration.count, manifest.calibration.false_alarm_rate) == (30, 0.2)
    assert not (place / "models" / "calibrations").exists()
    assert f"{manifest.calibration.threshold:.6g}" in (place / "models" / "scorer" / "README.md").read_text()


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ("footage", (), "footage/learnt/000.png is a frame that scorer was trained on"),
        ("footage/test", (), "is what scorer is tested on"),
        ("footage/a", ("--false-alarms-per-hour", "0.0416", "--fps", "10"), "n = 30 normal frames cannot support"),
        ("footage/a", ("--false-alarms-per-hour", "1"), "state the frames a second too"),
        ("footage/a", ("--false-alarm-rate", "0.1", "--false-alarms-per-hour", "1", "--fps", "1"), "not both"),
        ("footage/a", ("--false-alarm-rate", "1.5"), "between 1e-12 and 1"),
        ("footage/a", ("--false-alarms-per-hour", "1", "--fps", "0"), "frames a second must be a number above 0"),
        ("footage/a", ("--false-alarm-rate", "0.1", "--fps", "-2"), "above 0; they are -2"),
        ("footage/a", ("--fps", "inf"), "above 0; they are inf"),
        ("nowhere", (), "no such folder"),
        ("models", (), "found no frames"),
    ],
)
def test_what_cannot_be_calibrated_is_one_message(
    place: Path, frames: str, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, frames, "--camera", "door", *options) == 2
    assert message in capsys.readouterr().err
    assert not (place / "models" / "calibrations").exists()


def test_too_few_frames_are_told_before_any_is_scored(
    place: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_clip_scorer(place / "models" / "clips")
    order = Order(folder, only(place), "door", 0.01, None, None, 1, place / "calibrations")
    monkeypatch.setattr("training.calibrate.score_normal", lambda *_: pytest.fail("frames are scored"))
    with pytest.raises(TooFewFrames, match=r"n = 54 normal frames .* at least 99 are needed"):  # clips of 30, less 3
        list(calibrate_folder(Model.open(folder, cpu), order))


def test_a_manifest_that_knows_no_frames_says_so(place: Path, cpu: Device) -> None:
    folder = place / "models" / "scorer"
    edit_manifest(folder, lambda content: content["provenance"].update({"trained_on": []}))
    model = Model.open(folder, cpu)

    def order(frames: Path) -> Order:
        return Order(folder, frames, "door", 0.1, None, None, 1, place / "calibrations")

    assert "make sure that these are others" in next(calibrate_folder(model, order(place / "footage" / "a")))
    with pytest.raises(DataError, match="does not say which of the frames"):
        list(calibrate_folder(model, order(place / "footage" / "train" / "01")))
    edit_manifest(folder, lambda content: content["provenance"].update({"config": {}}))
    assert "no recipe of ours" in next(calibrate_folder(Model.open(folder, cpu), order(place / "footage" / "a")))


def test_only_models_that_score_are_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_denoiser(tmp_path / "denoiser")
    assert main(["calibrate", str(folder), str(tmp_path), "--device", "cpu"]) == 2
    assert "cannot score" in capsys.readouterr().err


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", "models/x", "frames", "--camera", "../door"])
    assert "is no name for a camera" in capsys.readouterr().err


# -- batches


def test_frames_are_run_in_batches_and_in_order(scorer: Model) -> None:
    pixels = normal_frames(35, scorer.manifest.input)
    batches = list(in_batches(as_frames(pixels), "test", lambda stack: stack))
    assert [len(stack) for stack in batches] == [16, 16, 3]
    assert np.array_equal(np.concatenate(batches), pixels)
    scores = [outputs.anomaly_score for outputs in outputs_of(scorer, as_frames(pixels), "test")]
    assert [len(part) for part in scores if part is not None] == [16, 16, 3]
