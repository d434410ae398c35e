"""What holds for every endpoint: the token, the shape of failures, request ids, metrics, limits, the schema."""

import asyncio
import json
import logging
import re
import socket
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
from runtime.model import Model, Outputs
from service.app import create_app
from service.settings import Settings
from service.tokens import Scope, Token
from tests.service.conftest import JPEG, PNG, Serve, running

PROBLEM = {"type", "title", "status", "detail", "instance", "request_id"}
OPEN = ("/healthz", "/readyz", "/docs", "/docs-assets/swagger-ui-bundle.js", "/openapi.json")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold every run of every model until the event is set."""
    go, run = threading.Event(), Model.run

    def wait_and_run(*arguments: Any, **options: Any) -> Outputs:  # noqa: ANN401
        assert go.wait(20)
        return run(*arguments, **options)

    monkeypatch.setattr(Model, "run", wait_and_run)
    yield go
    go.set()


def wait_for(client: httpx.Client, line: str) -> None:
    """Wait until the metrics say so."""
    give_up = time.monotonic() + 10
    while line not in client.get("/metrics").text.splitlines():
        assert time.monotonic() < give_up, line


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


def test_a_token_opens_what_its_scopes_say(serve: Serve, models: Path, jpeg: bytes, tmp_path: Path) -> None:
    secrets = {scope: f"the secret for {scope}" for scope in Scope}
    lines = [Token.of(secret, scope, [scope]).model_dump_json() for scope, secret in secrets.items()]
    (tmp_path / "tokens").write_text("\n".join(lines))
    client = serve(models, tokens_file=tmp_path / "tokens")
    calls = {
        Scope.SCORE: ("POST", "/v1/score"),
        Scope.READ: ("GET", "/v1/models"),
        Scope.METRICS: ("GET", "/metrics"),
        Scope.ADMIN: ("POST", "/v1/models:reload"),
    }
    for needed, (method, path) in calls.items():
        for scope, secret in secrets.items():
            headers = JPEG | {"Authorization": f"Bearer {secret}"}
            reply = client.request(method, path, content=jpeg, headers=headers)
            assert reply.status_code == (200 if scope is needed else 403)
            if scope is not needed:
                assert reply.json()["type"] == "urn:clearwatch:problem:forbidden"
                assert reply.json()["detail"] == (
                    f"the token of {scope} opens {scope}; this call needs one that opens {needed}"
                )
        assert client.request(method, path, content=jpeg, headers=JPEG).status_code == 401


def test_the_log_names_the_caller_and_no_secret(
    serve: Serve, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokens").write_text(Token.of("the secret of the door", "door").model_dump_json())
    client = serve(models, tokens_file=tmp_path / "tokens")
    client.headers["Authorization"] = "Bearer the secret of the door"
    with caplog.at_level("INFO", "service.access"):
        client.get("/v1/models")
        wait_for(client, 'clearwatch_requests_total{code="200",method="GET",route="/v1/models"} 1.0')
    (line,) = [record for record in caplog.records if "caller" in vars(record)]
    assert vars(line)["caller"] == "door"
    assert "secret" not in str(vars(line))


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_told_without_a_body_too(client: httpx.Client, path: str) -> None:
    reply, full = client.head(path), client.get(path)
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["content-length"] == full.headers["content-length"]
    assert client.head("/v1/models").status_code == 405


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/nowhere", "/docs"])
def test_browsers_are_told_to_be_careful(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"].startswith(
        "default-src 'none'" if path != "/docs" else "default-src 'self'"
    )
    assert "access-control-allow-origin" not in headers


def test_scripts_of_other_pages_may_not_call_unless_they_are_named(serve: Serve, models: Path) -> None:
    asks = {"Origin": "https://wall.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in serve(models).options("/v1/score", headers=asks).headers
    named = serve(models, cors_origins="https://wall.example", token="long enough")  # noqa: S106
    assert named.options("/v1/score", headers=asks).headers["access-control-allow-origin"] == "https://wall.example"
    other = named.options("/v1/score", headers=asks | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_docs_fetch_nothing_from_elsewhere(serve: Serve, models: Path) -> None:
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', serve(models).get("/docs").text) == []


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
    def fail(*_: object, **__: object) -> None:
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


def test_a_full_queue_refuses_at_once_and_finishes_what_it_took(
    serve: Serve, models: Path, jpeg: bytes, held: threading.Event
) -> None:
    client = serve(models, queue_capacity=2, workers=1)
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(client.post, "/v1/score", content=jpeg, headers=JPEG) for _ in range(2)]
        wait_for(client, "clearwatch_accepted_requests 2.0")
        refused = client.post("/v1/score", content=jpeg, headers=JPEG)
        held.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:clearwatch:problem:overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    wait_for(client, 'clearwatch_refused_requests_total{reason="overloaded"} 1.0')
    assert client.post("/v1/score", content=jpeg, headers=JPEG).status_code == 200


def test_waiting_past_the_deadline_is_504(serve: Serve, models: Path, jpeg: bytes, held: threading.Event) -> None:
    client = serve(models, deadline_s=2, workers=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/score", content=jpeg, headers=JPEG)
        wait_for(client, 'clearwatch_stage_duration_seconds_count{stage="decode"} 1.0')
        late = client.post("/v1/score", content=jpeg, headers=JPEG)
        held.set()
        assert first.result().status_code == 200  # it had begun
    assert (late.status_code, late.json()["type"]) == (504, "urn:clearwatch:problem:timed-out")


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/cameras/x", "DELETE, GET"), ("/v1/score", "POST"), ("/healthz", "GET, HEAD"), ("/v1/models", "GET")],
)
def test_a_method_that_a_path_has_not_is_405_with_those_it_has(client: httpx.Client, path: str, methods: str) -> None:
    reply = client.put(path)
    assert (reply.status_code, reply.headers["allow"]) == (405, methods)
    assert reply.json()["type"] == "urn:clearwatch:problem:method-not-allowed"


def test_a_caller_says_how_long_it_waits(serve: Serve, models: Path, jpeg: bytes, held: threading.Event) -> None:
    client = serve(models, deadline_s=60, workers=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/score", content=jpeg, headers=JPEG)
        wait_for(client, 'clearwatch_stage_duration_seconds_count{stage="decode"} 1.0')
        late = client.post("/v1/score?timeout_ms=200", content=jpeg, headers=JPEG)
        held.set()
        assert first.result().status_code == 200  # it had begun
    assert (late.status_code, late.json()["type"]) == (504, "urn:clearwatch:problem:timed-out")
    assert "waited 0.2 s" in late.json()["detail"]
    for wrong in ("0", "-1", "soon", "3600001"):
        assert client.post(f"/v1/score?timeout_ms={wrong}", content=jpeg, headers=JPEG).status_code == 422


def test_a_client_who_leaves_frees_its_slot(serve: Serve, models: Path, jpeg: bytes, held: threading.Event) -> None:
    client = serve(models, workers=1)
    head = (
        f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    )
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(client.post, "/v1/score", content=jpeg, headers=JPEG)
        wait_for(client, "clearwatch_accepted_requests 1.0")
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as leaves:
            leaves.sendall(head.encode() + jpeg)
            wait_for(client, "clearwatch_accepted_requests 2.0")
        wait_for(client, "clearwatch_accepted_requests 1.0")
        held.set()
        assert stays.result().status_code == 200
    wait_for(client, 'clearwatch_refused_requests_total{reason="client_left"} 1.0')


def test_frames_that_run_together_score_as_each_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch, cpu: Device, held: threading.Event
) -> None:
    """The way of a GPU, on a CPU: one lane, batches of up to eight; the first run is held until others wait."""
    monkeypatch.setattr("service.state.select_device", lambda *_, **__: replace(cpu, max_batch=8))
    held.set()
    frames = np.random.default_rng(0).integers(0, 256, (60, 32, 48, 1), np.uint8)
    expected = [float(score) for score in Model.open(models / "scorer", cpu).run(frames).anomaly_score]  # type: ignore[union-attr]

    def ask(index: int) -> float:
        data = encode(frames[index], ImageFormat.PNG)
        return float(client.post("/v1/score?model=scorer", content=data, headers=PNG).json()["score"])

    with running(create_app(Settings(models_dir=models))) as client, ThreadPoolExecutor(12) as pool:
        held.clear()
        scores = pool.map(ask, range(60))
        wait_for(client, 'clearwatch_stage_duration_seconds_count{stage="decode"} 12.0')
        held.set()
        assert list(scores) == pytest.approx(expected, rel=1e-5)
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
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
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
    names = {"model", "camera", "threshold", "heatmap", "clip", "timeout_ms"}
    assert {item["name"] for item in score["parameters"]} == names
    assert score["security"]
    assert "Problem" in schema["components"]["schemas"]
    assert all(reference in _names(schema) for reference in _references(schema))


def _names(schema: dict[str, Any]) -> set[str]:
    return {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}


def _references(node: object) -> Iterator[str]:
    return iter(re.findall(r'"\$ref": "([^"]+)"', json.dumps(node)))
