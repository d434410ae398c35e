"""What is served, and the way to have it looked at again."""

import asyncio
import logging
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.errors import ModelFolderInvalid, ModelNotFound, ModelNotReady, ShuttingDown, Unauthorized
from service.dependencies import Call
from service.json_reply import JsonReply
from service.openapi import PLAIN_FAILURES, replies
from service.problems import documented
from service.schemas import ModelReply, ModelsReply, NoQuery, ReloadReply
from service.store import Opened

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", summary="List the models", responses=replies(ModelsReply, PLAIN_FAILURES))
async def list_models(request: Request) -> Response:
    """Return the manifests, the default model of each task, and which folders cannot be served and why."""
    call = Call.of(request)
    call.query(NoQuery)
    snapshot = call.service.store.snapshot
    return JsonReply(
        {
            "models": [_entry(each) for _, each in sorted(snapshot.opened.items())],
            "defaults": dict(snapshot.defaults),
            "failed": dict(snapshot.failed) | snapshot.faults,
            "loading": sorted(snapshot.loading),
        }
    )


@router.get(
    "/models/{name}",
    summary="Read the manifest of a model",
    responses=replies(ModelReply, documented(Unauthorized, ModelNotFound, ModelNotReady)),
)
async def read_model(request: Request, name: str) -> Response:
    """Return all that is known of a model: its input, its calibration, what it was measured to do, what runs it."""
    call = Call.of(request)
    call.query(NoQuery)
    return JsonReply(_entry(call.service.store.snapshot.served(name)))


@router.post(
    "/models:reload",
    summary="Look for new, changed and removed models",
    responses=replies(ReloadReply, documented(Unauthorized, ModelFolderInvalid, ShuttingDown)),
)
async def reload_models(request: Request) -> Response:
    """Open what is new or changed and swap it in at once; requests that have begun end with the models they began with.

    A model is changed when its manifest is. One that does not open is listed in `failed`; its old form stays.
    Calibrations are looked up again too.
    """
    call = Call.of(request)
    call.query(NoQuery)
    reloaded = asdict(await asyncio.to_thread(call.service.store.reload))
    call.service.calibrations.refresh()
    logger.info("models reloaded", extra=reloaded)
    return JsonReply(reloaded)


def _entry(opened: Opened) -> dict[str, Any]:
    device = opened.model.device
    running = {"device": device.name, "engine": device.engine, "target": device.target}
    trials = [asdict(trial) for trial in opened.trials]
    return opened.model.manifest.model_dump(mode="json") | {"running": running | {"trials": trials}}
