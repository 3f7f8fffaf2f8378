"""Where the iterations over an opened log's records stand: `read` up to an end, `follow` without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from walsvc.errors import Closed
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.reader import Cursor, Position, Told
from walsvc.model import Record

if TYPE_CHECKING:
    from walsvc.log.read.reading import Reading

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=Told)


class Nothing:
    """A source that holds nothing of its log: readers keep no file open between two calls."""

    def close(self) -> None:
        """Nothing to let go of."""

    def abandoned(self) -> None:
        """Nothing to let go of."""


class Bounded(Nothing, Generic[RecordT, T]):
    """Reads up to where the log ended at the first call, or a cut that came since.

    Args:
        log: what is read.
        reach: sees to it that all that is there below an LSN (None: next_lsn) can be read, and returns the LSN behind it.
        stop: LSN to stop before; None: next_lsn at the first call.
        begin: makes the position once everything below the end can be read; None: nothing is there to be read.
        show: makes items of a group's records.
    """

    def __init__(
        self,
        log: Reading,
        reach: Callable[[int | None], Awaitable[int]],
        stop: int | None,
        begin: Callable[[], Position[RecordT] | None],
        show: Callable[[Cuts, list[RecordT]], Iterator[T]],
    ) -> None:
        self._log = log
        self._reach = reach
        self._stop = stop
        self._begin = begin
        self._show = show
        self._limit: int | None = None
        self._position: Position[RecordT] | None = None

    async def take(self) -> Iterator[T] | None:
        """See Source."""
        if self._limit is None:
            limit = await self._reach(self._stop)
            self._position, self._limit = self._begin(), limit
        if self._position is None:
            return None
        records = await self._position.take(self._limit)
        return self._show(self._log.cuts, records) if records else None


class Waits(NamedTuple):
    """How a log waits for more; see Reading, whose methods these are."""

    check_open: Callable[[], None]
    follower_reads: Callable[[int], None]
    more: Callable[[], Awaitable[bool]]


class Endless(Nothing):
    """Reads what is durable, then waits for more.

    Args:
        log: what is read.
        start: first LSN; None: first_lsn at the first call.
        cursor_at: makes a cursor at an LSN; None: the topic is not there yet.
        waits: how the log waits.
    """

    def __init__(
        self, log: Reading, start: int | None, cursor_at: Callable[[int], Cursor | None], waits: Waits
    ) -> None:
        self._log = log
        self._cursor_at = cursor_at
        self._waits = waits
        self._first = start
        self._cuts: int | None = None  # how many of the log's are known here; None: it has not begun
        self._cursor: Cursor | None = None

    async def take(self) -> Iterator[Record] | None:
        """See Source."""
        log = self._log
        if self._cuts is None:
            self._waits.check_open()
            self._cuts = log.cuts.count
            self._first = log.first_lsn if self._first is None else self._first
        with suppress(Closed):
            while True:
                self._follow_cuts()
                if self._cursor is not None:
                    self._waits.follower_reads(1)
                    try:
                        records = await self._cursor.take(log.durable_lsn + 1)
                    finally:
                        self._waits.follower_reads(-1)
                    if records:
                        return log.cuts.standing(records)
                    if self._cursor.next_lsn <= log.durable_lsn:
                        continue
                if self._cuts == log.cuts.count and not await self._waits.more():
                    return None
        return None

    def _follow_cuts(self) -> None:
        """Have a cursor, where there can be one: from where the log was cut meanwhile, if it was."""
        cuts = self._log.cuts
        assert self._first is not None
        assert self._cuts is not None
        if self._cuts != cuts.count:
            self._first = min(self._first if self._cursor is None else self._cursor.next_lsn, cuts.since(self._cuts))
            self._cuts, self._cursor = cuts.count, None
        self._cursor = self._cursor or self._cursor_at(self._first)
