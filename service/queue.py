"""The jobs that wait for a thread, in the order in which requests have a right to one."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from service.jobs import Job, Standing


class FairQueue:
    """The next job is of the request that has had the least of the threads' time; among equals the first come.

    A request begins with what one that shared fairly would have had by now, the virtual time of fair queueing (Demers
    et al. 1989): so a frame does not wait for all the tiles of a large one before it, and a stream of small frames
    does not keep the tiles waiting for ever. Each job is charged with what it has really cost. Not for several
    threads at a time.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job[Any]]] = []
        self._arrivals = itertools.count()
        self._virtual_s = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, job: Job[Any]) -> None:
        """Add a job."""
        standing = job.standing
        if standing.attained_s is None:
            standing.attained_s = self._virtual_s
        heapq.heappush(self._heap, (standing.attained_s, next(self._arrivals), job))

    def take(self, may_begin: Callable[[Job[Any]], bool]) -> Job[Any] | None:
        """Remove and return the first job that may begin; None where there is none."""
        passed_over = []
        found = None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            if may_begin(entry[2]):
                found = entry[2]
            else:
                passed_over.append(entry)
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found

    def charge(self, standing: Standing, seconds: float, sharers: int) -> None:
        """Count the time of a thread to a request, one of `sharers` now being served."""
        standing.attained_s = (self._virtual_s if standing.attained_s is None else standing.attained_s) + seconds
        self._virtual_s += seconds / max(1, sharers)
