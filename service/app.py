"""The app: the parts of the service behind their routes, from start to shutdown."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from runtime.errors import ShuttingDown
from service import openapi, problems
from service.middleware import ASSETS_PATH, RequestScope, TokenGuard
from service.origins import Origins
from service.routes import calibrations, cameras, denoise, encode, health, models, reconstruct, sample, score
from service.settings import Settings
from service.shortcut import Shortcut
from service.state import Service

logger = logging.getLogger(__name__)

ENDPOINTS = (health, score, cameras, denoise, reconstruct, encode, sample, models, calibrations)
DESCRIPTION = """
Denoises frames of surveillance cameras and finds what is unusual in them, with autoencoders.

Images are sent raw (`curl --data-binary @frame.jpg -H 'Content-Type: image/jpeg'`), as `multipart/form-data` or in
JSON. Every failure is an `application/problem+json` object whose `type` is stable.
"""


def create_app(settings: Settings) -> FastAPI:
    """Make the app. Raises ClearwatchError with the cure where the device or the models are not there."""
    service = Service.build(settings)
    app = FastAPIOffline(  # its pages come from here, not from a CDN: cameras live in closed networks
        title="Clearwatch",
        description=DESCRIPTION,
        version=_version(),
        lifespan=_lifespan,
        redoc_url=None,
        static_url=ASSETS_PATH,
    )
    app.state.service = service
    routers = [module.router for module in ENDPOINTS]
    problems.install(app)
    for router in routers:
        app.include_router(router)
    openapi.describe(app)
    app.middleware_stack = _wrapped(app.build_middleware_stack(), service, routers)
    return app


def _wrapped(app: ASGIApp, service: Service, routers: Iterable[APIRouter]) -> ASGIApp:
    """Put what is ours around what FastAPI puts around every request: a sixth of the event loop's time for a score."""
    origins = service.settings.allowed_origins()
    pages = Origins(origins, any_host=service.settings.allow_anonymous)
    app = TokenGuard(Shortcut(app, routers), service.keyring, pages)
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Model", "X-Noise-Level", "X-Anomaly-Score", "X-State", "X-Anomalous", "X-Request-Id"],
        )
    return RequestScope(app, service.metrics)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the models behind the open port; at the end, finish what was accepted, and open no more."""
    service: Service = app.state.service
    service.scheduler.start()
    loading = asyncio.create_task(asyncio.to_thread(_load, service))
    yield
    service.opener.close()
    await asyncio.to_thread(service.scheduler.close, service.settings.grace_period_s)
    await loading


def _load(service: Service) -> None:
    try:
        service.store.load()
    except ShuttingDown:
        return
    except Exception:
        logger.exception("the models could not be loaded")
        return
    states = service.store.snapshot.states()
    level = logging.INFO if service.store.snapshot.is_ready else logging.ERROR
    logger.log(level, "models loaded", extra={"models": states, "device": service.device.name})


def _version() -> str:
    try:
        return version("clearwatch")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
