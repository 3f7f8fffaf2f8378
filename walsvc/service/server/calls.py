"""Calls of one connection that wait for their turn. They begin in the order in which they came, and nothing is made for one before but its
frame: thousands of tasks that only wait would be looked at by the garbage collector again and again, and hold up everybody meanwhile."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from walsvc.service.server.turns import CALL_UNITS, Pace
from walsvc.service.wire.frames import Call


class Calls:
    """See the head of this file.

    Args:
        pace: of the connection.
        begin: begins a call.
        ended: told that a call which was not begun never will be.
    """

    def __init__(self, pace: Pace, begin: Callable[[Call], None], ended: Callable[[], None]) -> None:
        self._pace = pace
        self._begin = begin
        self._ended = ended
        self._queued: OrderedDict[int, Call] = OrderedDict()
        self._waits = False  # for the turn of the first of them

    def __contains__(self, id: int) -> bool:
        return id in self._queued

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, frame: Call) -> None:
        """Begin a call, now or when it is its turn."""
        self._queued[frame.id] = frame
        if not self._waits:
            self._go_on()

    def _go_on(self) -> None:
        while self._queued and self._pace.may_go:
            self._begin_first()
        self._waits = bool(self._queued)
        if self._waits:
            self._pace.later(self._in_turn)

    def _in_turn(self) -> None:
        if self._queued:
            self._begin_first()
        self._go_on()

    def _begin_first(self) -> None:
        _, frame = self._queued.popitem(last=False)
        self._pace.did(CALL_UNITS)
        self._begin(frame)

    def cancel(self, id: int) -> bool:
        """Forget a call that has not begun; False: there is none."""
        if self._queued.pop(id, None) is None:
            return False
        self._ended()
        return True

    def give_up(self) -> None:
        """Forget all of them; none comes any more. The connection's calls are not to wait for the garbage collector."""
        for id in list(self._queued):
            self.cancel(id)
        del self._begin, self._ended

    async def begun(self) -> None:
        """Wait until all have begun."""
        while self._queued:  # noqa: ASYNC110  # each turn of the loop begins some
            await asyncio.sleep(0)
