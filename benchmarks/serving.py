"""The service under load beside other servers and the engines alone; its own cost; its growth. Load comes from wrk.

`make bench-serving` exits with 1 where a must is missed. Other servers are measured where an interpreter has them:
`ARGS="--peers-python PATH"`; docs/serving.md says how to install them.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.bench import Bench, Section
from benchmarks.load.comparison import servers
from benchmarks.load.contenders import QUEUE_CAPACITY
from benchmarks.load.growth import cameras, models, pixels
from benchmarks.load.overhead import overhead
from benchmarks.load.wrk import require_wrk
from benchmarks.musts import judge
from benchmarks.report import Arguments, Report, parser
from runtime.devices import usable_cores

PROTOCOL = (
    "closed loop from wrk on the same machine: every connection sends its next request when it has the reply; servers "
    "take turns, each started anew, every second round backwards; medians over the rounds; ratios are taken within a "
    f"round; our queue holds {QUEUE_CAPACITY}, all else as by default; one JPEG of 256 x 256 and about 20 kB; a "
    "convolutional autoencoder of 0.72 GFLOP, fp32; drawn frames, random weights, seed 0"
)
SECTIONS: dict[str, Section] = {section.__name__: section for section in (servers, overhead, models, cameras, pixels)}


@dataclass(frozen=True)
class Options(Arguments):
    """What this benchmark takes besides."""

    sections: list[str]
    rounds: int
    seconds: float
    connections: list[int]
    workers: int
    peers_python: list[Path]
    pictures: Path | None


def main() -> None:
    """Print every table, the musts last."""
    options = _options()
    require_wrk()
    with tempfile.TemporaryDirectory(prefix="clearwatch-load-") as workshop:
        bench = Bench(
            workshop=Path(workshop),
            workers=options.workers,
            rounds=options.rounds,
            seconds=options.seconds,
            connections=options.connections,
            pythons=options.peers_python,
            pictures=options.pictures,
            report=Report(PROTOCOL),
        )
        musts = [must for name in options.sections for must in SECTIONS[name](bench)]
    judge(bench.report, musts, options.json)


def _options() -> Options:
    options = parser(__doc__)
    options.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    options.add_argument("--rounds", type=int, default=3, metavar="N", help="visits to every server (default: 3)")
    options.add_argument("--seconds", type=float, default=5, metavar="S", help="of each load (default: 5)")
    options.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32, 128], metavar="N")
    options.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="default: one a core")
    options.add_argument("--peers-python", type=Path, action="append", default=[], metavar="PATH",
                         help="an interpreter that has other servers; may be repeated")  # fmt: skip
    options.add_argument("--pictures", type=Path, metavar="DIR", help="also draw the growth, to this folder")
    return Options(**vars(options.parse_args()))


if __name__ == "__main__":
    main()
