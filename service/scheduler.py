"""How requests share the device: bounded admission, fair shares of time, batches that form by themselves.

    request --admit--> Ticket --jobs--> waiting -> prepare -> ready -> run -> done -> finish -> the ticket's future

One pool of threads does every step, so that the event loop only parses and awaits. At most `lanes` of them are on
the device at once. On a CPU there is a lane for every thread: a thread prepares a frame, runs it and finishes it. A
frame that finds all other threads idle and nothing queued is run alone, that is with the cores of all.
On a GPU there are few lanes and `max_batch` is large: while the lanes are busy the other threads go on preparing, and
a lane that falls free takes every prepared frame of one model and shape up to `max_batch`. Nobody waits for a timer.

A step that takes longer than any should hangs: its worker is left to itself and another takes its place.

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

from runtime.errors import ModelNotReady, Overloaded, ShuttingDown, TimedOut
from runtime.model import Outputs
from service.budget import Budget
from service.jobs import CallJob, InferenceJob, Job
from service.metrics import Metrics
from service.queue import FairQueue
from service.ticket import Receive, Ticket
from service.work import Stage, run_batch
from service.worker import Worker

logger = logging.getLogger(__name__)

RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 60.0
EXPECTED_S = 0.05  # taken for the work of a request until some have been measured
HELD_REFUSALS = 1000  # sockets of clients that wait to be told to come back later
PROMPT_REFUSALS_S = 50  # so many a second are told at once: that costs next to nothing
SLOW_S = 0.1  # a job that takes longer is one to be kept out of the way
COMPANY_S = 5.0  # how long after requests met they are expected to meet again
SMOOTHING = 0.1  # weight of the newest request in the running mean
WATCHES = 20  # looks of the watchdog in the time that a step may take, and
WATCH_S = 1.0  # seconds between two looks, at most

Blame = Callable[[int, float], str | None]
"""From a thread that hangs, and the seconds it was given, to the model that it hangs in, which is not run again."""


@dataclass(frozen=True)
class Capacity:
    """How much is done at once. `lanes` are runs on the device; `requests` counts the accepted ones.

    `pixels` are those of decoded large frames, `body_bytes` those of all bodies that are held.
    """

    threads: int
    lanes: int
    max_batch: int
    requests: int
    deadline_s: float
    pixels: int = 64_000_000  # of large frames
    body_bytes: int = 2**28
    refusal_delay_s: float = 0.0
    step_limit_s: float = 60.0

    @property
    def share(self) -> int:
        """How many jobs one request may have in flight: enough to fill the device, and no more."""
        return max(self.threads, self.lanes * self.max_batch)


class Scheduler:
    """The queue and the threads that empty it. `admit` and everything of a ticket belong to the event loop."""

    def __init__(self, capacity: Capacity, metrics: Metrics, blame: Blame = lambda _thread, _seconds: None) -> None:
        self.capacity = capacity
        self._blame = blame
        self.metrics = metrics
        self._accepted = 0
        self._held = 0
        self._body_bytes = 0
        self.pixels = Budget(capacity.pixels)
        self._prompt = float(PROMPT_REFUSALS_S)  # refusals that may be told at once, a token bucket
        self._refused_at = time.monotonic()
        self._stopped_at: float | None = None  # when admission was, on the monotonic clock
        self._request_s = EXPECTED_S
        self._condition = threading.Condition()
        self._waiting = FairQueue()
        self._crowded = -COMPANY_S  # when there last was more than one request, on the monotonic clock
        self._ready: deque[InferenceJob[Any]] = deque()
        self._done: deque[InferenceJob[Any]] = deque()
        self._free_lanes = capacity.lanes
        self.idle = 0  # threads that wait for something to do
        self._closed = False
        self._closing = threading.Event()
        self._workers = [Worker(f"worker-{index}", self._work) for index in range(capacity.threads)]
        self._abandoned: list[Worker] = []
        self._arriving: dict[Ticket, None] = {}  # whose bodies are not here yet
        metrics.queue_depth.set_function(lambda: len(self._waiting) + len(self._ready))
        metrics.in_flight.set_function(lambda: self._accepted)

    # -- on the event loop

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers:
            worker.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def admit(self, receive: Receive | None = None, timeout_ms: int | None = None) -> Ticket:
        """Accept a request, to be used as a context manager, or raise Overloaded or ShuttingDown at once.

        With the `receive` of its connection the request is dropped when its client goes away; without `timeout_ms`
        it has the deadline of all.
        """
        if not self.admitting:
            self.metrics.refused("shutting_down")
            raise ShuttingDown("the service is shutting down; try again in a moment or elsewhere")
        if self._accepted >= self.capacity.requests and not self._make_room():
            self.metrics.refused("overloaded")
            raise Overloaded(
                f"{self._accepted} requests are being served, all that are accepted at once; try again later",
                self.retry_after_s(),
            )
        self._accepted += 1
        if self._accepted > 1:
            self._crowded = time.monotonic()
        return Ticket(self, receive, self.capacity.deadline_s if timeout_ms is None else timeout_ms / 1000)

    def _make_room(self) -> bool:
        """Take the slot of a request whose body only trickles in: slow clients must not keep the others out."""
        slow = next((ticket for ticket in self._arriving if ticket.trickles()), None)
        if slow is None:
            return False
        self.metrics.refused("overloaded")
        slow.give_way(Overloaded("the body came too slowly for a service at its capacity", self.retry_after_s()))
        return True

    def holds(self, ticket: Ticket, count: int) -> None:
        """Count bytes of the body of a request; raise Overloaded if those of all are too many, and not its alone."""
        self._body_bytes += count
        if self._body_bytes > self.capacity.body_bytes and self._body_bytes > ticket.received:
            self.metrics.refused("overloaded")
            raise Overloaded("the bodies of other requests take all the memory there is for them", self.retry_after_s())

    def arrives(self, ticket: Ticket) -> None:
        """Note that the body of a request is on its way."""
        self._arriving[ticket] = None

    def arrived(self, ticket: Ticket) -> None:
        """Note that it is no longer."""
        self._arriving.pop(ticket, None)

    async def hold_refusal(self) -> None:
        """Wait before a refusal is sent, unless there are few, or very many wait already.

        Clients that retry at once spend the processor on refusals; held for a second they leave it to the accepted.
        """
        if self.capacity.refusal_delay_s > 0 and not self._is_prompt() and self._held < HELD_REFUSALS:
            self._held += 1
            try:
                await asyncio.sleep(self.capacity.refusal_delay_s)
            finally:
                self._held -= 1

    def _is_prompt(self) -> bool:
        now = time.monotonic()
        self._prompt = min(PROMPT_REFUSALS_S, self._prompt + (now - self._refused_at) * PROMPT_REFUSALS_S)
        self._refused_at = now
        if self._prompt < 1:
            return False
        self._prompt -= 1
        return True

    def release(self, ticket: Ticket) -> None:
        """Take a slot back; the ticket calls this when its request ends."""
        self._accepted -= 1
        self._body_bytes -= ticket.received
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
        return self._stopped_at is None

    def stop_admitting(self) -> float:
        """Refuse new requests from now on; return since when. Takes no lock: signal handlers call it."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        return self._stopped_at

    def close(self, timeout_s: float) -> None:
        """Finish every queued job and end the threads; give up `timeout_s` after admission was stopped. Blocks."""
        give_up = self.stop_admitting() + timeout_s
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        stuck = sum(not worker.join(max(0.0, give_up - time.monotonic())) for worker in list(self._workers))
        self._closing.set()
        if stuck:
            logger.warning("%d workers did not finish within %g s", stuck, timeout_s)

    def hangs(self) -> bool:
        """Tell, once it is closed, whether threads go on computing all the same."""
        return not all(worker.join(0) for worker in (*self._workers, *self._abandoned))

    # -- in the threads

    def _work(self, worker: Worker) -> None:
        while (step := self._next_step(worker)) is not None:
            try:
                step()
            except Exception:  # what jobs raise goes to their callers: this is a fault of ours, and no reason to stop
                logger.exception("a step of the scheduler failed")

    def _next_step(self, worker: Worker) -> Callable[[], None] | None:
        """Wait for something to do. The device first, then what callers wait for, then new jobs in their order."""
        with self._condition:
            worker.rest()
            while not worker.abandoned:
                if self._ready and self._free_lanes:
                    self._free_lanes -= 1
                    batch = self._take_batch()
                    worker.begin(batch, has_lane=True)
                    return partial(self._run, worker, batch, alone=self._is_quiet())
                if self._done:
                    done = self._done.popleft()
                    worker.begin([done])
                    return partial(self._finish, done)
                while (job := self._waiting.take(self._may_begin)) is not None:
                    if job.standing.start():
                        job.standing.running += 1
                        worker.begin([job])
                        return partial(self._begin, job)
                if self._closed and not self._waiting:
                    return None
                self.idle += 1
                # What may not begin now may begin when the others have gone, of which nobody tells.
                self._condition.wait(COMPANY_S if self._waiting else None)
                self.idle -= 1
            return None

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
            if job.settled:  # when its worker was abandoned
                return
            job.settled = True
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

    def _run(self, worker: Worker, batch: list[InferenceJob[Any]], *, alone: bool) -> None:
        done: list[InferenceJob[Any]] = []
        try:
            self._run_into(done, [job for job in batch if not job.standing.is_over], alone=alone)
        finally:
            for job in batch:
                if job not in done:
                    self._settle(job)
            with self._condition:
                self._free_lane(worker)
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
        """Run a batch; if that fails, run its halves: none fails for another's sake, nor for want of memory."""
        try:
            self.metrics.ran(len(batch))
            inputs = [job.inputs for job in batch if job.inputs is not None]
            wanted = frozenset[str]().union(*(job.work.wants for job in batch))
            outputs = run_batch(batch[0].work.model, inputs, wanted, alone=alone)
            return [outputs[index] for index in range(len(batch))]
        except Exception as error:  # noqa: BLE001 - it must reach the requests and not end the thread
            if len(batch) == 1:
                return [error]
        half = len(batch) // 2
        return [*self._run_together(batch[:half], alone=alone), *self._run_together(batch[half:], alone=alone)]

    def _finish(self, job: InferenceJob[Any]) -> None:
        job.finish()
        self.metrics.observe(Stage.ENCODE, job.timing)
        self._settle(job)

    def _free_lane(self, worker: Worker) -> None:
        if worker.has_lane:
            worker.has_lane = False
            self._free_lanes += 1

    # -- in the watchdog's thread

    def _watch(self) -> None:
        while not self._closing.wait(min(WATCH_S, self.capacity.step_limit_s / WATCHES)):
            for worker in self._replace_stuck():
                self._give_up(worker)

    def _replace_stuck(self) -> list[Worker]:
        """Abandon the workers that hang, start others in their place, and return the abandoned."""
        with self._condition:
            stuck = [worker for worker in self._workers if worker.hangs(self.capacity.step_limit_s)]
            for worker in stuck:
                worker.abandoned = True
                self._abandoned.append(worker)
                self._free_lane(worker)
                replacement = Worker(worker.name, self._work)
                self._workers[self._workers.index(worker)] = replacement
                replacement.start()
        return stuck

    def _give_up(self, worker: Worker) -> None:
        """Fail the jobs of an abandoned worker, and have the model not run again that it hangs in."""
        limit_s = self.capacity.step_limit_s
        model = None if worker.ident is None else self._blame(worker.ident, limit_s)
        error = (
            TimedOut(f"a step of the request took longer than {limit_s:g} s and was given up")
            if model is None
            else ModelNotReady(f"{model} took longer than {limit_s:g} s and is not run again until models are reloaded")
        )
        logger.error("a worker hangs and is replaced", extra={"worker": worker.name, "model": model})
        self.metrics.refused("hung")
        for job in worker.jobs:
            job.fail(error)
            self._settle(job)
