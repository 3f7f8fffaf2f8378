"""Waits: the callers that wait for an LSN to be durable, for a record of a topic, for room, or for the replica.

A wait is a future. Its owner may cancel it at any time, and it then removes itself: a wait that nobody needs costs no
memory (trio's ParkingLot). Called by the pipeline when groups are durable, by the queue when room may have come.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from walsvc.errors import WalError
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.health import Health
from walsvc.log.commit.whole import whole

if TYPE_CHECKING:
    from walsvc.log.commit.replicated import Replicated

PRUNED_AT_LEAST = 64  # cancelled waits that may lie in the heap before they are swept out

Wait = asyncio.Future[None]


class Waits:
    """All waits of one writer. Loop thread only.

    Attributes:
        replicated: the replica, and the waits for it; an engine attaches it. None: the log is not replicated.

    `_barriers` is a heap of (LSN, ticket, future). A cancelled one is only counted, and all of them are swept out as soon as
    they are half of the heap, which costs each a constant.
    """

    def __init__(self, health: Health, catalog: Catalog) -> None:
        self.replicated: Replicated | None = None
        self._health = health
        self._catalog = catalog
        self._create_future = health.loop.create_future
        self._barriers: list[tuple[int, int, asyncio.Future[int]]] = []
        self._tickets = itertools.count()
        self._cancelled = 0  # of the barriers
        self._topics: dict[str, dict[Wait, None]] = {}
        self._room: dict[Wait, None] = {}
        health.listen(self._fail)

    def __len__(self) -> int:
        return len(self._barriers) - self._cancelled + sum(map(len, self._topics.values())) + len(self._room)

    @property
    def kept(self) -> int:
        """Waits that take memory, cancelled ones included."""
        return len(self) + self._cancelled

    # ---- waiting

    def durable(self, lsn: int) -> asyncio.Future[int]:
        """A future that gets durable_lsn as soon as it has reached `lsn`."""
        future: asyncio.Future[int] = self._create_future()
        if self._health.failure is not None:
            future.set_exception(self._health.failure_told())
        elif lsn <= self._catalog.durable_lsn:
            future.set_result(self._catalog.durable_lsn)
        else:
            heapq.heappush(self._barriers, (lsn, next(self._tickets), future))
            future.add_done_callback(self._barrier_done)
        return future

    def topic(self, name: str) -> Wait:
        """A future for the next record of a topic, durable or not. The end of the log resolves it, too."""
        waits = self._topics.setdefault(name, {})
        return self._add(waits, partial(self._topic_done, name, waits))

    def room(self) -> Wait:
        """A future for the next change of what room there is, or of whether there ever will be some. Once the log has failed nothing
        changes any more, and it is done at once."""
        wait = self._add(self._room, self._room_done)
        if self._health.failure is not None:
            wait.set_result(None)
        return wait

    def _add(self, waits: dict[Wait, None], done: partial[None] | object) -> Wait:
        future: Wait = self._create_future()
        waits[future] = None
        future.add_done_callback(done)  # type: ignore[arg-type]
        return future

    # ---- cancelled

    @whole("ending a wait")
    def _barrier_done(self, future: asyncio.Future[int]) -> None:
        if not future.cancelled():
            return
        self._cancelled += 1
        if self._cancelled >= max(PRUNED_AT_LEAST, len(self._barriers) // 2):
            self._sweep()

    def _sweep(self) -> None:
        pending = [each for each in self._barriers if not each[2].done()]
        heapq.heapify(pending)
        self._barriers = pending
        self._cancelled = 0

    def _topic_done(self, name: str, waits: dict[Wait, None], wait: Wait) -> None:
        if waits.pop(wait, wait) is None and not waits and self._topics.get(name) is waits:
            del self._topics[name]

    def _room_done(self, wait: Wait) -> None:
        self._room.pop(wait, None)

    # ---- waking

    def reached(self) -> None:
        """Durable_lsn has moved: answer all that it has reached."""
        durable_lsn, barriers = self._catalog.durable_lsn, self._barriers
        while barriers and barriers[0][0] <= durable_lsn:
            future = barriers[0][2]
            if not future.done():
                future.set_result(durable_lsn)
            elif future.cancelled():
                self._cancelled = max(self._cancelled - 1, 0)
            heapq.heappop(barriers)

    def wake_topics_of(self, names: Iterable[str]) -> None:
        """The topics have new records."""
        for name in names:
            wake(self._topics.get(name, {}))

    @property
    def wants_topics(self) -> bool:
        """True if anybody waits for a topic."""
        return bool(self._topics)

    def wake_topics(self) -> None:
        """No topic gets a record any more: each one that waits looks for the reason."""
        for waits in self._topics.values():
            wake(waits)

    def wake_room(self) -> None:
        """Room may have come, or never will."""
        wake(self._room)

    def wake_beyond(self, next_lsn: int) -> None:
        """Each one that waits for an LSN from `next_lsn` on looks again: none comes any more, or others come before it."""
        for lsn, _, future in self._barriers:
            if lsn >= next_lsn and not future.done():
                future.set_result(self._catalog.durable_lsn)
        self._sweep()

    def _fail(self) -> None:
        for _, _, future in self._barriers:
            if not future.done():
                future.set_exception(self._health.failure_told())
                self._health.note_told(1)
        self._barriers = []
        self._cancelled = 0

    def release(self, error: WalError) -> None:
        """The log is closed: whoever still waits for an LSN gets `error`."""
        for _, _, future in self._barriers:
            if not future.done():
                future.set_exception(error)
        self._sweep()


def wake(waits: dict[Wait, None]) -> None:
    """Resolve those that are not over; each then takes itself out."""
    for wait in list(waits):
        if not wait.done():
            wait.set_result(None)
