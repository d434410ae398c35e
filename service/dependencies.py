"""What the endpoints ask for by type: the call they answer, and that its caller may make it."""

import hmac
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from runtime.errors import Unauthorized
from runtime.manifest import Task
from runtime.model import Model
from service.negotiation import Accept
from service.problems import problem_of
from service.state import Service
from service.ticket import Ticket
from service.uploads import Upload, read_upload

# Dependencies are `async def` throughout: FastAPI sends plain functions through a thread pool.


@dataclass(frozen=True, slots=True)
class Call:
    """One request, with the service that answers it."""

    request: Request
    service: Service

    def model(self, name: str | None, task: Task) -> Model:
        """Return the model that was asked for, or the default one; the call keeps it to its end."""
        return self.service.store.snapshot.find(name, task)

    def admit(self) -> Ticket:
        """Take a slot, or raise Overloaded. Before the body is read, so that memory is bounded too."""
        return self.service.scheduler.admit(self.request.receive)

    async def upload(self, ticket: Ticket) -> Upload:
        """Read the images; the deadline runs from here."""
        upload = await read_upload(self.request, ticket, self.service.upload_limits)
        ticket.start_clock()
        return upload

    @property
    def accept(self) -> Accept:
        """What the caller wants to get."""
        return Accept.parse(self.request.headers.get("accept", ""))

    def failure(self, error: Exception) -> dict[str, object]:
        """Return what stands for a failed image in the results of a batch."""
        return {"error": problem_of(error).as_json(self.request)}


def service_of(request: Request) -> Service:
    """Return the service that the app was created with."""
    return cast("Service", request.app.state.service)


async def _call(request: Request) -> Call:
    return Call(request, service_of(request))


_bearer = HTTPBearer(auto_error=False, description="The token of CLEARWATCH_TOKEN, where the service has one.")


async def authorise(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> None:
    """Raise Unauthorized unless the request carries the token, where one is set."""
    token = service_of(request).token
    if token is None:
        return
    if credentials is None or not hmac.compare_digest(credentials.credentials.encode(), token):
        raise Unauthorized("send the service's token: Authorization: Bearer <token>")


CallDep = Annotated[Call, Depends(_call)]
