"""Group: the unit of writing, of checking and of atomicity. One write and one sync each. Integers little-endian.

    | header 128 | payload area | index | metadata | zero padding to the segment's alignment |

Header:

    offset  size  field
         0     4  magic          "wGRP"
         4     4  flags          see Flag; an unknown bit means a newer format
         8     8  log_id         as in the segment header
        16     8  generation     of the writer; never falls within a log, rises with each opening
        24     8  segment        first LSN of the segment, so that nothing in a recycled file validates
        32     8  offset         of this group in its file
        40     8  first_lsn      LSN of the first record (of the next one, if the group has none)
        48     8  durable_lsn    last LSN known to be on stable storage when this group was submitted: evidence
        56     8  batch_lsn      first LSN of the batch that spans several groups, 0: none
        64     8  timestamp_ns   wall clock when the group was closed, Unix nanoseconds
        72     4  records        number of records; their LSNs are first_lsn, first_lsn + 1, ...
        76     4  payload_bytes  length of the payload area
        80     4  index_bytes    length of the index
        84     4  meta_bytes     length of the metadata
        88     4  group_bytes    the whole group with header and padding
        92     4  previous_crc   header CRC of the preceding group in the segment (first group: CRC of the segment header)
        96    12  nonce          when encrypted
       108     4  payload_crc    CRC32C of the payload area
       112     4  rest_crc       CRC32C of index, metadata and padding
       116     4  durable_units  everything in this segment before offset durable_units * 64 was on stable storage when this
                                 group was submitted: evidence, also of metadata; 0: says nothing
       120     4  last_crc       header CRC, as it was first written, of the last group with records before this one, in this
                                 segment or an earlier one; 0: not known. A rewritten segment keeps it
       124     4  header_crc     CRC32C of bytes 0 to 123; since it covers all other CRCs, the chain covers the content

The payload area is the records' bytes one after the other: each record's attributes (msgpack map, may be absent), then
its payload. The index is columns, not rows, so that an ordinary record costs four bytes and no work of its own, and so
that a filtering reader needs the index only (Abadi et al., "Column-Stores vs. Row-Stores", 2008):

    lengths      u32 x records   bytes of the record in the payload area (attributes and payload)
    types        u16 x records   only with Flag.TYPES      (else all 0)
    topics       u32 x records   only with Flag.TOPICS     (else all 0: no topic)
    attributes   u32 x records   only with Flag.ATTRIBUTES: bytes of the record that are attributes (else all 0)
    dropped      u8 x records    only with Flag.DROPPED: 1 where compaction has dropped attributes and payload (else all 0)

A group is valid if and only if (1) magic and header CRC are right, (2) log_id, segment and offset are those of its place,
(3) generation is not below, and first_lsn and previous_crc are exactly, what the preceding group demands, (4) group_bytes
is a multiple of the alignment, within the file, and no less than the parts, (5) payload and rest CRC are right,
(6) the lengths add up to payload_bytes, (7) while a batch is unfinished, only groups of that batch have records. The
header's CRC is checked before any of its lengths is trusted.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from walsvc.checksum import crc32c
from walsvc.format.columns import decode_column
from walsvc.visible import counted

GROUP_MAGIC = b"wGRP"
GROUP_FIELDS = struct.Struct("<4sIQQQQQQQQIIIIII12sIIII")
GROUP_HEADER_BYTES = 128
CRCS_OFFSET = 108  # of payload_crc: what stands before is authenticated in an encrypted segment
HEADER_CRC_OFFSET = 124
DURABLE_UNIT = 64  # every group begins and ends at a multiple of it
TAG_BYTES = 16  # behind the metadata in an encrypted segment
HEADER_CRC = struct.Struct("<I")
LENGTH_BYTES = 4  # index bytes of an ordinary record
INDEX_BYTES_MAX = 4 + 2 + 4 + 4  # of a record with all columns
JOIN_BELOW = 4096  # payloads smaller than this on average are joined first: fewer Python-level copies


class Flag(enum.IntEnum):
    """Bits of a group's `flags`. Together they are plain ints: IntFlag takes twenty times as long for every `&`."""

    SNAPSHOT = 1  # the metadata is the whole state and replaces what was known
    OPEN = 2  # a writer opened the log here; the generation rises
    CLOSE = 4  # a writer closed the log here in order
    SEAL = 8  # last group of the segment; the metadata names the successor
    TYPES = 16
    TOPICS = 32
    ATTRIBUTES = 64
    BATCH = 128  # part of an atomic batch that spans several groups; batch_lsn is its first LSN
    BATCH_END = 256  # the batch's last group: from here on all of it counts, before that none
    DROPPED = 512  # some records are only numbers: what they held was purged and compacted away


FLAGS_KNOWN: int = sum(Flag)
Bytes = bytes | memoryview  # a group is decoded where it was read
OPTIONAL_COLUMNS = (("H", Flag.TYPES), ("I", Flag.TOPICS), ("I", Flag.ATTRIBUTES), ("B", Flag.DROPPED))
COLUMN_FLAGS: int = sum(flag for _, flag in OPTIONAL_COLUMNS)
CELL_BYTES = {"B": 1, "H": 2, "I": 4}  # by array type code


class GroupHeader(NamedTuple):
    """The fields of a group header; see the module's table."""

    flags: int
    log_id: int
    generation: int
    segment: int
    offset: int
    first_lsn: int
    durable_lsn: int
    batch_lsn: int
    timestamp_ns: int
    records: int
    payload_bytes: int
    index_bytes: int
    meta_bytes: int
    group_bytes: int
    previous_crc: int
    nonce: bytes = bytes(12)
    payload_crc: int = 0
    rest_crc: int = 0
    durable_units: int = 0
    last_crc: int = 0
    header_crc: int = 0

    @property
    def next_lsn(self) -> int:
        """LSN after the last record."""
        return self.first_lsn + self.records

    @property
    def body_bytes(self) -> int:
        """Payload area, index and metadata."""
        return self.payload_bytes + self.index_bytes + self.meta_bytes

    @property
    def durable_end(self) -> int:
        """Offset before which all of the segment was on stable storage when the group was submitted."""
        return self.durable_units * DURABLE_UNIT

    @property
    def end(self) -> int:
        """Offset after the group."""
        return self.offset + self.group_bytes


class BadGroup(ValueError):
    """Bytes that are no valid group. `newer`: because of an unknown flag under a right CRC."""

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


class Columns(NamedTuple):
    """The decoded index: one entry for each record; None where all are zero."""

    lengths: array[int]
    types: array[int] | None
    topics: array[int] | None
    attributes: array[int] | None
    dropped: array[int] | None


def align_up(length: int, align: int) -> int:
    """The next multiple of `align` (a power of two)."""
    return (length + align - 1) & -align


def encode_group(view: memoryview, header: GroupHeader, payloads: Sequence[Bytes], rest: bytes) -> int:
    """Write a whole group into `view` and return its header CRC, which the next group must name.

    Args:
        view: exactly header.group_bytes long; every byte is overwritten, so nothing old can leak through the padding.
        header: all fields but the three CRCs of this group.
        payloads: the pieces of the payload area in order.
        rest: index and metadata.
    """
    start, end = GROUP_HEADER_BYTES, GROUP_HEADER_BYTES + header.payload_bytes
    if header.payload_bytes < JOIN_BELOW * len(payloads):
        joined = b"".join(payloads)
        view[start:end] = joined
        payload_crc = crc32c(joined)
    else:
        at = start
        for payload in payloads:
            view[at : at + len(payload)] = payload
            at += len(payload)
        assert at == end, "payload_bytes is not the sum of the payloads"
        payload_crc = crc32c(view[start:end])
    padded = rest + bytes(header.group_bytes - end - len(rest))
    view[end:] = padded
    fields = GROUP_FIELDS.pack(GROUP_MAGIC, *header[:16], payload_crc, crc32c(padded), *header[18:20])
    header_crc: int = crc32c(fields)
    view[:GROUP_HEADER_BYTES] = fields + HEADER_CRC.pack(header_crc)
    return header_crc


def decode_group_header(data: Bytes, at: int = 0) -> GroupHeader:
    """Parse the 128 bytes at `at`; rule 1 only (magic, CRC, known flags). Raises BadGroup."""
    if len(data) - at < GROUP_HEADER_BYTES:
        raise BadGroup("the file ends inside a group header")
    if data[at : at + 4] != GROUP_MAGIC:
        raise BadGroup("no group starts here")
    (header_crc,) = HEADER_CRC.unpack_from(data, at + HEADER_CRC_OFFSET)
    if crc32c(data[at : at + HEADER_CRC_OFFSET]) != header_crc:
        raise BadGroup("the group header's CRC is wrong")
    fields = GROUP_FIELDS.unpack_from(data, at)
    if fields[1] & ~FLAGS_KNOWN:
        raise BadGroup(f"group flags {fields[1] & ~FLAGS_KNOWN:#x} are unknown", newer=True)
    return GroupHeader._make((*fields[1:], header_crc))


def check_group_body(header: GroupHeader, data: Bytes, at: int = 0, *, encrypted: bool = False) -> None:
    """Rules 4 (the parts), 5 and, unless it is encrypted, 6 for the group whose header was parsed at `at`.

    Raises BadGroup. Rule 6 of an encrypted group is checked when it is opened (SegmentCipher.open_group).
    """
    start = at + GROUP_HEADER_BYTES
    middle, end = start + header.payload_bytes, at + header.group_bytes
    if middle + header.index_bytes + header.meta_bytes + (TAG_BYTES if encrypted else 0) > end:
        raise BadGroup("the group's parts are longer than the group")
    body = memoryview(data)
    if crc32c(body[start:middle]) != header.payload_crc:
        raise BadGroup("the payload's CRC is wrong")
    if crc32c(body[middle:end]) != header.rest_crc:
        raise BadGroup("the CRC of index, metadata and padding is wrong")
    if not encrypted:
        check_group_lengths(header, data, at)


def check_group_lengths(header: GroupHeader, data: bytes | memoryview, at: int = 0) -> None:
    """Rule 6. Raises BadGroup."""
    if sum(decode_columns(header, data, at).lengths) != header.payload_bytes:
        raise BadGroup("the records' lengths do not add up to the payload area")


@lru_cache
def column_codes(flags: int) -> tuple[int, tuple[str | None, ...]]:
    """Index bytes of one record, and the array type codes of the columns in order; None: that column is not there."""
    codes = ["I", *(code if flags & flag else None for code, flag in OPTIONAL_COLUMNS)]
    return sum(CELL_BYTES[code] for code in codes if code), tuple(codes)


def decode_columns(header: GroupHeader, data: Bytes, at: int = 0) -> Columns:
    """The index of the group at `at`. Raises BadGroup if its length is not what flags and record count demand."""
    position = at + GROUP_HEADER_BYTES + header.payload_bytes
    row_bytes, codes = column_codes(header.flags & COLUMN_FLAGS)
    if header.index_bytes != header.records * row_bytes:
        raise BadGroup(
            f"the index has {header.index_bytes} bytes, that of {counted(header.records, 'record')} {header.records * row_bytes}"
        )
    columns: list[array[int] | None] = []
    for code in codes:
        if code is None:
            columns.append(None)
            continue
        end = position + header.records * CELL_BYTES[code]
        columns.append(decode_column(data[position:end], code))
        position = end
    lengths, types, topics, attributes, dropped = columns
    assert lengths is not None
    return Columns(lengths, types, topics, attributes, dropped)


def decode_meta(header: GroupHeader, data: Bytes, at: int = 0) -> bytes:
    """The metadata's bytes of the group at `at`."""
    start = at + GROUP_HEADER_BYTES + header.payload_bytes + header.index_bytes
    return bytes(data[start : start + header.meta_bytes])


def record_ends(columns: Columns, at: int = 0) -> list[int]:
    """Start of the first record and end of each, as offsets from the buffer's start, for the group at `at`."""
    return list(accumulate(columns.lengths, initial=at + GROUP_HEADER_BYTES))
