"""Retries that end, and a concurrency that follows what the service can take."""

import asyncio
import threading
import time

import httpx
import pytest

from client.batch_score import LONGEST_PAUSE_S, Limiter, pause_s
from tests.client.conftest import KEYS, Client
from tests.client.fake_service import DROPPED, Reply, Request, problem


def busy(retry_after: str) -> Reply:
    return problem(503, "the queue is full", **{"Retry-After": retry_after})


def test_the_pause_honours_retry_after_and_grows_without_it() -> None:
    asked = httpx.Response(503, headers={"Retry-After": "7"})
    assert all(7 <= pause_s(asked, attempt) <= 8.75 for attempt in range(20))
    silent = httpx.Response(503)
    assert all(2**attempt / 2 <= pause_s(silent, attempt) <= 2**attempt for attempt in range(5))
    assert pause_s(httpx.Response(503, headers={"Retry-After": "soon"}), 0) <= 1
    assert pause_s(httpx.ConnectError("refused"), 50) == LONGEST_PAUSE_S


def test_overload_halves_the_concurrency_once_and_successes_restore_it() -> None:
    async def scenario() -> None:
        limiter = Limiter(8)
        async with limiter.slot() as first, limiter.slot() as second:
            limiter.overloaded(first)
            limiter.overloaded(second)  # was under way together with the first: the same overload
        assert limiter.limit == 4
        for expected in (2, 1, 1):
            async with limiter.slot() as cuts:
                limiter.overloaded(cuts)
            assert limiter.limit == expected
        for _ in range(100):
            limiter.succeeded()
        assert limiter.limit == 8

    asyncio.run(scenario())


def test_no_more_requests_run_than_the_limit_says() -> None:
    async def scenario() -> None:
        limiter, running, peak = Limiter(3), 0, 0

        async def work() -> None:
            nonlocal running, peak
            async with limiter.slot():
                running += 1
                peak = max(peak, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(work() for _ in range(20)))
        assert peak == 3

    asyncio.run(scenario())


def test_a_rejected_image_is_sent_again_after_the_time_asked_for(client: Client) -> None:
    times: list[float] = []

    def fault(request: Request) -> Reply | None:
        if request.body != KEYS[0].encode():
            return None
        times.append(time.monotonic())
        return busy("1") if len(times) == 1 else None

    client.service.fault = fault
    result = client.run(client.frames, "--out", client.folder / "scores.csv")
    assert result.code == 0
    assert len(times) == 2
    assert times[1] - times[0] >= 1


def test_a_service_with_little_room_is_not_overrun(client: Client) -> None:
    room = threading.Semaphore(2)
    rejected = []

    def fault(request: Request) -> Reply | None:
        if request.method == "POST":
            if not room.acquire(blocking=False):
                rejected.append(request)
                return busy("0")
            time.sleep(0.02)  # long enough for the requests to meet
            room.release()
        return None

    client.service.fault = fault
    result = client.run(client.frames, "--out", client.folder / "scores.csv", "--retries", "100")
    assert result.code == 0
    assert rejected


@pytest.mark.parametrize("reply", [busy("0"), problem(429, "slow down", **{"Retry-After": "0"}), DROPPED])
def test_one_image_that_never_gets_through_fails_alone(reply: Reply, client: Client) -> None:
    client.service.fault = lambda request: reply if request.body == KEYS[5].encode() else None
    arguments = (client.frames, "--out", client.folder / "scores.csv", "--retries", "1", "--threshold", "1")
    result = client.run(*arguments)
    assert result.code == 1
    assert "11 scored, 0 anomalous, 1 failed" in result.output
    assert sum(request.body == KEYS[5].encode() for request in client.service.posts) == 2


def test_images_that_fail_between_others_do_not_end_the_run(client: Client) -> None:
    client.service.fault = lambda request: busy("0") if request.body.endswith((b"1.jpg", b"3.jpg")) else None
    arguments = (client.frames, "--out", client.folder / "scores.csv", "--retries", "0", "--concurrency", "1")
    result = client.run(*arguments)
    assert result.code == 1
    assert "4 failed" in result.output


def test_a_reply_that_takes_too_long_is_a_failure(client: Client) -> None:
    def fault(request: Request) -> None:
        if request.body == KEYS[5].encode():
            client.service.released.wait()

    client.service.fault = fault
    out = client.folder / "scores.csv"
    assert client.run(client.frames, "--out", out, "--retries", "0", "--timeout", "1").code == 1
    assert "no reply in time (--timeout)" in out.read_text(encoding="utf-8")


def test_a_service_that_rejects_everything_ends_with_3(client: Client) -> None:
    client.service.fault = lambda request: busy("0") if request.method == "POST" else None
    arguments = (client.frames, "--out", client.folder / "scores.csv", "--retries", "1", "--concurrency", "2")
    result = client.run(*arguments)
    assert result.code == 3
    assert "the service takes no more images: the queue is full (HTTP 503)" in result.errors
    assert len({request.body for request in client.service.posts}) <= 4
