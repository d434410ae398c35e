"""The contract: what a manifest may say, what it must not, and the p-value that follows from its calibration."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime.errors import ModelFolderInvalid
from runtime.manifest import (
    MANIFEST_FILE,
    Calibration,
    File,
    FrameInput,
    Manifest,
    Noise,
    Task,
    Tensor,
    read_manifest,
    write_manifest,
)
from tests.model_folders import (
    edit_manifest,
    write_clip_scorer,
    write_denoiser,
    write_generator,
    write_motion_scorer,
    write_scorer,
)

Json = dict[str, Any]
WRITERS: list[Callable[[Path], Path]] = [
    write_scorer,
    write_denoiser,
    write_generator,
    write_clip_scorer,
    write_motion_scorer,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scorer(tmp_path / "front-door")


def calibration(scores: list[float], **changes: object) -> Calibration:
    facts = {"count": len(scores), "threshold": 1.0, "false_alarm_rate": 0.01, "map_low": 0.0, "map_threshold": 1.0}
    return Calibration.model_validate({"scores": scores, "source": "a test"} | facts | changes)


# -- reading and writing


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_what_is_written_is_read(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    folder = write(tmp_path / "one")
    manifest = read_manifest(folder)
    before = (folder / MANIFEST_FILE).read_bytes()
    write_manifest(manifest, folder)
    assert read_manifest(folder) == manifest
    assert (folder / MANIFEST_FILE).read_bytes() == before


def test_a_manifest_is_for_people_too(folder: Path) -> None:
    manifest = read_manifest(folder)
    write_manifest(manifest.model_copy(update={"description": "die Tür, nachts"}), folder)
    text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    assert "die Tür, nachts" in text
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 50


def test_a_manifest_does_not_change(folder: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_manifest(folder).name = "other"  # type: ignore[misc]


# -- folders that are refused


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelFolderInvalid) as caught:
        read_manifest(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / MANIFEST_FILE))
    for word in words:
        assert word in message


def test_no_folder_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "No such file")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()
    refused(tmp_path, "directory")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"name": "\xe9"}',
        b"\0" * 100,
        b"[" * 100_000,
        b'{"schema_version": 1}',
    ],
)
def test_content_that_is_no_manifest(folder: Path, content: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    refused(folder)


def test_every_prefix_of_a_manifest_is_refused(folder: Path) -> None:
    data = (folder / MANIFEST_FILE).read_bytes().rstrip()
    for length in range(0, len(data), 97):
        (folder / MANIFEST_FILE).write_bytes(data[:length])
        refused(folder)


@pytest.mark.parametrize(
    "place", [(), ("input",), ("graphs",), ("graphs", "autoencoder"), ("golden",), ("provenance",)]
)
def test_unknown_keys_are_refused_by_name(folder: Path, place: tuple[str, ...]) -> None:
    def add(content: Json) -> None:
        for key in place:
            content = content[key]
        content["treshold"] = 1

    edit_manifest(folder, add)
    refused(folder, ".".join((*place, "treshold")), "not permitted")


def test_an_unknown_graph_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda content: content["graphs"].update(decoder=content["graphs"]["autoencoder"]))
    refused(folder, "graphs.decoder")


def test_a_schema_of_the_future_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda content: content.update(schema_version=2))
    refused(folder, "schema_version")


def test_the_name_is_the_folders(folder: Path) -> None:
    other = folder.rename(folder.with_name("back-door"))
    refused(other, "'front-door'", "'back-door'")


@pytest.mark.parametrize("name", ["", "Front", "-a", "a b", "a/b", "..", "a" * 64, "a\n", "ä"])
def test_names_that_no_model_may_have(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda content: content.update(name=name))
    refused(folder, "name")


TRICKS = ["../golden.npz", "/etc/passwd", "a/../golden.npz", "..", ".", ".golden", "a\\b", "C:x", "x\n", "x\0", "", "~"]


@pytest.mark.parametrize("trick", TRICKS)
def test_file_names_stay_in_the_folder(folder: Path, trick: str) -> None:
    edit_manifest(folder, lambda content: content["golden"].update(file=trick))
    refused(folder, "golden.file")


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_checksums_are_64_hex_digits(folder: Path, sha256: str) -> None:
    edit_manifest(folder, lambda content: content["graphs"]["autoencoder"].update(sha256=sha256))
    refused(folder, "graphs.autoencoder.sha256")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(folder: Path, value: str) -> None:
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text())
    content["calibration"]["threshold"] = "THRESHOLD"
    path.write_text(json.dumps(content).replace('"THRESHOLD"', value))
    refused(folder)


# -- what must agree with what


@pytest.mark.parametrize(
    ("task", "output"),
    [
        (Task.RECONSTRUCT, "reconstruction"),
        (Task.DENOISE, "reconstruction"),
        (Task.SCORE, "anomaly_score"),
        (Task.ENCODE, "latent"),
    ],
)
def test_a_task_needs_its_output(folder: Path, task: Task, output: str) -> None:
    def drop(content: Json) -> None:
        graph = content["graphs"]["autoencoder"]
        graph["outputs"] = [tensor for tensor in graph["outputs"] if tensor["name"] != output]
        content["tasks"] = [task]

    edit_manifest(folder, drop)
    refused(folder, f"task {task} needs the output {output}")


@pytest.mark.parametrize("missing", ["generator", "latent_dim"])
def test_sampling_needs_a_generator_and_its_dimension(tmp_path: Path, missing: str) -> None:
    folder = write_generator(tmp_path / "faces")
    edit_manifest(folder, lambda content: (content["graphs"] if missing == "generator" else content).pop(missing))
    refused(folder)


def test_a_model_can_do_something(folder: Path) -> None:
    edit_manifest(folder, lambda content: content.update(tasks=[]))
    refused(folder, "tasks")


def test_a_task_that_nobody_knows(folder: Path) -> None:
    edit_manifest(folder, lambda content: content["tasks"].append("dream"))
    refused(folder, "tasks")


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_tensors_have_the_names_of_the_contract(folder: Path, side: str) -> None:
    extra = {"name": "saliency", "dtype": "float32", "shape": ["batch"]}
    edit_manifest(folder, lambda content: content["graphs"]["autoencoder"][side].append(extra))
    refused(folder, "the autoencoder takes flow, frames, noise_level", "saliency")


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_graph_without_tensors(folder: Path, side: str) -> None:
    edit_manifest(folder, lambda content: content["graphs"]["autoencoder"].update({side: []}))
    refused(folder, "nothing")


@pytest.mark.parametrize(
    ("tensor", "change"),
    [
        ("frames", {"dtype": "float32"}),
        ("frames", {"shape": ["batch", 1, 32, 48]}),
        ("frames", {"shape": ["batch", "height", "width", 1]}),
        ("frames", {"shape": ["batch", 32, 48]}),
        ("frames", {"shape": [1, 32, 48, 1]}),
        ("reconstruction", {"dtype": "float32"}),
        ("anomaly_map", {"shape": ["batch", 16, 24]}),
        ("anomaly_score", {"shape": ["batch", 1]}),
        ("latent", {"shape": ["batch", 5]}),
    ],
)
def test_tensors_have_the_geometry_of_the_manifest(folder: Path, tensor: str, change: Json) -> None:
    def edit(content: Json) -> None:
        graph = content["graphs"]["autoencoder"]
        for found in (*graph["inputs"], *graph["outputs"]):
            if found["name"] == tensor:
                found.update(change)

    edit_manifest(folder, edit)
    refused(folder, f"the autoencoder has {tensor}", f"it should be {tensor}")


def test_the_names_of_varying_dimensions_are_free(folder: Path) -> None:
    def rename(content: Json) -> None:
        graph = content["graphs"]["autoencoder"]
        for tensor in (*graph["inputs"], *graph["outputs"]):
            tensor["shape"][0] = "n"

    edit_manifest(folder, rename)
    assert read_manifest(folder).graphs.autoencoder.inputs[0].shape == ("n", 32, 48, 1)


def test_tensors_agree() -> None:
    tensor = Tensor(name="frames", dtype="uint8", shape=("batch", 3))
    assert tensor.agrees(Tensor(name="frames", dtype="uint8", shape=("n", 3)))
    assert not tensor.agrees(Tensor(name="samples", dtype="uint8", shape=("batch", 3)))
    assert not tensor.agrees(Tensor(name="frames", dtype="uint8", shape=("batch", "channels")))
    assert str(tensor) == "frames uint8['batch', 3]"


def test_an_input_has_both_sides_or_neither() -> None:
    assert FrameInput(channels=3).shape == ("height", "width", 3)
    assert FrameInput(channels=1, height=4, width=5).shape == (4, 5, 1)
    for half in ({"height": 4}, {"width": 4}):
        with pytest.raises(ValidationError, match="both"):
            FrameInput.model_validate({"channels": 1} | half)


def test_frames_of_a_clip_have_a_size(tmp_path: Path) -> None:
    """They are kept in memory for every camera."""
    folder = write_clip_scorer(tmp_path / "clips")
    edit_manifest(folder, lambda content: content["input"].update(height=None, width=None))
    refused(folder, "a clip needs height and width")


@pytest.mark.parametrize(
    "change", [{"channels": 2}, {"height": 0, "width": 4}, {"stride": 0}, {"time": 0}, {"receptive_field": -1}]
)
def test_impossible_geometries(change: Json) -> None:
    with pytest.raises(ValidationError):
        FrameInput.model_validate({"channels": 1} | change)


def test_noise_levels_are_in_order() -> None:
    with pytest.raises(ValidationError, match="minimum_level"):
        Noise(description="Gaussian", minimum_level=20, maximum_level=10)


def test_the_checksum_of_one_graph_or_of_all(tmp_path: Path) -> None:
    one = read_manifest(write_scorer(tmp_path / "one"))
    assert one.sha256 == one.graphs.autoencoder.sha256
    two = read_manifest(write_generator(tmp_path / "two"))
    sums = "".join(graph.sha256 for graph in two.graphs.present().values())
    assert two.sha256 == hashlib.sha256(sums.encode()).hexdigest()
    assert list(two.graphs.present()) == ["autoencoder", "generator"]


def test_a_file_has_bytes() -> None:
    with pytest.raises(ValidationError):
        File(file="golden.npz", sha256="0" * 64, bytes=0)


def test_the_schema_can_be_shown() -> None:
    assert set(Manifest.model_json_schema()["required"]) >= {"name", "version", "tasks", "graphs", "golden"}


# -- calibration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [2.0, 1.0]}, "ascend"),
        ({"scores": []}, "scores"),
        ({"scores": [1.0, float("nan"), 3.0]}, "scores.1"),
        ({"count": 2}, "3 scores cannot stand for 2 frames without `above`"),
        ({"count": 4}, "3 scores cannot stand for 4 frames without `above`"),
        ({"above": (2, 1)}, "a number for each of 3 scores"),
        ({"above": (3, 1, 0)}, "fall from less than 3 to 0"),
        ({"above": (1, 1, 0)}, "fall from less than 3 to 0"),
        ({"above": (2, 1, 1)}, "fall from less than 3 to 0"),
        ({"scores": [1.0, 1.0, 3.0], "above": (2, 1, 0)}, "thinned scores must differ"),
        ({"map_low": 2.0}, "map_low"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate"),
    ],
)
def test_a_calibration_in_disorder(change: Json, message: str) -> None:
    facts = calibration([1.0, 2.0, 3.0]).model_dump()
    with pytest.raises(ValidationError, match=message):
        Calibration.model_validate(facts | change)


SCORES = st.lists(st.integers(-5, 5).map(float) | st.floats(-10, 10), min_size=1, max_size=60)  # with many ties


@given(scores=SCORES, score=st.integers(-6, 6).map(float) | st.floats(-11, 11))
def test_the_p_value_is_the_share_of_normal_frames_that_score_as_high(scores: list[float], score: float) -> None:
    at_least = sum(1 for normal in scores if normal >= score)
    assert calibration(sorted(scores)).p_value(score) == (1 + at_least) / (1 + len(scores))


@given(
    scores=SCORES,
    keep=st.integers(1, 59),
    score=st.integers(-6, 6).map(float) | st.floats(-11, 11),
    seed=st.integers(0, 99),
)
def test_thinned_scores_never_make_a_p_value_smaller(scores: list[float], keep: int, score: float, seed: int) -> None:
    """The highest score stays; a p-value between two that stayed is that of the lower."""
    every = calibration(sorted(scores))
    others = sorted(set(scores))[:-1]
    kept = sorted({*random.Random(seed).sample(others, min(keep, len(others))), max(scores)})  # noqa: S311
    above = tuple(sum(normal > one for normal in scores) for one in kept)
    thinned = calibration(kept, count=len(scores), above=above)
    assert thinned.p_value(score) >= every.p_value(score)
    if set(kept) == set(scores):
        assert thinned.p_value(score) == every.p_value(score)


def test_alarms_an_hour_need_a_frame_rate() -> None:
    assert calibration([1.0]).false_alarms_per_hour is None
    assert calibration([1.0], frames_per_second=10.0).false_alarms_per_hour == pytest.approx(360)


@given(scores=SCORES, pair=st.tuples(st.floats(-11, 11), st.floats(-11, 11)))
def test_a_higher_score_is_never_likelier(scores: list[float], pair: tuple[float, float]) -> None:
    normal = calibration(sorted(scores))
    low, high = sorted(pair)
    assert 0 < normal.p_value(high) <= normal.p_value(low) <= 1


def test_the_p_value_holds_its_promise_on_exchangeable_scores() -> None:
    """Of n + 1 frames ranked at random, at most a share alpha gets a p-value of alpha or less."""
    scores = [float(score) for score in range(100)]
    for alpha in (0.01, 0.05, 0.5):
        alarms = 0
        for held_out in scores:
            normal = calibration([score for score in scores if score != held_out])
            alarms += normal.p_value(held_out) <= alpha
        assert alarms <= alpha * len(scores)


# -- flow


@pytest.mark.parametrize(("time", "step", "flows"), [(2, 1, 1), (9, 2, 4), (5, 4, 1)])
def test_flows_fill_a_clip(time: int, step: int, flows: int) -> None:
    assert FrameInput(channels=1, time=time, flow_step=step).flows == flows
    assert FrameInput(channels=1, time=time).flows == 0


@pytest.mark.parametrize(("time", "step"), [(1, 1), (4, 2), (3, 4)])
def test_a_clip_that_the_flow_does_not_fill_is_refused(time: int, step: int) -> None:
    with pytest.raises(ValidationError, match="1 more than a multiple of flow_step"):
        FrameInput(channels=1, time=time, flow_step=step)


@pytest.mark.parametrize(("time", "step", "fields"), [(31, 2, 6), (4, 2, 1), (3, 2, 1)])
def test_flow_may_look_at_the_end_of_a_clip_alone(time: int, step: int, fields: int) -> None:
    assert FrameInput(channels=1, time=time, flow_step=step, flow_fields=fields).flows == fields


@pytest.mark.parametrize(("time", "step", "fields"), [(12, 2, 6), (9, None, 2), (2, 2, 1)])
def test_more_flow_than_the_clip_has_is_refused(time: int, step: int | None, fields: int) -> None:
    with pytest.raises(ValidationError, match=f"fit into the {time} frames"):
        FrameInput(channels=1, time=time, flow_step=step, flow_fields=fields)


@pytest.mark.parametrize("write", [write_motion_scorer, write_clip_scorer])
def test_flow_and_its_step_go_together(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    folder = write(tmp_path / "one")
    step = read_manifest(folder).input.flow_step
    edit_manifest(folder, lambda content: content["input"].update(flow_step=1 if step is None else None))
    with pytest.raises(ModelFolderInvalid, match=r"flow_step must be given where the autoencoder takes flow"):
        read_manifest(folder)
