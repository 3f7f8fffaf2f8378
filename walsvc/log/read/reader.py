"""Reading: a position in a log, and how it moves on from group to group and from segment to segment.

A reader sees only what is durable, opens files by name for each piece, and keeps no descriptor: a truncated segment is
never pinned by a reader, and a reader that was overtaken gets Truncated. Where truncate_after cuts the log, it ends.

It passes over what is not wanted: segments and stretches of them (walsvc.log.read.guide), groups (walsvc.log.read.filtered). Whatever
is not known, or does not fit, is looked through.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from walsvc.errors import Corruption, UnsupportedFormat, WalError, closed_log, read_failed, unknown_type, was_dropped
from walsvc.format.group import BadGroup
from walsvc.format.index import SegmentIndex
from walsvc.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from walsvc.log.read.boundary import check_boundary
from walsvc.log.read.filter import REQUIRED, Filter
from walsvc.log.read.filtered import FilteredStream, Outline
from walsvc.log.read.guide import Guide
from walsvc.log.read.hiding import living, visible
from walsvc.log.read.records import decode_records
from walsvc.log.read.segments import Segments
from walsvc.log.read.stream import GroupStream, RawGroup, open_stream, unsupported
from walsvc.model import ReadStats, Record


class Told(Protocol):
    """LSN and type, which any kind of record has."""

    @property
    def lsn(self) -> int: ...
    @property
    def type(self) -> int: ...


T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=Told)
Found = RawGroup | Outline


class LookAgain(Exception):
    """A living log moved under the reader; its segments are known again."""


class Position(ABC, Generic[RecordT]):
    """A position in a log, and a way on: for all records, or for those that a filter wants. It never goes beyond a cut that
    came after it was made.

    Attributes:
        next_lsn: the position.
        stats: what reading has cost.
    """

    def __init__(
        self, segments: Segments, start: int, wanted: Filter | None = None, stats: ReadStats | None = None
    ) -> None:
        self._disk = segments.disk
        self._segments = segments
        self.next_lsn: int = start
        self._wanted = wanted
        self.stats: ReadStats = stats or ReadStats()
        self._guide = Guide(segments, wanted, self.stats)
        self._stream: GroupStream | None = None
        self._stream_bytes = 0  # of what the stream has read, those that are in `stats`
        self._index: SegmentIndex | None = None  # of the segment that the stream reads, as far as it was asked for
        self._epoch = segments.epoch
        self._cuts = segments.cuts.count
        self._suspect: object = None  # place and error that looked damaged at the last look
        self._refusal: UnsupportedFormat | None = None  # the record at the position must not be passed over

    @property
    def refuses(self) -> bool:
        """True if it stands at a record that must not be passed over: every further call of `take` raises UnsupportedFormat."""
        return self._refusal is not None

    async def take(self, limit: int) -> list[RecordT]:
        """Wanted records of the next group that has some, below `limit`; empty when the position has reached `limit`, or
        a cut.

        Raises:
            Closed: the log was closed.
            Truncated: the position was dropped meanwhile.
            Corruption: what must be there is damaged or missing.
            UnsupportedFormat: a record of a required type that is not wanted stands next.
            PathError: reading failed.
        """
        first = self.next_lsn
        while True:
            try:
                return await self._take(limit)
            except LookAgain:
                self._leave()
            except (WalError, asyncio.CancelledError):
                raise
            except BaseException:  # of a signal handler, or no memory: what was read reached nobody
                self.back(first)
                raise

    def back(self, lsn: int) -> None:
        """Read once more from a record on that `take` has given, since some of what follows may be hidden now."""
        self._leave()
        self.next_lsn, self._refusal = lsn, None

    async def _take(self, limit: int) -> list[RecordT]:
        while self._look(limit):
            if self._stream is None and (skip := await self._guide.skip(self.next_lsn)) is not None:
                self.next_lsn = min(skip, limit)
                continue
            if self._stream is None:
                self._stream = await self._guarded(self._open)
            chain = self._stream.chain
            end = self._segment_end(chain.segment)
            if end is not None and chain.next_lsn >= end:
                self._leave()
                self.next_lsn = max(self.next_lsn, end)
                continue
            first = chain.next_lsn
            found = await self._guarded(self._step)
            if self._epoch != self._segments.epoch:
                continue  # it may be void
            local_limit = limit if end is None else min(limit, end)
            start, self.next_lsn = self.next_lsn, max(self.next_lsn, min(chain.next_lsn, local_limit))
            if chain.next_lsn > local_limit or (
                found is None and self._guide.can_jump_ahead(self._index, self.next_lsn)
            ):
                self._leave()  # a group was cut by truncate_after, or by `limit`: look up the place anew
            if found is not None and start < self.next_lsn:
                rows = range(max(start - first, 0), self.next_lsn - first)
                if records := self._records(found, rows):
                    return records
        if self._stream is not None:
            self._stream.forget()  # the writer will write the place beyond the end anew
        return []

    def _look(self, limit: int) -> bool:
        """Take notice of what has happened to the log. Whether there is anything to read below `limit`."""
        segments = self._segments
        if self._epoch != segments.epoch:
            self._leave()
            self._epoch = segments.epoch
            self.next_lsn = min(self.next_lsn, segments.cuts.since(self._cuts))
        if self.next_lsn >= min(limit, segments.cuts.since(self._cuts)):
            return False
        if segments.released:
            raise closed_log(self._disk.path)
        if self._refusal is not None:
            raise self._refusal
        return True

    async def _step(self) -> Found | None:
        """The stream's next group; None if nothing of it is wanted."""
        stream = self._stream
        assert stream is not None
        try:
            if self._wanted is None:
                return await stream.next()
            assert isinstance(stream, FilteredStream)
            passed = stream.groups_passed
            found = await stream.step(self._wanted, outline=self._outline)
            self.stats.groups_passed += stream.groups_passed - passed
            return found
        finally:
            self.stats.bytes_read += stream.bytes_read - self._stream_bytes
            self._stream_bytes = stream.bytes_read

    _outline = False  # whether index and metadata of a group are enough

    @abstractmethod
    def _records(self, found: Found, rows: range) -> list[RecordT]:
        """The wanted and visible ones among some records of a group."""

    def _known(self, records: list[RecordT]) -> list[RecordT]:
        """The records before the first one of a required type that is not wanted; reading stops there."""
        wanted = self._wanted
        if wanted is None or wanted.types is None:
            return records
        for place, record in enumerate(records):
            if record.type >= REQUIRED and record.type not in wanted.types:
                self._refusal, self.next_lsn = unknown_type(self._disk.path, record.lsn, record.type), record.lsn
                return records[:place]
        return records

    # ---- where to go on

    def _leave(self) -> None:
        self._stream, self._stream_bytes = None, 0

    def _segment_end(self, segment: int) -> int | None:
        """First LSN of the segment after `segment`, if there is one."""
        ids = self._segments.ids()
        after = bisect_right(ids, segment)
        return ids[after] if after < len(ids) else None

    async def _open(self) -> GroupStream:
        """A stream at the position, or before it: at the head of the segment, or where its index says."""
        ids = self._segments.ids()
        place = bisect_right(ids, self.next_lsn) - 1
        if place < 0 or self.next_lsn < self._segments.first_lsn:
            raise was_dropped(self._disk.path, self.next_lsn, self._segments.first_lsn)
        segment = ids[place]  # `ids` may change meanwhile
        name, file_bytes = self._segments.file(segment)
        self._index = None
        if self._suspect is None:  # what looks damaged is looked at from the head on
            self._index = await self._guide.index(segment, self._segment_end(segment), self.next_lsn)
        header, stream = await open_stream(self._disk, name, segment, file_bytes, self._segments.keys)
        if header.generation > self._segments.generation and await self._segments.look_again():
            raise LookAgain  # it has taken the place of what was known
        if place and segment == self.next_lsn:
            await self._cross(ids[place - 1], header)
        self.stats.bytes_read += SEGMENT_HEADER_BYTES
        if self._wanted is not None:
            stream = FilteredStream(self._disk, name, stream.chain, cipher=stream.cipher)
        if self._index is not None and (row := self._index.at(self.next_lsn)):
            stream.start_at(self._index[row])
        return stream

    async def _cross(self, before: int, header: SegmentHeader) -> None:
        """Check that the segment that the reader goes on to, or begins with, belongs behind the one before it."""
        try:
            boundary = await check_boundary(self._disk, self._segments.file(before)[0], before, header)
            self.stats.bytes_read += boundary.bytes_read
        except (FileNotFoundError, KeyError) as gone:
            if self._segments.first_lsn >= header.first_lsn:
                return  # it was dropped meanwhile
            if isinstance(gone, KeyError):
                raise LookAgain from None  # the log's end was cut meanwhile
            raise

    async def _guarded(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run one step of reading; tell closing, truncation, damage and a failing device apart."""
        try:
            return await step()
        except (BadGroup, Corruption, OSError) as error:
            if self._segments.released:
                raise closed_log(self._disk.path) from None
            if self._epoch != self._segments.epoch:
                raise LookAgain from None
            if self.next_lsn < self._segments.first_lsn:
                raise was_dropped(self._disk.path, self.next_lsn, self._segments.first_lsn) from None
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise read_failed(self._disk.path, error, lsn=self.next_lsn) from error
            if not await self._worth_another_look(error):
                raise self._damage(error) from None
            raise LookAgain from None

    async def _worth_another_look(self, error: BadGroup | Corruption | OSError) -> bool:
        """True if what looks like damage may look otherwise now, since the log has moved under the reader."""
        if isinstance(error, OSError):
            return await self._segments.look_again()
        known: object = str(error)
        if isinstance(error, BadGroup):
            assert self._stream is not None
            if error.newer:
                raise unsupported(self._stream, error) from None
            chain = self._stream.chain
            known = (chain.segment, chain.offset, chain.previous_crc, error.reason)
        if not self._first_sight(known):
            return False
        await self._segments.look_again()
        return True

    def _damage(self, error: BadGroup | Corruption | OSError) -> Corruption:
        if isinstance(error, Corruption):
            return error
        if isinstance(error, OSError):
            return Corruption(
                f"a segment's file is missing: {error.filename}",
                path=self._disk.path,
                lsn=self.next_lsn,
                hint="put it back from a backup; what it held may go by truncate_before",
            )
        assert self._stream is not None
        hint = "acknowledged data is damaged; see `walsvc verify`, and restore from a backup"
        return self._stream.chain.damage(self._disk.path, error.reason, hint)

    def _first_sight(self, damage: object) -> bool:
        """True if this damage was not seen at the last look. Compaction may have put another file in the place of the one
        that is being read; what looks the same in a file that is opened anew is damage."""
        self._segments.summaries.forget()  # it holds places of groups
        known, self._suspect = self._suspect == damage, damage
        return not known


class Cursor(Position[Record]):
    """A position in a log; `take` gives whole records."""

    def _records(self, found: Found, rows: range) -> list[Record]:
        assert isinstance(found, RawGroup)
        self.stats.groups_read += 1
        segments = self._segments
        chosen = rows if self._wanted is None else self._wanted.rows(*found, rows)
        chosen = living(*found, chosen, segments.topics)
        records = decode_records(found, segments.topics.names, chosen)
        return self._known(visible(found, records, segments.marks))


def cursor_at(segments: Segments, lsn: int, number: int) -> Cursor:
    """A cursor over a topic's records; `number` 0: over all."""
    return Cursor(segments, lsn, Filter(number=number) if number else None)
