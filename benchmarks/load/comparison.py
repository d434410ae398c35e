"""The service beside other servers and beside the engines alone: one model, one load, in turns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load.bench import Bench
from benchmarks.load.contenders import MOSEC, OURS, PEERS, Engine, engines, ours, raw
from benchmarks.load.raw import Limit, measure
from benchmarks.load.results import Result, latency, limits, p99, rate, ratio, throughput
from benchmarks.load.servers import Server, ServerFailed
from benchmarks.musts import Must, Side

BUSY = (8, 32)  # connections that shares of the engine are held to
CROWD = 32
LONE = 1

SHARE = 0.95
TAIL = 1.15
ADDED_MS = 0.6
BF16_GAIN = 1.6
BF16 = "bf16"  # how its label ends
MEMORY_MB = 250


@dataclass(frozen=True)
class Entrant:
    """What is measured in turns: a server, or an engine alone where there is none."""

    name: str
    engine: Engine
    server: Server | None = None


@dataclass
class Measured:
    """What the rounds have shown so far."""

    limits: dict[Engine, list[Limit]] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def take(self, bench: Bench, entrant: Entrant, frame: Path) -> None:
        """Measure one; a server that fails once is left out from then on."""
        if entrant.server is None:
            graph = bench.autoencoder / "autoencoder.onnx"
            limit = measure(graph, frame, entrant.engine.raw, bench.workers, bench.seconds)
            self.limits.setdefault(entrant.engine, []).append(limit)
        elif entrant.name not in self.failures:
            limits = self.limits.setdefault(entrant.engine, [])
            result = self.results.setdefault(entrant.name, Result(entrant.name, [], limits))
            try:
                result.visits.append(bench.visit(entrant.server, bench.connections))
            except ServerFailed as error:
                self.failures[entrant.name] = str(error)
                del self.results[entrant.name]


def servers(bench: Bench) -> list[Must]:
    """Report the table of servers."""
    frame = bench.workshop / "frame.jpg"
    frame.write_bytes(bench.frame)
    measured = Measured()
    for entrant in bench.turns("servers", list(_entrants(bench))):
        measured.take(bench, entrant, frame)
    results, connections = list(measured.results.values()), bench.connections
    alone = {engine.label: found for engine, found in measured.limits.items()}
    bench.report.add("Throughput", [*throughput(results, connections), *limits(alone, connections)])
    bench.report.add("Latency", latency(results, connections))
    for name, reason in measured.failures.items():
        print(f"{name} was not measured: {reason}", flush=True)
    return list(musts(measured.results, connections))


def _entrants(bench: Bench) -> Iterator[Entrant]:
    available = list(engines())
    for engine in available:
        yield Entrant(engine.label, engine)
        upload = raw(bench.frame, "/v1/score")
        server = ours(bench.autoencoder.parent, engine.device, bench.workers, [upload])
        yield Entrant(f"{OURS}, {engine.label}", engine, server)
    graph = bench.autoencoder / "autoencoder.onnx"
    for peer in PEERS:
        if peer.name in bench.peers.present:
            server = peer.server(bench.peers.present[peer.name], graph, bench.frame, bench.workers)
            yield Entrant(peer.name, available[0], server)


def musts(results: Mapping[str, Result], connections: Sequence[int]) -> Iterator[Must]:
    """Say what the service is held to, of what was measured."""
    own = [result for name, result in results.items() if name.startswith(OURS)]
    peers = [result for name, result in results.items() if not name.startswith(OURS)]
    for result in own:
        for count in set(BUSY) & set(connections):
            what = f"{result.name}: share of the engine alone, {count} connections"
            yield Must(what, Side.AT_LEAST, SHARE, {result.name: result.share(count)})
        if CROWD in connections:
            what = f"{result.name}: p99 / p50, {CROWD} connections"
            yield Must(what, Side.AT_MOST, TAIL, {result.name: result.tail(CROWD)})
        if LONE in connections:
            what = f"{result.name}: ms beyond the engine alone, 1 connection"
            yield Must(what, Side.AT_MOST, ADDED_MS, {result.name: result.added_ms()})
        yield Must(f"{result.name}: MB with one model", Side.AT_MOST, MEMORY_MB, {result.name: result.memory_mb})
    if own and peers:
        yield from _beside(own, peers, sorted(set(BUSY) & set(connections)))


def _beside(own: Sequence[Result], peers: Sequence[Result], connections: Iterable[int]) -> Iterator[Must]:
    """Compare with mosec on its own engine, and with every peer's best where ours has bf16."""
    mosec = next((peer for peer in peers if peer.name == MOSEC), None)
    for count in connections:
        at = f"{count} connections"
        if mosec is not None:
            faster, slower = ratio(own[0], mosec, count, rate), ratio(own[0], mosec, count, p99)
            yield Must(f"throughput beside mosec, {at}", Side.AT_LEAST, 1, {own[0].name: faster})
            yield Must(f"p99 beside mosec, {at}", Side.AT_MOST, 1, {own[0].name: slower})
        if own[-1].name.endswith(BF16):
            rates = {peer.name: ratio(own[-1], peer, count, rate) for peer in peers}
            best = min(rates, key=rates.__getitem__)
            yield Must(f"throughput beside {best}, {at}", Side.AT_LEAST, BF16_GAIN, {own[-1].name: rates[best]})
