"""Positions of the iterations over an opened log's records: `read` up to an end, `follow` without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from walsvc.errors import Closed
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.reader import Cursor, Position, Told
from walsvc.log.read.segments import Segments
from walsvc.model import Record

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=Told)
Show = Callable[[Cuts, list[RecordT], Callable[[int], None]], Iterator[T]]


class Nothing:
    """A source that holds nothing of its log: readers keep no file open between two calls."""

    def close(self) -> None:
        """Nothing to let go of."""

    def abandoned(self) -> None:
        """Nothing to let go of."""


class Bounded(Nothing, Generic[RecordT, T]):
    """Reads up to where the log ended at the first call, or a cut that came since.

    Args:
        segments: of the log that is read.
        stop: LSN to stop before; None: next_lsn at the first call.
        begin: makes the position once everything below the end can be read; None: nothing is there to be read.
        show: makes items of a group's records; see Cuts.standing.
    """

    def __init__(
        self,
        segments: Segments,
        stop: int | None,
        begin: Callable[[], Position[RecordT] | None],
        show: Show[RecordT, T],
    ) -> None:
        self._segments = segments
        self._stop = stop
        self._begin = begin
        self._show = show
        self._limit: int | None = None
        self._position: Position[RecordT] | None = None

    async def take(self) -> Iterator[T] | None:
        """See Source."""
        if self._limit is None:
            limit = await self._segments.reach(self._stop)
            self._position, self._limit = self._begin(), limit
        if self._position is None:
            return None
        records = await self._position.take(self._limit)
        return self._show(self._segments.cuts, records, self._position.back) if records else None


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    """The turn of a reader that waits for nobody."""
    yield


class Endless(Nothing, Generic[T]):
    """Reads what is durable, then waits for more.

    Args:
        segments: of the log that is read.
        start: first LSN; None: first_lsn at the first call.
        topic: whose records are waited for; None: any.
        cursor_at: makes a cursor at an LSN; None: the topic is not there yet.
        show: makes items of a group's records.
        turn: makes what lasts while it reads, and not while it waits for records.
    """

    def __init__(
        self,
        segments: Segments,
        start: int | None,
        topic: str | None,
        cursor_at: Callable[[int], Cursor | None],
        *,
        show: Show[Record, T],
        turn: Callable[[], AbstractAsyncContextManager[Any]] = at_once,
    ) -> None:
        self._segments = segments
        self._topic = topic
        self._cursor_at = cursor_at
        self._show = show
        self._turn = turn
        self._first = start
        self._cuts: int | None = None  # how many of the log's are known here; None: it has not begun
        self._cursor: Cursor | None = None
        self._number: int | None = None  # of its topic

    async def take(self) -> Iterator[T] | None:
        """See Source."""
        log = self._segments
        if self._cuts is None:
            log.check_open()
            self._cuts = log.cuts.count
            self._first = log.first_lsn if self._first is None else self._first
        with suppress(Closed):
            while True:
                self._follow_cuts()
                self._follow_topic()
                if self._cursor is not None:
                    log.follower_reads(1)
                    try:
                        records = await self._read(self._cursor)
                    finally:
                        log.follower_reads(-1)
                    if records:
                        return self._show(log.cuts, records, self._cursor.back)
                    if self._cursor.next_lsn <= log.durable_lsn:
                        continue
                if self._cuts == log.cuts.count and not await log.more(self._topic):
                    return None
        return None

    async def _read(self, cursor: Cursor) -> list[Record]:
        end = self._segments.durable_lsn + 1
        if cursor.next_lsn >= end:
            return await cursor.take(end)  # nothing is there: it needs no turn
        async with self._turn():
            return await cursor.take(end)

    def _follow_cuts(self) -> None:
        """Go on from where the log was cut meanwhile, if it was."""
        cuts = self._segments.cuts
        assert self._first is not None
        assert self._cuts is not None
        if self._cuts != cuts.count:
            self._first = min(self._first if self._cursor is None else self._cursor.next_lsn, cuts.since(self._cuts))
            self._cuts, self._cursor = cuts.count, None

    def _follow_topic(self) -> None:
        """Have a cursor as long as the topic is there. One that is deleted and made again has another number, and what was not read
        of it is hidden."""
        assert self._first is not None
        number = None if self._topic is None else self._segments.topic_number(self._topic)
        if self._cursor is not None and number != self._number:
            self._first, self._cursor = self._cursor.next_lsn, None
        if self._topic is not None and number is None:
            self._first = max(self._first, self._segments.durable_lsn + 1)  # whatever it will have comes later
        elif self._cursor is None:
            self._number, self._cursor = number, self._cursor_at(self._first)
