"""The vital signs of a process over time: memory, open files, threads, and whether they grow."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from matplotlib.figure import Figure

PERIOD_S = 1.0
WARM_UP = 0.3  # of the time, left out of slopes: caches fill, threads start, arenas find their size


def open_files(pid: int) -> int:
    """Count the file descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@dataclass
class Vitals:
    """Looks at a process every second while it is entered."""

    pid: int
    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(PERIOD_S):
            try:
                process = Path(f"/proc/{self.pid}")
                status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
                files = open_files(self.pid)
            except OSError:  # it has ended
                return
            self.seconds.append(time.monotonic() - started)
            self.memory_mb.append(int(status["VmRSS"].split()[0]) / 1024)
            self.threads.append(int(status["Threads"]))
            self.files.append(files)

    def slope_per_hour(self, values: list[float]) -> float:
        """Return the growth an hour after warming up: the median slope between pairs (Theil 1950, Sen 1968).

        Bursts come and go and do not bend it, as they would a least-squares line.
        """
        first = int(WARM_UP * len(values))
        at, found = np.asarray(self.seconds[first:]), np.asarray(values[first:])
        if len(at) < 2:
            return 0.0
        half = len(at) // 2  # pairs that lie half of the time apart: those of neighbours say nothing
        slopes = (found[half:][: len(at) - half] - found[: len(at) - half]) / (at[half:] - at[: len(at) - half])
        return float(3600 * np.median(slopes))

    def draw(self, path: Path) -> None:
        """Write a picture of all three."""
        figure = Figure(figsize=(8, 6), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True)
        shown = {"resident MB": self.memory_mb, "open files": self.files, "threads": self.threads}
        for axis, (name, values) in zip(axes, shown.items(), strict=True):
            axis.plot([second / 60 for second in self.seconds], values, linewidth=1)
            axis.set_ylabel(name)
            axis.set_ylim(0)
        axes[-1].set_xlabel("minutes")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
