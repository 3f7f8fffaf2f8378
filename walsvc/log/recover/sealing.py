"""The seal that a crash has kept from a segment: found while opening, written once everything before it is durable."""

from __future__ import annotations

import time

from walsvc.disk.base import Disk
from walsvc.errors import Corruption
from walsvc.format.group import BadGroup, Flag, check_group_body, decode_group_header
from walsvc.format.segment import segment_name
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.keyring import KeyRing
from walsvc.log.commit.double_write import DoubleWrite, append_outside
from walsvc.log.commit.framing import seal_bytes
from walsvc.log.commit.segment import Links, Segment
from walsvc.log.read.stream import load_header
from walsvc.log.read.summaries import Summaries
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.recovery import Recovered, examine


async def segment_at(disk: Disk, found: Examined) -> Segment:
    """The segment as a writer sees it that stands at its end; its file is not open yet."""
    header, chain = found.header, found.chain
    inside = chain.offset % header.block_bytes if chain.align < header.block_bytes else 0
    segment = Segment(
        header._replace(file_bytes=chain.file_bytes),
        chain.offset,
        found.stream.cipher,
        Links(chain.previous_crc, chain.last_crc, chain.last_at),
        tail=await disk.read(segment_name(header.first_lsn), chain.offset - inside, inside),
        durable_end=chain.offset,  # opening has synced it
        summary_bytes=SUMMARY_ROW_BYTES * len(found.metadata.topics.tally),
    )
    segment.index = found.index
    return segment


async def predecessor_sealed(disk: Disk, found: Recovered) -> bool:
    """The segment before the active one has its seal where the active one says, or there is none to be sealed."""
    header, ids = found.active.header, sorted(found.names)
    if header.previous_end == 0 or len(ids) < 2 or found.cut is not None:
        return True
    name = found.names[ids[-2]]
    if await seal_stands(disk, name, ids[-2], header.previous_end):
        return True
    own, _ = await load_header(disk, name, ids[-2])
    return own.seal_at > 0 and await seal_stands(disk, name, ids[-2], own.seal_at)  # it was compacted


async def seal_stands(disk: Disk, name: str, segment: int, offset: int) -> bool:
    """True if the seal of a segment is there."""
    block = await disk.read(name, offset, 4096)
    try:
        seal = decode_group_header(block)
        if seal.group_bytes > len(block):
            block = await disk.read(name, offset, seal.group_bytes)
        check_group_body(seal, block)  # a seal has no records, so nothing in it needs a key
    except BadGroup:
        return False
    return bool(seal.flags & Flag.SEAL) and seal.segment == segment and seal.offset == offset


async def missing_seal(disk: Disk, found: Recovered, keys: KeyRing | None) -> Examined | None:
    """A crash may have come between the first write of a segment and the seal of the one before it: the latter then, read
    to its end. None: nothing is missing. Raises Corruption where a record is; nothing was changed."""
    if await predecessor_sealed(disk, found):
        return None
    header, ids = found.active.header, sorted(found.names)
    name = found.names[ids[-2]]
    previous = await examine(disk, name, ids[-2], found.sizes, keys)
    if previous.last_flags & Flag.SEAL:
        return None
    # The LSNs decide, not previous_end: groups of metadata only may be missing in between. Nobody was told of them, and
    # the snapshot in the successor holds what they said.
    if previous.chain.next_lsn != header.first_lsn:
        raise Corruption(
            f"the segment ends before its successor begins: {previous.end_reason}",
            path=disk.path,
            segment=ids[-2],
            offset=previous.chain.offset,
            lsn=previous.chain.next_lsn,
            expected=f"LSN {header.first_lsn} at offset {header.previous_end}",
            hint="acknowledged data is damaged; nothing was changed. Restore from a backup",
        )
    return None if previous.header.seal_at else previous  # nothing is written into a compacted segment


async def write_seal(
    disk: Disk, double_write: DoubleWrite | None, found: Recovered, previous: Examined, keys: KeyRing | None
) -> None:
    """Seal the segment before the active one."""
    header, segment = found.active.header, await segment_at(disk, previous)
    ids = sorted(found.names)
    before = await Summaries(disk, keys).seal(ids[-3], ids[-2]) if len(ids) > 2 else None
    newest = 0 if previous.header.ordinal == 1 else None if before is None else before.newest
    data = seal_bytes(
        segment,
        header.first_lsn,
        tally=previous.metadata.topics.tally,
        newest=None if newest is None else max(newest, previous.index.newest),
        generation=header.generation,
        durable_lsn=header.first_lsn - 1,
        timestamp_ns=time.time_ns(),
    )
    segment.file = await disk.open_file(segment.name)
    await append_outside(disk, double_write, segment, data)
    await disk.close_file(segment.file)
