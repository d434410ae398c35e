"""What the shipped models must reach, and whether they do."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benchmarks.report import Report
from training.card import Row


@dataclass(frozen=True)
class Bound:
    """A side to be on: how it is written, which of two figures is better, and whether one is good enough."""

    sign: str
    best: Callable[..., str]
    holds: Callable[[float, float], bool]
    """(found, wanted) -> good enough."""


class Side(Enum):
    """The two sides."""

    AT_LEAST = Bound(">=", max, lambda found, wanted: found >= wanted)
    AT_MOST = Bound("<=", min, lambda found, wanted: found <= wanted)


@dataclass(frozen=True)
class Must:
    """A figure that the best of the models has to reach; `found` maps each model to its own."""

    what: str
    side: Side
    wanted: float
    found: Mapping[str, float]

    @property
    def by(self) -> str:
        """The model that does best."""
        return self.side.value.best(self.found, key=self.found.__getitem__)

    @property
    def kept(self) -> bool:
        """Tell whether that is good enough."""
        return self.side.value.holds(self.found[self.by], self.wanted)

    def __str__(self) -> str:
        return f"{self.what} {self.side.value.sign} {self.wanted:g}: found {self.found[self.by]:.4g} ({self.by})"

    @property
    def row(self) -> Row:
        """The line of the table."""
        return {
            "must": f"{self.what} {self.side.value.sign} {self.wanted:g}",
            "found": self.found[self.by],
            "by": self.by,
            "ok": "yes" if self.kept else "NO",
        }


def judge(report: Report, musts: Sequence[Must], json: Path | None, title: str = "Musts") -> None:
    """Add the table of the musts, write the report, and exit with 1 where one is missed."""
    report.add(title, [must.row for must in musts])
    report.write(json)
    missed = [f"missed: {must}" for must in musts if not must.kept]
    if missed:
        sys.exit("\n".join(missed))
