"""`python -m service`: read the settings, open the port, serve until told to stop."""

import argparse
import logging
import os
import signal
import socket
import sys
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from runtime.errors import ClearwatchError
from service.app import create_app
from service.connections import Connection, Connections
from service.log import logging_to_stderr
from service.settings import PREFIX, Settings, SettingsError, load_settings, variable
from service.state import Service

logger = logging.getLogger("service")

STARTS_NOT = 2  # exit code of a start that failed for a stated reason
SWITCH_INTERVAL_S = 0.0005  # how long a worker in Python code may keep the GIL from the event loop; Python's is 5 ms
KEEP_ALIVE_S = 30  # cameras that send every few seconds keep their connection

INTRODUCTION = f"""Serve the models of a folder over HTTP.

Try it:
  python -m service
  curl --data-binary @frame.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/score

All settings are environment variables, or lines of a file .env in the working directory; a misspelt {PREFIX}* one
stops the start. To listen beyond this machine:
  {PREFIX}HOST=0.0.0.0 {PREFIX}TOKEN=<a long secret> python -m service

Logs are JSON lines on stderr. SIGTERM, SIGHUP and Ctrl-C finish what was accepted, then end with exit code 0; a start
that fails says why in one sentence and ends with exit code {STARTS_NOT}.

settings:
"""


TICKS = 10  # of uvicorn's main loop a second


class Server(uvicorn.Server):
    """uvicorn, which refuses new work from the first signal on, and looks after its connections every second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop admitting, then stop."""
        self._service.scheduler.stop_admitting()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Break off what its client keeps waiting."""
        if counter % TICKS == 0:
            for connection in list(self.server_state.connections):
                cast("Connection", connection).check()
        return await super().on_tick(counter)


def main(arguments: list[str] | None = None) -> int:
    """Serve; return the exit code."""
    _parser().parse_args(arguments)
    try:
        settings = load_settings()
        app = create_app(settings)
        listener = _listen(settings)
    except (SettingsError, ClearwatchError) as error:
        print(f"python -m service: {error}", file=sys.stderr)
        return STARTS_NOT
    with logging_to_stderr(settings.log_level):
        _serve(app, listener)
    if app.state.service.hangs():
        os._exit(0)  # all is served and logged; the interpreter would be aborted by a thread that computes on
    return 0


def _serve(app: FastAPI, listener: socket.socket) -> None:
    service: Service = app.state.service
    _announce(service, listener)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    server = make_server(app)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # uvicorn raises the signal again when all is done: that is the end
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, server.handle_exit)  # uvicorn would let a terminal that closes end it at once
    server.run(sockets=[listener])


def make_server(app: FastAPI) -> Server:
    """Return uvicorn as the service needs it."""
    service: Service = app.state.service
    connection = partial(Connection, all_of_them=Connections(service.settings.max_connections))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=cast("type[Connection]", connection),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=service.settings.grace_period_s,
    )
    return Server(config, service)


def _listen(settings: Settings) -> socket.socket:
    host = settings.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}); "
            f"set {variable('host')} and {variable('port')}, or stop what uses the port"
        ) from error
    return listener


def _announce(service: Service, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    device = service.device
    fields = {"url": address, "docs": f"{address}/docs", "device": device.name, "workers": device.workers}
    print(f"Clearwatch is at {address}, its API at {address}/docs; it runs on the {device.name}", flush=True)
    logger.info("listening", extra=fields)
    if device.note:
        logger.warning(device.note)


def _parser() -> argparse.ArgumentParser:
    width = max(len(variable(name)) for name in Settings.model_fields)
    lines = [
        f"  {variable(name):{width}}  {field.description} [{_default(field.default)}]"
        for name, field in Settings.model_fields.items()
    ]
    return argparse.ArgumentParser(
        prog="python -m service",
        description=INTRODUCTION + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _default(value: object) -> str:
    return "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
