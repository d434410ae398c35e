"""Clients that send frames as fast as they are answered: light ones, so that a core is left for the service."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np


@dataclass
class Load:
    """What came back: how long each accepted request took, in seconds, and how many replies had each status."""

    seconds: float = 0.0
    accepted_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    lost: int = 0

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return len(self.accepted_s) / self.seconds

    def percentile_s(self, percent: float) -> float:
        """Return a percentile of the latency of accepted requests."""
        return float(np.percentile(self.accepted_s, percent))


def request(url: httpx.URL, path: str, body: bytes, media_type: str) -> bytes:
    """Return a POST request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def hammer(url: httpx.URL, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Send requests over and over from so many clients at once; those that are refused try again at once."""
    return asyncio.run(_hammer(url, requests, clients, seconds))


async def _hammer(url: httpx.URL, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    load = Load()
    started = time.perf_counter()
    end = started + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
            except (asyncio.IncompleteReadError, ConnectionError):
                load.lost += 1
                return
            status = int(head[9:12])
            load.statuses[status] += 1
            if status == 200:
                load.accepted_s.append(time.perf_counter() - began)
            elif b"\r\nretry-after: " not in head:
                load.without_retry_after += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    load.seconds = time.perf_counter() - started
    return load


def _length(head: bytes) -> int:
    return int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
