"""Which failure is which HTTP status: the one table, and the one shape (RFC 9457) that every failure has."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from runtime import errors
from service.json_reply import JsonReply

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
MAX_ERRORS = 20  # told of one request,
MAX_NAME = 80  # and the characters of a name in them that the caller made up
CLIENT_LEFT = 499  # nginx's number for it; nobody is there to read the reply, but the log and the metrics are


@dataclass(frozen=True)
class Kind:
    """A sort of failure: its status, the last part of its `type`, and its title."""

    status: int
    name: str
    title: str

    @property
    def type(self) -> str:
        """Return the stable URI that a client may switch on."""
        return f"urn:clearwatch:problem:{self.name}"


KINDS: Mapping[type[errors.ClearwatchError], Kind] = {
    errors.ClearwatchError: Kind(500, "internal", "The service failed"),
    errors.ImageError: Kind(400, "image", "The image cannot be used"),
    errors.UnreadableImage: Kind(400, "unreadable-image", "The image is damaged or truncated"),
    errors.UnsupportedImage: Kind(415, "unsupported-image", "The format is not accepted, or not the one claimed"),
    errors.ImageTooLarge: Kind(413, "too-large", "More bytes, pixels or images than the limits allow"),
    errors.InvalidInput: Kind(422, "invalid-input", "An argument is outside what is accepted"),
    errors.TooFewFrames: Kind(422, "too-few-frames", "The normal frames cannot promise that false-alarm rate"),
    errors.FormatNotOffered: Kind(406, "not-acceptable", "None of what Accept asks for can be given"),
    errors.ModelError: Kind(500, "model", "The model failed"),
    errors.ModelNotFound: Kind(404, "model-not-found", "There is no such model"),
    errors.ModelNotReady: Kind(503, "model-not-ready", "The model is not ready"),
    errors.OutOfMemory: Kind(503, "out-of-memory", "The device has no memory left for this"),
    errors.TaskNotSupported: Kind(422, "task-not-supported", "The model cannot do this"),
    errors.ModelFolderInvalid: Kind(503, "model-folder-invalid", "A model folder breaks its promise"),
    errors.CalibrationError: Kind(500, "calibration", "The calibration failed"),
    errors.CalibrationNotFound: Kind(404, "calibration-not-found", "The camera has no such calibration"),
    errors.CalibrationStale: Kind(409, "calibration-stale", "The calibration belongs to other weights"),
    errors.CalibrationInvalid: Kind(503, "calibration-invalid", "The file of a calibration cannot be used"),
    errors.CalibrationNotSaved: Kind(507, "calibration-not-saved", "The folder of the calibrations cannot be written"),
    errors.CameraNotFound: Kind(404, "camera-not-found", "Nothing is kept of that camera"),
    errors.FrameOutOfOrder: Kind(409, "frame-out-of-order", "A later frame of that camera has been seen"),
    errors.DeviceUnavailable: Kind(503, "device-unavailable", "The device is not available"),
    errors.Unauthorized: Kind(401, "unauthorized", "A valid bearer token is needed"),
    errors.Forbidden: Kind(403, "forbidden", "The bearer token does not open this"),
    errors.ForeignPage: Kind(403, "foreign-page", "Pages of other sites may not call"),
    errors.Overloaded: Kind(503, "overloaded", "The service is at its capacity"),
    errors.TimedOut: Kind(504, "timed-out", "The request waited longer than its deadline"),
    errors.UploadTimedOut: Kind(408, "upload-timed-out", "The body of the request did not arrive in time"),
    errors.ShuttingDown: Kind(503, "shutting-down", "The service is shutting down"),
}
INVALID_REQUEST = Kind(422, "invalid-request", "The request does not fit the documented parameters")
UNEXPECTED = Kind(500, "internal", "The service failed")


@dataclass(frozen=True)
class Problem:
    """One failure, ready to be told."""

    kind: Kind
    detail: str
    errors: tuple[dict[str, Any], ...] = ()
    headers: Mapping[str, str] | None = None

    def as_json(self, request: Request) -> dict[str, Any]:
        """Return the problem object."""
        content: dict[str, Any] = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": request.url.path,
            "request_id": request.scope.get("state", {}).get("request_id", ""),
        }
        return content | ({"errors": list(self.errors)} if self.errors else {})

    def as_response(self, request: Request) -> Response:
        """Return the reply."""
        return JsonReply(
            self.as_json(request), self.kind.status, headers=dict(self.headers or {}), media_type=MEDIA_TYPE
        )


def problem_of(error: Exception) -> Problem:
    """Describe any exception. One that is not of ours is logged, and its text is kept from the caller."""
    if isinstance(error, errors.ClearwatchError):
        kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
        return Problem(kind, str(error), headers=_headers(error))
    if isinstance(error, HTTPException):
        return Problem(_http_kind(error.status_code), str(error.detail), headers=error.headers)
    if isinstance(error, RequestValidationError):
        found = tuple(map(_told, error.errors()[:MAX_ERRORS]))
        text = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)
        return Problem(INVALID_REQUEST, text, errors=found)
    if isinstance(error, ClientDisconnect):
        return Problem(Kind(CLIENT_LEFT, "client-left", "The client has left"), "the client closed the connection")
    logger.error("unexpected error", exc_info=error)
    return Problem(UNEXPECTED, "an unexpected error; the log has it under this request_id")


def _told(item: Mapping[str, Any]) -> dict[str, Any]:
    place = [part[:MAX_NAME] if isinstance(part, str) else part for part in item["loc"]]
    return {"loc": place, "msg": item["msg"], "type": item["type"]}


def _headers(error: errors.ClearwatchError) -> dict[str, str]:
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    if isinstance(error, errors.Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.ShuttingDown | errors.ModelNotReady | errors.OutOfMemory):
        return {"Retry-After": "5"}
    return {}


def _http_kind(status: int) -> Kind:
    title = HTTPStatus(status).phrase
    return Kind(status, title.lower().replace(" ", "-"), title)


async def _respond(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.kind.status == HTTPStatus.METHOD_NOT_ALLOWED:
        problem = replace(problem, headers={"Allow": ", ".join(_allowed(request))})
    return problem.as_response(request)


def _allowed(request: Request) -> list[str]:
    """Return every method that the path has: Starlette names those of the first route alone."""

    def has(method: str) -> bool:
        scope = dict(request.scope) | {"method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in METHODS if has(method)]


def install(app: FastAPI) -> None:
    """Give every failure of the app this shape, Starlette's and FastAPI's own included."""
    for cls in (errors.ClearwatchError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(cls, _respond)


def documented(*classes: type[errors.ClearwatchError]) -> dict[int | str, dict[str, Any]]:
    """Describe the failures of an endpoint for OpenAPI."""
    kinds: dict[int, list[Kind]] = {}
    guarded = (errors.Forbidden, errors.ForeignPage) if errors.Unauthorized in classes else ()
    for cls in (*classes, *guarded):
        kinds.setdefault(KINDS[cls].status, []).append(KINDS[cls])
    kinds.setdefault(INVALID_REQUEST.status, []).append(INVALID_REQUEST)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": "; ".join(f"{kind.title} (`{kind.type}`)" for kind in same),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, same in sorted(kinds.items())
    }
