"""A model that costs nothing: what is left is the server."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.load.bench import Bench, Visit, median
from benchmarks.load.contenders import BARE_ASGI, ENGINES, OURS, PEERS, find, ours, raw
from benchmarks.load.servers import Server, ServerFailed
from benchmarks.musts import Must, Side

CONNECTIONS = 32
MUST = 3800  # requests a second in one process


@dataclass(frozen=True)
class Entrant:
    """A server, as it is called in the table."""

    name: str
    server: Server


def overhead(bench: Bench) -> list[Must]:
    """Report requests a second with a model that costs nothing."""
    visits: dict[str, list[Visit]] = {}
    broken: dict[str, str] = {}
    for entrant in bench.turns("overhead", list(_entrants(bench))):
        if entrant.name in broken:
            continue
        try:
            visits.setdefault(entrant.name, []).append(bench.visit(entrant.server, [CONNECTIONS]))
        except ServerFailed as error:
            broken[entrant.name] = str(error)
            visits.pop(entrant.name, None)
            print(f"{entrant.name} was not measured: {error}", flush=True)
    bare = visits[BARE_ASGI.name]
    rates = {name: median(visit.loads[CONNECTIONS].rate for visit in found) for name, found in visits.items()}
    bench.report.add(
        f"The server alone, {CONNECTIONS} connections",
        [
            {
                "": name,
                "requests/s": rates[name],
                "share of bare ASGI": median(_rate(a) / _rate(b) for a, b in zip(found, bare, strict=True)),
                "CPU ms a request": median(visit.cpu_ms for visit in found),
                "p99 ms": median(visit.loads[CONNECTIONS].p99_ms for visit in found),
                "MB": max(visit.memory_mb for visit in found),
            }
            for name, found in visits.items()
        ],
    )
    return [Must("requests/s with a model that costs nothing", Side.AT_LEAST, MUST, {OURS: rates[OURS]})]


def _rate(visit: Visit) -> float:
    return visit.loads[CONNECTIONS].rate


def _entrants(bench: Bench) -> Iterator[Entrant]:
    found = find((BARE_ASGI, *PEERS), bench.pythons)
    upload = raw(bench.small_frame, "/v1/score")
    yield Entrant(OURS, ours(bench.null.parent, ENGINES[0].device, bench.workers, [upload]))
    for peer in (BARE_ASGI, *PEERS):
        if peer.name in found.present:
            server = peer.server(
                found.present[peer.name], bench.null / "autoencoder.onnx", bench.small_frame, bench.workers
            )
            yield Entrant(peer.name, server)
