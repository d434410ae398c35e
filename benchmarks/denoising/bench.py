"""What every section works with: the denoisers, the photographs, the cores and the report."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from benchmarks.denoising.denoiser import ShippedDenoiser
from benchmarks.musts import Must
from benchmarks.report import Report
from runtime.devices import usable_cores
from runtime.images import SUFFIXES, Pixels, read
from training.errors import DataError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Bench:
    """The denoisers side by side on the data sets below `data`, on the first `limit` images of each."""

    denoisers: Sequence[ShippedDenoiser]
    data: Path
    limit: int | None
    report: Report

    def photographs(self, folder: str, channels: int = 3) -> list[Pixels]:
        """Read the images [h, w, channels] of a folder in the order of their names: pairs are numbered alike.

        Raises DataError where there are none.
        """
        root = self.data / folder
        paths = sorted(path for path in root.glob("*") if path.suffix in SUFFIXES)[: self.limit]
        if not paths:
            raise DataError(f"{root} holds no images; see docs/data.md, or pass --data DIR")
        return [read(path, channels=channels).pixels for path in paths]

    def each(self, what: str, function: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
        """Call the function on every item, one a core, under a progress bar."""
        waiting = list(items)
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(tqdm(pool.map(function, waiting), what, len(waiting), disable=None))


Section = Callable[[Bench], Sequence[Must]]
"""Adds tables to the report and returns what must hold of the figures in them."""
