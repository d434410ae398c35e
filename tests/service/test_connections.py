"""Clients that are slow, silent, endless or too many, against the server as it is run: others notice nothing."""

import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.__main__ import make_server
from service.app import create_app
from service.connections import MAX_HEAD_BYTES, Connections
from service.settings import Settings
from tests.service.conftest import JPEG

Address = tuple[str, int]
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
SERVED = b"HTTP/1.1 200 OK"


@pytest.fixture
def listening(models: Path) -> Iterator[Callable[..., Address]]:
    """Give a function from settings to the address of a server like that of `python -m service`."""
    with contextlib.ExitStack() as stack:

        def start(**values: object) -> Address:
            app = create_app(Settings.model_validate({"models_dir": models, "workers": 1, "device": "cpu", **values}))
            listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            server = make_server(app)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)  # noqa: FBT003
            address: Address = listener.getsockname()
            give_up = time.monotonic() + 20
            while httpx.get(f"http://{address[0]}:{address[1]}/readyz").json()["status"] == "loading":
                assert time.monotonic() < give_up
            return address

        yield start


def until_closed(connection: socket.socket) -> bytes:
    """Read to the end; a connection that is broken off ends there too."""
    connection.settimeout(20)
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def score(address: Address, jpeg: bytes) -> int:
    return httpx.post(f"http://{address[0]}:{address[1]}/v1/score", content=jpeg, headers=JPEG).status_code


@pytest.mark.parametrize("sent", [b"", b"POST /v1/score HT", HEAD[:40], GET + b"GET /he"])
def test_headers_that_do_not_come_to_an_end(
    listening: Callable[..., Address], monkeypatch: pytest.MonkeyPatch, jpeg: bytes, sent: bytes
) -> None:
    monkeypatch.setattr("service.connections.HEAD_S", 0.2)
    address = listening()
    with socket.create_connection(address) as slow:
        slow.sendall(sent)
        assert score(address, jpeg) == 200
        assert until_closed(slow).startswith(SERVED if b"\r\n\r\n" in sent else b"")


def test_headers_without_end_are_431(listening: Callable[..., Address], jpeg: bytes) -> None:
    address = listening()
    with socket.create_connection(address) as endless:
        endless.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                endless.sendall(b"a" * MAX_HEAD_BYTES)
        received = until_closed(endless)
    assert received.startswith(b"HTTP/1.1 431") or received == b"", "the reply may be lost to what is still being sent"
    assert score(address, jpeg) == 200


def test_a_body_that_goes_on_after_its_reply(
    listening: Callable[..., Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.connections.LINGER_S", 0.2)
    address = listening()
    with socket.create_connection(address) as endless:
        endless.sendall(HEAD.replace(b"/v1/score", b"/v1/score?model=nobody") % 10**6)
        assert until_closed(endless).startswith(b"HTTP/1.1 404")


def test_a_client_who_does_not_read(
    listening: Callable[..., Address], monkeypatch: pytest.MonkeyPatch, jpeg: bytes
) -> None:
    monkeypatch.setattr("service.connections.STALLED_S", 0.2)
    address = listening()
    wants = b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as stubborn:
        stubborn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stubborn.connect(address)
        stubborn.sendall(wants * 20)  # some megabytes each
        assert score(address, jpeg) == 200
        broken_off = select.poll()
        broken_off.register(stubborn, select.POLLHUP)
        assert broken_off.poll(20_000)


def test_one_connection_too_many_takes_the_place_of_the_longest_idle(
    listening: Callable[..., Address], jpeg: bytes
) -> None:
    address = listening(max_connections=20)
    with contextlib.ExitStack() as stack:
        working = stack.enter_context(socket.create_connection(address))
        working.sendall(HEAD % len(jpeg))  # its body is still to come
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(60)]
        assert [score(address, jpeg) for _ in range(3)] == [200] * 3
        assert until_closed(idle[0]) == b""
        idle[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert until_closed(idle[-1]).startswith(SERVED)
        working.sendall(jpeg)
        working.settimeout(20)
        assert working.recv(100).startswith(SERVED)


def test_slow_bodies_do_not_keep_others_out(listening: Callable[..., Address], jpeg: bytes) -> None:
    address = listening(queue_capacity=4, refusal_delay_s=0)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(12)]
        for connection in slow:
            connection.sendall(HEAD % 10**6 + b"\xff\xd8\xff")
        give_up = time.monotonic() + 20
        while score(address, jpeg) != 200:  # the slow ones are told so after a moment
            assert time.monotonic() < give_up
        assert sum(b" 503 " in connection.recv(100) for connection in slow[4:]) >= 8


WISH = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"


@pytest.mark.parametrize("pause_s", [0, 0.1])
def test_a_body_is_never_the_next_request(listening: Callable[..., Address], jpeg: bytes, pause_s: float) -> None:
    hidden = b"GET /v1/models/hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head = HEAD[:-2] + WISH
    with socket.create_connection(listening()) as connection:
        for piece in (head % len(hidden), hidden, head % len(jpeg), jpeg, last):
            connection.sendall(piece)
            time.sleep(pause_s)
        replies = until_closed(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"415", b"200", b"200"]
    assert b"hidden" not in replies


def test_chunks_and_many_wishes_in_one_piece(listening: Callable[..., Address], jpeg: bytes) -> None:
    chunked = HEAD.replace(b"Content-Length: %d\r\n\r\n", b"Transfer-Encoding: chunked\r\n") + WISH
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(jpeg), jpeg)
    with socket.create_connection(listening()) as connection:
        connection.sendall((GET[:-2] + WISH) * 50 + chunked + body + HEAD[:-2] % 0 + b"Connection: close\r\n\r\n")
        replies = until_closed(connection)
    assert (replies.count(SERVED), replies.count(b"HTTP/1.1 400")) == (51, 1)


def test_what_follows_connect_is_no_request(listening: Callable[..., Address]) -> None:
    for target in (b"example.org:443", b"/healthz"):
        with socket.create_connection(listening()) as connection:
            connection.sendall(
                b"CONNECT %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (target, len(GET)) + GET
            )
            replies = until_closed(connection)
        assert replies.startswith(b"HTTP/1.1 4")
        assert replies.count(b"HTTP/1.1 ") == 1


def test_the_limit_of_open_files_bounds_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 2000))
    monkeypatch.setattr("resource.setrlimit", lambda _, new: limits.append(new))
    assert Connections(1000).maximum == 1000
    assert Connections(4096).maximum == 2000 - 256
    assert limits == [(1256, 2000), (2000, 2000)]
