"""What every section works with: the models, the machine's share, the rounds, and a visit to a server."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from tqdm import tqdm

from benchmarks.load.contenders import PEERS, Found, find
from benchmarks.load.frames import jpeg
from benchmarks.load.models import NULL_SIDE, SIDE, write_autoencoder, write_null
from benchmarks.load.servers import Server, running
from benchmarks.load.wrk import Load, LoadFailed, drive
from benchmarks.musts import Must
from benchmarks.report import Report

WARM_UP_S = 2
WARM_UP_CONNECTIONS = 8


class Named(Protocol):
    """Whatever is measured in turns."""

    @property
    def name(self) -> str:
        """What the progress bar says."""


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class Visit:
    """A server, started, put under load and ended."""

    loads: Mapping[int, Load]
    """By the number of connections."""
    memory_mb: float
    """After the load; memory that its processes share counts once."""
    cpu_ms: float
    """Processor time of all its processes for a reply: what is left of it when the neighbours are noisy."""


@dataclass(frozen=True)
class Bench:
    """How long, how often and how wide to measure; `workshop` is a folder for models."""

    workshop: Path
    workers: int
    rounds: int
    seconds: float
    connections: Sequence[int]
    pythons: Sequence[Path]
    pictures: Path | None
    report: Report

    @cached_property
    def autoencoder(self) -> Path:
        """The model folder of the autoencoder, in a folder of its own."""
        return write_autoencoder(self.workshop / "one" / "autoencoder")

    @cached_property
    def null(self) -> Path:
        """The model folder of the model that costs nothing."""
        return write_null(self.workshop / "null" / "null")

    @cached_property
    def frame(self) -> bytes:
        """A JPEG of the autoencoder's size."""
        return jpeg(SIDE, SIDE)

    @cached_property
    def small_frame(self) -> bytes:
        """A JPEG of the null model's size."""
        return jpeg(NULL_SIDE, NULL_SIDE)

    @cached_property
    def peers(self) -> Found:
        """The other servers; says which are not installed."""
        found = find(PEERS, self.pythons)
        if found.missing:
            print(f"not installed, and so not measured: {', '.join(found.missing)}", flush=True)
        return found

    def visit(self, server: Server, connections: Iterable[int]) -> Visit:
        """Start a server and load it with so many connections, one number after the other. Raises ServerFailed."""
        with running(server) as process:
            with suppress(LoadFailed):  # too slow to answer within the warm-up
                drive(process.port, process.requests, WARM_UP_CONNECTIONS, WARM_UP_S)
            spent = process.cpu_s()
            loads = {count: drive(process.port, process.requests, count, self.seconds) for count in connections}
            spent = process.cpu_s() - spent
            replies = sum(load.replies for load in loads.values())
            return Visit(loads, process.memory_mb(), 1000 * spent / replies)

    def turns(self, what: str, entrants: Sequence[N]) -> Iterator[N]:
        """Yield the entrants round by round, each second round backwards: what drifts meets all alike."""
        order = [
            entrant for index in range(self.rounds) for entrant in (entrants if index % 2 == 0 else entrants[::-1])
        ]
        with tqdm(order, what, disable=None) as bar:
            for entrant in bar:
                bar.set_postfix_str(entrant.name)
                yield entrant


Section = Callable[[Bench], Sequence[Must]]
"""Adds tables to the report and returns what must hold of the figures in them."""


def median(values: Iterable[float]) -> float:
    """Return the median over the rounds."""
    return statistics.median(values)
