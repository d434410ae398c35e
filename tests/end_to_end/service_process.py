"""The service as a process of its own, on a free port of the loopback interface."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
JPEG = {"Content-Type": "image/jpeg"}


def start(folder: Path, *module: str, **settings: object) -> "subprocess.Popen[str]":
    return start_with_log(subprocess.PIPE, folder, *module, **settings)


def start_with_log(log: int | IO[str], folder: Path, *module: str, **settings: object) -> "subprocess.Popen[str]":
    """Start it with its log going elsewhere; what lies in `folder` is imported before all else."""
    variables = {f"CLEARWATCH_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", *(module or ("service",))],
        cwd=folder,  # no .env, no models folder: everything is said
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"} | variables,
        stderr=log,
        stdout=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Served:
    """A running service. Its log is read all the time: a full pipe would hold it up."""

    process: "subprocess.Popen[str]"
    client: httpx.Client
    log: list[str]
    reader: threading.Thread

    @property
    def announcement(self) -> dict[str, Any]:
        """The first line of the log."""
        line: dict[str, Any] = json.loads(self.log[0])
        return line

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Return its resident memory, or with VmHWM the most that it was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[dict[str, Any]]:
        """End it politely; return its log."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        self.reader.join()
        return [json.loads(line) for line in self.log]


def address_of(process: "subprocess.Popen[str]") -> str:
    """Wait until it says where it listens."""
    assert process.stdout is not None
    return process.stdout.readline().split()[3].rstrip(",")  # "Clearwatch is at URL, its API ..."


@contextmanager
def served(models: Path, **settings: object) -> Iterator[Served]:
    # One device: to look for the fastest takes seconds, and on a busy machine many.
    process = start(models, **{"models_dir": models, "port": 0, "device": "cpu"} | settings)
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    try:
        reader.start()
        with httpx.Client(base_url=address_of(process), timeout=PATIENCE_S) as client:
            give_up = time.monotonic() + PATIENCE_S
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < give_up
                time.sleep(0.02)
            yield Served(process, client, log, reader)
    finally:
        process.kill()
        process.wait()
        reader.join()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
