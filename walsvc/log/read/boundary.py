"""The boundary between two segments: both must be of one history.

Ordinals and first LSNs alone would let in a segment of another history: one from a backup, where the log was cut and went
on since, or from another copy of the log. So the header of each segment names the group before it that holds LSN
first_lsn - 1 (`before`: its header CRC, which covers all content up to there), and every group names the last one with
records before it. What stands behind that group in the segment before is metadata, which a crash may take: the snapshot at
the head of the next segment holds what it said.

A rewritten segment has other CRCs; its groups still name those that were there at first. Two small reads show nearly
always that a boundary is right: of the seal, which comes after all groups, or of the group itself. Else the segment before is
read up to the LSN.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from walsvc.disk.base import Disk
from walsvc.errors import Corruption
from walsvc.format.chain import Chain
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, Flag, GroupHeader, decode_group_header
from walsvc.format.segment import SegmentHeader
from walsvc.log.read.stream import GroupStream, load_header


class Boundary(NamedTuple):
    """A boundary that was checked.

    Attributes:
        bound: its segments name each other; not so where walsvc 0.1.0 has written or rewritten one of them.
        bytes_read: from the disk.
    """

    bound: bool
    bytes_read: int


async def check_boundary(disk: Disk, name: str, first_lsn: int, after: SegmentHeader) -> Boundary:
    """Check that the segment in file `name` is what the segment `after` was begun behind.

    Args:
        disk: where.
        name, first_lsn: of the segment before.
        after: header of the next one.

    Raises:
        Corruption: they are of different histories. FileNotFoundError: the segment before has gone.
    """
    header, data = await load_header(disk, name, first_lsn)
    check_generations(disk.path, header, after)
    bytes_read = len(data)
    if not after.before:
        return Boundary(bound=False, bytes_read=bytes_read)
    for offset in (after.previous_end, header.seal_at) if after.previous_end else ():  # 0: the log was cut between them
        seal = await group_at(disk, name, header, offset)
        bytes_read += GROUP_HEADER_BYTES if offset else 0
        if seal is not None and seal.flags & Flag.SEAL and seal.last_crc == after.before:
            return Boundary(bound=True, bytes_read=bytes_read)
    last = await group_at(disk, name, header, after.before_at)
    bytes_read += GROUP_HEADER_BYTES if after.before_at else 0
    if last is not None and holds(last, after.first_lsn - 1) and last.header_crc == after.before:
        return Boundary(bound=True, bytes_read=bytes_read)
    stream = GroupStream(disk, name, Chain.begin(header, data, header.file_bytes))
    found = await crc_of(stream, after.first_lsn - 1)
    if found not in {0, after.before}:
        raise other_history(disk.path, header, after, found)
    return Boundary(bound=found != 0, bytes_read=bytes_read + stream.bytes_read)


async def check_boundaries(disk: Disk, names: dict[int, str]) -> None:
    """Check the boundaries between all segments, given by their first LSNs. Raises as check_boundary does."""
    for before, first_lsn in pairwise(sorted(names)):
        after, _ = await load_header(disk, names[first_lsn], first_lsn)
        await check_boundary(disk, names[before], before, after)


def check_generations(path: str, before: SegmentHeader, after: SegmentHeader) -> None:
    """Raise Corruption where the generation falls from one segment to the next one: no writer ever does that."""
    if before.generation > after.generation:
        raise Corruption(
            f"{after.file_name} is older than {before.file_name}, which stands before it",
            path=path,
            segment=after.first_lsn,
            offset=0,
            lsn=after.first_lsn,
            expected=f"generation {before.generation} or higher",
            actual=f"generation {after.generation}",
            hint=hint_for(path, before, after),
        )


def other_history(path: str, before: SegmentHeader, after: SegmentHeader, found: int) -> Corruption:
    """Two segments that do not belong to each other."""
    return Corruption(
        f"{before.file_name} and {after.file_name} are of different histories of the log: another group holds LSN "
        f"{after.first_lsn - 1} than the one that {after.file_name} was begun behind",
        path=path,
        segment=after.first_lsn,
        offset=0,
        lsn=after.first_lsn - 1,
        expected=f"a group with header CRC {after.before:08x}",
        actual=f"{found:08x}",
        hint=hint_for(path, before, after),
    )


def hint_for(path: str, before: SegmentHeader, after: SegmentHeader) -> str:
    """Return the hint for two segments of different histories."""
    return (
        f"one of the two files was put here from a backup or from another copy of the log: put {before.file_name} and "
        f"{after.file_name} from one and the same copy here, or restore the whole log from it (walsvc restore); "
        f"`walsvc repair {path}` keeps the records below LSN {after.first_lsn}. Nothing was changed"
    )


def holds(group: GroupHeader, lsn: int) -> bool:
    """True if a group holds a record."""
    return group.first_lsn <= lsn < group.next_lsn


async def group_at(disk: Disk, name: str, segment: SegmentHeader, offset: int) -> GroupHeader | None:
    """The header of the group of a segment that begins at an offset; None where none does, or `offset` is 0."""
    if not offset:
        return None
    try:
        found = decode_group_header(await disk.read(name, offset, GROUP_HEADER_BYTES))
    except BadGroup:
        return None
    place = (found.log_id, found.segment, found.offset)
    return found if place == (segment.log_id, segment.first_lsn, offset) else None


async def crc_of(stream: GroupStream, lsn: int) -> int:
    """Header CRC, as it was first written, of the group that holds a record; 0: it is damaged, or this is not known."""
    while stream.chain.next_lsn <= lsn:
        try:
            await stream.next()
        except BadGroup:
            return 0
    if stream.chain.last_crc or not stream.chain.rewritten:
        return stream.chain.last_crc
    try:
        return (await stream.next()).header.last_crc
    except BadGroup:
        return 0
