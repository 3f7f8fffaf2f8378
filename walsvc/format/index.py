"""The index of a segment: where a reader may begin, and when what was written. Pure.

A row for about every MiB of a segment, at a group that has records. Its cells are what the chain of groups must know to
begin there, and the lowest and the highest timestamp of the groups from there to the next row. So a reader that wants the
middle of a segment, or the records of an hour, goes there at once; and since each row has its own bounds, nothing depends
on a wall clock that never jumps.

In the metadata of a segment's SEAL the rows are columns, one after the other:

    offset        u64 x rows   where the group stands
    lsn           u64 x rows   its first LSN
    generation    u64 x rows   of the group before it, or less
    batch         u64 x rows   first LSN of the batch that it is in the middle of; 0: none
    low           u64 x rows   lowest timestamp up to the next row, or lower
    high          u64 x rows   highest timestamp up to the next row, or higher
    previous_crc  u32 x rows   header CRC of the group before it
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from walsvc.config import MIB
from walsvc.format.columns import decode_column, encode_column
from walsvc.format.group import BadGroup, GroupHeader

ROW_BYTES = 6 * 8 + 4
ROWS_MAX = 4096  # of one segment: 208 KiB, also where a segment has 64 GiB
FRAME_BYTES = 16  # key and length in the seal's map


class IndexRow(NamedTuple):
    """A place where reading may begin; see the module's table."""

    offset: int
    lsn: int
    generation: int
    batch: int
    low: int
    high: int
    previous_crc: int


class SegmentIndex:
    """The rows of one segment, in order; the writer's grows while it writes."""

    __slots__ = ("_columns", "_spacing", "lsns")

    def __init__(self, file_bytes: int) -> None:
        self._spacing = spacing(file_bytes)
        self._columns = [array(code) for code in "QQQQQQI"]
        self.lsns: array[int] = self._columns[1]

    def __len__(self) -> int:
        return len(self.lsns)

    def __iter__(self) -> Iterator[IndexRow]:
        return map(IndexRow._make, zip(*self._columns, strict=True))

    def __getitem__(self, place: int) -> IndexRow:
        return IndexRow._make(column[place] for column in self._columns)

    def note(self, header: GroupHeader) -> None:
        """Take note of the next group of the segment."""
        if not header.records:
            return
        offsets, _, _, _, lows, highs, _ = self._columns
        time = header.timestamp_ns
        if offsets and header.offset - offsets[-1] < self._spacing:
            lows[-1] = min(lows[-1], time)
            highs[-1] = max(highs[-1], time)
            return
        batch = 0 if header.batch_lsn == header.first_lsn else header.batch_lsn
        cells = (header.offset, header.first_lsn, header.generation, batch, time, time, header.previous_crc)
        for column, cell in zip(self._columns, cells, strict=True):
            column.append(cell)

    def rewind(self, offset: int) -> None:
        """The segment ends at `offset` again. The bounds of the row before may be wider than need be from now on."""
        while self._columns[0] and self._columns[0][-1] >= offset:
            for column in self._columns:
                column.pop()

    def at(self, lsn: int) -> int | None:
        """Number of the last row that does not begin behind `lsn`; None: there is none."""
        place = bisect_right(self.lsns, lsn) - 1
        return place if place >= 0 else None

    def wanted(self, lsn: int, since: int, until: int) -> int | None:
        """The first LSN from `lsn` on at which a record may have a timestamp of `since` or later and before `until`; None:
        there is none in the segment."""
        first = self.at(lsn)
        lows, highs = self._columns[4], self._columns[5]
        for place in range(first or 0, len(self)):
            if highs[place] >= since and lows[place] < until:
                return max(self.lsns[place], lsn)
        return None

    def begins(self, lsn: int) -> bool:
        """True if a row begins with this LSN."""
        place = self.at(lsn)
        return place is not None and self.lsns[place] == lsn

    @property
    def newest(self) -> int:
        """The highest timestamp of all rows, 0 when there is none."""
        return max(self._columns[5], default=0)

    def encode(self) -> bytes:
        """The columns' bytes."""
        return b"".join(map(encode_column, self._columns))

    @classmethod
    def decode(cls, data: bytes) -> SegmentIndex:
        """The index in a seal. Raises BadGroup if it is cut."""
        rows, rest = divmod(len(data), ROW_BYTES)
        if rest:
            raise BadGroup("the segment's index is cut")
        index, at = cls(0), 0
        for place, column in enumerate(index._columns):
            end = at + rows * column.itemsize
            index._columns[place] = decode_column(data[at:end], column.typecode)
            at = end
        index.lsns = index._columns[1]
        return index


def spacing(file_bytes: int) -> int:
    """Bytes from row to row at least, in a segment of `file_bytes`."""
    return max(MIB, file_bytes // ROWS_MAX)


def index_bytes_max(file_bytes: int) -> int:
    """Bytes that the index of a segment of `file_bytes` takes in its seal at most."""
    return FRAME_BYTES + ROW_BYTES * (file_bytes // spacing(file_bytes) + 1)
