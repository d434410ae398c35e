"""The short way to the endpoints: which take it, and that nobody notices."""

import asyncio

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Scope

from runtime.errors import ModelNotFound
from service.shortcut import Shortcut

SHORT = {("GET", "/plain"), ("POST", "/plain"), ("POST", "/fails"), ("POST", "/breaks")}


router = APIRouter()


@router.post("/plain")
async def posted(request: Request) -> Response:
    return JSONResponse({"is": "posted", "query": dict(request.query_params)})


@router.get("/plain")
async def gotten(request: Request) -> Response:
    return JSONResponse({"is": "gotten", "query": dict(request.query_params)})


@router.post("/fails")
async def fails(request: Request) -> Response:
    raise ModelNotFound(f"there is no model for {request.url.path}")


@router.post("/breaks")
async def breaks(request: Request) -> Response:
    raise RuntimeError(f"the secret of {request.url.path}")


@router.post("/of/{name}")
async def parameter(request: Request, name: str) -> Response:
    return PlainTextResponse(f"{request.method} {name}")


@router.post("/query")
async def query(request: Request, limit: int = 3) -> Response:
    return PlainTextResponse(f"{request.method} {limit}")


@router.post("/value")
async def value(request: Request) -> dict[str, str]:
    return {"is": request.method}


@router.post("/thread")
def thread(request: Request) -> Response:
    return PlainTextResponse(request.method)


@router.post("/guarded", dependencies=[Depends(lambda: None)])
async def guarded(request: Request) -> Response:
    return PlainTextResponse(request.method)


def ask(app: Shortcut, method: str, path: str) -> tuple[int, bytes, Scope]:
    """Return the status, the body and what the scope has become."""
    scope: Scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"a=1",
                    "headers": [], "scheme": "http", "server": ("here", 80), "root_path": ""}  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(dict(message))

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], scope


def nothing_else() -> Shortcut:
    """Return a shortcut to the endpoints with an app behind it that has none of them."""
    return Shortcut(FastAPI(openapi_url=None), [router])


def test_only_endpoints_that_fastapi_would_hand_the_bare_request_are_short() -> None:
    app = nothing_else()
    ways = [
        (method, route.path) for route in router.routes if isinstance(route, APIRoute) for method in route.methods or ()
    ]
    assert len(ways) == 9
    assert {way for way in ways if b"Not Found" not in ask(app, *way)[1]} == SHORT


def test_the_answer_is_that_of_the_endpoint_and_the_route_is_known_to_the_log() -> None:
    status, body, scope = ask(nothing_else(), "POST", "/plain")
    assert (status, body) == (200, b'{"is":"posted","query":{"a":"1"}}')
    assert scope["route"].path == "/plain"
    assert b"gotten" in ask(nothing_else(), "GET", "/plain")[1]


def test_other_methods_and_paths_are_left_to_the_app() -> None:
    assert ask(nothing_else(), "DELETE", "/plain")[0] == 404
    assert ask(nothing_else(), "POST", "/plain/")[0] == 404


def test_failures_become_problems() -> None:
    status, body, _ = ask(nothing_else(), "POST", "/fails")
    assert status == 404
    assert b"urn:clearwatch:problem:model-not-found" in body
    status, body, _ = ask(nothing_else(), "POST", "/breaks")
    assert status == 500
    assert b"secret" not in body
