"""Supply: the callers that wait for a shared consumer's records, and the task that reads while a caller waits.

A worker takes a record in its own step of the loop, never through a future: so a wait that is cancelled drops nothing. Whoever finds
nothing then, or wants more, waits on at the place that it had. Without waits the task ends. Whatever may let a record go out calls `wake`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from walsvc.errors import WalError, copy_of
from walsvc.log.commit.background import under_way
from walsvc.tasks import TWICE

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core

NEVER = 1 << 63  # above every LSN


class RecordSource(Protocol):
    """The part that brings records."""

    async def bring(self) -> bool:
        """Load what is to go out next, or read on; False where neither helps now."""

    def takeable(self) -> bool:
        """True if a record may go out now."""

    def change(self) -> asyncio.Future[Any] | None:
        """Resolved when `bring` may help; None: it may help now. Raises what has ended the log."""

    def opens(self) -> float | None:
        """Seconds until the time of a record may have come; None: none waits for its time."""


@dataclass(slots=True, eq=False, repr=False)
class Place:
    """The place of a caller among those that wait.

    Attributes:
        calls: that it stands for: those of a client's next() that were made together are one caller here.
        number: callers with lower ones are before it; 0: it has not waited yet.
    """

    calls: int = 1
    number: int = 0


class Supply:
    """Waits of one shared consumer, first come first served. Loop thread only."""

    def __init__(self, core: Core, source: RecordSource) -> None:
        self._core = core
        self._source = source
        self._waiters: dict[Place, asyncio.Future[Any]] = {}  # by their numbers
        self._last = 0  # number that was given
        self._callers = 0  # that wait, or were woken and have not looked yet
        self._task: asyncio.Task[None] | None = None
        self._pause: asyncio.Future[Any] | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(place.calls for place in self._waiters)

    @property
    def idle(self) -> bool:
        """True if no caller waits: what may go out is not due to any."""
        return not self._callers

    async def wait(self, place: Place) -> None:
        """Wait until there may be something to take, at the place of earlier waits. Raises what reading raises, and what ends the log."""
        waiter: asyncio.Future[Any] = self._core.waits.durable(NEVER)  # fails with the log, if nothing else wakes it
        self._callers += 1
        try:
            self._enter(place, waiter)
            self._read()
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.wake()  # its turn goes to the next one
            raise
        finally:
            self._callers -= 1
            if self._waiters.get(place) is waiter:
                del self._waiters[place]
            waiter.cancel()

    def _enter(self, place: Place, waiter: asyncio.Future[Any]) -> None:
        if not place.number:
            self._last += 1
            place.number = self._last
        behind = self._waiters and next(reversed(self._waiters)).number > place.number
        self._waiters[place] = waiter
        if behind:
            self._waiters = {each: self._waiters[each] for each in sorted(self._waiters, key=lambda each: each.number)}

    def wake(self) -> None:
        """Wake the first caller that waits, and the task that reads: a record may go out now."""
        if self._source.takeable():
            self._wake_first()
        self._read()

    def wake_all(self) -> None:
        """Let every caller look: the consumer was closed, or a worker's own records are there."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_result(None)
        self._read()

    def end(self) -> None:
        """The consumer is closed: every caller that waits looks, and hears of it."""
        self.wake_all()
        if self._pause is not None:
            self._pause.cancel()

    def _wake_first(self) -> None:
        while self._waiters:
            waiter = self._waiters.pop(next(iter(self._waiters)))
            if not waiter.done():
                waiter.set_result(None)
                return

    # ---- the task

    def _read(self) -> None:
        if not self._waiters:
            return
        if not under_way(self._task):
            work = self._reading()
            self._task = self._core.background.start("reading for a shared consumer", work, foreseen=(WalError,))
            for _ in TWICE:
                self._task.add_done_callback(self._ended)
        elif self._pause is not None:
            self._pause.cancel()

    async def _reading(self) -> None:
        try:
            while self._waiters:
                if await self._source.bring():
                    continue
                if self._source.takeable():
                    self._wake_first()
                if self._waiters:
                    await self._rest()
        except WalError as error:
            waiters, self._waiters = self._waiters, {}
            for waiter in waiters.values():
                if not waiter.done():
                    waiter.set_exception(copy_of(error))

    def _ended(self, _: asyncio.Task[None]) -> None:
        """Let the callers that still wait look again, since reading was cut short: they hear of the log's failure."""
        if not under_way(self._task):
            self.wake_all()

    async def _rest(self) -> None:
        """Wait for a record that was not read, for the time of one that was, or for a wake."""
        pause = self._pause = self._source.change()
        if pause is None:
            return
        try:
            await asyncio.wait([pause], timeout=self._source.opens())
            if pause.done() and not pause.cancelled():
                pause.result()
        finally:
            pause.cancel()
            self._pause = None
