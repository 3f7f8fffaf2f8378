"""The log's files as a stream's messages tell of them. Pure: messages in, files and places out.

Two questions are answered here: which segments are there, and in which messages do the bytes of one stand. The first is
known from the newest directory on. The second is found out for a segment when it is first read, by going through its
messages once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from walsvc.engines.jetstream.message import BadMessage, Kind, Message, SegmentRow, decode_rows, segment_of


class FilePart(NamedTuple):
    """Bytes of a file that stand in one message: `length` from `offset` on. `end_lsn`: LSN behind the write's records."""

    offset: int
    length: int
    sequence: int
    end_lsn: int


def piece_of(message: Message) -> FilePart:
    """The part of the file that a write's message holds."""
    return FilePart(message.offset, message.length, message.sequence, message.next_lsn)


class Hole(NamedTuple):
    """A place in a file where a message is missing or damaged, and the LSN that must have stood there."""

    offset: int
    sequence: int
    lsn: int
    reason: str


@dataclass(slots=True)
class Index:
    """The messages that hold the bytes of a segment's file, in order of offset. Bytes that were written twice stand in the last message."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    sequences: array[int] = field(default_factory=lambda: array("Q"))
    end_lsns: array[int] = field(default_factory=lambda: array("Q"))
    hole: Hole | None = None  # the first one

    def add(self, piece: FilePart) -> None:
        """Take note of a write. Older ones that begin inside it are gone: what is left behind their end means nothing."""
        columns = (self.offsets, self.lengths, self.sequences, self.end_lsns)
        if self.offsets and piece.offset <= self.offsets[-1]:
            low = bisect_left(self.offsets, piece.offset)
            high = bisect_left(self.offsets, piece.offset + piece.length)
            behind = [column[high:] for column in columns]
            for column in columns:
                del column[low:]
            for column, cell in zip(columns, piece, strict=True):
                column.append(cell)
            for column, cells in zip(columns, behind, strict=True):
                column.extend(cells)
            return
        for column, cell in zip(columns, piece, strict=True):
            column.append(cell)

    def between(self, start: int, end: int) -> list[FilePart]:
        """The pieces that have bytes in [start, end), in order."""
        first = max(bisect_right(self.offsets, start) - 1, 0)
        last = bisect_left(self.offsets, end)
        rows = zip(
            self.offsets[first:last],
            self.lengths[first:last],
            self.sequences[first:last],
            self.end_lsns[first:last],
            strict=True,
        )
        return [piece for piece in map(FilePart._make, rows) if piece.offset + piece.length > start]

    @property
    def end(self) -> tuple[int, int]:
        """Offset and LSN behind the last write."""
        if not self.offsets:
            return 0, 0
        return self.offsets[-1] + self.lengths[-1], self.end_lsns[-1]


@dataclass(slots=True)
class SegmentFile:
    """A segment's file: its length, and the first and last messages that concern it. `index` None: not read yet; `edges`
    holds the first and the last write only. `used`: the higher, the later it was read."""

    first_lsn: int
    file_bytes: int
    first_sequence: int
    last_sequence: int
    index: Index | None = None
    edges: Index | None = None
    used: int = 0


class SegmentTable:
    """The segments, by their first LSN. Give it every message from a directory on, in order."""

    def __init__(self) -> None:
        self.files: dict[int, SegmentFile] = {}
        self._known = False
        self._parts: list[Message] = []

    def by_age(self) -> list[SegmentFile]:
        """All segments, in the order in which they were begun."""
        return sorted(self.files.values(), key=lambda each: each.first_sequence)

    def apply(self, message: Message) -> None:
        """Change the files as a message says. Raises BadMessage where a directory or a segment header is damaged."""
        whole = self._whole(message)
        if not whole or message.kind == Kind.CLAIM:
            return
        first = whole[0]
        if message.kind == Kind.REMOVE:
            self.files.pop(message.segment, None)
        elif message.kind == Kind.WRITE:
            self.write(first.segment, first.offset, first.sequence, message.sequence, first.body)
            file = self.files.get(first.segment)
            if file is not None and file.index is not None:
                for part in whole:
                    file.index.add(piece_of(part))
        elif not self._known:
            rows = decode_rows(b"".join(part.body for part in whole))
            self.files = {row.first_lsn: SegmentFile(*row) for row in rows}
        self._known = self._known or message.kind == Kind.DIRECTORY

    def write(self, segment: int, offset: int, first_sequence: int, last_sequence: int, data: bytes) -> None:
        """A write whose parts are these messages; `data` begins with what its first part begins with."""
        if offset == 0:
            header = segment_of(data)
            if header is None:
                raise BadMessage("the beginning of a segment has no segment header")
            self.files[segment] = SegmentFile(segment, header.file_bytes, first_sequence, last_sequence, Index())
        elif segment in self.files:
            self.files[segment].last_sequence, self.files[segment].edges = last_sequence, None

    def _whole(self, message: Message) -> list[Message]:
        """All parts, when `message` is the last one and the others came right before it; else none."""
        if message.part == 0:
            self._parts = []
        if message.part != len(self._parts):
            self._parts = []
            return []
        self._parts.append(message)
        if message.part < message.parts - 1:
            return []
        whole, self._parts = self._parts, []
        return whole

    def rows(self) -> list[SegmentRow]:
        """Content of a directory message."""
        return [
            SegmentRow(each.first_lsn, each.file_bytes, each.first_sequence, each.last_sequence)
            for each in self.files.values()
        ]

    @property
    def first_sequence(self) -> int | None:
        """The lowest sequence that a segment needs; None without segments."""
        return min((each.first_sequence for each in self.files.values()), default=None)
