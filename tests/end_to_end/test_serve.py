"""`python -m service` as an operator runs it: a process, a port, signals, exit codes."""

import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from runtime.images import ImageFormat, decode, encode
from tests.end_to_end.service_process import JPEG, ROOT, served, start
from tests.model_folders import write_every_sort, write_slow

FRAME = encode(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), ImageFormat.JPEG)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_every_sort(tmp_path_factory.mktemp("models"))


def refused(folder: Path, *module: str, **settings: object) -> tuple[int, str]:
    process = start(folder, *module, **settings)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_every_endpoint_once_and_a_clean_end(models: Path) -> None:
    with served(models, workers=1) as service:
        client = service.client
        assert decode(client.post("/v1/denoise", content=FRAME, headers=JPEG).content).pixels.shape == (60, 80, 3)
        assert client.post("/v1/reconstruct", content=FRAME, headers=JPEG).headers["content-type"] == "image/jpeg"
        assert client.post("/v1/score", content=FRAME, headers=JPEG).json()["state"] == "anomalous"
        assert len(client.post("/v1/encode?model=scorer", content=FRAME, headers=JPEG).json()["latent"]) == 4
        assert len(client.post("/v1/sample", json={"n": 2}).json()["images"]) == 2
        frame = client.post("/v1/cameras/door/frames?model=clips", content=FRAME, headers=JPEG).json()
        assert frame["state"] == "warming_up"
        assert client.get("/v1/cameras/door").status_code == 200
        assert len(client.get("/v1/models").json()["models"]) == 4
        assert client.get("/v1/models/scorer").json()["name"] == "scorer"
        assert client.post("/v1/models:reload").json()["failed"] == {}
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
            assert client.get(path).status_code == 200
        requests = [line for line in service.stop() if line["message"] == "request"]
        assert service.process.returncode == 0
    assert {(line["route"], line["status"]) for line in requests} >= {("/v1/score", 200), ("/v1/models:reload", 200)}
    assert all(line["request_id"] and line["ms"] > 0 for line in requests)
    assert service.announcement["docs"].endswith("/docs")
    assert service.announcement["device"] == "cpu"


def test_the_log_follows_a_frame_that_takes_many_tiles(models: Path) -> None:
    large = encode(np.zeros((200, 300, 3), np.uint8), ImageFormat.PNG)
    with served(models, workers=1, tile_pixels=100 * 100) as service:
        headers = {"Content-Type": "image/png", "X-Request-Id": "large-1"}
        assert service.client.post("/v1/denoise", content=large, headers=headers).status_code == 200
        assert service.client.post("/v1/denoise", content=FRAME, headers=JPEG).status_code == 200
        log = service.stop()
    begun, done = (line for line in log if line["logger"] == "service.progress")
    assert (begun["message"], done["message"]) == ("denoising in tiles", "denoised in tiles")
    assert {line["request_id"] for line in (begun, done)} == {"large-1"}
    assert (begun["model"], begun["megapixels"], begun["tiles"]) == ("denoiser", 0.06, 12)
    assert done["seconds"] >= 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_what_was_accepted(tmp_path: Path, number: signal.Signals) -> None:
    write_slow(tmp_path / "slow", work=800)
    with served(tmp_path, workers=1) as service, ThreadPoolExecutor(2) as pool:
        url = f"{service.client.base_url}/v1/score?model=slow"
        asked = [pool.submit(httpx.post, url, content=FRAME, headers=JPEG, timeout=30) for _ in range(2)]
        give_up = time.monotonic() + 10
        while "clearwatch_accepted_requests 2.0" not in service.client.get("/metrics").text:
            assert time.monotonic() < give_up
        service.stop(number)
        assert [future.result().status_code for future in asked] == [200] * 2
        assert service.process.returncode == 0


def cpu_s_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_start_takes_less_than_three_seconds(models: Path) -> None:
    """Of one core's time, which other work on the machine does not stretch."""
    before = cpu_s_of_children()
    with served(models, workers=1) as service:
        service.stop()
    assert cpu_s_of_children() - before < 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prot": 1}, "CLEARWATCH_PORT"),
        ({"host": "0.0.0.0"}, "CLEARWATCH_TOKEN"),  # noqa: S104
        ({"models_dir": "nowhere"}, "CLEARWATCH_MODELS_DIR"),
        ({"device": "cuda"}, "no CUDA provider"),
        ({"host": "192.0.2.1", "token": "long enough"}, "cannot listen on 192.0.2.1"),
    ],
)
def test_a_start_that_fails_says_why_in_one_sentence(models: Path, settings: dict[str, object], words: str) -> None:
    code, errors = refused(models, **({"models_dir": models, "port": 0} | settings))
    assert code == 2
    assert words in errors
    assert errors.startswith("python -m service: ")
    assert errors.count("\n") == 1


def test_a_busy_port(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = refused(models, models_dir=models, port=port)
    assert code == 2
    assert f"port {port}" in errors
    assert "CLEARWATCH_PORT" in errors


def test_the_health_check(models: Path) -> None:
    with served(models) as service:
        port = service.client.base_url.port
        assert refused(models, "service.healthcheck", port=port) == (0, "")
        service.stop()
    code, errors = refused(models, "service.healthcheck", port=port)
    assert code == 1
    assert "does not answer" in errors


def test_help_lists_every_setting() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "service", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "CLEARWATCH_TOKEN_FILE" in text.stdout
    assert "curl" in text.stdout
