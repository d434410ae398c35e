"""What every endpoint starts from: the call it answers.

Endpoints take the bare request and ask the call for the rest: FastAPI's own dependencies and query models took two
fifths of the event loop's time for a score, in a profile with FastAPI 0.165.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from runtime.errors import InvalidInput, Overloaded
from runtime.manifest import CameraCalibration, Task
from runtime.model import Model
from service.negotiation import Accept
from service.problems import problem_of
from service.schemas import Parameters, TimedQuery
from service.scoring import Policy
from service.state import Service
from service.ticket import Ticket
from service.uploads import Upload, read_upload

P = TypeVar("P", bound=Parameters)

# What no call comes near. Parsing keeps the GIL to its end, in whatever thread, and each wrong name makes an error.
MAX_NAMES = 1000  # of a query or in JSON, by its colons: those within names and times count too
MAX_VALUES = 400_000  # in JSON, by its commas


@dataclass(slots=True)
class Call:
    """One request, with the service that answers it."""

    request: Request
    service: Service
    timeout_ms: int | None = None  # as its query says

    @classmethod
    def of(cls, request: Request) -> "Call":
        """Take the service that the app was created with."""
        return cls(request, cast("Service", request.app.state.service))

    def query(self, parameters: type[P]) -> P:
        """Check the query parameters; unknown ones, and those given twice, are refused."""
        query: P = _parsed(parameters, self.request.scope["query_string"])
        if isinstance(query, TimedQuery):
            self.timeout_ms = query.timeout_ms
        return query

    def model(self, name: str | None, task: Task) -> Model:
        """Return the model that was asked for, or the default one; the call keeps it to its end."""
        return self.service.store.snapshot.find(name, task)

    async def policy(self, model: Model, camera: str | None, threshold: float | None = None) -> Policy:
        """Return what judges the scores of a camera that is named; None: of any. Raises a CalibrationError."""
        if camera is None:
            return Policy(model.manifest.calibration, threshold)
        return Policy(await self.calibration(model, camera), threshold)

    async def calibration(self, model: Model, camera: str) -> CameraCalibration:
        """Return the calibration of a camera; raise a CalibrationError."""
        store = self.service.calibrations
        if store.is_looked_up(model.manifest):
            return store.find(model.manifest, camera)
        return await asyncio.to_thread(store.find, model.manifest, camera)

    async def admit(self) -> Ticket:
        """Take a slot, or raise Overloaded. Before the body is read, so that memory is bounded too."""
        try:
            return self.service.scheduler.admit(self.request.receive, self.timeout_ms)
        except Overloaded:
            await self.service.scheduler.hold_refusal()
            raise

    async def upload(self, ticket: Ticket, max_images: int | None = None) -> Upload:
        """Read the images, as many as a batch may have or `max_images`; the deadline runs from here."""
        limits = self.service.upload_limits
        limits = limits if max_images is None else replace(limits, max_images=max_images)
        upload = await read_upload(self.request, ticket, limits)
        ticket.start_clock()
        return upload

    @property
    def accept(self) -> Accept:
        """What the caller wants to get."""
        return Accept.parse(self.request.headers.get("accept", ""))

    def failure(self, error: Exception) -> dict[str, object]:
        """Return what stands for a failed image in the results of a batch."""
        return {"error": problem_of(error).as_json(self.request)}


@lru_cache(maxsize=256)  # cameras ask the same again and again; a query may be as long as the headers
def _parsed(parameters: type[P], query_string: bytes) -> P:
    if query_string.count(b"&") > MAX_NAMES:
        raise InvalidInput("there are more query parameters than any call takes")
    given = QueryParams(query_string).multi_items()
    values = dict(given)
    if len(values) < len(given):
        raise InvalidInput("a query parameter is given twice")
    return validated("query", parameters, values)


def validated(place: str, parameters: type[P], values: dict[str, str] | bytes) -> P:
    """Check values, or a body of JSON. Raises the RequestValidationError that FastAPI would, with `place` in front."""
    try:
        if isinstance(values, bytes):
            _check_extent(values)
            return parameters.model_validate_json(values)
        return parameters.model_validate(values)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([item | {"loc": (place, *item["loc"])} for item in items]) from error


def _check_extent(body: bytes) -> None:
    if body.count(b",") > MAX_VALUES or body.count(b":") > MAX_NAMES:
        raise InvalidInput(f"the JSON holds more than is accepted: {MAX_VALUES} values, {MAX_NAMES} names")
