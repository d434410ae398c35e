"""A server as a process of its own: started, waited for, weighed, ended."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 120  # until the first good reply
STOP_S = 30
POLL_S = 0.1
TIMES = (11, 12, 13, 14)  # in proc_pid_stat(5) after the name: user, system, and those of children that have ended


class ServerFailed(Exception):
    """A server has ended, or does not answer; the message has the last it said."""


@dataclass(frozen=True)
class Upload:
    """A POST request."""

    path: str
    body: bytes
    headers: Mapping[str, str]

    def as_bytes(self) -> bytes:
        """Return it as it goes over the wire."""
        headers = {"Host": "127.0.0.1", **self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + self.body


@dataclass(frozen=True)
class Server:
    """How a server is started, and what it is asked."""

    name: str
    command: Sequence[str]
    uploads: Sequence[Upload]
    environment: Mapping[str, str] = field(default_factory=dict)
    port_variable: str = "PEER_PORT"
    """The environment variable that says where to listen."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: "subprocess.Popen[bytes]"
    port: int
    requests: Sequence[Path]

    def memory_mb(self) -> float:
        """Return the megabytes of all its processes; memory that several share counts once."""
        return sum(map(_proportional_mb, _family(self.process.pid)))

    def cpu_s(self) -> float:
        """Return the seconds of processor time that all its processes have used so far."""
        return sum(map(_cpu_s, _family(self.process.pid)))


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """Start a server, wait until it answers every request with 200, end it. Raises ServerFailed."""
    with tempfile.TemporaryDirectory() as place:
        port, said = _free_port(), Path(place) / "said"
        requests = [Path(place) / f"{index}.http" for index in range(len(server.uploads))]
        for path, upload in zip(requests, server.uploads, strict=True):
            path.write_bytes(upload.as_bytes())
        variables = {"PYTHONPATH": str(ROOT), **server.environment, server.port_variable: str(port)}
        with said.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                [part.format(port=port) for part in server.command],
                env=os.environ | variables, cwd=place, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
        try:
            for upload in server.uploads:
                _wait_for(server, process, port, upload, said)
            yield Running(process, port, requests)
        finally:
            _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(server: Server, process: "subprocess.Popen[bytes]", port: int, upload: Upload, said: Path) -> None:
    give_up = time.monotonic() + START_S
    answer = "no connection"
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with closing(HTTPConnection("127.0.0.1", port, timeout=START_S)) as connection:
                connection.request("POST", upload.path, upload.body, dict(upload.headers))
                reply = connection.getresponse()
                answer = f"{reply.status} {reply.read(300)!r}"
                if reply.status == HTTPStatus.OK:
                    return
        except (OSError, HTTPException) as error:
            answer = repr(error)
        time.sleep(POLL_S)
    last = said.read_text(encoding="utf-8", errors="replace").strip()[-1000:]
    raise ServerFailed(f"{server.name} does not answer ({answer}): {last}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process politely, then everything that is left of what it started."""
    family = _family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in family:
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def _family(process: int) -> list[int]:
    """Return a process, its children, theirs, and so on."""
    found = [process]
    for member in found:  # which grows meanwhile
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            with suppress(OSError):  # it has ended
                found += map(int, children.read_text(encoding="ascii").split())
    return found


def _cpu_s(process: int) -> float:
    try:
        after_name = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return sum(int(after_name[field]) for field in TIMES) / os.sysconf("SC_CLK_TCK")


def _proportional_mb(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
