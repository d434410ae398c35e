"""The spatio-temporal kind: tails, what it calls normal, what it does not, and its export."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.clips import Window
from runtime.devices import Device
from runtime.images import Pixels
from runtime.manifest import Task
from runtime.model import Model
from runtime.motion import optical_flow
from tests.training.tiny import fit, recipe
from training.autoencoders.base import build
from training.autoencoders.spatiotemporal import TAIL, Spatiotemporal, Tail
from training.config import Recipe, parse_recipe
from training.data import Frames, Split
from training.errors import ConfigError, DataError
from training.export import export
from training.graph import ClipGraph, to_unit

HEIGHT, WIDTH, TIME = 40, 64, 9

SETTINGS = {
    "widths": [8, 8], "latent_dim": 4, "shrink": 2, "clip": TIME, "looks_step": 2, "flow_step": 2, "moments": 2,
    "cell": 4, "speed_width": 8, "speed_blocks": 1, "speed_steps": 150,
}  # fmt: skip


def scene(starts: list[int], speed: float, time: int = TIME, seed: int = 0) -> Pixels:
    """Let textured squares walk over a textured ground from left to right, [time, h, w, 1]."""
    ground = 60 + 40 * np.random.default_rng(0).random((HEIGHT // 4, WIDTH // 4)).repeat(4, 0).repeat(4, 1)
    square = 150 + 90 * np.random.default_rng(1).random((5, 4)).repeat(2, 0).repeat(2, 1)
    noise = np.random.default_rng(seed).normal(0, 1, (time, HEIGHT, WIDTH))
    clip = np.stack([ground] * time)
    for start in starts:
        for index in range(time):
            left = round(start + speed * index) % (WIDTH - 8)
            clip[index, 20:30, left : left + 8] = square
    return np.asarray(np.rint(clip + noise).clip(0, 255), np.uint8)[..., None]


def walks(count: int, seed: int, time: int = 16) -> Frames:
    rng, found = np.random.default_rng(seed), Frames()
    for clip in range(count):
        start = int(rng.integers(WIDTH))
        for index, pixels in enumerate(scene([start], 1, time, seed + clip)):
            found.add(f"walks/{clip:02d}", f"walks/{clip:02d}/{index:03d}.png", pixels)
    return found


@pytest.fixture(scope="module")
def chosen() -> Recipe:
    size = {"height": HEIGHT, "width": WIDTH}
    return recipe("spatiotemporal", autoencoder=SETTINGS, data=size, score={"false_alarm_rate": 0.1})


@pytest.fixture(scope="module")
def folder(chosen: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    autoencoder = build(chosen.autoencoder, chosen.shape)
    parts = Split(walks(8, 0), walks(1, 50), walks(2, 70))
    fit(autoencoder, to_unit(torch.from_numpy(parts.train.batch(range(0, 128, 4)))), 60)
    path = tmp_path_factory.mktemp("clips") / "clips"
    export(chosen, autoencoder, parts, path)
    torch.save(autoencoder.state_dict(), path.parent / "weights.pt")
    return path


@pytest.fixture
def model(folder: Path, cpu: Device) -> Model:
    return Model.open(folder, cpu)


def score(model: Model, clip: Pixels) -> float:
    return float(model.run(clip[None])[0].anomaly_score)  # type: ignore[arg-type]


# -- the tail


def test_a_tail_gives_the_share_that_is_further_out() -> None:
    tail, normal = Tail(), torch.distributions.Exponential(1.0).sample((40_000,))
    tail.learn(normal)
    for share in TAIL[1:-2]:
        deviation = torch.tensor([-math.log(share)])  # what an exponential variable exceeds with this chance
        assert float(tail(deviation)) == pytest.approx(-math.log(share) + math.log(TAIL[0]), abs=0.25)


def test_a_tail_goes_on_beyond_what_was_seen_and_never_falls() -> None:
    tail = Tail()
    tail.learn(torch.randn(1000))
    evidence = tail(torch.linspace(-5, 50, 500))
    assert (evidence.diff() > 0).all()
    assert float(tail(tail.knots[:1])) == 0


def test_a_tail_of_equal_values_is_steep_and_finite() -> None:
    tail = Tail()
    tail.learn(torch.zeros(100))
    evidence = tail(torch.tensor([0.0, 1.0, 100.0]))
    assert evidence.isfinite().all()
    assert evidence[0] < evidence[1] < evidence[2]


# -- what it says of clips


def test_normal_clips_alarm_as_seldom_as_promised(model: Model) -> None:
    calibration = model.manifest.calibration
    assert calibration is not None
    scores = [score(model, scene([start], 1, seed=200 + start)) for start in range(0, WIDTH, 3)]
    assert np.mean(np.asarray(scores) > calibration.threshold) < 0.35
    fast = [score(model, scene([start], 4, seed=300 + start)) for start in range(8, 30, 4)]
    assert min(fast) > np.median(scores)
    assert np.mean(np.asarray(fast) > calibration.threshold) == 1


def test_what_stands_where_nobody_stands_is_seen_and_where(model: Model) -> None:
    clip = scene([], 0)
    quiet = model.run(clip[None])[0]
    clip[:, 4:14, 40:50] = 240
    outputs = model.run(clip[None])[0]
    assert outputs.anomaly_map is not None
    assert quiet.anomaly_score is not None
    assert outputs.anomaly_score > quiet.anomaly_score + 1  # type: ignore[operator]
    row, column = np.unravel_index(outputs.anomaly_map.argmax(), (HEIGHT, WIDTH))
    assert 0 <= row <= 18
    assert 36 <= column <= 54


def test_who_walks_through_is_not_taken_for_standing(model: Model) -> None:
    """The looks of a block count only if they stay for the whole clip."""
    clip = scene([], 0)
    passing = clip.copy()
    passing[4, 4:14, 40:50] = 240
    staying = clip.copy()
    staying[:, 4:14, 40:50] = 240
    maps = [model.run(seen[None])[0].anomaly_map for seen in (passing, staying)]
    assert maps[0] is not None
    assert maps[1] is not None
    assert maps[0][6:12, 42:48].mean() < maps[1][6:12, 42:48].mean()


def test_a_crowd_is_not_taken_for_a_thing_that_stands(model: Model) -> None:
    """A place that is hidden at every look, but now by brighter clothes and now by darker ones."""
    clip = scene([], 0)
    standing, crowd = clip.copy(), clip.copy()
    standing[:, 4:14, 40:50] = 240
    crowd[:, 4:14, 40:50] = 240
    crowd[0, 4:14, 40:50] = 5
    looks = [model.run(seen[None])[0].anomaly_map for seen in (clip, crowd, standing)]
    nobody, hidden, stands = (float(seen[6:12, 42:48].mean()) for seen in looks if seen is not None)
    assert stands > nobody + 1
    assert hidden < (nobody + stands) / 2


def test_a_clip_that_has_just_begun_has_nothing_standing_in_it(model: Model) -> None:
    """Whoever walks through the first frame is in all those that repeat it."""
    clip = scene([20], 1)
    clip[:, 4:14, 40:50] = 240
    begun = np.stack(model.manifest.input.window.begun(list(clip[-7:])))
    evidence = [model.run(seen[None])[0].anomaly_map for seen in (begun, clip)]
    early, full = (float(seen[6:12, 42:48].mean()) for seen in evidence if seen is not None)
    assert early < full - 1


# -- the folder


def test_the_manifest_asks_for_clips_and_their_flow(model: Model) -> None:
    manifest = model.manifest
    assert manifest.input.window == Window(TIME, 7)
    assert (manifest.input.time, manifest.input.flow_step, manifest.input.flow_fields) == (TIME, 2, 3)
    assert set(manifest.tasks) == {Task.RECONSTRUCT, Task.SCORE, Task.ENCODE}
    assert {tensor.name for tensor in manifest.graphs.autoencoder.inputs} == {"frames", "flow"}


def test_the_file_answers_as_torch_does(model: Model, chosen: Recipe, folder: Path) -> None:
    autoencoder = build(chosen.autoencoder, chosen.shape).eval()
    autoencoder.load_state_dict(torch.load(folder.parent / "weights.pt", weights_only=True))
    assert isinstance(autoencoder, Spatiotemporal)
    graph = ClipGraph(autoencoder)
    clips = np.stack([scene([5, 40], 1), scene([20], 4)])
    flow = np.stack([optical_flow(clip, 2, 3) for clip in clips])
    with torch.no_grad():
        expected = dict(zip(graph.outputs, graph(torch.from_numpy(clips), torch.from_numpy(flow)), strict=True))
    found = model.run(clips)
    assert np.abs(found.reconstruction.astype(int) - expected["reconstruction"].numpy().astype(int)).max() <= 1  # type: ignore[union-attr]
    for name in ("anomaly_map", "anomaly_score", "latent"):
        assert np.allclose(getattr(found, name), expected[name].numpy(), rtol=1e-3, atol=1e-3), name


def test_clips_do_not_see_one_another(model: Model) -> None:
    clips = np.stack([scene([5], 1), scene([20], 4), scene([], 0)])
    together = model.run(clips).anomaly_score
    assert together is not None
    assert [float(value) for value in together] == pytest.approx([score(model, clip) for clip in clips], rel=1e-5)


# -- learning what is normal


def small(**settings: Any) -> Spatiotemporal:  # noqa: ANN401
    made = recipe("spatiotemporal", autoencoder=SETTINGS | settings, data={"height": HEIGHT, "width": WIDTH})
    autoencoder = build(made.autoencoder, made.shape).eval()
    assert isinstance(autoencoder, Spatiotemporal)
    return autoencoder


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, 30, 5):
        clip = scene([start], 1, seed=start)
        yield torch.from_numpy(clip[None]), torch.from_numpy(optical_flow(clip, 2, 3)[None])


def streets(seldom: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield clips in which all moves, below thrice as fast as above; in the lower half once in `seldom` clips."""
    rng = np.random.default_rng(0)
    for index in range(12):
        frames = torch.from_numpy(255 * rng.integers(0, 2, (1, TIME, HEIGHT, WIDTH, 1), np.uint8))
        flow = torch.zeros(1, 3, HEIGHT, WIDTH, 2)
        flow[..., 0] = torch.linspace(1, 3, HEIGHT)[:, None]
        if index % seldom:
            flow[:, :, HEIGHT // 2 :] = 0
        yield frames, flow


@pytest.mark.parametrize("seldom", [1, 6])
def test_pace_grows_as_perspective_has_it_however_seldom_somebody_walks(seldom: int) -> None:
    autoencoder = small(speed_steps=0)
    autoencoder.learn_normal(lambda: streets(seldom))
    pace = autoencoder.pace[:, 0]
    assert float(pace[-2] / pace[1]) == pytest.approx(2.7 / 1.3, rel=0.2)
    assert (pace.diff() > 0).all()


def test_where_nothing_ever_moves_nothing_breaks() -> None:
    autoencoder = small(speed_steps=2)
    autoencoder.learn_normal(lambda: ((frames * 0, flow * 0) for frames, flow in batches()))
    assert (autoencoder.deviation > 0).all()
    assert (autoencoder.pace > 0).all()
    frames, flow = next(batches())
    assert all(part.isfinite().all() for part in autoencoder.judge(frames, flow))


def test_each_full_clip_is_seen_once(folder: Path, chosen: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames before the first full clip must not have it counted once more each."""
    seen: list[int] = []

    def learn(_: Spatiotemporal, clips: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> None:
        seen.extend(len(frames) for frames, _ in clips())
        raise InterruptedError

    monkeypatch.setattr(Spatiotemporal, "learn_normal", learn)
    with pytest.raises(InterruptedError):
        export(chosen, build(chosen.autoencoder, chosen.shape), Split(walks(2, 0), walks(1, 50), walks(1, 70)), folder)
    assert sum(seen) == 3 * (16 - TIME + 1)


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 fields of 2 frames need a longer clip than 9"):
        small(moments=4)
    with pytest.raises(ConfigError, match="a clip of 5 frames is too short to be played faster"):
        small(clip=5, moments=1)
    with pytest.raises(ConfigError, match="must be a power of two: 4 or 8"):
        small(cell=5)
    with pytest.raises(ConfigError, match="cell, 2, must be at least shrink, 4"):
        small(cell=2, shrink=4)


def test_the_same_clips_teach_the_same() -> None:
    torch.manual_seed(3)
    first = small()
    second = small()
    second.load_state_dict(first.state_dict())
    first.learn_normal(batches)
    second.learn_normal(batches)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_recipe_without_scores_is_refused(chosen: Recipe) -> None:
    with pytest.raises(ConfigError, match="score: the kind spatiotemporal scores by itself"):
        parse_recipe(chosen.model_dump(mode="json") | {"score": None}, "tests")


def test_a_clip_that_is_too_short_is_named() -> None:
    with pytest.raises(DataError, match=r"walks/00 has fewer than the 9 frames"):
        walks(2, 0, time=8).seen_at([1], Window.whole(TIME))
