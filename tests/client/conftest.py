"""A folder of frames, the fake service, and ways to run the client on them."""

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from client import batch_score
from tests.client.fake_service import FakeService

SCRIPT = Path(batch_score.__file__)
KEYS = [f"{camera}/{number:03}.jpg" for camera in ("cam1", "cam2/night") for number in range(6)]


@dataclass(frozen=True)
class Result:
    code: int
    output: str
    errors: str


@dataclass
class Client:
    """The client with a folder for its results, two cameras' frames and a service."""

    service: FakeService
    folder: Path
    capture: pytest.CaptureFixture[str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def frames(self) -> Path:
        return self.folder / "frames"

    def run(self, *arguments: str | Path) -> Result:
        """Run in this process."""
        code = batch_score.main([*map(str, arguments), "--url", self.service.url])
        return Result(code, *self.capture.readouterr())

    def start(self, *arguments: str | Path, script: Path = SCRIPT, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start as a process of its own."""
        command = [sys.executable, str(script), *map(str, arguments), "--url", self.service.url]
        pipe = subprocess.PIPE
        self.started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=cwd))
        return self.started[-1]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare every run the reading of the certificate store: nothing here speaks TLS."""
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def client(service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Client]:
    """Give the client and two cameras with six frames each; both number theirs from 000.jpg."""
    client = Client(service, tmp_path, capsys)
    for key in KEYS:
        path = client.frames / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())
    yield client
    for process in client.started:
        process.kill()
        process.communicate()
