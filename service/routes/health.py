"""Liveness, readiness and metrics."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from runtime.errors import Unauthorized
from service.dependencies import Call
from service.json_reply import JsonReply
from service.openapi import replies
from service.problems import documented
from service.schemas import NoQuery, ReadyReply
from service.state import Service

router = APIRouter(tags=["operations"])


@router.head("/healthz", summary="Is the process alive?")
@router.get("/healthz", summary="Is the process alive?")
async def healthz(request: Request) -> Response:
    """Answer 200 as long as the event loop turns."""
    call = Call.of(request)
    call.query(NoQuery)
    return JsonReply({"status": "ok"})


@router.head("/readyz", summary="Is every model verified?", responses={503: {"description": "Not every one"}})
@router.get("/readyz", summary="Is every model verified?", responses=replies(ReadyReply, {503: {"model": ReadyReply}}))
async def readyz(request: Request) -> Response:
    """Answer 200 once every model has passed its golden input, and name the device in use."""
    call = Call.of(request)
    call.query(NoQuery)
    status = _status(call.service)
    snapshot = call.service.store.snapshot
    body = {
        "status": status,
        "device": call.service.device.name,
        "note": call.service.device.note,
        "models": snapshot.states(),
        "running": {name: each.model.device.name for name, each in sorted(snapshot.opened.items())},
    }
    return JsonReply(body, 200 if status == "ready" else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=documented(Unauthorized),
)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    call = Call.of(request)
    call.query(NoQuery)
    return Response(call.service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _status(service: Service) -> str:
    if not service.scheduler.admitting:
        return "shutting_down"
    snapshot = service.store.snapshot
    if snapshot.loading:
        return "loading"
    return "ready" if snapshot.is_ready else "failed"
