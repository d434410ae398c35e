"""Calibrations over HTTP: made from uploads, kept scores or given ones; they decide for their camera and no other."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.calibrations import Calibrations
from runtime.devices import Device
from runtime.images import ImageFormat, Picture, Pixels, Size, encode, fingerprint
from runtime.manifest import FrameInput, read_manifest
from runtime.model import Model
from service.schemas import CalibrationReply, CalibrationsReply, CameraReply, ScoreReply
from service.uploads import UploadedImage
from tests.model_folders import edit_manifest, normal_frames, write_clip_scorer, write_denoiser, write_scorer
from tests.service.conftest import PNG, Serve

GEOMETRY = FrameInput(channels=1, height=32, width=48)
FRAMES = normal_frames(30, GEOMETRY, seed=3)
ENCODED = [encode(frame, ImageFormat.PNG) for frame in FRAMES]
CLIP = np.random.default_rng(0).integers(0, 256, (14, 16, 24, 1), np.uint8)
ENCODED_CLIP = [encode(frame, ImageFormat.PNG) for frame in CLIP]
URL = "/v1/models/scorer/calibrations"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_scorer(tmp_path / "scorer")
    return tmp_path


@pytest.fixture
def client(serve: Serve, place: Path) -> httpx.Client:
    return serve(place)


def parts(frames: list[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{index}.png", frame, "image/png")) for index, frame in enumerate(frames)]


def upload(client: httpx.Client, frames: list[bytes] = ENCODED, url: str = URL, **query: object) -> httpx.Response:
    params = {"camera": "door", "false_alarm_rate": "0.1"} | {name: str(value) for name, value in query.items()}
    return client.post(url, files=parts(frames), params=params)


def made(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 201, reply.text
    CalibrationReply.model_validate(reply.json())
    return dict(reply.json())


def score(client: httpx.Client, **query: str) -> dict[str, Any]:
    reply = client.post("/v1/score", content=ENCODED[0], headers=PNG, params=query)
    assert reply.status_code == 200, reply.text
    ScoreReply.model_validate(reply.json())
    return dict(reply.json())


def send(client: httpx.Client, camera: str, frame: bytes, **query: str) -> dict[str, Any]:
    reply = client.post(f"/v1/cameras/{camera}/frames", content=frame, headers=PNG, params=query)
    assert reply.status_code == 200, reply.text
    CameraReply.model_validate(reply.json())
    return dict(reply.json())


def failure(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["type"].removeprefix("urn:clearwatch:problem:")


# -- from uploaded frames


def test_uploaded_frames_set_the_threshold(client: httpx.Client, place: Path, cpu: Device) -> None:
    found = made(upload(client, source="Monday", frames_per_second=2))
    scores = Model.open(place / "scorer", cpu).run(FRAMES).anomaly_score
    assert scores is not None
    assert found["threshold"] == pytest.approx(float(np.sort(scores)[27]))  # ceil(0.9 * 31) = 28th of 30
    assert (found["camera"], found["version"], found["count"], found["clips"]) == ("door", 1, 30, 1)
    assert (found["false_alarm_rate"], found["false_alarms_per_hour"]) == (0.1, pytest.approx(720))
    assert (found["source"], found["in_force"]) == ("Monday", True)
    assert 0 <= found["rate_interval"][0] <= found["rate_interval"][1] <= 1
    assert any("one clip" in warning for warning in found["warnings"])
    assert (place / "calibrations" / "scorer" / "door" / "000001.json").is_file()
    assert b'clearwatch_calibrations_total{model="scorer"} 1.0' in client.get("/metrics").content


def test_the_camera_is_judged_by_its_own_and_others_are_not(client: httpx.Client) -> None:
    before = score(client)
    found = made(upload(client, frames_per_second=2))
    named = score(client, camera="door")
    assert (named["threshold"], named["threshold_source"]) == (found["threshold"], "camera")
    assert named["calibration"] == {"camera": "door", "version": 1}
    assert named["false_alarms_per_hour"] == pytest.approx(720)
    assert named["p_value"] != before["p_value"]
    assert score(client) | {"timing_ms": 0} == before | {"timing_ms": 0}
    own = score(client, camera="door", threshold="7")
    assert (own["threshold_source"], own["calibration"]["version"], own["false_alarm_rate"]) == ("request", 1, 1 / 31)
    door, gate = send(client, "door", ENCODED[0]), send(client, "gate", ENCODED[0])
    assert (door["threshold"], door["calibration"]) == (found["threshold"], {"camera": "door", "version": 1})
    assert (gate["threshold_source"], gate["calibration"], gate["note"]) == ("model", None, None)


def test_a_model_without_a_threshold_gets_one(serve: Serve, tmp_path: Path) -> None:
    write_scorer(tmp_path / "scorer", calibration=False)
    client = serve(tmp_path)
    assert score(client)["state"] == "uncalibrated"
    assert made(upload(client, false_alarm_rate="0.05"))["false_alarm_rate"] == 0.05
    assert score(client, camera="door", heatmap="png")["heatmap"]
    assert score(client)["state"] == "uncalibrated"


def test_frames_of_a_clip_model_are_seen_with_those_before_them(serve: Serve, tmp_path: Path, cpu: Device) -> None:
    model = Model.open(write_clip_scorer(tmp_path / "clips"), cpu)
    client = serve(tmp_path)
    found = made(upload(client, ENCODED_CLIP, "/v1/models/clips/calibrations"))
    expected = [float(model.run(CLIP[None, end - 4 : end])[0].anomaly_score) for end in range(4, 15)]  # type: ignore[arg-type]
    assert found["count"] == 11
    assert found["threshold"] == pytest.approx(sorted(expected)[10])  # ceil(0.9 * 12) = 11th
    short = upload(client, ENCODED_CLIP[:3], "/v1/models/clips/calibrations")
    assert failure(short) == (422, "too-few-frames")


def test_more_frames_than_a_batch_has_are_taken_up_to_the_limit(serve: Serve, place: Path) -> None:
    client = serve(place, max_batch_images=2, max_calibration_images=12)
    assert made(upload(client, ENCODED[:12]))["count"] == 12
    assert failure(upload(client, ENCODED[:13])) == (413, "too-large")


def test_frames_of_other_sizes_are_scaled_as_they_are_served(client: httpx.Client) -> None:
    large = encode(np.random.default_rng(1).integers(0, 256, (64, 96, 1), np.uint8), ImageFormat.PNG)
    assert made(upload(client, [large, *ENCODED]))["count"] == 31


# -- what is refused


def test_too_few_frames_say_how_many_are_needed(client: httpx.Client, place: Path) -> None:
    reply = client.post(
        URL, files=parts(ENCODED), params={"camera": "door", "false_alarms_per_hour": 1 / 24, "frames_per_second": 10}
    )
    assert failure(reply) == (422, "too-few-frames")
    assert "n = 30 normal frames cannot support 1 false alarm a day at 10 frames/s" in reply.json()["detail"]
    assert "at least 863999 are needed" in reply.json()["detail"]
    assert not (place / "calibrations").exists()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, (422, "invalid-request")),
        ({"camera": "../door"}, (422, "invalid-request")),
        ({"camera": "door", "false_alarm_rate": "0"}, (422, "invalid-request")),
        ({"camera": "door", "false_alarm_rate": "nan"}, (422, "invalid-request")),
        ({"camera": "door", "false_alarms_per_hour": "1"}, (422, "invalid-input")),
        ({"camera": "door", "false_alarms_per_hour": "9999", "frames_per_second": "1"}, (422, "invalid-input")),
    ],
)
def test_what_is_asked_must_make_sense(client: httpx.Client, params: dict[str, str], expected: tuple[int, str]) -> None:
    assert failure(client.post(URL, files=parts(ENCODED), params=params)) == expected


def test_a_bad_image_is_named_and_nothing_is_written(client: httpx.Client, place: Path) -> None:
    reply = upload(client, [*ENCODED[:4], b"\x89PNG\r\n\x1a\nxx", *ENCODED[4:]])
    assert failure(reply) == (400, "unreadable-image")
    assert reply.json()["detail"].startswith("image 5: ")
    assert not (place / "calibrations").exists()


def has_learnt(folder: Path, frame: Pixels) -> None:
    edit_manifest(folder, lambda it: it["provenance"].update({"trained_on": [fingerprint(frame)]}))


def test_frames_that_were_trained_on_are_refused(serve: Serve, place: Path) -> None:
    has_learnt(place / "scorer", FRAMES[6])
    reply = upload(serve(place))
    assert failure(reply) == (422, "invalid-input")
    assert "image 7: scorer was trained on this frame" in reply.json()["detail"]


def test_the_first_frames_of_a_clip_may_not_be_trained_on_either(serve: Serve, tmp_path: Path) -> None:
    has_learnt(write_clip_scorer(tmp_path / "clips"), CLIP[1])
    reply = upload(serve(tmp_path), ENCODED_CLIP, "/v1/models/clips/calibrations")
    assert failure(reply) == (422, "invalid-input")
    assert "image 2: clips was trained on this frame" in reply.json()["detail"]


def test_each_frame_of_a_clip_is_decoded_once(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip_scorer(tmp_path / "clips")
    decoded: list[bytes | bytearray] = []
    decode = UploadedImage.decode

    def spy(self: UploadedImage, channels: int | None, fit: Size | None = None) -> Picture:
        decoded.append(self.data)
        return decode(self, channels, fit=fit)

    monkeypatch.setattr(UploadedImage, "decode", spy)
    assert made(upload(serve(tmp_path), ENCODED_CLIP, "/v1/models/clips/calibrations"))["count"] == 11
    assert sorted(decoded) == sorted(ENCODED_CLIP)


def test_too_few_frames_are_told_before_any_is_looked_at(client: httpx.Client) -> None:
    reply = upload(client, [b"no image"] * 8)
    assert failure(reply) == (422, "too-few-frames")
    assert "n = 8 normal frames cannot support" in reply.json()["detail"]


def test_models_that_do_not_score_and_those_that_are_not_there(serve: Serve, place: Path) -> None:
    write_denoiser(place / "denoiser")
    client = serve(place)
    assert failure(upload(client, url="/v1/models/denoiser/calibrations")) == (422, "task-not-supported")
    assert failure(upload(client, url="/v1/models/nobody/calibrations")) == (404, "model-not-found")
    assert failure(client.get("/v1/models/nobody/calibrations")) == (404, "model-not-found")


def test_the_token_is_asked_for(serve: Serve, place: Path) -> None:
    client = serve(place, token="a long secret")  # noqa: S106
    for method, url in (("POST", URL), ("GET", URL), ("DELETE", f"{URL}/door"), ("DELETE", f"{URL}/door/1")):
        assert failure(client.request(method, url)) == (401, "unauthorized")
    client.headers["Authorization"] = "Bearer a long secret"
    assert made(upload(client))["version"] == 1


def test_a_folder_that_cannot_be_written_says_so(serve: Serve, place: Path) -> None:
    (place / "file").write_text("in the way")
    reply = upload(serve(place, calibrations_dir=place / "file"))
    assert failure(reply) == (507, "calibration-not-saved")
    assert "cannot be written (Not a directory)" in reply.json()["detail"]


# -- from scores


def test_the_scores_of_frames_that_were_sent_are_kept(client: httpx.Client) -> None:
    url = f"{URL}?camera=door&false_alarm_rate=0.1"
    assert failure(client.post(url, json={"scored": {}})) == (404, "camera-not-found")
    sent = [send(client, "door", frame)["score"] for frame in (*ENCODED, ENCODED[-1])]  # the last one twice
    assert client.get("/v1/cameras/door").json()["clips"][0]["kept_scores"] == 30
    found = made(client.post(url, json={"scored": {}}))
    assert (found["count"], found["source"]) == (30, "30 frames scored lately")
    assert found["threshold"] == pytest.approx(sorted(sent[:30])[27])
    uploaded = made(upload(client, camera="other"))
    assert {name: found[name] for name in ("threshold", "map_low", "map_threshold")} == pytest.approx(
        {name: uploaded[name] for name in ("threshold", "map_low", "map_threshold")}
    )
    none = client.post(url, json={"scored": {"until": "2020-01-01T00:00:00Z"}})
    assert failure(none) == (422, "too-few-frames")


def test_kept_scores_of_frames_that_were_trained_on_are_refused(serve: Serve, place: Path) -> None:
    has_learnt(place / "scorer", FRAMES[0])
    client = serve(place)
    send(client, "door", ENCODED[0])
    later = datetime.now(UTC).isoformat()
    for frame in ENCODED[1:]:
        send(client, "door", frame)
    url = f"{URL}?camera=door&false_alarm_rate=0.1"
    reply = client.post(url, json={"scored": {}})
    assert failure(reply) == (422, "invalid-input")
    assert "scorer was trained on 1 of these frames" in reply.json()["detail"]
    assert made(client.post(url, json={"scored": {"since": later}}))["count"] == 29


def test_a_promise_that_takes_more_scores_than_are_kept_names_the_setting(serve: Serve, place: Path) -> None:
    client = serve(place, kept_scores=20)
    for frame in ENCODED:
        send(client, "door", frame)
    url = f"{URL}?camera=door&false_alarm_rate="
    reply = client.post(f"{url}0.01", json={"scored": {}})
    assert failure(reply) == (422, "too-few-frames")
    assert "keeps 20 scores of a camera: set CLEARWATCH_KEPT_SCORES to 99 or more" in reply.json()["detail"]
    assert "add normal frames" not in reply.json()["detail"]
    assert made(client.post(f"{url}0.05", json={"scored": {}}))["count"] == 20


def test_kept_scores_are_those_of_the_weights_that_are_served(client: httpx.Client, place: Path) -> None:
    for frame in ENCODED:
        send(client, "door", frame)
    write_scorer(place / "scorer", latent_dim=5)
    assert client.post("/v1/models:reload").json()["changed"] == ["scorer"]
    reply = client.post(f"{URL}?camera=door", json={"scored": {}})
    assert failure(reply) == (404, "camera-not-found")
    again = send(client, "door", ENCODED[-1])
    assert (again["repeated"], again["frames"]) == (True, 1)
    assert again["score"] is not None, "the new weights score the frame that the old ones have seen"


def test_scores_may_be_given_clip_by_clip(client: httpx.Client) -> None:
    scores = [list(range(20)), list(range(20, 50))]
    found = made(client.post(f"{URL}?camera=door&false_alarm_rate=0.1", json={"scores": scores}))
    assert (found["threshold"], found["clips"], found["count"]) == (45, 2, 50)
    assert found["left_out_rate"] == pytest.approx(30 / 50)
    assert found["map_threshold"] == client.get("/v1/models/scorer").json()["calibration"]["map_threshold"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "invalid-request"),
        ({"scores": [[1.0]], "scored": {}}, "invalid-request"),
        ({"scores": []}, "invalid-request"),
        ({"scores": [[]]}, "invalid-request"),
        ({"scores": [["high"]]}, "invalid-request"),
        ({"scores": [[1.0, 2.0]]}, "too-few-frames"),
        ({"scored": {"since": "yesterday"}}, "invalid-request"),
        ({"image": "iVBORw0KGgo="}, "invalid-request"),
    ],
)
def test_bodies_that_are_no_scores(client: httpx.Client, body: dict[str, object], expected: str) -> None:
    assert failure(client.post(f"{URL}?camera=door&false_alarm_rate=0.1", json=body)) == (422, expected)


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json; charset=utf-8"])
def test_the_content_type_may_be_written_in_any_case(client: httpx.Client, content_type: str) -> None:
    body = json.dumps({"scores": [list(range(50))]})
    url = f"{URL}?camera=door&false_alarm_rate=0.1"
    assert made(client.post(url, content=body, headers={"Content-Type": content_type}))["count"] == 50


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_scores_that_are_no_numbers(client: httpx.Client, number: str) -> None:
    body = f'{{"scores": [[1.0, {number}]]}}'
    reply = client.post(f"{URL}?camera=door", content=body, headers={"Content-Type": "application/json"})
    assert failure(reply) == (422, "invalid-request")


def test_scores_alone_have_no_scale_where_the_model_has_none(serve: Serve, tmp_path: Path) -> None:
    write_scorer(tmp_path / "scorer", calibration=False)
    reply = serve(tmp_path).post(f"{URL}?camera=door&false_alarm_rate=0.1", json={"scores": [list(range(50))]})
    assert failure(reply) == (422, "invalid-input")
    assert "calibrate with frames" in reply.json()["detail"]


# -- versions


def test_versions_are_listed_and_deleted(client: httpx.Client) -> None:
    thresholds = [made(upload(client, false_alarm_rate=rate))["threshold"] for rate in (0.1, 0.3)]
    made(upload(client, camera="gate"))
    listed = client.get(URL).json()
    CalibrationsReply.model_validate(listed)
    assert [(one["camera"], one["version"], one["in_force"]) for one in listed["calibrations"]] == [
        ("door", 2, True),
        ("door", 1, False),
        ("gate", 1, True),
    ]
    assert score(client, camera="door")["threshold"] == thresholds[1]
    assert client.delete(f"{URL}/door/2").status_code == 204
    assert score(client, camera="door")["threshold"] == thresholds[0]
    assert made(upload(client))["version"] == 3
    assert client.delete(f"{URL}/door").status_code == 204
    reply = client.post("/v1/score?camera=door", content=ENCODED[0], headers=PNG)
    assert failure(reply) == (404, "calibration-not-found")
    assert send(client, "door", ENCODED[0])["threshold_source"] == "model"
    for url in (f"{URL}/door", f"{URL}/gate/7"):
        assert failure(client.delete(url)) == (404, "calibration-not-found")


def test_a_restart_and_another_process_find_them(serve: Serve, place: Path) -> None:
    client = serve(place)
    threshold = made(upload(client))["threshold"]
    for service in (client, serve(place)):
        assert score(service, camera="door")["threshold"] == threshold
    calibrations = Calibrations(place / "calibrations")
    manifest = read_manifest(place / "scorer")
    calibrations.add(manifest, "door", calibrations.find(manifest, "door").model_copy(update={"threshold": 0.5}))
    assert score(client, camera="door")["threshold"] == threshold
    client.post("/v1/models:reload")
    assert score(client, camera="door")["threshold"] == 0.5


def test_a_calibration_of_other_weights_does_not_decide(client: httpx.Client, place: Path) -> None:
    made(upload(client))
    write_scorer(place / "scorer", latent_dim=5)
    client.post("/v1/models:reload")
    reply = client.post("/v1/score?camera=door", content=ENCODED[0], headers=PNG)
    assert failure(reply) == (409, "calibration-stale")
    frame = send(client, "door", ENCODED[0])
    assert (frame["threshold_source"], frame["calibration"]) == ("model", None)
    assert "calibrate it again" in frame["note"]
    assert client.get(URL).json()["calibrations"][0]["in_force"] is False
    assert made(upload(client))["version"] == 2
    assert send(client, "door", ENCODED[1])["note"] is None


def test_a_damaged_file_is_told_and_stops_no_camera(client: httpx.Client, place: Path) -> None:
    made(upload(client))
    folder = place / "calibrations" / "scorer"
    shutil.copytree(folder / "door", folder / "gate")
    (folder / "door" / "000002.json").write_text("{")
    client.post("/v1/models:reload")
    for camera, why in (("door", "is no calibration"), ("gate", "belongs elsewhere")):
        reply = client.post(f"/v1/score?camera={camera}", content=ENCODED[0], headers=PNG)
        assert failure(reply) == (503, "calibration-invalid")
        assert why in send(client, camera, ENCODED[0])["note"]
    listed = client.get(URL).json()
    assert [one["version"] for one in listed["calibrations"]] == [1]
    assert len(listed["failed"]) == 2
    assert client.delete(f"{URL}/door/2").status_code == 204
    assert score(client, camera="door")["calibration"]["version"] == 1


def test_the_schema_names_what_the_route_reads(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/models/{name}/calibrations"]["post"]
    required = {one["name"] for one in operation["parameters"] if one["required"]}
    assert required == {"name", "camera"}
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"201", "401", "422", "507"} <= set(operation["responses"])
    assert json.dumps(operation)
