"""What every section works with: the methods, the footage and the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.anomalies.footage import Footage
from benchmarks.anomalies.scorer import Judged, Scorer, ShippedScorer
from benchmarks.musts import Must
from benchmarks.report import Report
from runtime.model import Model


@dataclass(frozen=True)
class Bench:
    """The methods side by side on the test clips of the camera in `ped2`."""

    scorers: Sequence[Scorer]
    denoiser: Model
    ped2: Path
    footage: Footage
    pictures: Path | None
    report: Report

    @property
    def models(self) -> list[ShippedScorer]:
        """The methods that are shipped models."""
        return [scorer for scorer in self.scorers if isinstance(scorer, ShippedScorer)]

    @cached_property
    def judged(self) -> Mapping[str, Judged]:
        """What each method says of the test clips as they are."""
        return {scorer.name: scorer.judge(self.footage.frames) for scorer in self.scorers}


Section = Callable[[Bench], Sequence[Must]]
"""Adds tables to the report and returns what must hold of the figures in them."""
