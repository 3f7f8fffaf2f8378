"""The reading calls of a log behind a server: what walsvc.log.reading is to the embedded log."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Unpack

from walsvc.errors import BadOption
from walsvc.log.filter import Wanted
from walsvc.log.lazy import LazyRecord, read_already
from walsvc.model import ReadStats, Record
from walsvc.service.client.session import Session
from walsvc.service.client.streams import Follower, RemoteStream
from walsvc.service.wire.wanted import microseconds_of, sent


class RemoteReading:
    """What can be read of a log behind a server. Filters are the server's work: only what is wanted travels."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._readers: set[RemoteStream] = set()
        self._followers: set[Follower] = set()
        self._left: asyncio.Future[None] | None = None

    async def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncIterator[Record]:
        """Iterate over records in LSN order; see Log.read, also for what is `wanted`. `stats` is refused: BadOption."""
        stream = self._stream(start, stop, stats, wanted)
        try:
            while records := await stream.take():
                for record in records:
                    if not (stream.hidden and any(hides(record) for hides in stream.hidden)):
                        yield record
        finally:
            self._readers.discard(stream)
            stream.close()

    async def read_batches(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncIterator[list[Record]]:
        """Like read, but yields lists as they come over the connection."""
        stream = self._stream(start, stop, stats, wanted)
        try:
            while records := await stream.take():
                yield records
        finally:
            self._readers.discard(stream)
            stream.close()

    async def read_lazy(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncIterator[LazyRecord]:
        """Like read, in the form of Log.read_lazy. Nothing is saved by it here: the payloads come over the connection, too."""
        async for record in self.read(start, stop, stats=stats, **wanted):
            yield read_already(record)

    async def follow(
        self, start: int | None = None, *, stats: ReadStats | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncIterator[Record]:
        """Iterate over durable records, then wait for new ones; see Log.follow. It goes on over a lost connection."""
        self._session.check()
        self._refuse_stats(stats)
        follower = Follower(self._session, {"start": start, **sent(wanted, endless=True)}, self._reader_left)
        self._followers.add(follower)
        try:
            while records := await follower.take():
                for record in records:
                    if not (follower.hidden and any(hides(record) for hides in follower.hidden)):
                        yield record
        finally:
            self._followers.discard(follower)
            follower.close()

    async def seek_time(self, moment: datetime.datetime, *, stats: ReadStats | None = None) -> int:
        """The LSN of the first visible record with a timestamp of `moment` or later, next_lsn if there is none; see
        Log.seek_time."""
        self._session.check()
        self._refuse_stats(stats)
        lsn: int = await self._session.call("seek_time", moment=microseconds_of("moment", moment))
        return lsn

    def _stream(self, start: int | None, stop: int | None, stats: ReadStats | None, wanted: Wanted) -> RemoteStream:
        self._session.check()
        self._refuse_stats(stats)
        stream = RemoteStream(self._session, "read", {"start": start, "stop": stop, **sent(wanted)})
        self._readers.add(stream)
        return stream

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
