"""Around every request: its id, its line in the log, its place in the metrics, the token, the last catch for errors."""

import hmac
import itertools
import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.errors import Unauthorized
from service import log
from service.metrics import Metrics
from service.problems import CLIENT_LEFT, problem_of

logger = logging.getLogger("service.access")

# An incoming id is repeated in the log and in a header: nothing but this gets through.
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# Ids of our own: random for the process, then counted. Asking the kernel for random bytes gives the GIL away, and to
# get it back from a busy worker takes a millisecond, for every request.
_PREFIX = secrets.token_hex(5)
_COUNTER = itertools.count(1)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
ASSETS_PATH = "/docs-assets"  # scripts and styles of /docs, open too
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds, and of no interest


class RequestScope:
    """Plain ASGI, because Starlette's BaseHTTPMiddleware costs a task and two queues a request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        log.request_id.set(request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if status:  # the reply has begun: all that is left is to break it off
                raise
            await problem_of(error).as_response(Request(scope))(scope, receive, send_with_id)
        finally:
            self._record(scope, status or CLIENT_LEFT, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route_template(scope)
        self._metrics.replied(route, scope["method"], status, seconds)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        if logger.isEnabledFor(level):
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 2)}
            logger.log(level, "request", extra=fields)


def _request_id(scope: MutableMapping[str, Any]) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value, "ascii")
    return f"{_PREFIX}-{next(_COUNTER):x}"


def _route_template(scope: Scope) -> str:
    """Return the path with its parameters unfilled: a label must not grow with what callers invent."""
    route = scope.get("route")
    return getattr(route, "path", None) or "other"


class TokenGuard:
    """Asks for the token on every path that is not open, so that a new endpoint is guarded without a word."""

    def __init__(self, app: ASGIApp, token: bytes | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401 before anything of its body is read."""
        if scope["type"] == "http" and not self._admits(scope):
            refusal = problem_of(Unauthorized("send the service's token: Authorization: Bearer <token>"))
            await refusal.as_response(Request(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        path = scope["path"]
        if self._token is None or path in OPEN_PATHS or path.startswith(f"{ASSETS_PATH}/"):
            return True
        scheme, _, token = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)
