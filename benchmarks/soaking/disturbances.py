"""What may happen to a service in an hour: each leaves it as it found it, and says what it found out of order."""

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from runtime.images import ImageFormat, encode
from tests.end_to_end.load import hammer, request
from tests.model_folders import write_scorer, write_treacherous

WHITE = encode(np.full((32, 48, 1), 255, np.uint8), ImageFormat.PNG)
STEP_LIMIT_S = 5.0
ROUNDS = 10_000_000  # of a loop that is to outlast that, and to end nevertheless: it takes a core from the service
IMAGE = {"Content-Type": "image/png"}
BURST_CLIENTS = 200
BURST_S = 3.0


class OutOfOrder(Exception):
    """The service did not take a disturbance as it should."""


@dataclass
class Patient:
    """The service that is disturbed, and the folders that it serves and that are put in their places."""

    client: httpx.Client
    models: Path
    spare: Path
    version: int = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.client.base_url.host, self.client.base_url.port or 0

    def replace(self, *, half: bool = False) -> None:
        """Put the other version of the scorer in its place, or a part of it."""
        self.version = 1 - self.version
        folder = self.models / "scorer"
        made = self.spare / str(self.version) / "scorer"
        if half:
            shutil.copy(made / "manifest.json", folder)
            return
        arriving, leaving = self.models / ".arriving", self.models / ".leaving"
        shutil.copytree(made, arriving)
        folder.rename(leaving)
        arriving.rename(folder)
        shutil.rmtree(leaving)

    def reload(self) -> dict[str, list[str]]:
        """Have the models looked at again."""
        reply = self.client.post("/v1/models:reload")
        _require(reply.status_code == 200, f"reload: {reply.status_code} {reply.text[:200]}")
        changed: dict[str, list[str]] = reply.json()
        return changed

    def expect(self, reply: httpx.Response, *statuses: int) -> None:
        """Complain of any other status; what is refused for want of room is in order."""
        right = reply.status_code in statuses or "retry-after" in reply.headers
        _require(right, f"{reply.request.url.path}: {reply.status_code} {reply.text[:200]}")


def write_models(shipped: Path, models: Path, spare: Path) -> None:
    """Lay out the models of a soak: the shipped ones, one that comes in two versions, one that can be made to hang."""
    shutil.copytree(shipped, models, ignore=shutil.ignore_patterns("calibrations", "*.jpg", "*.png"))
    for version in (0, 1):
        write_scorer(spare / str(version) / "scorer", version=str(version), height=16 * (version + 1))
    shutil.copytree(spare / "0" / "scorer", models / "scorer")
    write_treacherous(models / "treacherous", hangs=True, rounds=ROUNDS)


def _require(holds: bool, complaint: str) -> None:  # noqa: FBT001
    if not holds:
        raise OutOfOrder(complaint)


def model_replaced(patient: Patient) -> None:
    """Put another version in the place of a model."""
    patient.replace()
    changed = patient.reload()
    _require(changed["changed"] == ["scorer"], f"reload after a replacement: {changed}")


def nothing_new(patient: Patient) -> None:
    """Reload, and find everything as it was."""
    changed = patient.reload()
    _require(not changed["changed"] and not changed["failed"], f"reload of the same: {changed}")


def half_copied(patient: Patient) -> None:
    """Reload while half of a folder is there."""
    patient.replace(half=True)
    changed = patient.reload()
    _require("scorer" in changed["failed"], f"reload of half a folder: {changed}")
    patient.version = 1 - patient.version
    patient.replace()
    patient.reload()


def bad_uploads(patient: Patient) -> None:
    """Send what is no image, or not what it says it is."""
    bodies = (b"", b"\xff\xd8\xff", b"GIF89a", WHITE[:-20], os.urandom(4096), WHITE[:8] + os.urandom(4096))
    for body in bodies:
        patient.expect(patient.client.post("/v1/score", content=body, headers=IMAGE), 400, 413, 415)
    for text in (b"{", b"[" * 10_000, b'{"image": "http://127.0.0.1/"}'):
        patient.expect(
            patient.client.post("/v1/score", content=text, headers={"Content-Type": "application/json"}), 400, 422
        )


def clients_leave(patient: Patient) -> None:
    """Ask, and go before the answer comes."""
    wire = request(patient.client.base_url, "/v1/score", WHITE, "image/png")
    for share in np.linspace(0, 1, 50):
        with socket.create_connection(patient.address) as connection:
            connection.sendall(wire[: int(share * len(wire))])


def slow_clients(patient: Patient) -> None:
    """Send a byte now and then."""
    wire = request(patient.client.base_url, "/v1/score", WHITE, "image/png")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(patient.address)) for _ in range(30)]
        for connection in slow[::2]:
            connection.sendall(wire[: wire.index(b"\r\n\r\n") + 4])
        for byte in range(20):
            for connection in slow:
                with contextlib.suppress(ConnectionError):
                    connection.send(wire[byte : byte + 1])
            time.sleep(0.1)


def burst(patient: Patient) -> None:
    """Send from many clients, who retry at once."""
    wire = request(patient.client.base_url, "/v1/score?model=scorer", WHITE, "image/png")
    load = hammer(patient.client.base_url, [wire], BURST_CLIENTS, BURST_S)
    others = load.statuses.keys() - {200, 503}
    _require(
        not others and not load.lost and not load.without_retry_after, f"a burst: {load.statuses}, {load.lost} lost"
    )


def worker_hangs(patient: Patient) -> None:
    """Have a graph not come to its end in time: its model is given up, and opened anew by a reload."""
    path = "/v1/score?model=treacherous"
    while True:
        reply = patient.client.post(path, content=WHITE, headers=IMAGE)
        if reply.json().get("type") != "urn:clearwatch:problem:overloaded":
            break
    _require(reply.json().get("type") == "urn:clearwatch:problem:model-not-ready", f"a hang: {reply.text[:200]}")
    ready = patient.client.get("/readyz")
    _require(ready.status_code == 503 and ready.json()["models"]["treacherous"] != "ok", f"a hang: {ready.text[:200]}")
    patient.reload()
    _require(patient.client.get("/readyz").status_code == 200, "not ready after the model was opened anew")


DISTURBANCES: tuple[Callable[[Patient], None], ...] = (
    model_replaced,
    nothing_new,
    half_copied,
    bad_uploads,
    clients_leave,
    slow_clients,
    burst,
    worker_hangs,
)


def disturb(patient: Patient, pause_s: float, seed: int, stop: threading.Event) -> Iterator[tuple[str, str | None]]:
    """Disturb it again and again, in a random order; yield each disturbance with what was out of order."""
    generator = np.random.default_rng(seed)
    while True:
        for index in generator.permutation(len(DISTURBANCES)):
            if stop.wait(pause_s):
                return
            chosen = DISTURBANCES[index]
            try:
                chosen(patient)
                complaint = None
            except (OutOfOrder, httpx.HTTPError, OSError) as error:
                complaint = f"{chosen.__name__}: {error}"
            yield chosen.__name__, complaint
