"""Groups to records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import add
from types import MappingProxyType
from typing import Any

from walsvc.format.group import GROUP_HEADER_BYTES, JOIN_BELOW, decode_columns, record_ends
from walsvc.format.labels import unpack_attributes
from walsvc.log.read.stream import RawGroup
from walsvc.model import Record

NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})
make_record: partial[Record] = partial(tuple.__new__, Record)


def decode_records(raw: RawGroup, names: Mapping[int, str], rows: Sequence[int]) -> list[Record]:
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
        repeat(None) if columns.topics is None else map(names.get, picked(columns.topics, rows)),
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
