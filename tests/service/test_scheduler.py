"""The scheduler against threads that the tests hold and let go: order, bounds, deadlines, batches, shutdown."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Container, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest
from starlette.requests import ClientDisconnect

from runtime.devices import Device
from runtime.engines import Engine
from runtime.errors import InvalidInput, ModelNotReady, Overloaded, ShuttingDown, TimedOut, UploadTimedOut
from runtime.images import Pixels
from runtime.model import Floats, Model, Outputs
from service.metrics import Metrics
from service.scheduler import PROMPT_REFUSALS_S, Blame, Capacity, Scheduler
from service.ticket import Ticket
from service.work import Done, Inputs, NeedsRoom, Stage, Work

POISON = 66


class HeldModel:
    """Runs when it is let go, scores a frame by its first pixel, and remembers its batches."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []

    def run(
        self, frames: Pixels, noise_level: Floats | None = None, *, alone: bool = False, wanted: Container[str]
    ) -> Outputs:
        assert "anomaly_score" in wanted
        self.alone.append(alone)
        self.batches.append([int(frame.flat[0]) for frame in frames])
        assert noise_level is None
        assert self.go.wait(10)
        if POISON in self.batches[-1]:
            raise MemoryError
        return Outputs(anomaly_score=frames.reshape(len(frames), -1)[:, 0].astype(np.float32))


class Frame(Work[int]):
    wants = frozenset({"anomaly_score"})

    def __init__(self, model: HeldModel, value: int, size: int = 2, error: Exception | None = None) -> None:
        super().__init__(cast("Model", model))
        self._value = value
        self._size = size
        self._error = error
        self.begun = threading.Event()

    def prepare(self) -> Inputs:
        self.begun.set()
        if self._error is not None:
            raise self._error
        return Inputs(np.full((self._size, self._size, 1), self._value, np.uint8))

    def finish(self, outputs: Outputs) -> int:
        return int(cast("Any", outputs.anomaly_score))


@asynccontextmanager
async def running(
    blame: Blame = lambda _thread, _seconds: None,
    **values: Any,  # noqa: ANN401 - fields of Capacity
) -> AsyncIterator[Scheduler]:
    capacity = {"threads": 1, "lanes": 1, "max_batch": 1, "requests": 100, "deadline_s": 10.0} | values
    metrics = Metrics(Device("cpu", Engine.ONNXRUNTIME, "CPUExecutionProvider", 1, 1))
    scheduler = Scheduler(Capacity(**capacity), metrics, blame)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await asyncio.to_thread(scheduler.close, 10)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def one(scheduler: Scheduler, work: Work[int]) -> int:
    with scheduler.admit() as ticket:
        return (await ticket.infer(work)).value


def go(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def test_first_in_first_out() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running() as scheduler:
            tasks = [asyncio.create_task(one(scheduler, Frame(model, value))) for value in range(5)]
            await until(lambda: model.batches)
            model.go.set()
            assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]
        assert model.batches == [[0], [1], [2], [3], [4]]

    go(test())


def test_a_lone_frame_has_every_core_and_frames_in_company_have_one_each() -> None:
    async def test() -> None:
        lone, crowded = HeldModel(), HeldModel()
        lone.go.set()
        async with running(threads=2, lanes=2) as scheduler:
            await until(lambda: scheduler.idle == 2)
            assert await one(scheduler, Frame(lone, 1)) == 1
            assert lone.alone == [True]
            await until(lambda: scheduler.idle == 2)
            tasks = [asyncio.create_task(one(scheduler, Frame(crowded, value))) for value in range(6)]
            await until(lambda: len(crowded.batches) == 2)
            crowded.go.set()
            assert await asyncio.gather(*tasks) == list(range(6))
        assert not any(crowded.alone[:5])

    go(test())


def test_more_than_the_capacity_is_refused_at_once_and_the_accepted_are_served() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running(requests=3) as scheduler:
            tasks = [asyncio.create_task(one(scheduler, Frame(model, value))) for value in range(3)]
            await until(lambda: model.batches)
            with pytest.raises(Overloaded) as refusal:
                scheduler.admit()
            assert 1 <= refusal.value.retry_after_s <= 60
            model.go.set()
            assert await asyncio.gather(*tasks) == [0, 1, 2]
            assert await one(scheduler, Frame(model, 9)) == 9

    go(test())


def test_a_request_not_begun_by_its_deadline_is_never_begun() -> None:
    async def test() -> None:
        model, late = HeldModel(), Frame(HeldModel(), 2)
        async with running(deadline_s=0.5) as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 1)))
            await until(lambda: model.batches)
            with pytest.raises(TimedOut, match=r"0\.5 s"):
                await one(scheduler, late)
            model.go.set()
            assert await first == 1  # it waited longer too, but had begun
        assert not late.begun.is_set()

    go(test())


def test_a_client_who_has_left_is_not_served() -> None:
    async def test() -> None:
        model, gone = HeldModel(), Frame(HeldModel(), 2)
        leaves = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await leaves.wait()
            return {"type": "http.disconnect"}

        async with running() as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 1)))
            await until(lambda: model.batches)
            asyncio.get_running_loop().call_later(0.01, leaves.set)
            with scheduler.admit(receive) as ticket, pytest.raises(ClientDisconnect):
                await ticket.infer(gone)
            model.go.set()
            assert await first == 1
        assert not gone.begun.is_set()

    go(test())


def test_a_cancelled_request_is_not_begun() -> None:
    async def test() -> None:
        model, cancelled = HeldModel(), Frame(HeldModel(), 2)
        async with running() as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 1)))
            second = asyncio.create_task(one(scheduler, cancelled))
            await until(lambda: model.batches)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            model.go.set()
            assert await first == 1
        assert not cancelled.begun.is_set()

    go(test())


def test_while_the_device_is_busy_batches_form_of_one_shape() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running(threads=3, max_batch=4) as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 0)))
            await until(lambda: model.batches)
            works = [Frame(model, value, size=3 if value == 2 else 2) for value in range(1, 8)]
            tasks = [asyncio.create_task(one(scheduler, work)) for work in works]
            await until(lambda: all(work.begun.is_set() for work in works))
            model.go.set()
            assert await asyncio.gather(first, *tasks) == list(range(8))
        assert [len(batch) for batch in model.batches[:2]] == [1, 4]
        assert sorted(value for batch in model.batches for value in batch) == list(range(8))
        assert [2] in model.batches

    go(test())


def test_a_frame_that_fails_a_batch_fails_alone() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running(threads=3, max_batch=8) as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 0)))
            await until(lambda: model.batches)
            works = [Frame(model, value) for value in (1, POISON, 3)]
            tasks = [asyncio.create_task(one(scheduler, work)) for work in works]
            await until(lambda: all(work.begun.is_set() for work in works))
            model.go.set()
            answers = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [answers[0], answers[1], answers[3]] == [0, 1, 3]
        assert isinstance(answers[2], MemoryError)

    go(test())


def test_an_error_in_one_job_ends_neither_the_thread_nor_the_others() -> None:
    async def test() -> None:
        model = HeldModel()
        model.go.set()
        async with running() as scheduler:
            with scheduler.admit() as ticket:
                works = [Frame(model, 1), Frame(model, 2, error=InvalidInput("no")), Frame(model, 3)]
                answers = await ticket.each([lambda work=work: ticket.infer(work) for work in works])  # type: ignore[misc]
            assert isinstance(answers[1], InvalidInput)
            assert [answer.value for answer in answers if isinstance(answer, Done)] == [1, 3]

    go(test())


def test_one_request_has_no_more_than_its_share_in_flight() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running(threads=2, lanes=2) as scheduler:
            works = [Frame(model, value) for value in range(6)]
            with scheduler.admit() as ticket:
                many = asyncio.create_task(_infer_each(ticket, works))
                await until(lambda: len(model.batches) == 2)
                other = asyncio.create_task(one(scheduler, Frame(model, 9)))
                await asyncio.sleep(0)
                model.go.set()
                assert await other == 9
                await many
        assert [9] in model.batches[:4]

    go(test())


def test_slow_jobs_leave_a_thread_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduler.SLOW_S", 0.0)  # every job is a slow one

    async def test() -> None:
        tiles, small = HeldModel(), HeldModel()
        small.go.set()
        async with running(threads=2, lanes=2) as scheduler:
            with scheduler.admit() as ticket, scheduler.admit() as other:
                many = asyncio.create_task(_infer_each(ticket, [Frame(tiles, value) for value in range(4)]))
                await until(lambda: tiles.batches)
                for value in (7, 8):
                    assert (await other.infer(Frame(small, value))).value == value
                assert len(tiles.batches) == 1, "the second thread is for the others"
                tiles.go.set()
                await many

    go(test())


def test_slow_jobs_have_every_thread_while_nobody_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduler.SLOW_S", 0.0)

    async def test() -> None:
        tiles = HeldModel()
        async with running(threads=2, lanes=2) as scheduler:
            with scheduler.admit() as ticket:
                many = asyncio.create_task(_infer_each(ticket, [Frame(tiles, value) for value in range(4)]))
                await until(lambda: len(tiles.batches) == 2)
                tiles.go.set()
                await many

    go(test())


def test_slow_jobs_spread_again_when_the_others_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduler.SLOW_S", 0.0)
    monkeypatch.setattr("service.scheduler.COMPANY_S", 0.05)

    async def test() -> None:
        tiles = HeldModel()
        async with running(threads=2, lanes=2) as scheduler:
            with scheduler.admit() as ticket:
                with scheduler.admit():
                    many = asyncio.create_task(_infer_each(ticket, [Frame(tiles, value) for value in range(4)]))
                    await until(lambda: tiles.batches)
                await until(lambda: len(tiles.batches) == 2)
                tiles.go.set()
                await many

    go(test())


async def _infer_each(ticket: Ticket, works: list[Frame]) -> None:
    await ticket.each([lambda work=work: ticket.infer(work) for work in works])  # type: ignore[misc]


def test_a_batch_request_past_its_deadline_fails_as_a_whole() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running(deadline_s=0.5) as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 1)))
            await until(lambda: model.batches)
            with scheduler.admit() as ticket, pytest.raises(TimedOut):
                await _infer_each(ticket, [Frame(model, 2), Frame(model, 3)])
            model.go.set()
            assert await first == 1

    go(test())


def test_closing_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running() as scheduler:
            tasks = [asyncio.create_task(one(scheduler, Frame(model, value))) for value in range(3)]
            await until(lambda: model.batches)
            closing = asyncio.create_task(asyncio.to_thread(scheduler.close, 10))
            await until(lambda: not scheduler.admitting)
            with pytest.raises(ShuttingDown):
                scheduler.admit()
            model.go.set()
            assert await asyncio.gather(*tasks) == [0, 1, 2]
            await closing

    go(test())


def test_plain_calls_and_their_errors() -> None:
    async def test() -> None:
        def fail() -> int:
            raise KeyError("secret")

        async with running() as scheduler:
            with scheduler.admit() as ticket:
                done = await ticket.call(Stage.DECODE, lambda: 7)
                assert done.value == 7
                assert done.timing.decode >= 0
                with pytest.raises(KeyError):
                    await ticket.call(Stage.ENCODE, fail)

    go(test())


def test_retry_after_follows_the_measured_work() -> None:
    async def test() -> None:
        async with running(requests=1000) as scheduler:
            quick = scheduler.retry_after_s()
            tickets = [scheduler.admit() for _ in range(1000)]
            for ticket in tickets[:500]:
                ticket.busy_s = 0.01
                ticket.__exit__()
            assert quick == 1
            assert scheduler.retry_after_s() == pytest.approx(5, rel=0.05)  # 500 requests of 10 ms
            for ticket in tickets[500:]:
                ticket.__exit__()

    go(test())


@pytest.mark.parametrize(("delay_s", "held"), [(0.0, False), (0.05, True)])
def test_many_refusals_may_be_held_back(delay_s: float, held: bool) -> None:  # noqa: FBT001
    async def test() -> None:
        async with running(refusal_delay_s=delay_s) as scheduler:
            few = [asyncio.create_task(scheduler.hold_refusal()) for _ in range(PROMPT_REFUSALS_S)]
            more = [asyncio.create_task(scheduler.hold_refusal()) for _ in range(PROMPT_REFUSALS_S)]
            await asyncio.sleep(0)
            assert all(refusal.done() for refusal in few)
            assert any(not refusal.done() for refusal in more) is held
            await asyncio.gather(*few, *more)

    go(test())


def test_waiting_for_the_device_is_queueing() -> None:
    async def test() -> None:
        model = HeldModel()
        async with running(threads=2) as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 1)))
            await until(lambda: model.batches)
            with scheduler.admit() as ticket:
                second = asyncio.create_task(ticket.infer(work := Frame(model, 2)))
                await until(work.begun.is_set)
                await asyncio.sleep(0.05)
                model.go.set()
                done = await second
            await first
        assert done.timing.queue >= 0.05
        assert done.timing.inference < 0.05

    go(test())


def test_a_fault_of_ours_stops_no_thread(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        model = HeldModel()
        model.go.set()
        async with running() as scheduler:
            with monkeypatch.context() as patch:
                patch.setattr(scheduler.metrics, "observe", lambda *_: 1 / 0)
                with scheduler.admit() as ticket:
                    assert (await ticket.call(Stage.DECODE, lambda: 7)).value == 7
                await until(lambda: "a step of the scheduler failed" in caplog.text)
            assert await one(scheduler, Frame(model, 3)) == 3

    go(test())


def test_a_worker_that_hangs_is_replaced_and_the_model_is_blamed() -> None:
    async def test() -> None:
        hung, well = HeldModel(), HeldModel()
        well.go.set()
        blamed: list[int] = []

        def blame(thread: int, _seconds: float) -> str:
            blamed.append(thread)
            return "hung"

        async with running(blame, step_limit_s=0.2) as scheduler:
            with pytest.raises(ModelNotReady, match=r"hung took longer than 0\.2 s"):
                await one(scheduler, Frame(hung, 1))
            assert await one(scheduler, Frame(well, 2)) == 2, "one thread and one lane: others have them"
            assert scheduler.hangs()
            hung.go.set()  # what the abandoned thread still does changes nothing
            assert await asyncio.gather(*(one(scheduler, Frame(well, value)) for value in (3, 4))) == [3, 4]
        assert len(blamed) == 1
        assert well.batches == [[2], [3], [4]]

    go(test())


def test_a_call_that_hangs_is_given_up_without_blaming_a_model() -> None:
    async def test() -> None:
        goes_on = threading.Event()
        async with running(step_limit_s=0.2) as scheduler:
            with scheduler.admit() as ticket, pytest.raises(TimedOut, match=r"took longer than 0\.2 s"):
                await ticket.call(Stage.DECODE, lambda: goes_on.wait(10))
            with scheduler.admit() as ticket:
                assert (await ticket.call(Stage.DECODE, lambda: 7)).value == 7
            goes_on.set()

    go(test())


class SmallMemory(HeldModel):
    """Has room for two frames at a time."""

    def run(
        self, frames: Pixels, noise_level: Floats | None = None, *, alone: bool = False, wanted: Container[str]
    ) -> Outputs:
        outputs = super().run(frames, noise_level, alone=alone, wanted=wanted)
        if len(frames) > 2:
            raise MemoryError
        return outputs


def test_a_batch_for_which_there_is_no_memory_is_run_in_smaller_ones() -> None:
    async def test() -> None:
        model = SmallMemory()
        async with running(threads=3, max_batch=8) as scheduler:
            first = asyncio.create_task(one(scheduler, Frame(model, 0)))
            await until(lambda: model.batches)
            works = [Frame(model, value) for value in range(1, 9)]
            tasks = [asyncio.create_task(one(scheduler, work)) for work in works]
            await until(lambda: all(work.begun.is_set() for work in works))
            model.go.set()
            assert await asyncio.gather(first, *tasks) == list(range(9))
        assert [len(batch) for batch in model.batches] == [1, 8, 4, 2, 2, 4, 2, 2]

    go(test())


def test_a_body_that_trickles_gives_way_when_there_is_no_other_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ticket.TRICKLE_AFTER_S", 0.0)

    async def upload(ticket: Ticket, received: int) -> None:
        with ticket:
            async with ticket.arriving(10):
                ticket.received = received
                await asyncio.get_running_loop().create_future()

    async def test() -> None:
        async with running(requests=2) as scheduler:
            fast = asyncio.create_task(upload(scheduler.admit(), 2**30))
            slow = asyncio.create_task(upload(scheduler.admit(), 3))
            await asyncio.sleep(0.001)
            with scheduler.admit() as ticket:
                assert (await ticket.call(Stage.DECODE, lambda: 7)).value == 7
                with pytest.raises(Overloaded, match="too slowly"):
                    await slow
                with pytest.raises(Overloaded):
                    scheduler.admit()  # the fast one stays
                assert not fast.done()
            with scheduler.admit():
                fast.cancel()
        await asyncio.wait([fast])

    go(test())


def test_a_body_that_does_not_arrive_in_time() -> None:
    async def test() -> None:
        async with running() as scheduler:
            with scheduler.admit() as ticket, pytest.raises(UploadTimedOut, match=r"0\.01 s"):
                async with ticket.arriving(0.01):
                    await asyncio.get_running_loop().create_future()

    go(test())


class LargeFrame(Frame):
    """A frame that needs room for so many pixels."""

    def __init__(self, model: HeldModel, value: int, pixels: int) -> None:
        super().__init__(model, value)
        self._pixels = pixels
        self._has_room = False

    def prepare(self) -> Inputs:
        if not self._has_room:
            raise NeedsRoom(self._pixels, self._grant)
        return super().prepare()

    def _grant(self) -> None:
        self._has_room = True


def test_large_frames_wait_for_one_another_and_small_ones_pass() -> None:
    async def test() -> None:
        held, free = HeldModel(), HeldModel()
        free.go.set()
        async with running(threads=3, lanes=3, pixels=100) as scheduler:
            first, second = LargeFrame(held, 1, 60), LargeFrame(free, 2, 60)
            waiting = [asyncio.create_task(one(scheduler, work)) for work in (first, second)]
            await until(first.begun.is_set)
            assert await one(scheduler, Frame(free, 3)) == 3
            assert not second.begun.is_set()
            held.go.set()
            assert await asyncio.gather(*waiting) == [1, 2]

    go(test())


def test_bodies_beyond_the_memory_for_them_are_refused_and_one_alone_never_is() -> None:
    async def test() -> None:
        async with running(body_bytes=100) as scheduler:
            with scheduler.admit() as first:
                first.takes(150)
                with scheduler.admit() as second, pytest.raises(Overloaded, match="bodies of other requests"):
                    second.takes(1)
            with scheduler.admit() as third, scheduler.admit() as fourth:
                third.takes(50)
                fourth.takes(50)

    go(test())
