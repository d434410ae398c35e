"""More than the service can do, from clients that do not listen: the accepted are served, the rest are told at once."""

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runtime.images import ImageFormat, encode
from tests.end_to_end.load import Load, hammer, request
from tests.end_to_end.service_process import JPEG, Served, served
from tests.model_folders import write_slow

pytestmark = pytest.mark.slow  # rates and latencies: they need a machine that does nothing else

FRAME = encode(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), ImageFormat.JPEG)
CAPACITY = 8  # requests accepted at once
MEMORY_MB = 64  # that a thousand clients more may cost


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    write_slow(models / "slow", work=60)
    with served(models, workers=1, queue_capacity=CAPACITY, log_level="warning") as running:
        yield running


def load(service: Served, clients: int, seconds: float) -> Load:
    wire = request(service.client.base_url, "/v1/score", FRAME, "image/jpeg")
    return hammer(service.client.base_url, [wire], clients, seconds)


FAST = pytest.param(3 * CAPACITY, 3, id="3x")
LONG = [
    pytest.param(factor * CAPACITY, 60, id=f"{factor}x for a minute", marks=pytest.mark.timeout(300))
    for factor in (3, 10, 50)
]


@pytest.mark.parametrize(("clients", "seconds"), [FAST, *LONG])
def test_the_accepted_keep_their_latency_and_the_rest_are_told(service: Served, clients: int, seconds: float) -> None:
    full = load(service, CAPACITY, max(3, seconds / 6))  # a full queue, and nobody is refused
    before = service.memory_mb()
    over = load(service, clients, seconds)
    after = load(service, CAPACITY, max(3, seconds / 6))
    assert full.statuses.keys() == {200}
    assert over.statuses.keys() == {200, 503}
    assert (over.without_retry_after, over.lost) == (0, 0)
    assert service.memory_mb() - before < MEMORY_MB
    capacity = min(full.rate, after.rate)  # what else the machine does comes and goes
    assert over.rate >= 0.85 * capacity
    assert over.percentile_s(99) <= 2 * max(full.percentile_s(99), after.percentile_s(99))


def test_it_recovers_within_a_second(service: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(load, service, 10 * CAPACITY, 2.0).result()
    ended = time.monotonic()
    while service.client.post("/v1/score", content=FRAME, headers=JPEG).status_code != 200:
        assert time.monotonic() - ended < 1
    assert time.monotonic() - ended < 1


def test_two_thousand_idle_connections_are_not_in_the_way(service: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    address = (service.client.base_url.host, service.client.base_url.port or 0)
    wire = request(service.client.base_url, "/v1/score", FRAME, "image/jpeg")
    before = service.memory_mb()
    alone = load(service, CAPACITY, 2)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(2000)]
        for number, connection in enumerate(idle):
            if number % 2:
                connection.sendall(wire[: number % 60])  # half of them have begun to say something
        crowded = load(service, CAPACITY, 2)
        assert len(os.listdir(f"/proc/{service.process.pid}/fd")) >= 2000  # noqa: PTH208
        assert service.memory_mb() - before < MEMORY_MB
    assert crowded.statuses.keys() == {200}
    assert crowded.rate >= 0.7 * alone.rate
    assert crowded.percentile_s(99) <= 2 * alone.percentile_s(99)


def test_clients_that_go_away_are_not_served(service: Served) -> None:
    """A thousand that hang up after they have asked cost the others no more than the frame that had begun."""
    address = (service.client.base_url.host, service.client.base_url.port or 0)
    wire = request(service.client.base_url, "/v1/score", FRAME, "image/jpeg")
    for _ in range(1000):
        with socket.create_connection(address) as connection:
            connection.sendall(wire)
    asked = time.monotonic()
    while service.client.post("/v1/score", content=FRAME, headers=JPEG).status_code != 200:
        assert time.monotonic() - asked < 5
    deadline = time.monotonic() + 10
    while "clearwatch_accepted_requests 0.0" not in service.client.get("/metrics").text:
        assert time.monotonic() < deadline
