"""What may break around the service and within it: the process, the disk, the models folder, a graph, the clock."""

import json
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.images import ImageFormat, encode
from tests.end_to_end.service_process import JPEG, Served, address_of, served, start_with_log
from tests.model_folders import write_scorer, write_slow, write_treacherous
from tests.waiting import PATIENCE_S, until

FRAME = encode(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), ImageFormat.JPEG)
WHITE = encode(np.full((32, 48, 1), 255, np.uint8), ImageFormat.PNG)
SCORES = {"scores": [[0.001 * number for number in range(200)]]}
CALIBRATE = "/v1/models/scorer/calibrations?camera=door&false_alarm_rate=0.1"
BOUNDED = {"device": "cpu", "workers": 1, "log_level": "warning"}


def score(client: httpx.Client, model: str | None = None) -> httpx.Response:
    """Send a frame to the model of that name, or to the default one."""
    return client.post("/v1/score", params={"model": model} if model else {}, content=FRAME, headers=JPEG)


@contextmanager
def load(client: httpx.Client, clients: int = 3) -> Iterator[list[httpx.Response]]:
    """Send frames all the time, from several clients, until the block ends; the replies are in the list."""
    stop, replies = threading.Event(), list[httpx.Response]()

    def send() -> None:
        with httpx.Client(base_url=client.base_url, timeout=PATIENCE_S) as own:
            while not stop.is_set():
                try:
                    replies.append(score(own))
                except httpx.TransportError:  # it was killed
                    return

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(send)
        try:
            until(lambda: len(replies) >= clients)
            yield replies
        finally:
            stop.set()


def test_killed_under_load_it_serves_the_same_again(tmp_path: Path) -> None:
    write_scorer(tmp_path / "models" / "scorer")
    settings: dict[str, object] = BOUNDED | {"calibrations_dir": tmp_path / "calibrations"}
    with served(tmp_path / "models", **settings) as first:
        assert first.client.post(CALIBRATE, json=SCORES).status_code == 201
        expected = score(first.client).json()
        with load(first.client):
            first.process.kill()
        assert first.process.wait(PATIENCE_S) == -signal.SIGKILL
    with served(tmp_path / "models", **settings) as second:
        again = score(second.client).json()
        listed = second.client.get("/v1/models/scorer/calibrations").json()
    assert again | {"timing_ms": None} == expected | {"timing_ms": None}
    assert [(each["camera"], each["version"]) for each in listed["calibrations"]] == [("door", 1)]


def test_after_sigterm_new_requests_are_refused_and_the_accepted_are_served(tmp_path: Path) -> None:
    write_slow(tmp_path / "slow", work=600)
    with served(tmp_path, **BOUNDED) as service, ThreadPoolExecutor(2) as pool:
        url = service.client.base_url
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as other:
            other.get("/healthz")  # its connection stays open
            asked = [pool.submit(score, service.client, "slow") for _ in range(2)]
            until(lambda: "clearwatch_accepted_requests 2.0" in other.get("/metrics").text)
            service.process.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    return bool(score(other, "slow").json().get("type") == "urn:clearwatch:problem:shutting-down")
                except httpx.TransportError:
                    return True

            until(refused)
        assert [future.result().status_code for future in asked] == [200, 200]
        assert service.process.wait(PATIENCE_S) == 0


def test_a_full_disk_costs_calibrations_and_nothing_else(tmp_path: Path) -> None:
    write_scorer(tmp_path / "models" / "scorer")
    with served(tmp_path / "models", **BOUNDED, calibrations_dir=tmp_path / "calibrations") as service:
        limits = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))  # no file may grow
        reply = service.client.post(CALIBRATE, json=SCORES)
        assert (reply.status_code, reply.json()["type"]) == (507, "urn:clearwatch:problem:calibration-not-saved")
        assert score(service.client).status_code == 200
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, limits)
        assert service.client.post(CALIBRATE, json=SCORES).json()["version"] == 1
        assert [path.name for path in (tmp_path / "calibrations").rglob("*") if path.is_file()] == ["000001.json"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    write_scorer(tmp_path / "scorer")
    with Path("/dev/full").open("w", encoding="ascii") as full:
        process = start_with_log(full, tmp_path, models_dir=tmp_path, port=0, device="cpu", workers=1)
    try:
        with httpx.Client(base_url=address_of(process), timeout=PATIENCE_S) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            assert [score(client).status_code for _ in range(20)] == [200] * 20
        process.terminate()
        assert process.wait(PATIENCE_S) in {0, 120}  # 120: Python's own, for what it could not write at the end
    finally:
        process.kill()
        process.communicate()


def test_a_model_that_is_replaced_while_it_serves_answers_as_the_old_or_the_new_one(tmp_path: Path) -> None:
    """Its files come one by one, the folder is looked at after each: what is half copied is never served."""
    versions = [write_scorer(tmp_path / "made" / str(n) / "scorer", version=str(n), height=8 * n) for n in (2, 3)]
    folder = tmp_path / "models" / "scorer"
    shutil.copytree(versions[0], folder)
    with served(tmp_path / "models", **BOUNDED) as service:
        expected = {}
        with load(service.client) as replies:
            for made in (*reversed(versions), *versions, versions[0]):
                for file in ("manifest.json", "golden.npz", "autoencoder.onnx"):
                    data = (made / file).read_bytes()
                    for part in (data[: len(data) // 2], data):
                        (folder / file).write_bytes(part)
                        assert service.client.post("/v1/models:reload").status_code == 200
                reply = score(service.client).json()
                expected[reply["model"]["version"]] = _facts(reply)
            assert service.client.get("/readyz").json()["models"] == {"scorer": "ok"}
    assert expected.keys() == {"2", "3"}
    assert {reply.status_code for reply in replies} == {200}
    assert {_facts(reply.json()) for reply in replies} == set(expected.values())


def _facts(reply: dict[str, Any]) -> str:
    return json.dumps([reply[key] for key in ("model", "score", "threshold", "p_value", "regions")])


@pytest.fixture(scope="module")
def treacherous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("treacherous")
    write_scorer(folder / "scorer")
    write_treacherous(folder / "fails", hangs=False)
    write_treacherous(folder / "hangs", hangs=True)
    return folder


def white(service: Served, model: str) -> httpx.Response:
    return service.client.post(f"/v1/score?model={model}", content=WHITE, headers={"Content-Type": "image/png"})


def test_a_graph_that_hangs_is_given_up_alone(treacherous: Path) -> None:
    with served(treacherous, **BOUNDED | {"step_limit_s": 5}) as service:
        assert score(service.client, "hangs").status_code == 200
        for reply in (white(service, "hangs"), score(service.client, "hangs")):
            assert (reply.status_code, reply.json()["type"]) == (503, "urn:clearwatch:problem:model-not-ready")
        assert [score(service.client, name).status_code for name in ("scorer", "fails")] == [200, 200]
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "failed")
        assert "5 s" in ready.json()["models"].pop("hangs")
        assert set(ready.json()["models"].values()) >= {"ok"}
        assert "clearwatch_failed_models 1.0" in service.client.get("/metrics").text
        assert service.client.post("/v1/models:reload").json()["changed"] == ["hangs"]
        assert score(service.client, "hangs").status_code == 200
        assert service.client.get("/readyz").status_code == 200
        service.process.terminate()
        assert service.process.wait(PATIENCE_S) == 0


def test_a_graph_that_fails_on_a_frame_fails_for_that_frame(treacherous: Path) -> None:
    with served(treacherous, **BOUNDED) as service:
        reply = white(service, "fails")
        assert (reply.status_code, reply.json()["type"]) == (500, "urn:clearwatch:problem:internal")
        assert score(service.client, "fails").status_code == 200
        assert service.client.get("/readyz").status_code == 200


HANGING_OPEN = """
import pathlib, time
from runtime.model import Model
open_folder = Model.open
def hang(*arguments):
    if pathlib.Path("hang").exists():
        pathlib.Path("hangs").touch()
        time.sleep(1000)
    return open_folder(*arguments)
Model.open = hang
"""


def test_a_folder_that_hangs_as_it_is_opened_does_not_hold_up_the_end(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scorer(tmp_path / name)
    (tmp_path / "sitecustomize.py").write_text(HANGING_OPEN)  # imported before all else
    (tmp_path / "hang").touch()
    process = start_with_log(subprocess.DEVNULL, tmp_path, models_dir=tmp_path, port=0, grace_period_s=4, **BOUNDED)
    try:
        until((tmp_path / "hangs").exists)
        assert ended_within(process, 7)
    finally:
        process.kill()
        process.communicate()


def test_a_reload_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    write_scorer(tmp_path / "scorer")
    (tmp_path / "sitecustomize.py").write_text(HANGING_OPEN)
    with served(tmp_path, grace_period_s=4, **BOUNDED) as service, ThreadPoolExecutor(1) as pool:
        (tmp_path / "hang").touch()
        write_scorer(tmp_path / "scorer", version="2")
        asked = pool.submit(service.client.post, "/v1/models:reload")
        until((tmp_path / "hangs").exists)
        assert ended_within(service.process, 7)
        assert asked.result().json()["type"] == "urn:clearwatch:problem:shutting-down"


def ended_within(process: "subprocess.Popen[str]", limit_s: float) -> bool:
    """Tell it to end; return whether it did so in time."""
    told = time.monotonic()
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    return time.monotonic() - told < limit_s


def test_what_cannot_be_finished_after_sigterm_is_told_so_in_time(treacherous: Path) -> None:
    with served(treacherous, **BOUNDED | {"grace_period_s": 4}) as service, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(white, service, "hangs")
        with httpx.Client(base_url=service.client.base_url, timeout=PATIENCE_S) as other:
            until(lambda: 'stage="decode"} 1.0' in other.get("/metrics").text)
        assert ended_within(service.process, 7)
        reply = asked.result()
    assert (reply.status_code, reply.json()["type"]) == (503, "urn:clearwatch:problem:shutting-down")


JUMPING_CLOCK = """
import random, time
true_time, chance = time.time, random.Random(0)
time.time = lambda: true_time() + chance.choice([-1e7, 0, 1e7])
"""


def test_clocks_that_jump_change_no_deadline(tmp_path: Path) -> None:
    write_slow(tmp_path / "slow", work=10)
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK)  # imported before all else
    with (
        served(tmp_path, **BOUNDED | {"log_level": "info", "deadline_s": 60}) as service,
        ThreadPoolExecutor(4) as pool,
    ):
        replies = list(pool.map(lambda _: score(service.client, "slow"), range(20)))
        months = {line["timestamp"][:7] for line in service.stop()}
    assert {reply.status_code for reply in replies} == {200}
    assert len(months) > 1, "the clock did jump"
