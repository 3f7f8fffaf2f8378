"""The reading calls of a log behind a server: what walsvc.log.read.reading is to the embedded log."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Generic, TypeVar, Unpack

from walsvc.config import one_of
from walsvc.errors import BadOption, not_given_out
from walsvc.log.read.filter import Wanted
from walsvc.log.read.iteration import Iteration
from walsvc.log.read.lazy import LazyRecord, read_already
from walsvc.log.read.reading import check_lsn, check_range
from walsvc.model import ReadStats, Record
from walsvc.service.client.pages import Pages
from walsvc.service.client.session import Session
from walsvc.service.client.streams import Follower, Hides, RemoteStream
from walsvc.service.wire.wanted import microseconds_of, sent

T = TypeVar("T")
ReaderT = TypeVar("ReaderT", RemoteStream, Follower, Pages)
Show = Callable[[list[Record], list[Hides]], Iterator[T]]


def standing(records: list[Record], hidden: list[Hides]) -> Iterator[Record]:
    """Records one by one, but for those that are hidden by the time."""
    for record in records:
        if not (hidden and any(hides(record) for hides in hidden)):
            yield record


class Received(Generic[ReaderT, T]):
    """The source of an iteration over a connection. Its stream lives as long as the iteration, whatever waits are cancelled.

    Args:
        session: whose connection.
        begin: opens the stream, at the first call.
        readers: where the log keeps the streams that are open.
        show: makes items of records, and of what hides some of them since they were received.
    """

    def __init__(self, session: Session, begin: Callable[[], ReaderT], readers: set[ReaderT], show: Show[T]) -> None:
        self._session = session
        self._begin: Callable[[], ReaderT] = begin
        self._readers: set[ReaderT] = readers
        self._show = show
        self._reader: ReaderT | None = None

    async def take(self) -> Iterator[T] | None:
        """See walsvc.log.read.iteration.Source."""
        if self._reader is None:
            self._session.check()
            self._reader = self._begin()
            self._readers.add(self._reader)
        records = await self._reader.take()
        return self._show(records, self._reader.hidden) if records else None

    def close(self) -> None:
        """End the stream."""
        if self._reader is not None:
            self._readers.discard(self._reader)
            self._reader.close()

    def abandoned(self) -> None:
        """End the stream, on its loop's thread."""
        if self._reader is not None:
            with suppress(RuntimeError):  # the loop is closed, and the connection with it
                self._session.loop.call_soon_threadsafe(self.close)


class RemoteReading:
    """Reading a log behind a server. Filters are the server's work: only wanted records travel."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._readers: set[RemoteStream] = set()
        self._followers: set[Follower] = set()
        self._pages: set[Pages] = set()
        self._left: asyncio.Future[None] | None = None

    def read(
        self, start: int | None = None, stop: int | None = None, *, reverse: bool = False, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[Record, None]:
        """Iterate over records in LSN order, or backwards; see Log.read, also for what is `wanted`. `stats` is refused: BadOption."""
        one_of("reverse", reverse, (True, False))
        if reverse:
            self._refuse_stats(wanted.get("stats"))
            check_range(start, stop)
            args = {"start": start, "stop": stop, **sent(wanted)}
            return Iteration(Received(self._session, partial(Pages, self._session, args), self._pages, standing))
        return self._reading(start, stop, wanted, standing)

    def read_batches(
        self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists as they come over the connection."""
        return self._reading(start, stop, wanted, lambda records, _: iter((records,)))

    def read_lazy(
        self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, in the form of Log.read_lazy. Nothing is saved by it here: the payloads come over the connection, too."""
        return self._reading(start, stop, wanted, lambda *taken: map(read_already, standing(*taken)))

    def follow(self, start: int | None = None, **wanted: Unpack[Wanted]) -> AsyncGenerator[Record, None]:
        """Iterate over durable records, then wait for new ones; see Log.follow. It goes on over a lost connection."""
        self._refuse_stats(wanted.get("stats"))
        check_range(start)
        args = {"start": start, **sent(wanted, endless=True)}
        begin = partial(Follower, self._session, args, self._reader_left)
        return Iteration(Received(self._session, begin, self._followers, standing))

    async def get(self, lsn: int) -> Record | None:
        """Return the record with this LSN, or None where it was purged; see Log.get."""
        check_lsn(lsn)
        async with self._session.room.gets, aclosing(self.read(lsn, lsn + 1)) as records:
            async for record in records:
                return record
        if lsn >= self._session.state[1]:  # as of that answer
            raise not_given_out(lsn, self._session.state[1], self._session.address.url)
        return None

    async def seek_time(self, moment: datetime.datetime, *, stats: ReadStats | None = None) -> int:
        """The LSN of the first visible record with a timestamp of `moment` or later, next_lsn if there is none; see
        Log.seek_time."""
        self._session.check()
        self._refuse_stats(stats)
        lsn: int = await self._session.call("seek_time", moment=microseconds_of("moment", moment))
        return lsn

    def _reading(self, start: int | None, stop: int | None, wanted: Wanted, show: Show[T]) -> AsyncGenerator[T, None]:
        """The iteration of a "read". BadOption for a wrong argument at once."""
        self._refuse_stats(wanted.get("stats"))
        check_range(start, stop)
        args = {"start": start, "stop": stop, **sent(wanted)}
        begin = partial(RemoteStream, self._session, "read", args)
        return Iteration(Received(self._session, begin, self._readers, show))

    def _reader_left(self) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    async def _end_followers(self) -> None:
        """Let those that wait for records have what is durable."""
        for follower in list(self._followers):
            follower.finish()
        while any(follower.reading for follower in self._followers):
            self._left = self._session.loop.create_future()
            await self._left

    def _refuse_stats(self, stats: ReadStats | None) -> None:
        if stats is not None:
            raise BadOption(
                "what reading costs is counted where the disk is, and does not come over the connection",
                path=self._session.address.url,
                hint="read without stats, or open the log's directory with read_only=True",
            )
