"""A small HTTP server on the loopback that speaks the service's contract, with faults on demand."""

import base64
import hashlib
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import PIL.Image
from PIL import ImageFilter, ImageOps

DEFAULT_THRESHOLD = 0.9
NOISE_LEVEL = 12.5
HEATMAP = b"\x89PNG heat map"
PILLOW_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/bmp": "BMP"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


DROPPED = Reply(0)  # the connection closes without a reply


def problem(status: int, detail: str, **headers: str) -> Reply:
    """Give a reply as the service gives it for a failure."""
    body = {"type": "about:blank", "title": "Problem", "status": status, "detail": detail, "request_id": "7f"}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json", **headers})


def score_of(body: bytes) -> float:
    """Give a score in 0..1 that depends on the bytes alone."""
    return int.from_bytes(hashlib.sha256(body).digest()[:4]) / 2**32


class FakeService(ThreadingHTTPServer):
    """Answers `/healthz`, `/v1/score` and `/v1/denoise`; `fault` may answer first."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault: Callable[[Request], Reply | None] = lambda _: None
        self.posts: list[Request] = []
        self.released = threading.Event()  # for faults that make a request wait
        self.model_sha256 = "ab" * 32
        self.heatmap_prefix = ""

    def answer(self, request: Request) -> Reply:
        if request.method == "POST":
            self.posts.append(request)
        answers = {"/healthz": self._healthz, "/v1/score": self._score, "/v1/denoise": self._denoise}
        return self.fault(request) or answers[request.path](request)

    def _healthz(self, _: Request) -> Reply:
        return Reply(200)

    def _score(self, request: Request) -> Reply:
        score = score_of(request.body)
        threshold = float(request.query.get("threshold", DEFAULT_THRESHOLD))
        heatmap = self.heatmap_prefix + base64.b64encode(HEATMAP + request.body).decode()
        reply = {
            "model": {"name": request.query.get("model", "standard"), "version": "3", "sha256": self.model_sha256},
            "score": score,
            "p_value": 1 - score,
            "threshold": threshold,
            "threshold_source": "request" if "threshold" in request.query else "model",
            "false_alarm_rate": 0.01,
            "state": "anomalous" if score > threshold else "normal",
            "anomalous": score > threshold,
            "regions": [{"box": [0.25, 0.5, 0.75, 1.0], "score": score}] if score > threshold else [],
            "heatmap": None if request.query.get("heatmap", "none") == "none" else heatmap,
            "timing_ms": {"total": float(len(self.posts))},
        }
        return Reply(200, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    def _denoise(self, request: Request) -> Reply:
        media_type = str(request.headers["Content-Type"])
        with PIL.Image.open(io.BytesIO(request.body)) as image:
            clean = ImageOps.exif_transpose(image.convert("RGB")).filter(ImageFilter.BoxBlur(2))
        file = io.BytesIO()
        clean.save(file, PILLOW_FORMATS[media_type])
        told = {"X-Model": request.query.get("model", "standard"), "X-Noise-Level": str(NOISE_LEVEL)}
        return Reply(200, file.getvalue(), {"Content-Type": media_type, **told})

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed leave broken connections."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with the real service
    wbufsize = -1  # one packet a reply
    disable_nagle_algorithm = True
    server: FakeService

    def _answer(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, url.path, dict(parse_qsl(url.query)), self.headers, body)
        reply = self.server.answer(request)
        if reply is DROPPED:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = _answer  # noqa: N815 (the names that http.server looks for)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""
