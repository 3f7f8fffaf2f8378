"""Looking into a log without opening it for writing: every segment and group, as values. Changes nothing.

`survey` walks all files of a log; `inspect` and `verify` of the command line are built on it. Recovery (walsvc.log.recovery)
reads only what it needs to find the end; a survey reads every byte, so it also finds damage in old segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from walsvc.config import MIB
from walsvc.disk.base import Disk
from walsvc.format.chain import Chain, Need, later_evidence
from walsvc.format.group import BadGroup, Flag, GroupHeader, decode_meta
from walsvc.format.meta import decode_map
from walsvc.format.segment import (
    SEGMENT_HEADER_BYTES,
    BadSegment,
    SegmentHeader,
    decode_segment_header,
    parse_name,
)

PIECE_BYTES = 4 * MIB  # read at a time; a larger group is read whole
OnGroup = Callable[[GroupHeader], None]


class Walk(NamedTuple):
    """What walking one segment file from its header to the last valid group found.

    Attributes:
        name, file_bytes: the file.
        header: its segment header; None when that is not valid.
        groups, records, payload_bytes: in the valid groups; records counts those that truncation hides, too.
        next_lsn: LSN after the last record.
        end: offset after the last valid group: the bytes in use.
        last: the last valid group's header.
        successor: first LSN of the next segment, where the last group is a seal.
        problem: why the walk ended before the end of the file: of the header or of what stands at `end`.
        newer: the problem is a format that this version does not know.
        blank: only zeros from `end` on.
        evidence: a later group of this segment that proves that what is missing at `end` had been durable.
    """

    name: str
    file_bytes: int
    header: SegmentHeader | None
    groups: int = 0
    records: int = 0
    payload_bytes: int = 0
    next_lsn: int = 0
    end: int = 0
    last: GroupHeader | None = None
    successor: int | None = None
    problem: str | None = None
    newer: bool = False
    blank: bool = True
    evidence: GroupHeader | None = None

    @property
    def sealed(self) -> bool:
        """The last group is a seal: nothing more was ever written here."""
        return self.last is not None and bool(self.last.flags & Flag.SEAL)

    @property
    def closed(self) -> bool:
        """The last group says that a writer closed the log in order."""
        return self.last is not None and bool(self.last.flags & Flag.CLOSE)


async def walk(disk: Disk, name: str, file_bytes: int, on_group: OnGroup | None = None) -> Walk:
    """Read the segment file `name` group by group; `on_group` is called with each valid group in order.

    Memory is bounded by PIECE_BYTES and the largest group. Raises OSError as the disk gives it.
    """
    data = await disk.read(name, 0, min(file_bytes, PIECE_BYTES))
    try:
        header = decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    except BadSegment as error:
        return Walk(name, file_bytes, None, problem=error.reason, newer=error.newer, blank=not any(data[:4096]))
    chain, base = Chain.begin(header, data[:SEGMENT_HEADER_BYTES], file_bytes), 0
    groups = records = payload_bytes = 0
    last: GroupHeader | None = None
    successor: int | None = None
    problem, newer = "", False
    while True:
        at = chain.offset - base
        try:
            taken = chain.take(data, base)
            if not isinstance(taken, Need):
                groups, records = groups + 1, records + taken.records
                payload_bytes += taken.payload_bytes
                last = taken
                if taken.flags & Flag.SEAL:
                    successor = decode_map(decode_meta(taken, data, at)).get("successor")
                if on_group is not None:
                    on_group(taken)
                continue
        except BadGroup as error:
            problem, newer = error.reason, error.newer
            break
        data, base = await disk.read(name, chain.offset, max(taken.length, PIECE_BYTES)), chain.offset
        if len(data) < taken.length:
            problem = f"the file ends after {base + len(data)} bytes"
            break
    blank, evidence = await _beyond(disk, name, chain)
    return Walk(
        name,
        file_bytes,
        header,
        groups,
        records,
        payload_bytes,
        chain.next_lsn,
        chain.offset,
        last,
        successor,
        problem,
        newer,
        blank,
        evidence,
    )


async def _beyond(disk: Disk, name: str, chain: Chain) -> tuple[bool, GroupHeader | None]:
    """Whether only zeros follow where `chain` ended, and the first group there which proves that something is missing."""
    offset, blank = chain.offset, True
    while offset < chain.file_bytes:
        data = await disk.read(name, offset, PIECE_BYTES)
        if not data:
            break
        if data.count(0) != len(data):
            blank = False
            # Pieces begin and end on multiples of the alignment, so a header never lies across two of them.
            evidence = later_evidence(chain, data, offset)
            if evidence is not None:
                return False, evidence
        offset += len(data)
    return blank, None


class Survey(NamedTuple):
    """All files of a log.

    Attributes:
        segments: the `%016x.wal` files in LSN order.
        spares: the `*.spare` files; one with a header holds the first group of a segment whose renaming was cut short.
    """

    segments: list[Walk]
    spares: list[Walk]


async def survey(disk: Disk, on_group: OnGroup | None = None) -> Survey:
    """Walk every segment and spare of the log on `disk`."""
    files = await disk.list()
    segments = [
        await walk(disk, name, length, on_group)
        for name, length in sorted(files.items())
        if parse_name(name, ".wal") is not None
    ]
    spares = [
        await walk(disk, name, length, on_group)
        for name, length in sorted(files.items())
        if parse_name(name, ".spare") is not None
    ]
    return Survey(segments, spares)
