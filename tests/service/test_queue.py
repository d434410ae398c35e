"""Whose job is next: shares are fair by time, and nobody waits for ever."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from service.jobs import CallJob, Job, Standing
from service.queue import FairQueue
from service.work import Stage


def in_a_loop(test: Callable[[], None]) -> None:
    """Run a test where jobs can be made."""

    async def run() -> None:
        test()

    asyncio.run(run())


def job(standing: Standing) -> Job[Any]:
    return CallJob(standing, Stage.DECODE, lambda: None)


def every(_: Job[Any]) -> bool:
    return True


def test_equals_come_in_the_order_of_their_arrival() -> None:
    def test() -> None:
        queue = FairQueue()
        jobs = [job(Standing()) for _ in range(5)]
        for each in jobs:
            queue.put(each)
        assert len(queue) == 5
        assert [queue.take(every) for _ in jobs] == jobs
        assert queue.take(every) is None

    in_a_loop(test)


def test_a_newcomer_goes_before_the_next_tile_of_a_large_frame() -> None:
    def test() -> None:
        queue, large, small = FairQueue(), Standing(), Standing()
        queue.put(job(large))
        queue.take(every)
        queue.charge(large, 2.0, sharers=2)
        tile, frame = job(large), job(small)
        queue.put(tile)
        queue.put(frame)
        assert queue.take(every) is frame
        assert queue.take(every) is tile

    in_a_loop(test)


def test_a_stream_of_small_frames_leaves_a_large_one_its_share() -> None:
    def test() -> None:
        queue, large, served = FairQueue(), Standing(), Counter[str]()
        queue.put(job(large))
        for _ in range(1000):  # of small frames, one comes whenever one is served
            queue.put(job(Standing()))
            taken = queue.take(every)
            assert taken is not None
            seconds = 1.0 if taken.standing is large else 0.01
            served["large" if taken.standing is large else "small"] += seconds  # type: ignore[assignment]
            queue.charge(taken.standing, seconds, sharers=2)
            if taken.standing is large:
                queue.put(job(large))
        assert 0.8 < served["large"] / served["small"] < 1.3

    in_a_loop(test)


def test_who_was_idle_has_saved_nothing_up() -> None:
    def test() -> None:
        queue, busy, late = FairQueue(), Standing(), Standing()
        for _ in range(10):
            queue.put(job(busy))
            queue.take(every)
            queue.charge(busy, 1.0, sharers=1)
        turns = []
        for _ in range(4):
            for standing in (late, busy):
                queue.put(job(standing))
            taken = queue.take(every)
            assert taken is not None
            turns.append(taken.standing is late)
            queue.charge(taken.standing, 1.0, sharers=2)
        assert 1 <= sum(turns) <= 3

    in_a_loop(test)


def test_what_may_not_begin_is_passed_over_and_kept_in_its_place() -> None:
    def test() -> None:
        queue = FairQueue()
        first, second, third = (job(Standing()) for _ in range(3))
        for each in (first, second, third):
            queue.put(each)
        assert queue.take(lambda each: each is not first) is second
        assert queue.take(lambda each: False) is None  # noqa: ARG005
        assert [queue.take(every), queue.take(every)] == [first, third]

    in_a_loop(test)
