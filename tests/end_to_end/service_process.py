"""The service as a process of its own, on a free port of the loopback interface."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
JPEG = {"Content-Type": "image/jpeg"}


def start(folder: Path, *module: str, **settings: object) -> "subprocess.Popen[str]":
    variables = {f"CLEARWATCH_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", *(module or ("service",))],
        cwd=folder,  # no .env, no models folder: everything is said
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Served:
    process: "subprocess.Popen[str]"
    client: httpx.Client
    announcement: dict[str, Any]

    def stop(self) -> list[dict[str, Any]]:
        """End it politely; return its log."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        return [json.loads(line) for line in errors.splitlines()]


@contextmanager
def served(models: Path, **settings: object) -> Iterator[Served]:
    # One device: to look for the fastest takes seconds, and on a busy machine many.
    process = start(models, **{"models_dir": models, "port": 0, "device": "cpu"} | settings)
    try:
        assert process.stderr is not None
        announcement = json.loads(process.stderr.readline())
        with httpx.Client(base_url=announcement["url"], timeout=30) as client:
            give_up = time.monotonic() + 60
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < give_up
                time.sleep(0.02)
            yield Served(process, client, announcement)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
