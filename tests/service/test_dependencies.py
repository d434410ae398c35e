"""Small requests made to cost much: the event loop goes on turning, memory and replies stay small."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from runtime.devices import DeviceChoice
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import running

JSON = {"Content-Type": "application/json"}
CALIBRATIONS = "/v1/models/scorer/calibrations?camera=a&false_alarm_rate=0.1"
MOST_S = 1.5  # of a processor, on a slow machine; what is held off here takes many seconds
REPLY_BYTES = 10_000


def many(text: bytes, count: int) -> bytes:
    return b",".join([text] * count)


def names(count: int) -> bytes:
    return b",".join(b'"%x":0' % n for n in range(count))


COSTLY: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "strings for latents": ("/v1/sample", lambda: b'{"latents":[[%b]]}' % many(b'""', 300_000), 422),
    "empty latents": ("/v1/sample", lambda: b'{"latents":[%b]}' % many(b"[]", 300_000), 422),
    "nothing but commas": ("/v1/sample", lambda: b'{"latents":[[%b]]}' % many(b"0", 2_000_000), 422),
    "unknown names": ("/v1/sample", lambda: b"{%b}" % names(300_000), 422),
    "a long name": ("/v1/sample", lambda: b'{"%b":0}' % (b"a" * 2_000_000), 422),
    "strings for scores": (CALIBRATIONS, lambda: b'{"scores":[[%b]]}' % many(b'""', 300_000), 422),
    "strings for clips": (CALIBRATIONS, lambda: b'{"scores":[%b]}' % many(b'""', 300_000), 422),
    "names within": (CALIBRATIONS, lambda: b'{"scored":{%b}}' % names(300_000), 422),
    "more scores than fit": (CALIBRATIONS, lambda: b'{"scores":[[%b]]}' % many(b"0.123456789", 800_000), 413),
    "lists for images": ("/v1/score", lambda: b'{"images":[%b]}' % many(b"[]", 5_000_000), 422),
    "objects for images": ("/v1/score", lambda: b'{"images":[%b]}' % many(b"{}", 5_000_000), 422),
    "numbers for images": ("/v1/score", lambda: b'{"images":[%b]}' % many(b"0", 5_000_000), 413),
    "no image": ("/v1/score", lambda: b'{"image":"%b"}' % (b"AA " * 5_000_000), 415),
}


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    """Give a client of an app that takes bodies as large as it does by default."""
    with running(create_app(Settings(models_dir=models, workers=2, device=DeviceChoice.CPU))) as client:
        yield client


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_body_keeps_nobody_waiting(client: httpx.Client, name: str) -> None:
    path, make, status = COSTLY[name]
    body = make()
    before = time.process_time()  # of the server and the client; the clock would also count what other programs take
    reply = client.post(path, content=body, headers=JSON)
    spent_s = time.process_time() - before
    assert reply.status_code == status, reply.text[:1000]
    assert len(reply.content) < REPLY_BYTES
    assert spent_s < MOST_S


@pytest.mark.parametrize("count", [100, 900, 11_000])
def test_unknown_query_parameters_have_a_short_reply(client: httpx.Client, count: int) -> None:
    query = "&".join(f"{n:x}=" for n in range(count))
    reply = client.post(f"/v1/score?{query}", content=b"x", headers={"Content-Type": "image/jpeg"})
    assert reply.status_code == 422
    assert len(reply.content) < REPLY_BYTES


def test_what_is_wrong_is_still_told(client: httpx.Client) -> None:
    reply = client.post("/v1/sample", content=b'{"n": 0, "latents": [[0, "", ""], [""]], "count": 1}', headers=JSON)
    assert [error["loc"] for error in reply.json()["errors"]] == [
        ["body", "n"],
        ["body", "latents", 0, 1],
        ["body", "count"],
    ]
