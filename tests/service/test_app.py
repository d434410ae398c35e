"""What holds for every endpoint: the token, the shape of failures, request ids, metrics, limits, the schema."""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.devices import Device
from runtime.images import ImageFormat, encode
from runtime.model import Model
from service.app import create_app
from service.settings import Settings
from tests.model_folders import write_slow
from tests.service.conftest import JPEG, PNG, Serve, running

PROBLEM = {"type", "title", "status", "detail", "instance", "request_id"}
OPEN = ("/healthz", "/readyz", "/docs", "/openapi.json")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a model that takes a while."""
    folder = tmp_path_factory.mktemp("slow")
    write_slow(folder / "slow", work=200)
    return folder


def test_a_token_guards_all_but_health_and_docs(serve: Serve, models: Path, jpeg: bytes) -> None:
    client = serve(models, token="correct horse")  # noqa: S106 - a test's
    for path in OPEN:
        assert client.get(path).status_code == 200, path
    for path in ("/metrics", "/v1/models", "/v1/models/scorer", "/v1/cameras"):
        assert client.get(path).status_code == 401, path
    wrong = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": "Bearer caf\u00e9"}]
    for headers in wrong:
        for path in ("/v1/score", "/v1/sample", "/v1/models:reload"):
            encoded = [(key.encode(), value.encode()) for key, value in (JPEG | headers).items()]
            reply = client.post(path, content=jpeg, headers=encoded)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.headers["content-type"] == "application/problem+json"
    right = {"Authorization": "Bearer correct horse"}
    assert client.post("/v1/score", content=jpeg, headers=JPEG | right).status_code == 200
    assert client.get("/metrics", headers=right).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/score", 405),
        ("DELETE", "/healthz", 405),
        ("POST", "/v1/score?modle=a", 422),
        ("POST", "/v1/score?threshold=nan", 422),
        ("POST", "/v1/score?threshold=-inf", 422),
        ("POST", "/v1/score?heatmap=jpeg", 422),
        ("POST", "/v1/sample?n=3", 422),
        ("GET", "/v1/models?x=1", 422),
        ("GET", "/healthz?x=1", 422),
        ("POST", "/v1/score?model=nobody", 404),
        ("POST", "/v1/score", 415),
        ("GET", "/v1/cameras/nobody", 404),
    ],
)
def test_every_failure_has_one_shape(client: httpx.Client, method: str, path: str, status: int) -> None:
    reply = client.request(method, path)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    body = reply.json()
    assert body.keys() - {"errors"} == PROBLEM
    assert (body["status"], body["instance"]) == (status, path.partition("?")[0])
    assert body["request_id"] == reply.headers["x-request-id"]
    assert body["type"].startswith("urn:clearwatch:problem:")
    if "?" in path and status == 422:
        assert body["errors"][0].keys() == {"loc", "msg", "type"}
    if status == 405:
        assert reply.headers["allow"]


@pytest.mark.parametrize(
    ("sent", "kept"), [("camera-7.frame_12", True), ("a b", False), ("x" * 200, False), ("a\tb", False), ('"', False)]
)
def test_request_ids(client: httpx.Client, sent: str, kept: bool) -> None:  # noqa: FBT001
    reply = client.get("/healthz", headers={"X-Request-Id": sent})
    assert (reply.headers["x-request-id"] == sent) is kept
    assert re.fullmatch(r"[\w.-]{8,}", reply.headers["x-request-id"])


def test_an_unexpected_error_is_logged_and_not_told(
    serve: Serve, models: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Model, "run", fail)
    client = serve(models)
    with caplog.at_level(logging.ERROR):
        reply = client.post("/v1/score", content=jpeg, headers=JPEG)
        parts = [("image", ("a", jpeg)), ("image", ("b", jpeg))]
        batch = client.post("/v1/score", files=parts)
    assert (reply.status_code, reply.json()["type"]) == (500, "urn:clearwatch:problem:internal")
    assert batch.json()["results"][0]["error"]["status"] == 500
    assert "secret" not in reply.text + batch.text
    assert "a secret" in caplog.text
    assert client.get("/healthz").status_code == 200


def test_a_full_queue_refuses_and_finishes_what_it_took(serve: Serve, slow: Path, jpeg: bytes) -> None:
    client = serve(slow, queue_capacity=2, workers=1)

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{client.base_url}/v1/score", content=jpeg, headers=JPEG, timeout=30)

    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(ask, range(12)))
    refused = [reply for reply in replies if reply.status_code == 503]
    assert {reply.status_code for reply in replies} == {200, 503}
    assert len(refused) >= 4
    for reply in refused:
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["type"] == "urn:clearwatch:problem:overloaded"
    assert f'refused_requests_total{{reason="overloaded"}} {len(refused)}.0' in client.get("/metrics").text


def test_waiting_past_the_deadline_is_504(serve: Serve, slow: Path, jpeg: bytes) -> None:
    client = serve(slow, deadline_s=0.02, workers=1)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(client.post, "/v1/score", content=jpeg, headers=JPEG) for _ in range(6)]
    codes = {future.result().status_code for future in asked}
    assert codes == {200, 504}


def test_a_client_who_leaves_frees_its_slot(serve: Serve, slow: Path, jpeg: bytes) -> None:
    client = serve(slow, workers=1)
    with ThreadPoolExecutor(4) as pool:
        staying = [pool.submit(client.post, "/v1/score", content=jpeg, headers=JPEG) for _ in range(4)]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{client.base_url}/v1/score", content=jpeg, headers=JPEG, timeout=0.15)
        assert {future.result().status_code for future in staying} == {200}
    give_up = time.monotonic() + 10
    while "clearwatch_accepted_requests 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < give_up
    assert client.get("/readyz").status_code == 200


def test_frames_that_run_together_score_as_each_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch, cpu: Device
) -> None:
    """The way of a GPU, on a CPU: one lane, batches of up to eight."""
    monkeypatch.setattr("service.state.select_device", lambda *_: replace(cpu, max_batch=8))
    frames = np.random.default_rng(0).integers(0, 256, (60, 32, 48, 1), np.uint8)
    expected = [float(score) for score in Model.open(models / "scorer", cpu).run(frames).anomaly_score]  # type: ignore[union-attr]

    def ask(index: int) -> float:
        data = encode(frames[index], ImageFormat.PNG)
        return float(client.post("/v1/score?model=scorer", content=data, headers=PNG).json()["score"])

    with running(create_app(Settings(models_dir=models))) as client, ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(60))) == pytest.approx(expected, rel=1e-5)
        parts = [("image", ("f.png", encode(frame, ImageFormat.PNG))) for frame in frames[:30]]
        results = client.post("/v1/score?model=scorer", files=parts).json()["results"]
        assert [result["score"] for result in results] == pytest.approx(expected[:30], rel=1e-5)
        runs = float(re.findall(r"clearwatch_batch_frames_count (.*)", client.get("/metrics").text)[0])
    assert runs < 90  # some did run together


def test_metrics(serve: Serve, models: Path, jpeg: bytes) -> None:
    client = serve(models)
    client.post("/v1/score", content=jpeg, headers=JPEG)
    client.post("/v1/cameras/secret-name/frames?model=clips", content=jpeg, headers=JPEG)
    client.get("/v1/nowhere/else")
    text = client.get("/metrics").text
    for line in (
        'clearwatch_requests_total{code="200",method="POST",route="/v1/score"} 1.0',
        'clearwatch_requests_total{code="200",method="POST",route="/v1/cameras/{camera}/frames"} 1.0',
        'clearwatch_requests_total{code="404",method="GET",route="other"} 1.0',
        'clearwatch_stage_duration_seconds_count{stage="inference"} 1.0',
        'clearwatch_stage_duration_seconds_count{stage="decode"} 2.0',
        "clearwatch_batch_frames_count 1.0",
        'clearwatch_anomaly_score_count{model="scorer"} 1.0',
        'clearwatch_verdicts_total{model="clips",state="warming_up"} 1.0',
        "clearwatch_queue_jobs 0.0",
        "clearwatch_accepted_requests 0.0",
        "clearwatch_cameras 1.0",
        "clearwatch_failed_models 0.0",
        'clearwatch_refused_requests_total{reason="overloaded"} 0.0',
    ):
        assert line in text.splitlines(), line
    assert 'clearwatch_model_info{device="cpu",name="scorer",sha256="' in text
    assert 'clearwatch_device_info{device="cpu"' in text
    assert "secret-name" not in text


def test_readiness_names_the_device(client: httpx.Client) -> None:
    body = client.get("/readyz").json()
    assert (body["status"], body["device"]) == ("ready", "cpu")
    assert set(body["models"].values()) == {"ok"}


def test_the_port_is_open_before_the_models_are(models: Path, monkeypatch: pytest.MonkeyPatch, jpeg: bytes) -> None:
    hold, opened = threading.Event(), Model.open

    def wait_and_open(*arguments: Any) -> Model:  # noqa: ANN401
        assert hold.wait(10)
        return opened(*arguments)

    monkeypatch.setattr(Model, "open", wait_and_open)
    app = create_app(Settings(models_dir=models))

    async def test() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "loading")
            assert (await client.get("/healthz")).status_code == 200
            for query in ("", "?model=scorer"):
                reply = await client.post(f"/v1/score{query}", content=jpeg, headers=JPEG)
                assert (reply.status_code, reply.json()["type"]) == (503, "urn:clearwatch:problem:model-not-ready")
            hold.set()

    asyncio.run(test())


def test_the_schema_describes_bodies_failures_and_the_token(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    score = schema["paths"]["/v1/score"]["post"]
    assert {"image/jpeg", "image/png", "multipart/form-data", "application/json"} <= set(
        score["requestBody"]["content"]
    )
    assert {"400", "401", "413", "415", "422", "503", "504"} <= set(score["responses"])
    assert "image/png" in score["responses"]["200"]["content"]
    assert {item["name"] for item in score["parameters"]} == {"model", "threshold", "heatmap", "clip"}
    assert score["security"]
    assert "Problem" in schema["components"]["schemas"]
    assert all(reference in _names(schema) for reference in _references(schema))


def _names(schema: dict[str, Any]) -> set[str]:
    return {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}


def _references(node: object) -> Iterator[str]:
    return iter(re.findall(r'"\$ref": "([^"]+)"', json.dumps(node)))
