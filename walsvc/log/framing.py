"""Bytes that frame a segment: header and snapshot at its head, the seal at its end."""

from __future__ import annotations

from typing import Any

from walsvc.format.group import Flag
from walsvc.format.meta import Metadata, Tally, encode_map, encode_summary
from walsvc.format.segment import SegmentHeader, encode_segment_header
from walsvc.log.group import Group
from walsvc.log.segments import Segment


def segment_prefix(header: SegmentHeader, metadata: Metadata, *, durable_lsn: int) -> tuple[bytes, int]:
    """The bytes that begin a segment (header block and snapshot group), and the CRC for the next group's chain."""
    encoded = encode_segment_header(header)
    segment = Segment(
        id=header.first_lsn,
        file=-1,
        file_bytes=header.file_bytes,
        align=header.align,
        log_id=header.log_id,
        ordinal=header.ordinal,
        end=header.data_start,
        previous_crc=int.from_bytes(encoded[-4:], "little"),
        name="",
    )
    group = Group(segment, header.data_start, header.first_lsn, encoded.ljust(header.data_start, b"\0"))
    group.flags, group.meta = int(Flag.SNAPSHOT), metadata.snapshot()
    group.close()
    prefix = bytearray(header.data_start + group.group_bytes)
    group.encode(
        memoryview(prefix), generation=header.generation, durable_lsn=durable_lsn, timestamp_ns=header.created_ns
    )
    return bytes(prefix), segment.previous_crc


def seal_bytes(
    old: Segment,
    successor: int,
    *,
    tally: dict[int, Tally] | None,
    generation: int,
    durable_lsn: int,
    timestamp_ns: int,
) -> bytes:
    """The group that ends segment `old` at old.end and names the segment after it, which must be durable.

    Args:
        old: the segment.
        successor: first LSN of the next one.
        tally: its records by topic; None where that is not known, or no longer true. A summary that finds no room is left
            out: readers then look through the segment.
        generation, timestamp_ns: for the header.
        durable_lsn: successor - 1, or less when a batch goes on from this segment into the next.
    """
    change: dict[str, Any] = {"successor": successor}
    if tally is not None:
        change["summary"] = encode_summary(tally)
    group = Group(old, old.end, successor)
    group.flags, group.meta = int(Flag.SEAL), encode_map(change)
    group.close()
    if tally and old.end + group.group_bytes > old.file_bytes:
        return seal_bytes(
            old, successor, tally=None, generation=generation, durable_lsn=durable_lsn, timestamp_ns=timestamp_ns
        )
    data = bytearray(group.group_bytes)
    group.encode(memoryview(data), generation=generation, durable_lsn=durable_lsn, timestamp_ns=timestamp_ns)
    return bytes(data)
