"""One thread of the scheduler: what it is at, and since when, so that one that hangs can be told and replaced."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.jobs import Job


class Worker:
    """A thread and its present step. What changes does so under the scheduler's lock."""

    def __init__(self, name: str, work: Callable[["Worker"], None]) -> None:
        self.jobs: tuple[Job[Any], ...] = ()  # of its step; none while it waits
        self.has_lane = False
        self.abandoned = False  # it hangs: another has taken its place, and what it still does counts for nothing
        self._since = 0.0
        self._thread = threading.Thread(target=work, args=(self,), name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, jobs: Sequence[Job[Any]], *, has_lane: bool = False) -> None:
        """Note what it does from now on."""
        self.jobs, self.has_lane, self._since = tuple(jobs), has_lane, time.monotonic()

    def rest(self) -> None:
        """Note that it has nothing to do."""
        self.jobs = ()

    def hangs(self, limit_s: float) -> bool:
        """Tell whether its step takes longer than any should."""
        return bool(self.jobs) and time.monotonic() - self._since > limit_s

    @property
    def name(self) -> str:
        """The thread's name."""
        return self._thread.name

    @property
    def ident(self) -> int | None:
        """The thread's number."""
        return self._thread.ident

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
