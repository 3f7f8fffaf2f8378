"""Entries of a stream as records of a topic: the id is `<lsn>-0`, and the fields are the payload.

One field named `payload` is the bytes themselves, so that a Python program sees what it would have appended. Anything else is a
msgpack map, of binary strings to binary strings in the order in which they came, and the record's type is FIELDS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgpack

from walsvc.model import Record
from walsvc.service.fronts.redis.replies import Failure

FIELDS = 0x5245  # "RE"
PAYLOAD = b"payload"
LSN_MAX = (1 << 63) - 1
PART_MAX = (1 << 64) - 1  # of an id
NUMBER = re.compile(rb"[ \t\n\v\f\r]*\+?\d{1,126}")
INVALID_ID = "ERR Invalid stream ID specified as stream command argument"
_packer = msgpack.Packer()


def packed(fields: Sequence[bytes]) -> tuple[bytes, int]:
    """Encode fields and values in turn as payload and type."""
    if len(fields) == 2 and fields[0] == PAYLOAD:
        return fields[1], 0
    pairs = [tuple(fields)] if len(fields) == 2 else list(zip(fields[::2], fields[1::2], strict=True))
    return _packer.pack_map_pairs(pairs), FIELDS


def fields_of(record: Record) -> list[bytes]:
    """Decode the fields and values of a record, in turn. A record of another program has the field `payload`."""
    if record.type == FIELDS:
        try:
            pairs = msgpack.unpackb(record.payload, raw=True, object_pairs_hook=list, strict_map_key=False)
            if all(type(each) is bytes for pair in pairs for each in pair):
                return [each for pair in pairs for each in pair]
        except (ValueError, TypeError, msgpack.UnpackException):
            pass  # of another program, which has taken this type
    return [PAYLOAD, bytes(record.payload)]


def id_of(lsn: int) -> bytes:
    """The id of a record."""
    return b"%d-0" % lsn


def entry_of(record: Record) -> list[object]:
    """A record as commands answer it."""
    return [id_of(record.lsn), fields_of(record)]


def parse_id(text: bytes) -> tuple[int, int | None]:
    """Parse an id into its two parts; the second is None where it is left out."""
    first, dash, second = text.partition(b"-")
    if not is_number(first) or (dash and not is_number(second)):
        raise Failure(INVALID_ID)
    return int(first), int(second) if dash else None


def is_id(text: bytes) -> bool:
    """True if the text is an id, of one part or two."""
    return all(map(is_number, text.split(b"-", 1)))


def is_number(digits: bytes) -> bool:
    """True if the text is a number of 64 bits, as C's strtoull reads it: white space and a plus may be in front, and zeros."""
    return NUMBER.fullmatch(digits) is not None and int(digits) <= PART_MAX


def after(text: bytes) -> int:
    """The first LSN above an id, which XREAD begins at."""
    lsn, _ = parse_id(text)
    return min(lsn, LSN_MAX) + 1


def entry_named(text: bytes) -> int:
    """The LSN of the entry that an id names; 0, which is no entry's, for an id whose second part is not 0."""
    lsn, sequence = parse_id(text)
    return 0 if sequence else lsn


def first_of(text: bytes) -> int:
    """The first LSN of a range that begins with this id; `-` is the lowest, and `(` leaves the id itself out."""
    if text == b"-":
        return 1
    if text == b"+":
        return LSN_MAX
    if excluded := text.startswith(b"(") and len(text) > 1:
        text = text[1:]
    lsn, sequence = parse_id(text)
    if excluded and lsn == sequence == PART_MAX:
        raise Failure("ERR invalid start ID for the interval")
    return min(lsn, LSN_MAX) + (excluded or bool(sequence))


def last_of(text: bytes) -> int:
    """The last LSN of a range that ends with this id; `+` is the highest, and `(` leaves the id itself out."""
    if text == b"+":
        return LSN_MAX
    if text == b"-":
        return 0
    if excluded := text.startswith(b"(") and len(text) > 1:
        text = text[1:]
    lsn, sequence = parse_id(text)
    if excluded and lsn == sequence == 0:
        raise Failure("ERR invalid end ID for the interval")
    return min(lsn, LSN_MAX) - (excluded and sequence == 0)
