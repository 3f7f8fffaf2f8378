"""Reading: groups to records, segment after segment.

A reader sees only what is durable, opens files by name for each piece, and keeps no descriptor: a truncated segment is
never pinned by a reader, and a reader that was overtaken gets Truncated.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise, repeat
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import msgpack

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, PathError, Truncated
from walsvc.format.group import BadGroup, decode_columns, record_ends
from walsvc.log.findings import unsupported
from walsvc.log.stream import GroupStream, RawGroup, open_stream
from walsvc.log.summaries import Summaries
from walsvc.model import Record

T = TypeVar("T")
NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})
make_record: partial[Record] = partial(tuple.__new__, Record)


class Segments(Protocol):
    """What a reader must know of a log; it may change between two calls."""

    @property
    def first_lsn(self) -> int:
        """First visible LSN."""

    @property
    def epoch(self) -> int:
        """Changes when what was read ahead beyond the durable end may have become void."""

    async def look_again(self) -> bool:
        """A file was not where it should be. True if the log was found afresh, so that another look is worth it."""

    def segment_ids(self) -> list[int]:
        """First LSNs of all segments, ascending."""

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """Name and length of a segment's file."""

    @property
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers."""

    @property
    def summaries(self) -> Summaries:
        """Which topics sealed segments hold."""


def decode_records(raw: RawGroup, names: Sequence[str | None]) -> list[Record]:
    """All records of a checked group; `names` are those of the topics by number."""
    header, data, at = raw
    if header.records == 0:
        return []
    columns = decode_columns(header, data, at)
    ends = record_ends(columns, at)
    attributes: Any = repeat(NO_ATTRIBUTES)
    if columns.attributes is not None:
        attributes = [
            msgpack.unpackb(data[start : start + length], raw=False) if length else NO_ATTRIBUTES
            for start, length in zip(ends, columns.attributes, strict=False)
        ]
        starts = [start + length for start, length in zip(ends, columns.attributes, strict=False)]
        payloads = [data[start:end] for start, end in zip(starts, ends[1:], strict=True)]
    else:
        payloads = [data[start:end] for start, end in pairwise(ends)]
    rows = zip(
        range(header.first_lsn, header.next_lsn),
        payloads,
        columns.types if columns.types is not None else repeat(0),
        map(names.__getitem__, columns.topics) if columns.topics is not None else repeat(None),
        repeat(header.timestamp_ns),
        attributes,
    )
    return list(map(make_record, rows))


class LookAgain(Exception):
    """A living log moved under the reader; its segments are known again."""


class Cursor:
    """A position in a log. `take` returns what comes next; the position survives waiting for more."""

    def __init__(self, disk: Disk, segments: Segments, start: int) -> None:
        self._disk = disk
        self._segments = segments
        self.next_lsn = start
        self._stream: GroupStream | None = None
        self._epoch = segments.epoch

    async def take(self, limit: int) -> list[Record]:
        """Records of the next group, below `limit`; empty when the position has reached `limit`.

        Raises:
            Truncated: the position was dropped meanwhile.
            Corruption: what must be there is damaged or missing.
            PathError: reading failed.
        """
        while True:
            try:
                return await self._take(limit)
            except LookAgain:
                self._stream = None

    async def _take(self, limit: int) -> list[Record]:
        while self.next_lsn < limit:
            if self._epoch != self._segments.epoch:
                self._epoch, self._stream = self._segments.epoch, None
            if self._stream is None:
                self._stream = await self._guarded(self._open)
            chain = self._stream.chain
            end = self._segment_end(chain.segment)
            if end is not None and chain.next_lsn >= end:
                self._stream = None
                continue
            raw = await self._guarded(self._stream.next)
            local_limit = limit if end is None else min(limit, end)
            if raw.header.next_lsn > self.next_lsn and raw.header.records:
                records = decode_records(raw, self._segments.topic_names)
                first = max(self.next_lsn - raw.header.first_lsn, 0)
                records = records[first : local_limit - raw.header.first_lsn]
                self.next_lsn = raw.header.first_lsn + first + len(records)
                if raw.header.next_lsn > local_limit:
                    self._stream = None  # a group was cut by truncate_after, or by `limit`: look up the place anew
                return records
        return []

    def _segment_end(self, segment: int) -> int | None:
        """First LSN of the segment after `segment`, if there is one."""
        ids = self._segments.segment_ids()
        after = bisect_right(ids, segment)
        return ids[after] if after < len(ids) else None

    async def _open(self) -> GroupStream:
        ids = self._segments.segment_ids()
        place = bisect_right(ids, self.next_lsn) - 1
        if place < 0 or self.next_lsn < self._segments.first_lsn:
            raise self._truncated()
        name, file_bytes = self._segments.segment_file(ids[place])
        _, stream = await open_stream(self._disk, name, ids[place], file_bytes)
        return stream

    async def _guarded(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run one step of reading; tell truncation, damage and a failing device apart."""
        try:
            return await step()
        except (BadGroup, Corruption) as error:
            if self.next_lsn < self._segments.first_lsn:
                raise self._truncated() from None
            if isinstance(error, Corruption):
                raise
            assert self._stream is not None
            if error.newer:
                raise unsupported(self._disk, self._stream, error) from None
            chain = self._stream.chain
            raise Corruption(
                error.reason,
                path=self._disk.path,
                segment=chain.segment,
                offset=chain.offset,
                lsn=chain.next_lsn,
                hint="acknowledged data is damaged; see `walsvc verify`, and restore from a backup",
            ) from None
        except OSError as error:
            if self.next_lsn < self._segments.first_lsn:
                raise self._truncated() from None
            if isinstance(error, FileNotFoundError):
                if await self._segments.look_again():
                    raise LookAgain from None
                raise Corruption(
                    "a segment's file is missing", path=self._disk.path, lsn=self.next_lsn, actual=error.filename
                ) from None
            raise read_failed(self._disk, error, lsn=self.next_lsn) from error

    def _truncated(self) -> Truncated:
        return Truncated(
            f"records from LSN {self.next_lsn} on were dropped",
            path=self._disk.path,
            lsn=self.next_lsn,
            expected=f"at least LSN {self._segments.first_lsn}",
            hint="start at first_lsn",
        )


def read_failed(disk: Disk, error: OSError, lsn: int | None = None) -> PathError:
    """A read error is an error of its own, never the end of the log."""
    return PathError(
        f"reading the log failed: {error.strerror or error}",
        errno=error.errno,
        path=disk.path,
        lsn=lsn,
        hint="look at the device (dmesg); nothing was changed",
    )
