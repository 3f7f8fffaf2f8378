"""Rows: what the log has of a topic's records, one by one, whether they are visible or not, without what they hold."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from walsvc.format.group import decode_columns
from walsvc.log.read.counting import place_of
from walsvc.log.read.filter import Filter
from walsvc.log.read.hiding import dropped_rows, living, marked_rows, may_hide
from walsvc.log.read.reader import Found, Position
from walsvc.log.read.segments import Segments
from walsvc.log.read.stream import RawGroup


class RecordRow(NamedTuple):
    """A record's place.

    Attributes:
        lsn, type: of the record.
        topic: number of its topic, 0: none.
        visible: whether readers see it.
    """

    lsn: int
    type: int
    topic: int
    visible: bool


class Rows(Position[RecordRow]):
    """A position in a log; `take` gives rows. Of a topic it gives all that are in no hidden range, and some that are."""

    def _records(self, found: Found, rows: range) -> list[RecordRow]:
        assert isinstance(found, RawGroup)
        segments, header = self._segments, found.header
        columns = decode_columns(*found)
        gone: set[int] = set()
        if may_hide(header, segments.marks):
            gone = marked_rows(found, columns, segments.marks) | dropped_rows(columns)
        alive = living(*found, rows, segments.topics)
        chosen = alive if self._wanted is None else self._wanted.rows(*found, alive)
        return [
            RecordRow(
                header.first_lsn + row,
                0 if columns.types is None else columns.types[row],
                0 if columns.topics is None else columns.topics[row],
                row not in gone,
            )
            for row in chosen
        ]


def rows_at(segments: Segments, lsn: int, number: int) -> Rows:
    """The rows of a topic from LSN `lsn` on; `number` 0: of all."""
    return Rows(segments, lsn, Filter(number=number) if number else None)


class Walk:
    """Goes over the rows of a topic that are in no hidden range, and counts. No range may come meanwhile.

    Attributes:
        rows: where it stands.
    """

    def __init__(self, segments: Segments, number: int, limit: int, *, begin: int, below: int) -> None:
        self.rows: Rows = rows_at(segments, begin, number)
        self._ranges = segments.metadata.hidden
        self._number = number
        self._limit = limit
        self._read = deque[RecordRow]()
        self._below = below + self._ranges.records_from(number, begin)

    @classmethod
    async def begin(cls, segments: Segments, number: int, lsn: int, limit: int) -> Walk:
        """A walk from LSN `lsn` to `limit`. Truncated: it was dropped."""
        place = await place_of(segments, lsn, number)
        return cls(segments, number, limit, begin=place.lsn, below=place.below)

    async def head(self) -> RecordRow | None:
        """The next row; None: there is none."""
        while not self._read and (more := await self.rows.take(self._limit)):
            self._read.extend(row for row in more if not self._ranges.covers(self._number, row.lsn))
        return self._read[0] if self._read else None

    def step(self) -> None:
        """Go behind that row."""
        self._read.popleft()
        self._below += 1

    def below(self, lsn: int) -> int:
        """Records that the topic ever had below `lsn`, which is where it stands and in no range."""
        return self._below - self._ranges.records_from(self._number, lsn)
