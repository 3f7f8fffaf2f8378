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
from walsvc.log.commit.entries import Item, Packed, Pieces
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import pack_attributes
from walsvc.model import Record
from walsvc.service.wire.frames import RECORD_COST, Batch, Records, State

NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})
make_record: partial[Record] = partial(tuple.__new__, Record)


def cost_of(records: Sequence[Record]) -> int:
    """The bytes that records take of a stream's credit."""
    return sum([len(record.payload) for record in records]) + RECORD_COST * len(records)


def packed_labels(record: Record) -> bytes:
    """A record's attributes as a frame has them. Their bytes cost no credit, but fill frames and memory."""
    return pack_attributes(record.attributes) if record.attributes else b""


def items_of(frame: Batch) -> Sequence[Item]:
    """The records in a part of a batch, of which part_bytes was asked; their labels are not checked."""
    payloads = frame.payloads
    if not frame.types and not frame.attributes:
        return payloads
    rows = zip(payloads, spread(frame.types or 0), spread(frame.attributes or b""), strict=False)
    return [Packed(own + payload, Labels(kind, 0, len(own))) if kind or own else payload for payload, kind, own in rows]


def part_bytes(frame: Batch, bytes_max: int) -> int:
    """Bytes of the records in a part of a batch, with their attributes: one value may stand for all of them.

    Raises ProtocolError where its columns do not fit each other, or the records are over `bytes_max` together.
    """
    count, attributes = len(frame.payloads), frame.attributes or b""
    if any(isinstance(each, list) and len(each) != count for each in (frame.types, attributes)):
        raise ProtocolError("the columns of a BATCH frame have different lengths")
    size = sum(map(len, frame.payloads))
    size += sum(map(len, attributes)) if isinstance(attributes, list) else len(attributes) * count
    if size > bytes_max:
        raise ProtocolError(
            f"the records of a BATCH frame have {size} bytes", expected=f"at most {bytes_max}", hint="send more parts"
        )
    return size


def columns_of(pieces: Pieces) -> tuple[list[bytes], Any, Any]:
    """The payloads, types and attributes of a part of a batch, as its frame has them."""
    if not pieces.labels:
        return pieces.payloads, None, None
    payloads, count = list(pieces.payloads), len(pieces)
    types, attributes = [0] * count, [b""] * count
    for index, labels in pieces.labels.items():
        length = labels.attributes_bytes
        types[index], attributes[index] = labels.type, payloads[index][:length]
        payloads[index] = payloads[index][length:]
    return payloads, column(types), column(attributes) if any(attributes) else None


def records_frame(id: int, turn: int, records: Sequence[Record], labels: list[bytes], state: State) -> Records:
    """One or more records as a frame of stream `id`. `labels`: of each record, as `packed_labels` gives them."""
    lsns, payloads, types, topics, timestamps, _ = map(list, zip(*records, strict=True))
    dense = lsns[-1] - lsns[0] == len(lsns) - 1
    return Records(
        id,
        turn,
        lsns[0] if dense else lsns,
        payloads,
        column(types),
        column(topics),
        column(timestamps),
        labels if any(labels) else b"",
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
