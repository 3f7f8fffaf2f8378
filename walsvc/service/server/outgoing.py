"""What waits to be sent to all clients together, and what was read for their streams and is not on its way.

How much one connection may have unsent shrinks as others have more: it is a share of what is left, as in switches whose ports share
one memory (Choudhury and Hahne, Dynamic queue length thresholds, 1998). So many slow readers get little each, and somebody who
reads always gets something. Above the limit no stream reads; who takes nothing then is ended, see Connection.look.

A stream that waits keeps its place in the log as a reader, with what that has read ahead, since opening another one costs several
reads. These readers are a cache: those that have rested longest let go of theirs.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol, Self

from walsvc.config import KIB, MIB

UNSENT_MAX = 1 * MIB  # of one connection: above it streams wait, and no more requests are read
UNSENT_MIN = 16 * KIB  # so much one may always have, or nobody would get anything
SHARE = 8  # one connection gets this part of what is left
TURNS = 16  # readers that read at the same time: what they get is counted only when it is there
TURN_SECONDS = 0.05  # one that looks through much for what it wants does not hold up the others for longer
RESTING = 4  # this part of the limit is for readers that rest


class Reader(Protocol):
    """Reads the log for a stream."""

    def let_go(self) -> None:
        """Keep nothing that was read ahead; it may be read again."""


class Outgoing:
    """See the head of this file.

    Args:
        limit: bytes of all connections.

    Attributes:
        bytes: what waits to be sent, and what was read and is not on its way.
        full_since: since when that is at the limit, in the loop's time; None: it is below.
        resting_bytes: what readers hold that rest, as far as the server can tell.
    """

    def __init__(self, limit: int) -> None:
        self.bytes: int = 0
        self.full_since: float | None = None
        self.resting_bytes: int = 0
        self._limit = limit
        self._resting: dict[Reader, int] = {}  # in the order in which they came to rest
        self._waiting: list[asyncio.Future[None]] = []
        self._turns = asyncio.Semaphore(TURNS)

    @property
    def allowance(self) -> int:
        """Bytes that one connection may have unsent."""
        return min(UNSENT_MAX, max((self._limit - self.bytes) // SHARE, UNSENT_MIN))

    @property
    def full(self) -> bool:
        """True if no stream should read."""
        return self.full_since is not None

    def charge(self, change: int) -> None:
        """So much more waits to be sent, or less."""
        self.bytes += change
        if self.bytes >= self._limit:
            if self.full_since is None:
                self.full_since = asyncio.get_running_loop().time()
        elif self.full_since is not None:
            self.full_since = None
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():
                    each.set_result(None)

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self.full_since is not None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def turn(self) -> Turn:
        """A reader's turn, as an asynchronous context manager."""
        return Turn(self, self._turns)

    # ---- readers that rest

    def rest(self, reader: Reader, cost: int) -> None:
        """A reader rests, which holds about so many bytes."""
        self._resting[reader] = cost
        self.resting_bytes += cost
        while self.resting_bytes > self._limit // RESTING:
            oldest = next(iter(self._resting))
            self.wake(oldest)
            oldest.let_go()

    def wake(self, reader: Reader) -> None:
        """A reader goes on, or is no longer wanted. Idempotent."""
        self.resting_bytes -= self._resting.pop(reader, 0)


class Turn:
    """While it lasts its owner may read. It begins when there is room, and is lent to another one after TURN_SECONDS."""

    def __init__(self, outgoing: Outgoing, turns: asyncio.Semaphore) -> None:
        self._outgoing = outgoing
        self._turns = turns
        self._over: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        while True:
            await self._outgoing.room()
            await self._turns.acquire()
            if not self._outgoing.full:
                break
            self._turns.release()
        self._over = asyncio.get_running_loop().call_later(TURN_SECONDS, self._release)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over is not None:
            self._over.cancel()
            self._release()

    def _release(self) -> None:
        self._over = None
        self._turns.release()
