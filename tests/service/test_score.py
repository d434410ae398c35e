"""POST /v1/score: the decision follows from the reply, batches keep their order, heat maps have the frame's size."""

import base64
from pathlib import Path

import httpx
import numpy as np
import pytest

from runtime.devices import Device
from runtime.images import ImageFormat, Pixels, decode, encode, resize
from runtime.manifest import FrameInput
from runtime.model import Model
from service.schemas import ScoreReply
from tests.model_folders import normal_frames
from tests.service.conftest import JPEG, PNG


def score(client: httpx.Client, data: bytes, **query: object) -> dict[str, object]:
    reply = client.post(
        "/v1/score", content=data, headers=PNG, params={key: str(value) for key, value in query.items()}
    )
    assert reply.status_code == 200, reply.text
    ScoreReply.model_validate(reply.json())
    return dict(reply.json())


def test_the_score_is_that_of_the_runtime(client: httpx.Client, models: Path, cpu: Device, png: bytes) -> None:
    model = Model.open(models / "scorer", cpu)
    outputs = model.run(model.fit(decode(png, channels=1).pixels)[None])[0]
    reply = score(client, png)
    calibration = model.manifest.calibration
    assert calibration is not None
    assert reply["score"] == float(outputs.anomaly_score)  # type: ignore[arg-type]
    assert reply["p_value"] == calibration.p_value(float(outputs.anomaly_score))  # type: ignore[arg-type]
    assert reply["model"] == {"name": "scorer", "version": "1", "sha256": model.manifest.sha256}
    assert (reply["threshold"], reply["threshold_source"]) == (calibration.threshold, "model")
    assert (reply["state"], reply["anomalous"], reply["heatmap"]) == ("anomalous", True, None)
    assert reply["regions"]


def test_a_normal_frame_is_normal(client: httpx.Client, quiet: bytes) -> None:
    reply = score(client, quiet)
    assert (reply["state"], reply["anomalous"], reply["regions"]) == ("normal", False, [])


def test_a_request_may_bring_its_threshold(client: httpx.Client, quiet: bytes) -> None:
    own = score(client, quiet)["score"]
    at, below = score(client, quiet, threshold=own), score(client, quiet, threshold=float(str(own)) / 2)
    assert (at["state"], at["threshold"], at["threshold_source"]) == ("normal", own, "request")
    assert (below["state"], below["anomalous"]) == ("anomalous", True)
    assert below["false_alarm_rate"] != score(client, quiet)["false_alarm_rate"]


def test_without_calibration_nothing_is_decided(client: httpx.Client, png: bytes) -> None:
    reply = score(client, png, model="uncalibrated")
    assert reply["state"] == "uncalibrated"
    assert {reply[name] for name in ("anomalous", "p_value", "threshold", "threshold_source")} == {None}
    reply = score(client, png, model="uncalibrated", threshold=0)
    assert (reply["state"], reply["anomalous"], reply["p_value"]) == ("anomalous", True, None)


def test_the_timing_adds_up(client: httpx.Client, png: bytes) -> None:
    timing = score(client, png)["timing_ms"]
    assert isinstance(timing, dict)
    assert sum(timing[stage] for stage in ("queue", "decode", "inference", "encode")) <= timing["total"] + 0.01
    assert timing["inference"] > 0


@pytest.mark.parametrize("heatmap", ["png", "overlay"])
def test_heat_maps_have_the_size_of_the_frame(client: httpx.Client, png: bytes, frame: Pixels, heatmap: str) -> None:
    in_json = base64.b64decode(str(score(client, png, heatmap=heatmap)["heatmap"]))
    reply = client.post(f"/v1/score?heatmap={heatmap}", content=png, headers=PNG | {"Accept": "image/png"})
    assert reply.headers["content-type"] == "image/png"
    assert reply.content == in_json
    assert decode(reply.content).pixels.shape == frame.shape
    assert (reply.headers["x-model"], reply.headers["x-state"]) == ("scorer", "anomalous")
    assert float(reply.headers["x-anomaly-score"]) > 0


def test_accepting_a_png_is_asking_for_the_heat_map(client: httpx.Client, png: bytes) -> None:
    reply = client.post("/v1/score", content=png, headers=PNG | {"Accept": "image/png"})
    assert decode(reply.content).format is ImageFormat.PNG


def test_no_scale_no_heat_map(client: httpx.Client, png: bytes) -> None:
    reply = client.post("/v1/score?model=uncalibrated&heatmap=png", content=png, headers=PNG)
    assert (reply.status_code, reply.json()["type"]) == (422, "urn:clearwatch:problem:invalid-input")


def test_a_batch_keeps_its_order_and_survives_a_bad_image(client: httpx.Client, quiet: bytes, jpeg: bytes) -> None:
    parts = [
        ("image", ("a.png", quiet, "image/png")),
        ("file", ("b.jpg", b"\xff\xd8\xff nonsense", "image/jpeg")),
        ("image", ("c.jpg", jpeg, "application/octet-stream")),
        ("image", ("d.jpg", jpeg, "image/png")),
    ]
    results = client.post("/v1/score", files=parts).json()["results"]
    assert [results[0]["state"], results[2]["state"]] == ["normal", "anomalous"]
    assert results[1]["error"]["type"] == "urn:clearwatch:problem:unreadable-image"
    assert results[3]["error"]["status"] == 415
    assert results[1]["error"]["request_id"]


def test_one_part_is_answered_as_one_image(client: httpx.Client, jpeg: bytes) -> None:
    assert "score" in client.post("/v1/score", files={"image": ("a.jpg", jpeg, "image/jpeg")}).json()


def test_a_clip_in_one_request_scores_as_its_frames_do(client: httpx.Client, models: Path, cpu: Device) -> None:
    geometry = FrameInput(channels=1, height=16, width=24)
    frames = normal_frames(4, geometry, seed=5)
    parts = [("image", ("f.png", encode(frame, ImageFormat.PNG), "image/png")) for frame in frames]
    reply = client.post("/v1/score?model=clips&clip=true", files=parts)
    expected = Model.open(models / "clips", cpu).run(np.stack(list(frames))[None])[0].anomaly_score
    assert reply.json()["score"] == float(expected)  # type: ignore[arg-type]
    short = client.post("/v1/score?model=clips&clip=true", files=parts[:3])
    assert (short.status_code, "4 frames" in short.json()["detail"]) == (422, True)


def test_a_clip_model_asked_about_one_frame_says_where_to_go(client: httpx.Client, jpeg: bytes) -> None:
    reply = client.post("/v1/score?model=clips", content=jpeg, headers=JPEG)
    assert reply.status_code == 422
    assert "/v1/cameras/{camera}/frames" in reply.json()["detail"]


def test_the_frame_is_scaled_as_the_runtime_scales(client: httpx.Client, models: Path, cpu: Device) -> None:
    large = np.random.default_rng(1).integers(0, 256, (480, 640, 1), np.uint8)
    model = Model.open(models / "scorer", cpu)
    expected = model.run(resize(large, 32, 48)[None])[0].anomaly_score
    assert score(client, encode(large, ImageFormat.PNG))["score"] == float(expected)  # type: ignore[arg-type]


def test_the_score_does_not_depend_on_the_heat_map(client: httpx.Client) -> None:
    """Large JPEGs are decoded at a reduced size for the model, and in full for people."""
    large = encode(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8), ImageFormat.JPEG)
    plain, drawn = (
        client.post(f"/v1/score?model=scorer&heatmap={heatmap}", content=large, headers=JPEG).json()
        for heatmap in ("none", "overlay")
    )
    assert plain["score"] == drawn["score"]
    assert drawn["heatmap"] is not None
