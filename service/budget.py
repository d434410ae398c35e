"""A number of things, as pixels in memory, of which only so many may be in use at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """Hands out shares in the order in which they are asked for. It belongs to the event loop."""

    def __init__(self, total: int) -> None:
        self._left = self._total = total
        self._turn = asyncio.Lock()  # of the one that waits for what is not free yet: none passes it by
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def share(self, amount: int) -> AsyncIterator[None]:
        """Wait until so much is free, and hold it; more than there is counts as all there is."""
        amount = min(amount, self._total)
        async with self._turn:
            while self._left < amount:
                self._freed.clear()
                await self._freed.wait()
            self._left -= amount
        try:
            yield
        finally:
            self._left += amount
            self._freed.set()
