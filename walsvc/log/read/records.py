"""Groups to records, and what reading them asks of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import add
from types import MappingProxyType
from typing import Any, Protocol

from walsvc.format.group import GROUP_HEADER_BYTES, JOIN_BELOW, decode_columns, record_ends
from walsvc.format.index import SegmentIndex
from walsvc.format.labels import unpack_attributes
from walsvc.format.purge import Marks
from walsvc.keyring import KeyRing
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.stream import RawGroup
from walsvc.log.read.summaries import Summaries
from walsvc.model import Record

NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})
make_record: partial[Record] = partial(tuple.__new__, Record)


class Segments(Protocol):
    """What a reader must know of a log; it may change between two calls."""

    @property
    def first_lsn(self) -> int:
        """First visible LSN."""

    @property
    def epoch(self) -> int:
        """Changes when what was read ahead may have become void."""

    @property
    def cuts(self) -> Cuts:
        """Where the log's end was taken back; each of them changes the epoch, too."""

    @property
    def generation(self) -> int:
        """The highest that any segment has."""

    @property
    def released(self) -> bool:
        """The log is closed, and its files cannot be read any more."""

    async def look_again(self) -> bool:
        """A file was not where it should be, or not as it should be. True if that may be different now."""

    def segment_ids(self) -> list[int]:
        """First LSNs of all segments, ascending."""

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """Name and length of a segment's file."""

    @property
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers."""

    @property
    def marks(self) -> Marks:
        """Which records are purged."""

    @property
    def summaries(self) -> Summaries:
        """What the seals of segments say."""

    def index_of(self, segment: int) -> SegmentIndex | None:
        """The index of a segment that is being written; None for any other: its seal has it."""

    @property
    def keys(self) -> KeyRing | None:
        """The keys of an encrypted log."""


def decode_records(raw: RawGroup, names: Sequence[str | None], rows: Sequence[int]) -> list[Record]:
    """Records of a checked group.

    Args:
        raw: the group.
        names: those of the topics by number.
        rows: which of its records, ascending; a range for all from one to another.
    """
    header, data, at = raw
    columns = decode_columns(header, data, at)
    if isinstance(rows, range) and header.payload_bytes < JOIN_BELOW * header.records:
        # slices of bytes cost half of those of a memoryview, but large payloads should be copied only once
        data, at = bytes(data[at : at + GROUP_HEADER_BYTES + header.payload_bytes]), 0
    ends = record_ends(columns, at)
    starts, stops = picked(ends, rows), picked(ends, rows, 1)
    attributes: Any = repeat(NO_ATTRIBUTES)
    if columns.attributes is not None:
        lengths = picked(columns.attributes, rows)
        attributes = [
            unpack_attributes(data[start : start + length]) if length else NO_ATTRIBUTES
            for start, length in zip(starts, lengths, strict=True)
        ]
        starts = list(map(add, starts, lengths))
    if isinstance(data, bytes):
        payloads = [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
    else:
        payloads = [bytes(data[start:stop]) for start, stop in zip(starts, stops, strict=True)]
    fields = zip(
        map(header.first_lsn.__add__, rows),
        payloads,
        repeat(0) if columns.types is None else picked(columns.types, rows),
        repeat(None) if columns.topics is None else map(names.__getitem__, picked(columns.topics, rows)),
        repeat(header.timestamp_ns),
        attributes,
        strict=False,
    )
    return list(map(make_record, fields))


def picked(cells: Sequence[int], rows: Sequence[int], shift: int = 0) -> Sequence[int]:
    """The cells of the rows, or those `shift` places behind them."""
    if isinstance(rows, range):
        return cells[rows.start + shift : rows.stop + shift]
    return [cells[row + shift] for row in rows]
