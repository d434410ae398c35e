"""What the rounds have shown: medians, and ratios to the engine alone that are taken within each round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load.bench import Visit, median
from benchmarks.load.raw import Limit
from benchmarks.load.wrk import Load
from training.card import Row


@dataclass(frozen=True)
class Result:
    """A server in all rounds, beside the engine alone in the same rounds."""

    name: str
    visits: list[Visit] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    """Of the engine that it uses, one for each visit."""

    def load(self, connections: int, figure: Callable[[Load], float]) -> float:
        """Return the median of a figure at a number of connections."""
        return median(figure(visit.loads[connections]) for visit in self.visits)

    def rate(self, connections: int) -> float:
        """Return images a second."""
        return self.load(connections, rate)

    def share(self, connections: int) -> float:
        """Return the rate as a share of that of the engine alone."""
        pairs = zip(self.visits, self.limits, strict=True)
        return median(visit.loads[connections].rate / limit.rate for visit, limit in pairs)

    def tail(self, connections: int) -> float:
        """Return how many times p50 p99 is."""
        return self.load(connections, lambda load: load.p99_ms / load.p50_ms)

    def added_ms(self) -> float:
        """Return what a lone request takes longer than the engine alone, in milliseconds."""
        pairs = zip(self.visits, self.limits, strict=True)
        return median(visit.loads[1].p50_ms - limit.lone_ms for visit, limit in pairs)

    @property
    def memory_mb(self) -> float:
        """The most that it took in any round."""
        return max(visit.memory_mb for visit in self.visits)

    @property
    def cpu_ms(self) -> float:
        """Processor time for a reply."""
        return median(visit.cpu_ms for visit in self.visits)

    @property
    def failed(self) -> int:
        """Requests that were not answered, of all rounds."""
        return sum(load.failed for visit in self.visits for load in visit.loads.values())


def ratio(first: Result, second: Result, connections: int, figure: Callable[[Load], float]) -> float:
    """Return the median over the rounds of a figure of one server divided by that of another in the same round."""
    pairs = zip(first.visits, second.visits, strict=True)
    return median(figure(one.loads[connections]) / figure(other.loads[connections]) for one, other in pairs)


def rate(load: Load) -> float:
    """Return images a second."""
    return load.rate


def p50(load: Load) -> float:
    """Return the milliseconds that half of the requests take at most."""
    return load.p50_ms


def p99(load: Load) -> float:
    """Return the milliseconds that 99 of 100 requests take at most."""
    return load.p99_ms


def throughput(results: Sequence[Result], connections: Sequence[int]) -> list[Row]:
    """Return rates, shares of the engine, processor time and memory."""
    return [
        {"images/s at connections": result.name}
        | {str(count): result.rate(count) for count in connections}
        | {f"share of raw, {count}": result.share(count) for count in connections if count > 1}
        | {"CPU ms an image": result.cpu_ms, "MB": result.memory_mb, "failed": result.failed}
        for result in results
    ]


def limits(found: Mapping[str, Sequence[Limit]], connections: Sequence[int]) -> list[Row]:
    """Return the same of the engines alone; at one connection, with the threads of all workers."""
    rows: list[Row] = []
    for name, measured in found.items():
        lone, rate = median(1000 / limit.lone_ms for limit in measured), median(limit.rate for limit in measured)
        rates = {str(count): lone if count == 1 else rate for count in connections}
        rows.append({"images/s at connections": name} | rates | {"CPU ms an image": median(x.cpu_ms for x in measured)})
    return rows


def latency(results: Sequence[Result], connections: Sequence[int]) -> list[Row]:
    """Return p50 and p99."""
    return [
        {"ms at connections": result.name}
        | {f"p50, {count}": result.load(count, p50) for count in connections}
        | {f"p99, {count}": result.load(count, p99) for count in connections}
        for result in results
    ]
