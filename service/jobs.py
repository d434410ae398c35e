"""The jobs that the scheduler's threads do, and the futures through which the event loop learns of their end."""

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic

from runtime.model import Outputs
from service.work import Done, Inputs, R, Stage, Timing, Work


class Standing:
    """What threads must know of a request: it has started, or it has ended and its jobs are to be dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = False
        self._over = False
        # The scheduler's account, kept under its own lock.
        self.attained_s: float | None = None  # time of threads it has had; None before its first job
        self.running = 0  # jobs in threads just now
        self.slowest_s = 0.0  # longest job so far

    def start(self) -> bool:
        """Begin a job, unless the request is over."""
        with self._lock:
            self._started = self._started or not self._over
            return not self._over

    def expire(self) -> bool:
        """End the request if none of its jobs has begun; return whether it was so."""
        with self._lock:
            self._over = self._over or not self._started
            return not self._started

    def end(self) -> None:
        """End the request: what has not begun will not begin."""
        self._over = True

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self._over


class Job(ABC, Generic[R]):
    """Something to do in a thread. Make it on the event loop; `begin` is called in a thread."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.settled = False  # whether its end is in the scheduler's account
        self.timing = Timing()
        self.busy_s = 0.0  # of a thread; a batch counts for each of its frames in part
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Done[R]] = self._loop.create_future()
        self._submitted = time.perf_counter()

    def begin(self) -> None:
        """Do the first step."""
        self.timing.queue = time.perf_counter() - self._submitted
        self._attempt(self._first_stage(), self._first_step)

    @abstractmethod
    def _first_stage(self) -> Stage: ...

    @abstractmethod
    def _first_step(self) -> None: ...

    def fail(self, error: Exception) -> None:
        """Hand an error to whoever waits."""
        self._tell(lambda: self.future.set_exception(error))

    def _attempt(self, stage: Stage, step: Callable[[], None]) -> None:
        """Run a step and time it; whatever it raises goes to whoever waits and must not end the thread."""
        started = time.perf_counter()
        try:
            step()
        except Exception as error:  # noqa: BLE001 - see above
            self.fail(error)
        seconds = time.perf_counter() - started
        setattr(self.timing, stage, seconds)
        self.busy_s += seconds

    def _settle(self, value: R) -> None:
        self._tell(lambda: self.future.set_result(Done(value, self.timing)))

    def _tell(self, set_future: Callable[[], None]) -> None:
        def tell() -> None:
            if not self.future.done():
                set_future()

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(tell)


class CallJob(Job[R]):
    """A plain function."""

    def __init__(self, standing: Standing, stage: Stage, function: Callable[[], R]) -> None:
        super().__init__(standing)
        self.stage = stage
        self._function = function

    def _first_stage(self) -> Stage:
        return self.stage

    def _first_step(self) -> None:
        self._settle(self._function())


class InferenceJob(Job[R]):
    """A frame through a model: `begin` prepares it, the scheduler runs it with others, `finish` ends it."""

    def __init__(self, standing: Standing, work: Work[R]) -> None:
        super().__init__(standing)
        self.work = work
        self.inputs: Inputs | None = None
        self._outputs: Outputs | None = None
        self._prepared = 0.0

    def _first_stage(self) -> Stage:
        return Stage.DECODE

    def _first_step(self) -> None:
        self.inputs = self.work.prepare()
        self._prepared = time.perf_counter()

    def goes_with(self, other: "InferenceJob[R]") -> bool:
        """Tell whether both, being prepared, may run in one batch."""
        if self.inputs is None or other.inputs is None or self.work.model is not other.work.model:
            return False
        return self.inputs.fits(other.inputs)

    def answered(self, outputs: Outputs, started: float, seconds: float, batch_size: int) -> None:
        """Take what the model answered for this frame; what it waited for the device counts as queueing."""
        self.timing.queue += started - self._prepared
        self.timing.inference = seconds
        self.busy_s += seconds / batch_size
        self._outputs = outputs
        self.inputs = None  # the memory is free before the reply is encoded

    def finish(self) -> None:
        """Make the result."""
        self._attempt(Stage.ENCODE, self._last_step)

    def _last_step(self) -> None:
        if self._outputs is not None:
            self._settle(self.work.finish(self._outputs))
