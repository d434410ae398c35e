"""Load from wrk, a generator in C: one in Python would measure itself."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.servers import ServerFailed

SCRIPT = Path(__file__).parent / "requests.lua"
PATIENCE_S = 30  # for a reply


class LoadFailed(ServerFailed):
    """Wrk did not measure anything."""


@dataclass(frozen=True)
class Load:
    """What a number of connections got that always send the next request as soon as they have the reply."""

    replies: int
    """With a status below 400."""
    rate: float
    """Those in a second."""
    p50_ms: float
    p99_ms: float
    failed: int
    """Replies with another status, and connections that broke."""


def require_wrk() -> str:
    """Return where wrk is; end the program with the cure where it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        sys.exit("the load comes from wrk, which is not installed: apt-get install wrk (or brew install wrk)")
    return found


def drive(port: int, requests: Sequence[Path], connections: int, seconds: float) -> Load:
    """Send requests, each a file with a whole HTTP request, in turns; raise LoadFailed where nobody answers."""
    options = {"threads": 1, "connections": connections, "duration": f"{max(1, round(seconds))}s"}
    options |= {"timeout": f"{PATIENCE_S}s", "script": SCRIPT}
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [require_wrk(), *flags, f"http://127.0.0.1:{port}", "--", *map(str, requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    return parse(done.stdout + done.stderr)


def parse(output: str) -> Load:
    """Read what requests.lua prints; raise LoadFailed where there is no such line or no reply was counted."""
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise LoadFailed(f"wrk says: {output.strip()[-400:]}")
    found = json.loads(line)
    good = found["replies"] - found["refused"]
    if good == 0:
        raise LoadFailed(f"wrk got no good reply; {found['refused']} were refused, {found['broken']} connections broke")
    return Load(good, good / found["seconds"], found["p50_ms"], found["p99_ms"], found["refused"] + found["broken"])
