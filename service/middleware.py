"""Around every request: its id, its line in the log, its place in the metrics, the token, the last catch for errors."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.errors import ClearwatchError, Forbidden, ShuttingDown, Unauthorized
from service import log
from service.metrics import Metrics
from service.origins import Origins
from service.problems import CLIENT_LEFT, problem_of
from service.tokens import Keyring, required_scope

logger = logging.getLogger("service.access")

# An incoming id is repeated in the log and in a header: nothing but this gets through.
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# Ids of our own: random for the process, then counted. Asking the kernel for random bytes gives the GIL away, and to
# get it back from a busy worker takes a millisecond, for every request.
_PREFIX = secrets.token_hex(5)
_COUNTER = itertools.count(1)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
ASSETS_PATH = "/docs-assets"  # scripts and styles of /docs, open too
# What browsers are told: a reply is never a page, is shown in none, and is not theirs to keep.
_EVERYWHERE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_REPLY_HEADERS = (
    *_EVERYWHERE,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_PAGE_HEADERS = (
    *_EVERYWHERE,
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"),
)
CUT_OFF = "the service is shutting down and could not finish the request in time; try again elsewhere"
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
                added = ((b"x-request-id", request_id.encode()), *_headers_for(scope["path"]))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except (Exception, asyncio.CancelledError) as error:
            if status:  # the reply has begun: all that is left is to break it off
                raise
            problem = problem_of(ShuttingDown(CUT_OFF) if isinstance(error, asyncio.CancelledError) else error)
            await problem.as_response(Request(scope))(scope, receive, send_with_id)
        finally:
            self._record(scope, status or CLIENT_LEFT, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route_template(scope)
        self._metrics.replied(route, scope["method"], status, seconds)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        if logger.isEnabledFor(level):
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 2)}
            caller = scope["state"].get("caller")
            logger.log(level, "request", extra=fields if caller is None else fields | {"caller": caller})


def _headers_for(path: str) -> tuple[tuple[bytes, bytes], ...]:
    return _PAGE_HEADERS if path == "/docs" or path.startswith(ASSETS_PATH) else _REPLY_HEADERS


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
    """Asks for a token on every path that is not open, so that a new endpoint is guarded without a word.

    Where nobody needs one it looks whether another site's page calls.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, origins: Origins) -> None:
        self._app = app
        self._keyring = keyring
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401 or 403 before anything of its body is read."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem_of(refusal).as_response(Request(scope))(scope, receive, send)

    def _refusal(self, scope: Scope) -> ClearwatchError | None:
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(f"{ASSETS_PATH}/"):
            return None
        headers = dict(scope["headers"])
        if self._keyring.is_open:
            return self._origins.refusal(headers)
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        token = self._keyring.find(secret.strip()) if scheme.lower() == b"bearer" else None
        if token is None:
            return Unauthorized("send a token of this service: Authorization: Bearer <token>")
        scope.setdefault("state", {})["caller"] = token.name
        needed = required_scope(scope["method"], path)
        if needed not in token.scopes:
            opened = ", ".join(sorted(token.scopes))
            return Forbidden(f"the token of {token.name} opens {opened}; this call needs one that opens {needed}")
        return None
