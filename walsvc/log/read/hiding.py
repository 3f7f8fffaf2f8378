"""Which records of a group nobody sees: those that purge marks hide, and those that compaction has dropped."""

from __future__ import annotations

from itertools import compress, count, repeat
from typing import TypeVar

from walsvc.format.group import Columns, Flag, GroupHeader, decode_columns, record_ends
from walsvc.format.labels import unpack_attributes
from walsvc.format.purge import Marks
from walsvc.log.read.stream import RawGroup
from walsvc.model import Record

RecordT = TypeVar("RecordT", bound=Record)


def may_hide(header: GroupHeader, marks: Marks) -> bool:
    """Whether a record of the group may be hidden: nearly always not."""
    flags = header.flags
    return bool(flags & Flag.DROPPED or (flags & Flag.ATTRIBUTES and header.first_lsn < marks.highest))


def visible(raw: RawGroup, records: list[RecordT], marks: Marks) -> list[RecordT]:
    """`records`, which are some or all of the group's, without those that are hidden."""
    if not may_hide(raw.header, marks):
        return records
    columns, first = decode_columns(*raw), raw.header.first_lsn
    gone = set(purged_rows(raw, columns, marks))
    if columns.dropped is not None:
        gone.update(compress(count(), columns.dropped))
    return [record for record in records if record.lsn - first not in gone] if gone else records


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
