"""An ASGI function that reads the body and answers at once: what Python's fastest HTTP server costs by itself."""

from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from benchmarks.load.peers.scorer import PORT

Message = dict[str, Any]
REPLY = b'{"score":0.0}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(REPLY)).encode())]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": REPLY})


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="off")
