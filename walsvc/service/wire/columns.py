"""Records as a RECORDS frame and back: columns, of which one that is the same for all records is a single value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import Any

import msgpack

from walsvc.errors import ProtocolError
from walsvc.format.labels import unpack_attributes
from walsvc.log.commit.payload import pack_attributes
from walsvc.model import Record
from walsvc.service.wire.frames import RECORD_COST, Records, State

NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})
make_record: partial[Record] = partial(tuple.__new__, Record)


def cost_of(records: Sequence[Record]) -> int:
    """What records take of a stream's credit."""
    return sum([len(record.payload) for record in records]) + RECORD_COST * len(records)


def records_frame(id: int, turn: int, records: Sequence[Record], state: State) -> Records:
    """One or more records as a frame of stream `id`."""
    lsns, payloads, types, topics, timestamps, maps = map(list, zip(*records, strict=True))
    dense = lsns[-1] - lsns[0] == len(lsns) - 1
    attributes: Any = b""
    if any(maps):
        attributes = [pack_attributes(each) if each else b"" for each in maps]
    return Records(
        id,
        turn,
        lsns[0] if dense else lsns,
        payloads,
        column(types),
        column(topics),
        column(timestamps),
        attributes,
        state,
    )


def column(values: list[Any]) -> Any:
    """The one value that all of them are, or the list."""
    first = values[0]
    return first if values.count(first) == len(values) else values


def records_of(frame: Records) -> list[Record]:
    """The records in a frame. Raises ProtocolError where its columns do not fit each other."""
    count = len(frame.payloads)
    lsns: Iterable[int] = range(frame.lsns, frame.lsns + count) if isinstance(frame.lsns, int) else frame.lsns
    attributes: Iterable[Mapping[str, Any]] = repeat(NO_ATTRIBUTES)
    columns = (frame.lsns, frame.types, frame.topics, frame.timestamps, frame.attributes)
    if any(isinstance(each, list) and len(each) != count for each in columns):
        raise ProtocolError("the columns of a RECORDS frame have different lengths")
    if frame.attributes:
        packed = frame.attributes if isinstance(frame.attributes, list) else [frame.attributes] * count
        try:
            attributes = [unpack_attributes(each) if each else NO_ATTRIBUTES for each in packed]
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            raise ProtocolError(f"the attributes of a record are not msgpack: {error}") from None
    rows = zip(
        lsns,
        frame.payloads,
        spread(frame.types),
        spread(frame.topics),
        spread(frame.timestamps),
        attributes,
        strict=False,
    )
    return list(map(make_record, rows))


def spread(values: Any) -> Iterable[Any]:
    """A column as one value for each record."""
    return values if isinstance(values, list) else repeat(values)
