"""Cameras: clips fill up, repeats do not count, order is kept, and cameras do not see one another."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.devices import Device
from runtime.errors import CameraNotFound
from runtime.images import ImageFormat, Pixels, encode
from runtime.model import Model
from service.cameras import Camera, Cameras, FrameKey
from service.metrics import Metrics
from service.schemas import CameraInfo, CameraReply
from service.scoring import Policy, Verdict
from tests.model_folders import write_clip_scorer, write_motion_scorer
from tests.service.conftest import PNG, Serve

FRAMES = np.random.default_rng(0).integers(0, 256, (12, 16, 24, 1), np.uint8)
ENCODED = [encode(frame, ImageFormat.PNG) for frame in FRAMES]


def send(client: httpx.Client, camera: str, index: int, **query: object) -> dict[str, Any]:
    params = {"model": "clips"} | {key: str(value) for key, value in query.items()}
    reply = client.post(f"/v1/cameras/{camera}/frames", content=ENCODED[index], headers=PNG, params=params)
    assert reply.status_code == 200, reply.text
    CameraReply.model_validate(reply.json())
    return dict(reply.json())


def seen_by(model: Model, frames: Sequence[int]) -> float:
    return float(model.run(FRAMES[None, frames])[0].anomaly_score)  # type: ignore[arg-type]


def expected(model: Model, last: int) -> float:
    return seen_by(model, range(last - 3, last + 1))


@pytest.fixture
def clips(models: Path, cpu: Device) -> Model:
    return Model.open(models / "clips", cpu)


def test_a_clip_fills_up_and_then_slides(client: httpx.Client, clips: Model) -> None:
    replies = [send(client, "slides", index) for index in range(7)]
    assert [reply["state"] for reply in replies[:3]] == ["warming_up"] * 3
    assert [reply["frames"] for reply in replies] == [1, 2, 3, 4, 4, 4, 4]
    assert {replies[0][name] for name in ("score", "anomalous", "p_value")} == {None}
    assert [reply["score"] for reply in replies[3:]] == [expected(clips, last) for last in range(3, 7)]
    assert replies[3]["state"] == "anomalous"


def test_cameras_in_turn_score_as_each_alone(client: httpx.Client, clips: Model) -> None:
    def one(camera: str) -> list[float]:
        return [send(client, camera, index)["score"] for index in range(8)]

    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(one, ["turn-1", "turn-2", "turn-3", "turn-4"]))
    assert scores == [[None] * 3 + [expected(clips, last) for last in range(3, 8)]] * 4


def test_a_repeated_frame_does_not_count_twice(client: httpx.Client) -> None:
    first, again = send(client, "repeats", 0), send(client, "repeats", 0)
    assert (first["repeated"], again["repeated"], again["frames"]) == (False, True, 1)
    for index in (1, 2):
        send(client, "repeats", index)
    verdict = send(client, "repeats", 3)
    again = send(client, "repeats", 3, threshold=1)
    assert (again["score"], again["repeated"]) == (verdict["score"], True)
    assert (verdict["anomalous"], again["anomalous"]) == (True, False)


def test_time_orders_the_frames(client: httpx.Client) -> None:
    def at(second: int) -> str:
        return f"2025-01-01T00:00:{second:02}Z"

    send(client, "ordered", 0, captured_at=at(5))
    same_time = send(client, "ordered", 1, captured_at="2025-01-01T01:00:05+01:00")
    assert same_time["repeated"]
    older = client.post(
        "/v1/cameras/ordered/frames", params={"model": "clips", "captured_at": at(4)}, content=ENCODED[2], headers=PNG
    )
    assert (older.status_code, older.json()["type"]) == (409, "urn:clearwatch:problem:frame-out-of-order")
    assert send(client, "ordered", 2, captured_at=at(6))["frames"] == 2
    assert send(client, "ordered", 3)["captured_at"] == "2025-01-01T00:00:06+00:00"


@pytest.mark.parametrize("captured_at", ["yesterday", "2025-01-01T00:00:00", "nan"])
def test_a_time_without_its_zone_is_422(client: httpx.Client, captured_at: str) -> None:
    url = f"/v1/cameras/zone/frames?captured_at={captured_at}"
    assert client.post(url, content=ENCODED[0], headers=PNG).status_code == 422


def test_a_plus_that_was_not_encoded_is_told(client: httpx.Client) -> None:
    for captured_at in ("2025-01-01T00:00:00+01:00", "2025-01-01 00:00:00.5+0100"):
        url = f"/v1/cameras/plus/frames?model=clips&captured_at={captured_at}"
        reply = client.post(url, content=ENCODED[0], headers=PNG)
        assert reply.status_code == 422
        assert "write + as %2B" in reply.json()["detail"]
    assert send(client, "plus", 0, captured_at="2025-01-01T00:00:00+01:00")["frames"] == 1


def test_the_newer_time_of_a_repeat_is_kept(client: httpx.Client) -> None:
    def at(second: int) -> str:
        return f"2025-01-01T00:00:0{second}Z"

    send(client, "newer", 0)
    for second in (5, 7, 6):
        assert send(client, "newer", 0, captured_at=at(second))["repeated"]
    assert client.get("/v1/cameras/newer").json()["clips"][0]["captured_at"] == "2025-01-01T00:00:07+00:00"
    params = {"model": "clips", "captured_at": at(6)}
    late = client.post("/v1/cameras/newer/frames", params=params, content=ENCODED[1], headers=PNG)
    assert (late.status_code, late.json()["type"]) == (409, "urn:clearwatch:problem:frame-out-of-order")
    assert send(client, "newer", 1, captured_at=at(8))["frames"] == 2


def test_a_time_cannot_order_frames_that_came_without(client: httpx.Client) -> None:
    for index in range(3):
        send(client, "untimed", index)
    params = {"model": "clips", "captured_at": "2025-01-01T00:00:05Z"}
    reply = client.post("/v1/cameras/untimed/frames", params=params, content=ENCODED[1], headers=PNG)
    assert reply.status_code == 409
    assert "send captured_at with every frame, or DELETE the camera" in reply.json()["detail"]


def test_a_frame_from_further_back_is_refused_and_does_not_count(client: httpx.Client, clips: Model) -> None:
    for index in range(5):
        send(client, "back", index)
    again = client.post("/v1/cameras/back/frames?model=clips", content=ENCODED[2], headers=PNG)
    assert (again.status_code, again.json()["type"]) == (409, "urn:clearwatch:problem:frame-out-of-order")
    assert "send captured_at" in again.json()["detail"]
    assert send(client, "back", 5)["score"] == expected(clips, 5)


def test_equal_pictures_at_other_times_are_other_frames(client: httpx.Client, clips: Model) -> None:
    for second, index in enumerate((0, 1, 0, 1, 0)):
        reply = send(client, "blinks", index, captured_at=f"2025-01-01T00:00:0{second}Z")
        assert not reply["repeated"]
    frames = FRAMES[[1, 0, 1, 0]]
    assert reply["score"] == float(clips.run(frames[None])[0].anomaly_score)  # type: ignore[arg-type]


def test_a_repeat_is_drawn_again_and_its_picture_is_not_kept(client: httpx.Client) -> None:
    for index in range(3):
        send(client, "drawn", index)
    plain = send(client, "drawn", 3)
    drawn, again = (send(client, "drawn", 3, heatmap="overlay") for _ in range(2))
    assert drawn["heatmap"] == again["heatmap"] is not None
    assert (drawn["repeated"], drawn["score"], drawn["frames"]) == (True, plain["score"], 4)
    assert send(client, "drawn", 3)["heatmap"] is None


@pytest.mark.parametrize("model", ["clips", "scorer"])
def test_other_bytes_of_the_same_time_get_the_verdict_from_then_and_no_picture(
    client: httpx.Client, model: str
) -> None:
    for index in range(4):
        verdict = send(client, f"same-{model}", index, model=model, captured_at=f"2025-01-01T00:00:0{index}Z")
    query = {"model": model, "captured_at": "2025-01-01T00:00:03Z", "heatmap": "overlay"}
    other = send(client, f"same-{model}", 7, **query)
    assert (other["repeated"], other["score"], other["heatmap"]) == (True, verdict["score"], None)
    same = send(client, f"same-{model}", 3, **query)
    assert (same["repeated"], same["score"]) == (True, verdict["score"])
    assert same["heatmap"]


def test_what_is_kept_of_a_camera_is_bounded(models: Path, cpu: Device) -> None:
    """A clip holds as many frames as it has, a model of single frames none; no picture is kept with a verdict."""
    verdict = Verdict(Policy(None).decide(0.5), heatmap=b"a large picture", map_range=(0, 1))
    for name, held in (("clips", 4), ("scorer", 0)):
        model = Model.open(models / name, cpu)
        camera = Camera("door", 0.0, kept_scores=5)
        for index in range(12):
            camera.clip(model).advance(FRAMES[index], FrameKey.of(ENCODED[index], None), verdict)
        clip = camera.clip(model)
        assert (len(clip.frames), len(clip.seen), len(clip.scores)) == (held, model.manifest.input.time, 5)
        assert clip.verdict is not None
        assert clip.verdict.heatmap is None


def test_models_have_clips_of_their_own(client: httpx.Client, models: Path, cpu: Device) -> None:
    send(client, "both", 0)
    single = send(client, "both", 1, model="scorer")
    model = Model.open(models / "scorer", cpu)
    assert single["score"] == float(model.run(model.fit(FRAMES[1])[None])[0].anomaly_score)  # type: ignore[arg-type]
    assert (single["clip_frames"], send(client, "both", 1)["frames"]) == (1, 2)
    info = client.get("/v1/cameras/both").json()
    CameraInfo.model_validate(info)
    assert [(clip["model"], clip["frames"]) for clip in info["clips"]] == [("clips", 2), ("scorer", 1)]


def test_forgetting(client: httpx.Client) -> None:
    send(client, "forgotten", 0)
    assert "forgotten" in [camera["camera"] for camera in client.get("/v1/cameras").json()["cameras"]]
    assert client.delete("/v1/cameras/forgotten").status_code == 204
    for reply in (client.get("/v1/cameras/forgotten"), client.delete("/v1/cameras/forgotten")):
        assert (reply.status_code, reply.json()["type"]) == (404, "urn:clearwatch:problem:camera-not-found")
    assert send(client, "forgotten", 1)["frames"] == 1


def test_a_bad_frame_leaves_no_trace(client: httpx.Client) -> None:
    url = "/v1/cameras/bad/frames?model=clips"
    assert client.post(url, content=b"\x89PNG\r\n\x1a\nxx", headers=PNG).status_code == 400
    assert client.get("/v1/cameras/bad").status_code == 404
    send(client, "bad", 0)
    assert client.post(url, content=b"\x89PNG\r\n\x1a\nxx", headers=PNG).status_code == 400
    assert send(client, "bad", 1)["frames"] == 2


def test_a_heat_map_over_the_newest_frame(client: httpx.Client) -> None:
    assert send(client, "heat", 0, heatmap="overlay")["heatmap"] is None
    for index in (1, 2):
        send(client, "heat", index)
    assert send(client, "heat", 3, heatmap="overlay")["heatmap"]


@pytest.mark.parametrize("name", ["a%20b", "-a", "a" * 65, "%2e%2e"])
def test_camera_names_are_plain(client: httpx.Client, name: str) -> None:
    reply = client.post(f"/v1/cameras/{name}/frames?model=clips", content=ENCODED[0], headers=PNG)
    assert reply.status_code in {404, 422}


def test_several_images_are_not_one_frame(client: httpx.Client) -> None:
    parts = [("image", ("a", ENCODED[0])), ("image", ("b", ENCODED[1]))]
    assert client.post("/v1/cameras/many/frames?model=clips", files=parts).status_code == 422


def test_a_model_of_another_geometry_starts_anew(serve: Serve, tmp_path: Path) -> None:
    write_clip_scorer(tmp_path / "clips")
    client = serve(tmp_path)
    for index in range(4):
        send(client, "anew", index)
    write_clip_scorer(tmp_path / "clips", version="2")
    assert client.post("/v1/models:reload").json()["changed"] == ["clips"]
    assert send(client, "anew", 4)["state"] == "anomalous"  # the same geometry: the clip goes on
    write_clip_scorer(tmp_path / "clips", time=3)
    assert client.post("/v1/models:reload").json()["changed"] == ["clips"]
    assert (reply := send(client, "anew", 5))["state"] == "warming_up"
    assert reply["clip_frames"] == 3


@pytest.fixture
def early(serve: Serve, tmp_path: Path, cpu: Device) -> tuple[httpx.Client, Model]:
    """Serve a model of clips of four frames to which two are enough."""
    folder = write_clip_scorer(tmp_path / "clips", warm_up=2)
    return serve(tmp_path), Model.open(folder, cpu)


def test_a_verdict_comes_when_there_are_enough_frames_with_the_first_repeated(
    early: tuple[httpx.Client, Model],
) -> None:
    client, model = early
    replies = [send(client, "early", index) for index in range(5)]
    scores = [seen_by(model, at) for at in ([0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4])]
    assert [reply["score"] for reply in replies] == [None, *scores]
    assert [reply["state"] for reply in replies[:2]] == ["warming_up", "anomalous"]
    assert [reply["frames"] for reply in replies] == [1, 2, 3, 4, 4]
    (kept,) = client.get("/v1/cameras/early").json()["clips"]
    assert {(told["needed_frames"], told["clip_frames"]) for told in (*replies, kept)} == {(2, 4)}
    again = send(client, "early", 4, heatmap="overlay")
    assert (again["repeated"], again["score"]) == (True, replies[-1]["score"])


def test_a_repeated_frame_of_a_clip_that_has_just_begun_gets_the_same_verdict(
    early: tuple[httpx.Client, Model],
) -> None:
    client, _ = early
    send(client, "again", 0)
    first, again = send(client, "again", 1), send(client, "again", 1, heatmap="overlay")
    assert (again["repeated"], again["score"]) == (True, first["score"])


@pytest.mark.parametrize(("count", "status"), [(1, 422), (2, 200), (4, 200), (5, 422)])
def test_a_short_clip_in_one_request(early: tuple[httpx.Client, Model], count: int, status: int) -> None:
    client, model = early
    parts = [("image", (f"{index}", data)) for index, data in enumerate(ENCODED[:count])]
    reply = client.post("/v1/score?model=clips&clip=true", files=parts)
    assert reply.status_code == status, reply.text
    if status == 200:
        assert reply.json()["score"] == seen_by(model, [0] * (4 - count) + list(range(count)))
    else:
        assert "a clip of clips has 2 to 4 frames" in reply.json()["detail"]


def test_the_silent_are_forgotten_and_the_number_is_bounded(cpu: Device) -> None:
    now = 0.0
    metrics = Metrics(cpu)
    cameras = Cameras(2, 60, 100, metrics, lambda: now)
    for name in ("a", "b", "a", "c"):  # c takes the place of b, the longest silent
        cameras.heard(cameras.visit(name))
        now += 1
    assert [camera.name for camera in cameras.all()] == ["c", "a"]
    assert b"clearwatch_cameras_forgotten_total 1.0" in metrics.render()
    with pytest.raises(CameraNotFound, match="'b'"):
        cameras.find("b")
    now = 62.5
    assert b"clearwatch_cameras 1.0" in metrics.render(), "the gauge forgets the idle too"
    assert [camera.name for camera in cameras.all()] == ["c"]


def test_a_visit_alone_keeps_no_camera_and_breaks_no_silence(cpu: Device) -> None:
    now = 0.0
    cameras = Cameras(1, 60, 100, Metrics(cpu), lambda: now)
    door = cameras.visit("door")
    assert cameras.visit("door") is door, "its frames wait for one another before the first is done"
    assert cameras.all() == []
    cameras.heard(door)
    now = 5.0
    cameras.visit("door")
    cameras.visit("gate")
    assert [(camera.name, cameras.silence_s(camera)) for camera in cameras.all()] == [("door", 5.0)]


def test_a_camera_that_was_forgotten_while_its_frame_was_processed_stays_so(cpu: Device) -> None:
    cameras = Cameras(2, 60, 100, Metrics(cpu))
    door = cameras.visit("door")
    cameras.heard(door)
    cameras.forget("door")
    cameras.heard(door)
    assert cameras.all() == []
    assert cameras.visit("door") is not door


def test_what_is_no_image_takes_no_cameras_place_and_breaks_no_silence(serve: Serve, models: Path) -> None:
    client = serve(models, max_cameras=1)
    send(client, "door", 0)
    time.sleep(0.1)
    silent = client.get("/v1/cameras/door").json()["silent_s"]
    for camera in ("gate", "door"):
        reply = client.post(f"/v1/cameras/{camera}/frames?model=clips", content=b"\x89PNG\r\n\x1a\nxx", headers=PNG)
        assert reply.status_code == 400
    found = client.get("/v1/cameras").json()["cameras"]
    assert [camera["camera"] for camera in found] == ["door"]
    assert found[0]["silent_s"] >= silent >= 0.1
    send(client, "gate", 0)
    assert [camera["camera"] for camera in client.get("/v1/cameras").json()["cameras"]] == ["gate"]


# -- a model of motion


def gliding(camera: int, index: int) -> Pixels:
    """Give the frame of a camera in which everything moves, by another speed in each."""
    large = np.random.default_rng(camera).integers(0, 256, (12, 40), np.uint8).repeat(4, 0).repeat(4, 1)
    return large[:32, (camera + 1) * index :][:, :48, None]


def test_motion_is_seen_by_camera_whatever_comes_in_between(serve: Serve, tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_motion_scorer(tmp_path / "motion"), cpu)
    client = serve(tmp_path)
    found: dict[int, list[float | None]] = {camera: [] for camera in range(3)}
    for index in range(9):
        for camera, scores in found.items():
            content = encode(gliding(camera, index), ImageFormat.PNG)
            reply = client.post(f"/v1/cameras/moves-{camera}/frames?model=motion", content=content, headers=PNG)
            again = client.post(f"/v1/cameras/moves-{camera}/frames?model=motion", content=content, headers=PNG)
            assert (reply.status_code, again.json()["score"]) == (200, reply.json()["score"])
            scores.append(reply.json()["score"])
    for camera, scores in found.items():
        clips = [np.stack([gliding(camera, i) for i in range(last - 4, last + 1)]) for last in range(4, 9)]
        alone = [float(model.run(clip[None])[0].anomaly_score) for clip in clips]  # type: ignore[arg-type]
        assert scores == [None] * 4 + alone


def test_a_clip_of_motion_in_one_request(serve: Serve, tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_motion_scorer(tmp_path / "motion"), cpu)
    clip = np.stack([gliding(1, index) for index in range(5)])
    parts = [("image", (f"{index}.png", encode(frame, ImageFormat.PNG))) for index, frame in enumerate(clip)]
    reply = serve(tmp_path).post("/v1/score?model=motion&clip=true", files=parts)
    assert reply.json()["score"] == float(model.run(clip[None])[0].anomaly_score)  # type: ignore[arg-type]
