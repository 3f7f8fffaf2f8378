"""Gate: lets so many through at a time, in the order in which they came. asyncio.Semaphore looks through all that wait whenever one of them gives
up: of ten thousand that wait for their clients' consumers, and whose clients are gone, that is seconds."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class Gate:
    """See the head of this file. Loop thread only.

    Args:
        most: how many may be inside.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Go in, when it is the caller's turn. `release` must follow."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.release()  # its turn came in the same turn of the loop
            raise

    def release(self) -> None:
        """Come out, and let the next one in that still waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
