"""Which records of a group nobody sees: those that purge marks or ranges hide, those of topics that have gone, and those that
compaction has dropped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count, repeat
from typing import TypeVar

from walsvc.format.group import Bytes, Columns, Flag, GroupHeader, decode_columns, record_ends
from walsvc.format.labels import unpack_attributes
from walsvc.format.purge import Marks
from walsvc.format.topics import Topics
from walsvc.log.read.stream import RawGroup
from walsvc.model import Record

RecordT = TypeVar("RecordT", bound=Record)


def may_hide(header: GroupHeader, marks: Marks) -> bool:
    """True if a record of the group may be hidden: nearly always not."""
    flags, first = header.flags, header.first_lsn
    if flags & Flag.DROPPED or first <= marks.ranges.highest:
        return True
    return bool(flags & Flag.ATTRIBUTES) and first < marks.highest


def living(header: GroupHeader, data: Bytes, at: int, rows: Sequence[int], topics: Topics) -> Sequence[int]:
    """Which of a group's records at the places `rows` are of topics that have not gone, or of none. `data` need not hold the
    payloads."""
    if not header.flags & Flag.TOPICS or header.first_lsn > topics.gone_last:
        return rows
    numbers = decode_columns(header, data, at).topics
    gone = topics.gone_of(numbers or ())
    return [row for row in rows if numbers[row] not in gone] if numbers and gone else rows


def visible(raw: RawGroup, records: list[RecordT], marks: Marks) -> list[RecordT]:
    """`records`, which are some or all of the group's, without those that are hidden."""
    if not may_hide(raw.header, marks):
        return records
    columns, first = decode_columns(*raw), raw.header.first_lsn
    gone = marked_rows(raw, columns, marks) | dropped_rows(columns)
    return [record for record in records if record.lsn - first not in gone] if gone else records


def hidden_rows(raw: RawGroup, columns: Columns, marks: Marks, topics: Topics) -> set[int]:
    """Indices of the group's records that are hidden, and were not dropped before."""
    hidden = marked_rows(raw, columns, marks)
    everything = range(raw.header.records)
    if len(alive := living(*raw, everything, topics)) < len(everything):
        hidden.update(set(everything).difference(alive))
    return hidden - dropped_rows(columns)


def marked_rows(raw: RawGroup, columns: Columns, marks: Marks) -> set[int]:
    """Indices of the group's records that marks or ranges hide."""
    header = raw.header
    return {*purged_rows(raw, columns, marks), *marks.ranges.rows(header.first_lsn, header.records, columns.topics)}


def dropped_rows(columns: Columns) -> set[int]:
    """Indices of the group's records that compaction has dropped."""
    return set() if columns.dropped is None else set(compress(count(), columns.dropped))


def purged_rows(raw: RawGroup, columns: Columns, marks: Marks) -> list[int]:
    """Indices of the group's records that marks hide; those that were dropped before have no attributes any more."""
    header, data, at = raw
    if columns.attributes is None or header.first_lsn >= marks.highest:
        return []
    starts, topics = record_ends(columns, at), columns.topics or repeat(0)
    before: dict[tuple[int, bytes], int] = {}  # many records have the same attributes
    found = []
    for index, (start, length, topic) in enumerate(zip(starts, columns.attributes, topics, strict=False)):
        if not length:
            continue
        packed = bytes(data[start : start + length])
        if (topic, packed) not in before:
            attributes = unpack_attributes(packed)
            before[topic, packed] = marks.before(topic, attributes)
        if header.first_lsn + index < before[topic, packed]:
            found.append(index)
    return found
