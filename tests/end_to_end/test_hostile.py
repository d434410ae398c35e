"""Requests made to harm, against a real process: each has its answer, none costs memory, and others are served."""

import contextlib
import io
import json
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from runtime.images import ImageFormat, encode
from tests.end_to_end.service_process import JPEG, Served, served
from tests.model_folders import write_every_sort

TOKEN = "a-token-that-nobody-logs"  # noqa: S105
FRAME = encode(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), ImageFormat.JPEG)
SPARE_MB = 96  # what one attack may cost: the largest body that is accepted here, and what decoding it takes
BODY_BYTES = 32 * 2**20
BOMB_MB = 128


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = write_every_sort(tmp_path_factory.mktemp("models"))
    limits = {"max_image_pixels": 4_000_000, "max_image_bytes": BODY_BYTES, "max_request_bytes": BODY_BYTES}
    with served(models, workers=1, token=TOKEN, **limits) as running:
        running.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield running
        log = running.stop()  # after the last test: what the attacks have left in it
    assert [line for line in log if line.get("status") == 500 or "exc_info" in line] == []


@pytest.fixture(autouse=True)
def _others_are_served_and_memory_is_kept(service: Served) -> Iterator[None]:
    expected = service.client.post("/v1/score", content=FRAME, headers=JPEG).json()["score"]
    # Peaks count from here on.
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5", encoding="ascii")
    before = service.memory_mb()
    yield
    assert service.memory_mb("VmHWM") - before < SPARE_MB
    assert service.client.post("/v1/score", content=FRAME, headers=JPEG).json()["score"] == expected


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 8, height: int = 8, pixels: bytes | None = None) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height) if pixels is None else pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + chunk(b"IEND", b"")


def zeros(megabytes: int) -> bytes:
    compress = zlib.compressobj(1)
    return b"".join(compress.compress(bytes(2**20)) for _ in range(megabytes)) + compress.flush()


def saved(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form, **options)
    return buffer.getvalue()


def with_jpeg_size(data: bytes, marker: bytes) -> bytes:
    at = data.index(marker) + 5
    return data[:at] + struct.pack(">HH", 65_000, 65_000) + data[at + 4 :]


def with_webp_size(data: bytes) -> bytes:
    assert data[12:16] == b"VP8L"
    return data[:21] + (16_382 | 16_382 << 14).to_bytes(4, "little") + data[25:]


def with_bmp_size(data: bytes) -> bytes:
    return data[:18] + struct.pack("<ii", 60_000, 60_000) + data[26:]


BOMBS: dict[str, tuple[Callable[[], bytes], str, set[int]]] = {
    "png of 2.5 gigapixels": (lambda: png(width=50_000, height=50_000, pixels=b""), "image/png", {413}),
    "png with 128 MB too much": (lambda: png(pixels=bytes(BOMB_MB * 2**20)), "image/png", {200, 400}),
    "png with a text of 128 MB": (lambda: png(chunk(b"zTXt", b"a\0\0" + zeros(BOMB_MB))), "image/png", {400}),
    "png with a profile of 128 MB": (lambda: png(chunk(b"iCCP", b"a\0\0" + zeros(BOMB_MB))), "image/png", {200, 400}),
    "jpeg": (lambda: with_jpeg_size(saved("JPEG"), b"\xff\xc0"), "image/jpeg", {413}),
    "progressive jpeg": (lambda: with_jpeg_size(saved("JPEG", progressive=True), b"\xff\xc2"), "image/jpeg", {413}),
    "webp": (lambda: with_webp_size(saved("WEBP", lossless=True)), "image/webp", {413}),
    "bmp": (lambda: with_bmp_size(saved("BMP")), "image/bmp", {413}),
    "gif": (lambda: saved("GIF"), "image/gif", {415}),
    "gif that says it is a png": (lambda: saved("GIF"), "image/png", {415}),
    "tiff": (lambda: saved("TIFF"), "image/tiff", {415}),
    "tiff that says nothing": (lambda: saved("TIFF"), "application/octet-stream", {415}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(service: Served, name: str) -> None:
    make, media_type, statuses = BOMBS[name]
    data = make()
    for path in ("/v1/score", "/v1/denoise?sigma=5"):
        reply = service.client.post(path, content=data, headers={"Content-Type": media_type})
        assert reply.status_code in statuses, reply.text


def test_a_form_of_a_hundred_thousand_parts(service: Served) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert service.client.post("/v1/score", content=part * 100_000 + b"--x--\r\n", headers=form).status_code == 413


@pytest.mark.parametrize(
    "head",
    [b"".join(b"a%d: b\r\n" % n for n in range(100_000)), b"a: " + b"b" * 8_000_000 + b"\r\n"],
    ids=["many", "long"],
)
def test_a_part_with_endless_headers(service: Served, head: bytes) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert service.client.post("/v1/score", content=b"--x\r\n" + head, headers=form).status_code == 400


@pytest.mark.parametrize("path", ["/v1/score", "/v1/sample", "/v1/models/scorer/calibrations?camera=a"])
@pytest.mark.parametrize("text", [b"[" * 2_000_000, b'{"image":' * 200_000, b"9" * 2_000_000], ids=["[", "{", "9"])
def test_deep_and_wide_json(service: Served, path: str, text: bytes) -> None:
    reply = service.client.post(path, content=text, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422, reply.text


@pytest.mark.parametrize("head", [b"X-A: " + b"a" * 2**24, b"X-A: b\r\n" * 2**21], ids=["long", "many"])
def test_huge_headers(service: Served, head: bytes) -> None:
    address = (service.client.base_url.host, service.client.base_url.port or 0)
    with socket.create_connection(address, timeout=30) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # it is broken off while we are still sending
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + head)
            received = connection.recv(1000)
    assert received == b"" or received.startswith(b"HTTP/1.1 431")


def test_trailers_without_end_cost_nothing(service: Served) -> None:
    address = (service.client.base_url.host, service.client.base_url.port or 0)
    head = (
        f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/jpeg\r\n"
    )
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n3\r\n\xff\xd8\xff\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                connection.sendall(b"X-A: b\r\n" * 2**15)


TRICKS = [
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "a%00b",
    "a%0d%0ab",
    "\u202e",
    "%ff",
]


@pytest.mark.parametrize("name", [*TRICKS, "a" * 9000])
def test_names_that_would_be_paths(service: Served, name: str) -> None:
    client = service.client
    replies = [
        client.post(f"/v1/score?model={name}", content=FRAME, headers=JPEG),
        client.post(f"/v1/score?camera={name}", content=FRAME, headers=JPEG),
        client.get(f"/v1/models/{name}"),
        client.get(f"/v1/models/{name}/calibrations"),
        client.post(f"/v1/cameras/{name}/frames?model=clips", content=FRAME, headers=JPEG),
        client.delete(f"/v1/cameras/{name}"),
        client.delete(f"/v1/models/scorer/calibrations/{name}"),
        client.delete(f"/v1/models/scorer/calibrations/door/{name}"),
        client.post(f"/v1/models/scorer/calibrations?camera={name}", json={"scores": [[0.1] * 200]}),
    ]
    statuses = {reply.status_code for reply in replies}
    assert statuses <= {404, 405, 422}, [(reply.url, reply.status_code) for reply in replies]
    assert not any("root:" in reply.text for reply in replies)


NUMBERS = ["nan", "inf", "-inf", "1e999", "-1e999", "0x10", "\u0661", ""]


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_no_number(service: Served, number: str) -> None:
    for path in (
        f"/v1/score?threshold={number}",
        f"/v1/score?timeout_ms={number}",
        f"/v1/denoise?sigma={number}",
        f"/v1/denoise?strength={number}",
        f"/v1/cameras/door/frames?model=clips&threshold={number}",
    ):
        reply = service.client.post(path, content=FRAME, headers=JPEG)
        assert reply.status_code == 422, (path, reply.text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_that_holds_no_numbers(service: Served, number: str) -> None:
    bodies = {
        "/v1/sample": [f'{{"{name}": {number}}}' for name in ("temperature", "seed", "n", "latents")]
        + [f'{{"latents": [[{number}, 0, 0, 0]]}}'],
        "/v1/models/scorer/calibrations?camera=door": [json.dumps({"scores": [[0.1] * 200]}).replace("0.1", number, 1)],
    }
    for path, texts in bodies.items():
        for text in texts:
            reply = service.client.post(path, content=text, headers={"Content-Type": "application/json"})
            assert reply.status_code == 422, (path, text, reply.text)


def test_nothing_of_a_request_is_in_the_log_but_ids_and_sizes(tmp_path: Path) -> None:
    """Whatever a caller sends, good or bad, in whatever place: the log names routes, callers, statuses, times."""
    secret = "hunter2"  # noqa: S105
    models = write_every_sort(tmp_path / "models")
    with served(models, workers=1, token=TOKEN, log_level="debug") as service:
        address = (service.client.base_url.host, service.client.base_url.port or 0)
        client = httpx.Client(
            base_url=service.client.base_url,
            headers={"Authorization": f"Bearer {TOKEN}", "Cookie": secret, "User-Agent": secret, "Referer": secret},
        )
        with client:
            answers = [
                client.post(f"/v1/score?threshold={secret}", content=FRAME, headers=JPEG),
                client.post(f"/v1/score?model={secret}", content=FRAME, headers=JPEG),
                client.post("/v1/score", content=secret.encode(), headers=JPEG),
                client.post("/v1/score", files={secret: (secret, FRAME, secret)}),
                client.post("/v1/score", files={"image": (secret, FRAME, "image/jpeg")}),
                client.post("/v1/score", json={"image": secret}),
                client.post("/v1/score", content=FRAME, headers=JPEG | {"X-Request-Id": f"a {secret}"}),
                client.post("/v1/score", content=FRAME, headers=JPEG | {"Accept": secret}),
                client.post("/v1/sample", json={secret: secret}),
                client.get(f"/{secret}"),
                client.post("/v1/score", content=FRAME, headers=JPEG | {"Authorization": f"Bearer {secret}"}),
                client.post("/v1/score", content=FRAME, headers=JPEG),
            ]
            with socket.create_connection(address) as damaged:
                damaged.sendall(f"{secret} {secret}\r\n\r\n".encode())
                assert damaged.recv(100).startswith(b"HTTP/1.1 400")
        log = service.stop()
    assert {reply.status_code for reply in answers} >= {200, 401, 404, 422}
    text = json.dumps(log)
    assert len([line for line in log if line["message"] == "request"]) >= len(answers)
    assert not re.search(f"{secret}|{TOKEN}", text)
