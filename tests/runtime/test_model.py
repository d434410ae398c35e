"""Opening a folder, refusing a broken one, and running a good one: the numbers are those that numpy finds."""

import math
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from runtime.devices import Device
from runtime.errors import InvalidInput, ModelFolderInvalid, TaskNotSupported
from runtime.images import Pixels
from runtime.manifest import MANIFEST_FILE, Task, read_manifest
from runtime.model import ESTIMATE_CROP, ESTIMATE_MAX_PIXELS, Floats, Model, Outputs
from tests.model_folders import (
    describe_file,
    edit_manifest,
    normal_frames,
    write_clip_scorer,
    write_denoiser,
    write_generator,
    write_scorer,
    write_slow,
)

GRAPH, GOLDEN = "autoencoder.onnx", "golden.npz"
Arrays = dict[str, npt.NDArray[Any]]
Scalar = TypeVar("Scalar", bound=np.generic)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scorer(tmp_path / "front-door")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def scorer(folders: Path, cpu: Device) -> Model:
    return Model.open(write_scorer(folders / "scorer"), cpu)


@pytest.fixture(scope="module")
def denoiser(folders: Path, cpu: Device) -> Model:
    return Model.open(write_denoiser(folders / "denoiser"), cpu)


@pytest.fixture(scope="module")
def generator(folders: Path, cpu: Device) -> Model:
    return Model.open(write_generator(folders / "generator"), cpu)


@pytest.fixture(scope="module")
def clip_scorer(folders: Path, cpu: Device) -> Model:
    return Model.open(write_clip_scorer(folders / "clips"), cpu)


def random_frames(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def levels(*values: float) -> Floats:
    return np.asarray(values, np.float32)


def present(values: npt.NDArray[Scalar] | None) -> npt.NDArray[Scalar]:
    assert values is not None
    return values


def blurred(frames: Pixels) -> Pixels:
    """Average 3 x 3 with the edge repeated, of [b, h, w, c]."""
    height, width = frames.shape[1:3]
    padded = np.pad(frames.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.rint(sum(shifted) / 9), np.uint8)


# -- refused folders


def refused(folder: Path, device: Device, *words: str, file: str = GRAPH) -> None:
    with pytest.raises(ModelFolderInvalid) as caught:
        Model.open(folder, device)
    message = str(caught.value)
    assert message.startswith(f"{folder / file}: ")
    for word in words:
        assert word in message


def accept_file(folder: Path, name: str) -> None:
    """Make the manifest vouch for a file as it is now."""

    def edit(content: dict[str, Any]) -> None:
        for entry in (*content["graphs"].values(), content["golden"]):
            if entry and entry["file"] == name:
                entry.update(describe_file(folder / name).model_dump())

    edit_manifest(folder, edit)


def edit_golden(folder: Path, edit: Callable[[Arrays], object]) -> None:
    with np.load(folder / GOLDEN) as archive:
        arrays = dict(archive)
    edit(arrays)
    np.savez(folder / GOLDEN, allow_pickle=True, **arrays)
    accept_file(folder, GOLDEN)


def test_a_tampered_graph(folder: Path, cpu: Device) -> None:
    path = folder / GRAPH
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    expected = describe_file(path).sha256
    path.write_bytes(data)
    refused(folder, cpu, expected, describe_file(path).sha256, f"{len(data)} bytes", "copy the folder again")


@pytest.mark.parametrize("name", [GRAPH, GOLDEN])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_folder_half_copied(folder: Path, cpu: Device, name: str, share: float) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(folder, cpu, "sha256", file=name)


@pytest.mark.parametrize("name", [GRAPH, GOLDEN, MANIFEST_FILE])
def test_a_missing_file(folder: Path, cpu: Device, name: str) -> None:
    (folder / name).unlink()
    refused(folder, cpu, "No such file", file=name)


def test_a_manifest_that_is_none(folder: Path, cpu: Device) -> None:
    (folder / MANIFEST_FILE).write_bytes(b"\xff\xfe")
    refused(folder, cpu, file=MANIFEST_FILE)


@pytest.mark.parametrize("content", [b"\0", b"no graph", b"\x08\x09", bytes(1000)])
def test_a_graph_that_is_none(folder: Path, cpu: Device, content: bytes) -> None:
    (folder / GRAPH).write_bytes(content)
    accept_file(folder, GRAPH)
    refused(folder, cpu, "onnxruntime cannot open it")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_graph_that_the_manifest_vouches_for(folder: Path, cpu: Device, share: float) -> None:
    data = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(data[: int(share * len(data))])
    accept_file(folder, GRAPH)
    refused(folder, cpu)


def test_a_graph_with_an_operator_that_nobody_knows(folder: Path, cpu: Device) -> None:
    graph = onnx.load(folder / GRAPH)
    graph.graph.node[0].op_type = "Guess"
    onnx.save(graph, folder / GRAPH)
    accept_file(folder, GRAPH)
    refused(folder, cpu, "cannot open it", "Guess")


def test_another_models_graph(folder: Path, cpu: Device, tmp_path: Path) -> None:
    other = write_scorer(tmp_path / "other", height=16)
    shutil.copy(other / GRAPH, folder / GRAPH)
    accept_file(folder, GRAPH)
    refused(folder, cpu, "inputs should be frames uint8['batch', 32, 48, 1]", "are frames uint8['batch', 16, 48, 1]")


def test_outputs_in_another_order(folder: Path, cpu: Device) -> None:
    edit_manifest(folder, lambda content: content["graphs"]["autoencoder"]["outputs"].reverse())
    refused(folder, cpu, "outputs should be latent")


def test_a_type_that_the_contract_does_not_have(folder: Path, cpu: Device) -> None:
    graph = onnx.load(folder / GRAPH)
    place = next(place for place, node in enumerate(graph.graph.node) if node.output[0] == "latent")
    graph.graph.node[place].CopyFrom(
        onnx.helper.make_node("Cast", [graph.graph.node[place].input[0]], ["latent"], to=onnx.TensorProto.DOUBLE)
    )
    latent = next(output for output in graph.graph.output if output.name == "latent")
    latent.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(graph, folder / GRAPH)
    accept_file(folder, GRAPH)
    refused(folder, cpu, "latent float32", "latent tensor(double)")


# -- refused golden files


def test_a_golden_output_within_the_tolerance(folder: Path, cpu: Device) -> None:
    def nudge(golden: Arrays) -> None:
        golden["autoencoder.out.reconstruction"][0, 0, 0, 0] += 1
        golden["autoencoder.out.anomaly_score"] *= 1.0009
        golden["autoencoder.out.anomaly_map"][0, 0, 0] += golden["autoencoder.out.anomaly_map"].max() * 0.0009

    edit_golden(folder, nudge)
    Model.open(folder, cpu)


@pytest.mark.parametrize(
    ("output", "change"),
    [
        ("reconstruction", lambda values: values + 2),
        ("anomaly_score", lambda values: values * 1.002),
        ("anomaly_map", lambda values: values + values.max() * 0.002),
        ("latent", lambda values: -values),
        ("latent", lambda values: values * math.nan),
        ("latent", lambda values: values * math.inf),
    ],
)
def test_a_golden_output_that_differs(
    folder: Path, cpu: Device, output: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> None:
    name = f"autoencoder.out.{output}"
    edit_golden(folder, lambda golden: golden.update({name: change(golden[name]).astype(golden[name].dtype)}))
    refused(folder, cpu, f"golden output {output} differs by", "is allowed")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[:1],
        lambda values: values.astype(np.float64),
        lambda values: values.astype(str),
        lambda values: values[..., None],
    ],
)
def test_a_golden_output_of_another_shape_or_type(
    folder: Path, cpu: Device, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> None:
    name = "autoencoder.out.latent"
    edit_golden(folder, lambda golden: golden.update({name: change(golden[name])}))
    refused(folder, cpu, "golden output latent should be")


def test_a_graph_that_answers_with_nan(folder: Path, cpu: Device) -> None:
    graph = onnx.load(folder / GRAPH)
    steps = next(constant for constant in graph.graph.initializer if list(constant.dims) == [1, 4])
    steps.CopyFrom(onnx.numpy_helper.from_array(np.full((1, 4), np.nan, np.float32), steps.name))
    onnx.save(graph, folder / GRAPH)
    accept_file(folder, GRAPH)
    refused(folder, cpu, "golden output latent differs by nan")


def test_a_golden_output_that_is_missing(folder: Path, cpu: Device) -> None:
    edit_golden(folder, lambda golden: golden.pop("autoencoder.out.latent"))
    refused(folder, cpu, "golden file holds no autoencoder.out.latent")


@pytest.mark.parametrize(
    "edit",
    [
        lambda golden: golden.pop("autoencoder.in.frames"),
        lambda golden: golden.update({"autoencoder.in.frames": golden["autoencoder.in.frames"][:, 1:]}),
        lambda golden: golden.update({"autoencoder.in.frames": golden["autoencoder.in.frames"] / 255}),
        lambda golden: golden.update({"autoencoder.in.extra": np.zeros(1, np.float32)}),
    ],
)
def test_golden_inputs_that_the_graph_does_not_take(
    folder: Path, cpu: Device, edit: Callable[[Arrays], object]
) -> None:
    edit_golden(folder, edit)
    refused(folder, cpu, "fails on its golden input")


@pytest.mark.parametrize("content", [b"PK\3\4", b"no archive", bytes(100), b"\x93NUMPY\1\0"])
def test_a_golden_file_that_is_no_archive(folder: Path, cpu: Device, content: bytes) -> None:
    (folder / GOLDEN).write_bytes(content)
    accept_file(folder, GOLDEN)
    refused(folder, cpu, "no archive of arrays", file=GOLDEN)


def test_a_golden_file_of_one_array(folder: Path, cpu: Device) -> None:
    with (folder / GOLDEN).open("wb") as file:
        np.save(file, np.zeros(3))
    accept_file(folder, GOLDEN)
    refused(folder, cpu, "no archive of arrays", file=GOLDEN)


def test_a_golden_file_with_a_pickle_is_not_unpickled(folder: Path, cpu: Device) -> None:
    edit_golden(folder, lambda golden: golden.update(surprise=np.array([{"a": 1}], dtype=object)))
    refused(folder, cpu, "allow_pickle", file=GOLDEN)


def test_the_second_graph_is_checked_too(tmp_path: Path, cpu: Device) -> None:
    folder = write_generator(tmp_path / "faces")
    edit_golden(folder, lambda golden: golden.update({"generator.out.samples": golden["generator.out.samples"] ^ 255}))
    refused(folder, cpu, "golden output samples", file="generator.onnx")


# -- running


@pytest.mark.parametrize("batch", [1, 3])
def test_a_scorer_computes_what_numpy_does(scorer: Model, batch: int) -> None:
    frames = random_frames(batch, 32, 48, 1)
    found = scorer.run(frames)
    expected = blurred(frames)
    error = ((frames.astype(float) - expected) / 255) ** 2
    assert np.array_equal(present(found.reconstruction), expected)
    np.testing.assert_allclose(present(found.anomaly_map), error.mean(axis=3), rtol=1e-5)
    np.testing.assert_allclose(present(found.anomaly_score), error.max(axis=(1, 2, 3)), rtol=1e-5)
    mean = frames.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(present(found.latent), mean[:, None] * [1, 2, 3, 4], rtol=1e-5)


def test_outputs_of_one_frame(scorer: Model) -> None:
    frames = random_frames(3, 32, 48, 1)
    found = scorer.run(frames)[1]
    alone = scorer.run(frames[1:2])
    for name, value in vars(found).items():
        assert np.array_equal(value, getattr(alone, name)[0]), name
    assert Outputs()[0] == Outputs()


def test_only_what_is_wanted_is_brought_back(scorer: Model) -> None:
    frames = random_frames(2, 32, 48, 1)
    found, everything = scorer.run(frames, wanted={"anomaly_score", "samples"}), scorer.run(frames)
    assert np.array_equal(present(found.anomaly_score), present(everything.anomaly_score))
    assert not any(getattr(found, name) is not None for name in ("reconstruction", "anomaly_map", "latent"))


def test_a_model_without_an_output_answers_none(denoiser: Model) -> None:
    found = denoiser.run(random_frames(1, 5, 6, 3), levels(10))
    assert found.anomaly_map is found.anomaly_score is found.latent is None


def test_a_clip_is_scored_by_all_its_frames(clip_scorer: Model) -> None:
    clip = random_frames(2, 4, 16, 24, 1)
    found = clip_scorer.run(clip)
    expected = np.rint(clip.astype(float).mean(axis=1))
    error = ((clip[:, -1] - expected) / 255) ** 2
    assert np.abs(present(found.reconstruction) - expected).max() <= 1
    np.testing.assert_allclose(present(found.anomaly_score), error.max(axis=(1, 2, 3)), rtol=0.02)
    for time in range(4):
        other = clip.copy()
        other[:, time] = 0
        assert (present(clip_scorer.run(other).anomaly_score) != present(found.anomaly_score)).all()


def test_normal_frames_are_normal_and_a_strange_one_is_not(scorer: Model, clip_scorer: Model) -> None:
    for model in (scorer, clip_scorer):
        calibration = model.manifest.calibration
        assert calibration is not None
        frames = normal_frames(20, model.manifest.input, seed=5)
        scores = present(model.run(frames).anomaly_score)
        assert (scores > calibration.threshold).mean() < 0.3
        frames[..., :4, :4, :] = 255 * (np.indices((4, 4)).sum(axis=0) % 2)[..., None]
        frames[:, -1:] ^= 64  # the last frame of a clip, or the last row of a frame
        scores = present(model.run(frames).anomaly_score)
        assert (scores > 10 * calibration.threshold).all()


def test_a_denoiser_goes_as_far_as_the_level_says(denoiser: Model) -> None:
    frames = random_frames(1, 9, 7, 3).repeat(3, axis=0)
    found = present(denoiser.run(frames, levels(0, 12.5, 25)).reconstruction)
    assert np.array_equal(found[0], frames[0])
    half = (frames[0].astype(float) + found[2]) / 2
    assert np.abs(found[1] - half).max() <= 1
    assert found[2].std() < 0.5 * frames[0].std()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 17)])
def test_a_denoiser_takes_any_size(denoiser: Model, size: tuple[int, int]) -> None:
    frame = np.full((1, *size, 3), 77, np.uint8)
    found = present(denoiser.run(frame, levels(25)).reconstruction)
    assert np.array_equal(found, frame)


def test_fit_scales_to_the_input_of_the_model(scorer: Model, clip_scorer: Model, denoiser: Model) -> None:
    frame = random_frames(64, 96, 1)
    assert scorer.fit(frame).shape == (32, 48, 1)
    assert clip_scorer.fit(frame).shape == (16, 24, 1)  # frame by frame
    assert denoiser.fit(frame) is frame


@pytest.mark.parametrize(
    "frames",
    [
        random_frames(1, 30, 48, 1),
        random_frames(1, 32, 48, 3),
        random_frames(32, 48, 1),
        random_frames(1, 1, 32, 48, 1),
        random_frames(1, 32, 48, 1).astype(np.float32),
    ],
)
def test_frames_that_the_model_does_not_take(scorer: Model, frames: Pixels) -> None:
    found = re.escape(f"found frames {frames.dtype}{list(frames.shape)}")
    with pytest.raises(InvalidInput, match=rf"scorer takes frames uint8\['batch', 32, 48, 1\].*{found}"):
        scorer.run(frames)


def test_a_noise_level_too_much_or_too_little(scorer: Model, denoiser: Model) -> None:
    with pytest.raises(InvalidInput, match="noise_level"):
        scorer.run(random_frames(1, 32, 48, 1), levels(5))
    with pytest.raises(InvalidInput, match="noise_level"):
        denoiser.run(random_frames(1, 8, 8, 3))
    with pytest.raises(InvalidInput, match="one batch"):
        denoiser.run(random_frames(2, 8, 8, 3), levels(5))


def test_a_task_it_cannot_do(scorer: Model) -> None:
    scorer.require(Task.SCORE)
    with pytest.raises(TaskNotSupported, match="scorer cannot sample; it can reconstruct, score, encode"):
        scorer.require(Task.SAMPLE)


# -- generating


def test_latents_become_samples(generator: Model) -> None:
    latents = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    samples = generator.generate(latents)
    assert samples.shape == (5, 16, 16, 1)
    assert samples.dtype == np.uint8
    np.testing.assert_allclose(present(generator.run(samples).latent), latents, atol=0.05)
    assert np.array_equal(generator.generate(latents), samples)


@pytest.mark.parametrize(
    "latents",
    [
        np.zeros(4, np.float32),
        np.zeros((2, 5), np.float32),
        np.zeros((2, 0), np.float32),
        np.zeros((1, 2, 4), np.float32),
        np.full((2, 4), np.nan, np.float32),
        np.full((2, 4), -np.inf, np.float32),
        np.zeros((2, 4), np.float64),
    ],
)
def test_latents_that_the_model_does_not_take(generator: Model, latents: npt.NDArray[np.float32]) -> None:
    with pytest.raises(InvalidInput, match="latent"):
        generator.generate(latents)


def test_a_model_without_a_generator(scorer: Model) -> None:
    with pytest.raises(TaskNotSupported, match="cannot sample"):
        scorer.generate(np.zeros((1, 4), np.float32))


# -- judging noise


@pytest.mark.parametrize("sigma", [5, 15, 25])
@pytest.mark.parametrize("size", [(200, 300), (1100, 1300)])
def test_noise_is_estimated_on_small_and_large_frames(denoiser: Model, sigma: float, size: tuple[int, int]) -> None:
    assert (size[0] * size[1] > ESTIMATE_MAX_PIXELS) == (size[0] > 1000)
    noisy = 128 + np.random.default_rng(0).normal(0, sigma, (*size, 3))
    level = denoiser.estimate_noise_level(np.asarray(np.rint(noisy.clip(0, 255)), np.uint8))
    assert level == pytest.approx(sigma, rel=0.05)


def test_a_large_frame_is_judged_by_crops_all_over_it(denoiser: Model) -> None:
    frame = np.full((1200, 1200, 3), 128, np.uint8)
    frame[: 1200 - ESTIMATE_CROP] += random_frames(1200 - ESTIMATE_CROP, 1200, 3) // 16  # 6 of 9 crops see noise
    assert denoiser.estimate_noise_level(frame) > 2
    frame[300:] = 128  # 3 of 9
    assert denoiser.estimate_noise_level(frame) == 0


@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 1), (3, 400_000)])
def test_noise_of_frames_of_odd_shapes(denoiser: Model, size: tuple[int, int]) -> None:
    assert denoiser.estimate_noise_level(np.zeros((*size, 3), np.uint8)) == 0


def test_noise_is_never_below_nothing(denoiser: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO rounds differently where there is none."""
    monkeypatch.setattr(Model, "_run", lambda *_: {"noise_level": np.array([-6e-7], np.float32)})
    level = denoiser.estimate_noise_level(np.zeros((8, 8, 3), np.uint8))
    assert level == 0


def test_a_model_without_an_estimator(scorer: Model) -> None:
    with pytest.raises(TaskNotSupported, match="scorer has no noise_estimator"):
        scorer.estimate_noise_level(random_frames(32, 48, 1))


# -- several threads, several folders


def test_threads_get_what_one_thread_gets(scorer: Model) -> None:
    batches = [random_frames(2, 32, 48, 1, seed=seed) for seed in range(64)]
    alone = [scorer.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(scorer.run, batches), alone, strict=True):
            for name, value in vars(found).items():
                assert np.array_equal(value, getattr(expected, name)), name


def test_a_folder_may_be_gone_once_it_is_open(folder: Path, cpu: Device) -> None:
    model = Model.open(folder, cpu)
    shutil.rmtree(folder)
    assert model.run(random_frames(1, 32, 48, 1)).anomaly_score is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_variants_of_the_tiny_models_open(tmp_path: Path, cpu: Device, channels: int) -> None:
    """What the other tests rely on: every variant they may ask for is a folder that passes."""
    folders = [
        write_scorer(
            tmp_path / "s", height=7, width=5, channels=channels, calibration=False, latent_dim=2, version="2"
        ),
        write_denoiser(tmp_path / "d", channels=channels),
        write_clip_scorer(tmp_path / "c", time=3, channels=channels),
        write_generator(tmp_path / "g", latent_dim=2, height=8, width=4),
        write_slow(tmp_path / "w", work=3, calibration=False),
    ]
    manifests = [Model.open(folder, cpu).manifest for folder in folders]
    assert manifests == [read_manifest(folder) for folder in folders]
    assert (manifests[0].version, manifests[0].latent_dim, manifests[0].calibration) == ("2", 2, None)
    assert manifests[2].input.time == 3
