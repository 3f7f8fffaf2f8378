"""The bytes that wait to be sent to all clients together, and those that were read for their streams and are not on their way.

How much one connection may have unsent shrinks as others have more: it is a share of what is left, as in switches whose ports share
one memory (Choudhury and Hahne, Dynamic queue length thresholds, 1998). So many slow readers get little each, and somebody who
reads always gets something. Above the limit no stream reads but for those clients that have taken all that they were sent, for whom
some room is kept; who takes nothing then is ended, see Connection.look.

A stream that waits keeps its place in the log as a reader, with what that has read ahead, since opening another one costs several
reads. These readers are a cache: those that have rested longest let go of theirs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from walsvc.config import KIB, MIB
from walsvc.service.server.gate import Gate

UNSENT_MAX = 1 * MIB  # of one connection: above it streams wait, and no more requests are read
UNSENT_MIN = 16 * KIB  # so much one may always have, or nobody would get anything
SHARE = 8  # one connection gets this part of what is left
TURNS = 16  # readers that read at the same time: what they get is counted only when it is there
# and so many of clients for which much was done of late: a device with much to read makes every commit wait, and what they have read
# is checked and copied in the loop, a record of many MiB at once
HEAVY_TURNS = 1
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
        # Room above the limit, for clients that had nothing unsent when it was reached, and the bytes of it that they have.
        self._kept = limit // SHARE
        self._lent = 0
        # Clients with something unsent, and those with nothing.
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._turns = Gate(TURNS)
        self._heavy_turns = Gate(HEAVY_TURNS)

    @property
    def allowance(self) -> int:
        """Bytes that one connection may have unsent."""
        return min(UNSENT_MAX, max((self._limit - self.bytes) // SHARE, UNSENT_MIN))

    @property
    def full(self) -> bool:
        """True if no stream should read whose client has something unsent."""
        return self.full_since is not None

    def closed_to(self, *, poor: bool) -> bool:
        """True if there is no room; `poor`: for a client that has nothing unsent."""
        return self.bytes >= self._limit and (not poor or self._lent >= self._kept)

    def charge(self, change: int, *, lent: bool = False) -> None:
        """So much more waits to be sent, or less; `lent`: to a client that had nothing unsent when the limit was reached."""
        self.bytes += change
        if lent:
            self._lent += change
        if self.bytes < self._limit:
            self.full_since = None
        elif self.full_since is None:
            self.full_since = asyncio.get_running_loop().time()
        if change < 0:
            self._wake()

    def _wake(self) -> None:
        """Let one go on of each kind for which there is room; it lets the next one."""
        for poor in (True, False):
            waiting = self._waiting[poor]
            while waiting and not self.closed_to(poor=poor):
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    break

    async def room(self, *, poor: bool = False) -> None:
        """Wait until there is room for more; `poor`: for a client that has nothing unsent."""
        while self.closed_to(poor=poor):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[poor].append(waiter)
            try:
                await waiter
            finally:
                self._wake()

    def turn(self, *, poor: bool = False, heavy: bool = False) -> Turn:
        """A reader's turn, as an asynchronous context manager; `heavy`: of a client for which much was done of late."""
        return Turn(self, self._heavy_turns if heavy else self._turns, poor=poor)

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

    def __init__(self, outgoing: Outgoing, turns: Gate, *, poor: bool) -> None:
        self._poor = poor
        self._outgoing = outgoing
        self._turns = turns
        self._over: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        while True:
            await self._outgoing.room(poor=self._poor)
            await self._turns.acquire()
            if not self._outgoing.closed_to(poor=self._poor):
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
