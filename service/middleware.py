"""Around every request: its id, its line in the log, its place in the metrics, and the last catch for errors."""

import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import log
from service.metrics import Metrics
from service.problems import CLIENT_LEFT, problem_of

logger = logging.getLogger("service.access")

# An incoming id is repeated in the log and in a header: nothing but this gets through.
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
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
    return secrets.token_hex(8)


def _route_template(scope: Scope) -> str:
    """Return the path with its parameters unfilled: a label must not grow with what callers invent."""
    route = scope.get("route")
    return getattr(route, "path", None) or "other"
