"""A budget: shares in the order in which they are asked for, and all comes back."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from service.budget import Budget


def go(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Holder:
    """Holds a share until it is let go."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self.has = False
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(budget, amount))

    async def _hold(self, budget: Budget, amount: int) -> None:
        async with budget.share(amount):
            self.has = True
            await self._go.wait()

    async def let_go(self) -> None:
        self._go.set()
        await self.task
        await settle()


def test_what_fits_is_had_at_once_and_the_rest_waits_in_its_order() -> None:
    async def test() -> None:
        budget = Budget(10)
        first, second, large, small = (Holder(budget, amount) for amount in (4, 4, 10, 1))
        await settle()
        assert [holder.has for holder in (first, second, large, small)] == [True, True, False, False]
        await first.let_go()
        assert not large.has, "half of what it needs is not enough"
        await second.let_go()
        assert (large.has, small.has) == (True, False)
        await large.let_go()
        assert small.has

    go(test())


def test_more_than_there_is_counts_as_all_there_is() -> None:
    async def test() -> None:
        budget = Budget(10)
        huge = Holder(budget, 1000)
        await settle()
        assert huge.has
        await huge.let_go()
        again = Holder(budget, 10)
        await settle()
        assert again.has

    go(test())


def test_who_gives_up_waiting_takes_nothing_and_is_in_nobodys_way() -> None:
    async def test() -> None:
        budget = Budget(10)
        first, gives_up, small = (Holder(budget, amount) for amount in (6, 10, 4))
        await settle()
        gives_up.task.cancel()
        await settle()
        assert (first.has, gives_up.has, small.has) == (True, False, True)

    go(test())
