"""An accepted request: its slot, its deadline, its client who may leave, and the jobs it is made of."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from starlette.requests import ClientDisconnect

from runtime.errors import TimedOut, UploadTimedOut
from service.jobs import CallJob, InferenceJob, Job, Standing
from service.work import Done, NeedsRoom, R, Stage, Work

if TYPE_CHECKING:
    from service.scheduler import Scheduler

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Requests that are served faster than this are never watched: a task for each would cost more than it saves.
PATROL_AFTER_S = 1.0
# A body that arrives at less than this trickles; how fast it is cannot be told before some time has passed.
TRICKLE_BYTES_S = 65_536
TRICKLE_AFTER_S = 0.25


class Ticket:
    """One of the slots of the scheduler, from admission to reply. Use it with `with`, on the event loop."""

    def __init__(self, scheduler: "Scheduler", receive: Receive | None, patience_s: float) -> None:
        self._admitted = time.perf_counter()
        self.busy_s = 0.0
        self.received = 0  # bytes of the body
        self._has_slot = True
        self._arrival: asyncio.Timeout | None = None
        self._scheduler = scheduler
        self._receive = receive
        self._patience_s = patience_s
        self._standing = Standing()
        self._pending: set[asyncio.Future[Any]] = set()
        self._ended_by: Exception | None = None
        self._deadline: float | None = None  # of the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._patrol: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._standing.end()  # jobs that are still queued are dropped
        for watch in (self._timer, self._patrol):
            if watch is not None:
                watch.cancel()
        self._release()

    def _release(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._scheduler.release(self)

    def takes(self, count: int) -> None:
        """Count bytes of the body that are held; raise Overloaded if there are too many of all requests."""
        if self._has_slot:
            self.received += count
            self._scheduler.holds(self, count)

    @contextlib.asynccontextmanager
    async def arriving(self, timeout_s: float) -> AsyncIterator[None]:
        """Read the body in here. Raises UploadTimedOut if it is slow, Overloaded if it is and others wait."""
        self._scheduler.arrives(self)
        try:
            async with asyncio.timeout(timeout_s) as self._arrival:
                yield
        except TimeoutError:
            slow = UploadTimedOut(f"the body of the request did not arrive within {timeout_s:g} s")
            raise self._ended_by or slow from None
        finally:
            self._scheduler.arrived(self)

    def trickles(self) -> bool:
        """Whether the body comes so slowly that the request may have to give way."""
        age_s = self.age_s()
        return age_s > TRICKLE_AFTER_S and self.received < TRICKLE_BYTES_S * age_s

    def give_way(self, error: Exception) -> None:
        """Give the slot back while the body is still arriving, and end the request with the error."""
        self._scheduler.arrived(self)
        self._ended_by = error
        self._release()
        if self._arrival is not None:
            self._arrival.reschedule(asyncio.get_running_loop().time())

    def start_clock(self) -> float:
        """Begin to count the deadline, once the request has arrived whole; return it on the loop's clock."""
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + self._patience_s
            self._timer = loop.call_later(min(PATROL_AFTER_S, self._patience_s), self._start_patrol)
        return self._deadline

    def age_s(self) -> float:
        """Return how long ago the request was admitted."""
        return time.perf_counter() - self._admitted

    async def call(self, stage: Stage, function: Callable[[], R]) -> Done[R]:
        """Run a plain function in a worker thread."""
        return await self._do(lambda: CallJob(self._standing, stage, function))

    async def infer(self, work: Work[R]) -> Done[R]:
        """Put a frame through its model."""
        return await self._do(lambda: InferenceJob(self._standing, work))

    @property
    def share(self) -> int:
        """How many jobs it may have in flight."""
        return self._scheduler.capacity.share

    async def each(self, calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | Exception]:
        """Await many, no more in flight than is this request's share; a failure stands in its place in the list.

        Raises what ended the request as a whole: its deadline, or its client's leaving.
        """
        gate = asyncio.Semaphore(self.share)

        async def one(call: Callable[[], Awaitable[T]]) -> T | Exception:
            async with gate:
                try:
                    return await call()
                except Exception as error:  # noqa: BLE001 - handed to the caller, who knows what it means
                    return error

        answers = await asyncio.gather(*map(one, calls))
        if self._ended_by is not None:
            raise self._ended_by
        return answers

    @contextlib.asynccontextmanager
    async def holding(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        """Hold a lock, waiting for it no longer than the deadline."""
        try:
            async with asyncio.timeout_at(self.start_clock()):
                await lock.acquire()
        except TimeoutError:
            raise self._expire() from None
        try:
            yield
        finally:
            lock.release()

    async def _do(self, make: Callable[[], Job[R]]) -> Done[R]:
        """Do a job; where its frames are large, once more when there is room for them."""
        pixels = 0
        while True:
            try:
                if pixels == 0:
                    return await self._once(make())
                async with self._scheduler.pixels.share(pixels):
                    return await self._once(make())
            except NeedsRoom as needs:
                pixels = max(pixels, needs.pixels)
                needs.grant()

    async def _once(self, job: Job[R]) -> Done[R]:
        if self._ended_by is not None:
            raise self._ended_by
        self.start_clock()
        self._pending.add(job.future)
        self._scheduler.submit(job)
        try:
            return await job.future
        finally:
            self._pending.discard(job.future)
            self.busy_s += job.busy_s

    # -- the patrol: is it too late, has the client left?

    def _start_patrol(self) -> None:
        self._patrol = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._client_leaves()
        except TimeoutError:
            if self._standing.expire():
                self._expire()
                return
            await self._client_leaves()
        self._scheduler.metrics.refused("client_left")
        self._end(ClientDisconnect())

    async def _client_leaves(self) -> None:
        if self._receive is None:
            await asyncio.get_running_loop().create_future()  # never
        else:
            while (await self._receive())["type"] != "http.disconnect":
                pass

    def _expire(self) -> Exception:
        if self._ended_by is not None:
            return self._ended_by
        self._scheduler.metrics.refused("deadline")
        waited = f"{self._patience_s:g} s, its deadline"
        error = TimedOut(f"the request waited {waited}, and was dropped before any work began")
        self._end(error)
        return error

    def _end(self, error: Exception) -> None:
        self._standing.end()
        self._ended_by = error
        for future in self._pending:
            if not future.done():
                future.set_exception(error)
