"""How requests share the device: bounded admission, fair shares of time, batches that form by themselves.

    request --admit--> Ticket --jobs--> waiting -> prepare -> ready -> run -> done -> finish -> the ticket's future

One pool of threads does every step, so that the event loop only parses and awaits. At most `lanes` of them are on
the device at once. On a CPU there is a lane for every thread: a thread prepares a frame, runs it and finishes it. A
frame that finds all other threads idle and nothing queued is run alone, that is with the cores of all.
On a GPU there are few lanes and `max_batch` is large: while the lanes are busy the other threads go on preparing, and
a lane that falls free takes every prepared frame of one model and shape up to `max_batch`. Nobody waits for a timer.

Who is next is the business of service.queue. Large frames come as many slow jobs; while others are about, these leave
one thread free, so that a small frame need not wait for a slow job to end.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.errors import Overloaded, ShuttingDown
from runtime.model import Outputs
from service.jobs import CallJob, InferenceJob, Job
from service.metrics import Metrics
from service.queue import FairQueue
from service.ticket import Receive, Ticket
from service.work import Stage, run_batch

logger = logging.getLogger(__name__)

RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 60.0
EXPECTED_S = 0.05  # taken for the work of a request until some have been measured
HELD_REFUSALS = 1000  # sockets of clients that wait to be told to come back later
SLOW_S = 0.1  # a job that takes longer is one to be kept out of the way
COMPANY_S = 5.0  # how long after requests met they are expected to meet again
SMOOTHING = 0.1  # weight of the newest request in the running mean


@dataclass(frozen=True)
class Capacity:
    """How much is done at once. `lanes` are runs on the device; `requests` counts the accepted ones."""

    threads: int
    lanes: int
    max_batch: int
    requests: int
    deadline_s: float
    refusal_delay_s: float = 0.0

    @property
    def share(self) -> int:
        """How many jobs one request may have in flight: enough to fill the device, and no more."""
        return max(self.threads, self.lanes * self.max_batch)


class Scheduler:
    """The queue and the threads that empty it. `admit` and everything of a ticket belong to the event loop."""

    def __init__(self, capacity: Capacity, metrics: Metrics) -> None:
        self.capacity = capacity
        self.metrics = metrics
        self._accepted = 0
        self._held = 0
        self._admitting = True
        self._request_s = EXPECTED_S
        self._condition = threading.Condition()
        self._waiting = FairQueue()
        self._crowded = -COMPANY_S  # when there last was more than one request, on the monotonic clock
        self._ready: deque[InferenceJob[Any]] = deque()
        self._done: deque[InferenceJob[Any]] = deque()
        self._free_lanes = capacity.lanes
        self.idle = 0  # threads that wait for something to do
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{index}", daemon=True)
            for index in range(capacity.threads)
        ]
        metrics.queue_depth.set_function(lambda: len(self._waiting) + len(self._ready))
        metrics.in_flight.set_function(lambda: self._accepted)

    # -- on the event loop

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def admit(self, receive: Receive | None = None, timeout_ms: int | None = None) -> Ticket:
        """Accept a request, to be used as a context manager, or raise Overloaded or ShuttingDown at once.

        With the `receive` of its connection the request is dropped when its client goes away; without `timeout_ms`
        it has the deadline of all.
        """
        if not self._admitting:
            self.metrics.refused("shutting_down")
            raise ShuttingDown("the service is shutting down; try again in a moment or elsewhere")
        if self._accepted >= self.capacity.requests:
            self.metrics.refused("overloaded")
            raise Overloaded(
                f"{self._accepted} requests are being served, all that are accepted at once; try again later",
                self.retry_after_s(),
            )
        self._accepted += 1
        if self._accepted > 1:
            self._crowded = time.monotonic()
        return Ticket(self, receive, self.capacity.deadline_s if timeout_ms is None else timeout_ms / 1000)

    async def hold_refusal(self) -> None:
        """Wait before a refusal is sent, unless very many wait already.

        Clients that retry at once spend the processor on refusals; held for a second they leave it to the accepted.
        """
        if self.capacity.refusal_delay_s > 0 and self._held < HELD_REFUSALS:
            self._held += 1
            try:
                await asyncio.sleep(self.capacity.refusal_delay_s)
            finally:
                self._held -= 1

    def release(self, ticket: Ticket) -> None:
        """Take a slot back; the ticket calls this when its request ends."""
        self._accepted -= 1
        if ticket.busy_s > 0:
            self._request_s += SMOOTHING * (ticket.busy_s - self._request_s)

    def retry_after_s(self) -> float:
        """Estimate when what is accepted now will have been served, from the measured work of a request."""
        drained = self._accepted * self._request_s / self.capacity.threads
        return min(max(drained, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)

    def submit(self, job: Job[Any]) -> None:
        """Queue a job; its ticket awaits it."""
        with self._condition:
            self._waiting.put(job)
            self._condition.notify()

    @property
    def admitting(self) -> bool:
        """Whether new requests are taken."""
        return self._admitting

    def stop_admitting(self) -> None:
        """Refuse new requests from now on. Takes no lock: signal handlers call it."""
        self._admitting = False

    def close(self, timeout_s: float) -> None:
        """Finish every queued job and end the threads; give up after `timeout_s`. Blocks."""
        self.stop_admitting()
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        give_up = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self._threads)
        if stuck:
            logger.warning("%d workers did not finish within %g s", stuck, timeout_s)

    # -- in the threads

    def _work(self) -> None:
        while (step := self._next_step()) is not None:
            try:
                step()
            except Exception:  # what jobs raise goes to their callers: this is a fault of ours, and no reason to stop
                logger.exception("a step of the scheduler failed")

    def _next_step(self) -> Callable[[], None] | None:
        """Wait for something to do. The device first, then what callers wait for, then new jobs in their order."""
        with self._condition:
            while True:
                if self._ready and self._free_lanes:
                    self._free_lanes -= 1
                    return partial(self._run, self._take_batch(), alone=self._is_quiet())
                if self._done:
                    return partial(self._finish, self._done.popleft())
                while (job := self._waiting.take(self._may_begin)) is not None:
                    if job.standing.start():
                        job.standing.running += 1
                        return partial(self._begin, job)
                if self._closed and not self._waiting:
                    return None
                self.idle += 1
                # What may not begin now may begin when the others have gone, of which nobody tells.
                self._condition.wait(COMPANY_S if self._waiting else None)
                self.idle -= 1

    def _may_begin(self, job: Job[Any]) -> bool:
        """Whether a thread is left for others beside a request with slow jobs; it may have all while it is alone."""
        standing, threads = job.standing, self.capacity.threads
        if standing.slowest_s < SLOW_S or standing.running < threads - 1 or threads == 1 or self._closed:
            return True
        return self._accepted < 2 and time.monotonic() - self._crowded > COMPANY_S

    def _settle(self, job: Job[Any]) -> None:
        """Charge a job that has ended, one way or the other, to its request."""
        standing = job.standing
        with self._condition:
            standing.running -= 1
            standing.slowest_s = max(standing.slowest_s, job.busy_s)
            self._waiting.charge(standing, job.busy_s, self._accepted)

    def _is_quiet(self) -> bool:
        """Whether only this thread has something to do."""
        return self.idle == self.capacity.threads - 1 and not (self._ready or self._waiting or self._done)

    def _take_batch(self) -> list[InferenceJob[Any]]:
        """Take the oldest prepared job and those that go with it."""
        first = self._ready.popleft()
        batch, others = [first], deque[InferenceJob[Any]]()
        while self._ready and len(batch) < self.capacity.max_batch:
            job = self._ready.popleft()
            (batch if first.goes_with(job) else others).append(job)
        self._ready.extendleft(reversed(others))
        return batch

    def _begin(self, job: Job[Any]) -> None:
        job.begin()
        self.metrics.observe(Stage.QUEUE, job.timing)
        self.metrics.observe(job.stage if isinstance(job, CallJob) else Stage.DECODE, job.timing)
        if isinstance(job, InferenceJob) and job.inputs is not None:
            with self._condition:
                self._ready.append(job)  # this thread looks for work next: there is no one to wake
        else:
            self._settle(job)

    def _run(self, batch: list[InferenceJob[Any]], *, alone: bool) -> None:
        done: list[InferenceJob[Any]] = []
        try:
            self._run_into(done, [job for job in batch if not job.standing.is_over], alone=alone)
        finally:
            for job in batch:
                if job not in done:
                    self._settle(job)
            with self._condition:
                self._free_lanes += 1
                self._done.extend(done)
                # This thread takes the next step itself: a run if one is ready, else one of what is done here.
                self._condition.notify(len(done) if self._ready else max(0, len(done) - 1))

    def _run_into(self, done: list[InferenceJob[Any]], batch: list[InferenceJob[Any]], *, alone: bool) -> None:
        """Run a batch and append what has succeeded; the rest is told why not."""
        if not batch:
            return
        started = time.perf_counter()
        answers = self._run_together(batch, alone=alone)
        seconds = time.perf_counter() - started
        for job, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                job.fail(answer)
            else:
                job.answered(answer, started, seconds, len(batch))
                done.append(job)
                self.metrics.observe(Stage.INFERENCE, job.timing)

    def _run_together(self, batch: list[InferenceJob[Any]], *, alone: bool) -> list[Outputs | Exception]:
        """Run a batch; if that fails, run its frames one by one, so that none fails for another's sake."""
        try:
            self.metrics.ran(len(batch))
            inputs = [job.inputs for job in batch if job.inputs is not None]
            outputs = run_batch(batch[0].work.model, inputs, alone=alone)
            return [outputs[index] for index in range(len(batch))]
        except Exception as error:  # noqa: BLE001 - it must reach the requests and not end the thread
            if len(batch) == 1:
                return [error]
        return [self._run_together([job], alone=alone)[0] for job in batch]

    def _finish(self, job: InferenceJob[Any]) -> None:
        job.finish()
        self.metrics.observe(Stage.ENCODE, job.timing)
        self._settle(job)
