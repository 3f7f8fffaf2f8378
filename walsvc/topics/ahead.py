"""Ahead: the records that a shared consumer has read and that are not done, and the place where it reads on.

Owns the reader and the records' memory. Records come in the order of their LSNs, each with the first LSN of the stretch that is its
own: there, and up to it, its topic has nothing else. A record that is out, or waits for its key or its time, may lose its
place in memory to others; `load` reads it again.
"""

from __future__ import annotations

from typing import NamedTuple

from walsvc.errors import Truncated
from walsvc.log.read.reader import cursor_at
from walsvc.log.read.segments import Segments
from walsvc.model import Record
from walsvc.tasks import TaskLock

KEPT_BYTES_MAX = 16 << 20  # payloads of one shared consumer in memory, beyond one group


class Found(NamedTuple):
    """A record, and the first LSN of its stretch."""

    first: int
    record: Record


class Ahead:
    """Reads on, for one shared consumer. Loop thread only.

    Attributes:
        following: LSN behind what was read.
        bytes: payload bytes of the records in memory.
    """

    def __init__(self, segments: Segments, number: int, start: int) -> None:
        self._segments = segments
        self._number = number
        self._cursor = cursor_at(segments, start, number)
        self._behind = start  # LSN behind the last record that was read
        self._turns = 0  # changes whenever it was moved: what is being read then is void
        self._records: dict[int, Record] = {}
        self.bytes: int = 0
        self._reading = TaskLock()

    @property
    def following(self) -> int:
        """LSN behind what was read."""
        return self._cursor.next_lsn

    @property
    def behind(self) -> int:
        """LSN behind the last record that was read."""
        return self._behind

    def move(self, lsn: int, behind: int) -> None:
        """Go on at `lsn`, where the last record that was read stands before LSN `behind`; forget what is there or beyond."""
        self._turns += 1
        self._cursor = cursor_at(self._segments, lsn, self._number)
        self._behind = min(behind, lsn)
        for each in [each for each in self._records if each >= lsn]:
            self.drop(each)

    async def read(self, limit: int) -> list[Found] | None:
        """Read the next records below `limit`; empty where there are none. None: another task has read meanwhile, or moved it. Raises
        what the reader raises."""
        turns, following = self._turns, self.following
        async with self._reading:
            if turns != self._turns or following != self.following:
                return None
            try:
                records = await self._cursor.take(limit)
            except Truncated:
                if turns != self._turns:
                    return None
                raise
        if turns != self._turns:
            return None
        found = []
        for record in records:
            found.append(Found(self._behind, record))
            self._behind = record.lsn + 1
        return found

    # ---- the records

    def __contains__(self, lsn: int) -> bool:
        return lsn in self._records

    def get(self, lsn: int) -> Record | None:
        """A record that is in memory."""
        return self._records.get(lsn)

    def keep(self, record: Record) -> None:
        """Keep a record that was read, in place of others where there is no room."""
        if record.lsn not in self._records:
            self.bytes += len(record.payload)
        self._records[record.lsn] = record
        while self.bytes > KEPT_BYTES_MAX and len(self._records) > 1:
            last = (
                next(reversed(self._records)) if record.lsn == next(iter(self._records)) else next(iter(self._records))
            )
            self.drop(last)

    def drop(self, lsn: int) -> None:
        """The record is done, or out of reach."""
        if (record := self._records.pop(lsn, None)) is not None:
            self.bytes -= len(record.payload)

    async def load(self, lsn: int) -> Record | None:
        """Read a record again; None: it is not there any more, or hidden."""
        if (known := self._records.get(lsn)) is not None:
            return known
        try:
            records = await cursor_at(self._segments, lsn, self._number).take(lsn + 1)
        except Truncated:
            return None
        record = records[0] if records and records[0].lsn == lsn else None
        if record is not None:
            self.keep(record)
        return record
