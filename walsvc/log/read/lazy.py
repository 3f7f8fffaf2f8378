"""Reading records without their payloads, which are fetched when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from walsvc.errors import Corruption, Truncated
from walsvc.format.group import BadGroup, decode_columns
from walsvc.log.read.filter import Filter
from walsvc.log.read.filtered import Outline
from walsvc.log.read.hiding import living, may_hide, visible
from walsvc.log.read.reader import Cursor, Found, Position
from walsvc.log.read.records import decode_records
from walsvc.log.read.segments import Segments
from walsvc.log.read.stream import GroupStream, RawGroup
from walsvc.model import ReadStats, Record


class LazyRecord:
    """A record whose payload may not have been read yet.

    What it says of itself was checked by the CRC of its group's index. Payload and attributes are checked when they are
    fetched, by the CRC of the group's payload area: so the first fetch from a group reads all of it, and further ones from
    the same group are free until records of another one are fetched.

    Attributes:
        lsn, type, topic, timestamp_ns: as in Record.
        length: bytes of the payload.
    """

    __slots__ = ("_source", "length", "lsn", "timestamp_ns", "topic", "type")

    def __init__(
        self,
        lsn: int,
        type: int,
        topic: str | None,
        timestamp_ns: int,
        length: int,
        *,
        source: tuple[Groups, Outline] | Record,
    ) -> None:
        self.lsn: int = lsn
        self.type: int = type
        self.topic: str | None = topic
        self.timestamp_ns: int = timestamp_ns
        self.length: int = length
        self._source = source  # where to fetch it, or what was read already

    async def record(self) -> Record:
        """The whole record.

        Raises:
            Truncated: it was dropped, or purged and compacted away, or its topic deleted, meanwhile. Corruption: it is damaged. Closed, PathError.
        """
        if isinstance(self._source, Record):
            return self._source
        groups, outline = self._source
        return await groups.record(outline, self.lsn)

    async def payload(self) -> bytes:
        """The payload; raises what `record` raises."""
        return (await self.record()).payload

    async def attributes(self) -> Mapping[str, Any]:
        """The attributes; raises what `record` raises."""
        return (await self.record()).attributes

    def __repr__(self) -> str:
        return f"LazyRecord(lsn={self.lsn}, type={self.type}, topic={self.topic!r}, length={self.length})"


class Groups:
    """Fetches groups that were passed over, and keeps the last one."""

    def __init__(self, segments: Segments, stats: ReadStats) -> None:
        self._disk = segments.disk
        self._segments = segments
        self._stats = stats
        self._cuts = segments.cuts.count
        self._last: tuple[Outline, RawGroup] | None = None

    async def raw(self, outline: Outline) -> RawGroup:
        """The group, checked. Raises BadGroup and OSError where it is not there any more."""
        if self._last is not None and self._last[0] is outline:
            return self._last[1]
        stream = GroupStream(self._disk, outline.name, replace(outline.chain))  # its memory lives as long as the group
        try:
            raw = await stream.next()
        finally:
            self._stats.bytes_read += stream.bytes_read
        self._stats.groups_read += 1
        self._last = (outline, raw)
        return raw

    async def record(self, outline: Outline, lsn: int) -> Record:
        """A record of the group, from wherever it is now."""
        record = None if self._is_cut(lsn) else await self._fetched(outline, lsn)
        if record is None or self._is_cut(lsn):
            raise Truncated(
                f"the record with LSN {lsn} was dropped, or purged, or its topic was deleted",
                path=self._disk.path,
                lsn=lsn,
                hint="records that truncate_after dropped, or that were compacted away, after they were listed cannot be "
                "fetched",
            )
        return record

    def _is_cut(self, lsn: int) -> bool:
        return lsn >= self._segments.cuts.since(self._cuts)

    async def _fetched(self, outline: Outline, lsn: int) -> Record | None:
        segments = self._segments
        try:
            raw = await self.raw(outline)
            row = lsn - outline.header.first_lsn
            rows = living(*raw, range(row, row + 1), segments.topics)
            return decode_records(raw, segments.topics.names, rows)[0] if rows else None
        except (BadGroup, Corruption, OSError):
            if self._is_cut(lsn):
                return None
            cursor = Cursor(segments, lsn, stats=self._stats)  # it was moved, or finds out what is wrong
            records = await cursor.take(lsn + 1)
            return records[0] if records else None


class LazyCursor(Position[LazyRecord]):
    """A position in a log; `take` gives records without their payloads, unless these lay on the way."""

    _outline = True

    def __init__(
        self, segments: Segments, start: int, wanted: Filter | None = None, stats: ReadStats | None = None
    ) -> None:
        super().__init__(segments, start, wanted or Filter(), stats)
        self._groups = Groups(segments, self.stats)

    async def _step(self) -> Found | None:
        found = await super()._step()
        if isinstance(found, Outline):
            assert self._wanted is not None
            if self._wanted.where or may_hide(found.header, self._segments.marks):
                return await self._groups.raw(found)  # attributes decide, and they stand beside the payloads
        return found

    def _records(self, found: Found, rows: range) -> list[LazyRecord]:
        assert self._wanted is not None
        segments = self._segments
        if isinstance(found, RawGroup):
            self.stats.groups_read += 1
            chosen = living(*found, self._wanted.rows(*found, rows), segments.topics)
            records = visible(found, decode_records(found, segments.topics.names, chosen), segments.marks)
            return self._known(list(map(read_already, records)))
        header, data, at = found[:3]
        columns = decode_columns(header, data, at)
        listed = []
        for row in living(header, data, at, self._wanted.rows(header, data, at, rows), segments.topics):
            record = LazyRecord(
                header.first_lsn + row,
                0 if columns.types is None else columns.types[row],
                None if columns.topics is None else segments.topics.names.get(columns.topics[row]),
                header.timestamp_ns,
                columns.lengths[row] - (0 if columns.attributes is None else columns.attributes[row]),
                source=(self._groups, found),
            )
            listed.append(record)
        return self._known(listed)


def read_already(record: Record) -> LazyRecord:
    """A record whose payload is at hand."""
    return LazyRecord(record.lsn, record.type, record.topic, record.timestamp_ns, len(record.payload), source=record)
