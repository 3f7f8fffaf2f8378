"""Dropping records at the log's head and at its end. Both survive a kill at any point.

At the head (walsvc.log.reclaim decides how much) the new first LSN is written into the log and, once that is durable, whole
segments are removed or recycled, oldest first, so that what is left is always one piece.

truncate_after writes its intent into the newest segment, then installs a new segment that begins right behind the cut:
its rename is the commit point. Readers stop at the next segment's first LSN, so what lies beyond the cut in older files
is never looked at. The segments in between go next, and the one that holds the intent goes last: as long as it is there,
opening the log finishes the work. Readers are told when all of that is done, in one turn of the loop with the log's new end.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NamedTuple

from walsvc.errors import BadOption, Corruption, NoSpace, UnsupportedFormat, WalError
from walsvc.format.group import BadGroup
from walsvc.format.meta import Metadata
from walsvc.format.segment import METADATA_ONLY, RECYCLED, SegmentHeader, segment_name, spare_name
from walsvc.log.absorb import absorb
from walsvc.log.framing import segment_prefix
from walsvc.log.group import Group
from walsvc.log.segments import (
    JOIN_BLOCKS,
    META_BLOCKS,
    Segment,
    first_segment_bytes,
    next_align,
    tail_of,
    whole_blocks,
)
from walsvc.log.stream import load_header, open_stream
from walsvc.log.writer import WalWriter
from walsvc.model import is_lsn

RECYCLED_NAME = 1 << 63  # keeps the names of recycled files apart from those of fresh spares
SPARES_KEPT = 2


def check_before(writer: WalWriter, lsn: int) -> None:
    """BadOption unless truncate_before(lsn) is possible."""
    if not is_lsn(lsn) or not 1 <= lsn <= writer.next_lsn:
        raise BadOption(
            f"truncate_before({lsn!r}) is out of range",
            path=writer._disk.path,
            hint=f"first_lsn to next_lsn: {writer._metadata.truncated} to {writer.next_lsn}",
        )


async def drop_segments(writer: WalWriter) -> None:
    """Remove or recycle the segments whose records are all below the truncation point; safe to run at any time."""
    disk = writer._disk
    while True:
        await writer._rotation_ended()  # now the names of the segments that stay are durable
        writer.health.raise_failure()
        ids = writer.catalog.view.ids
        if len(ids) < 2 or ids[1] > writer._metadata.truncated or ids[1] > writer.catalog.durable_lsn + 1:
            return
        first = ids[0]
        length = writer.catalog.view.sizes[first]
        fits = length == writer._config.segment_bytes and writer._spares.count < SPARES_KEPT
        if fits and await may_recycle(writer, first):
            name = spare_name(RECYCLED_NAME | first)
            await disk.rename(segment_name(first), name)
            writer._spares.recyclable[name] = length
        else:
            await disk.remove(segment_name(first))
        writer.catalog.drop(first)
        await disk.sync_directory()


async def may_recycle(writer: WalWriter, first_lsn: int) -> bool:
    """Whether a segment's file may be used again: in an encrypted log only one that never held anything but ciphertext."""
    if writer._keys is None:
        return True
    try:
        header, _ = await load_header(writer._disk, segment_name(first_lsn), first_lsn)
    except (Corruption, UnsupportedFormat):
        return False
    return header.cipher != 0


async def truncate_after(writer: WalWriter, lsn: int) -> None:
    """Drop all records above `lsn`, durably; the next append gets lsn + 1."""
    writer.health.check_call()
    check_after(writer, lsn)
    writer._hold_appends(1)  # from the call on, not from when its turn has come: it must not drop what came later
    await to_the_end(writer, "truncate_after", _truncate_after(writer, lsn))


def check_after(writer: WalWriter, lsn: int) -> None:
    """BadOption unless truncate_after(lsn) is possible."""
    first = writer._metadata.truncated
    if not is_lsn(lsn) or not first - 1 <= lsn < writer.next_lsn:
        raise BadOption(
            f"truncate_after({lsn!r}) is out of range",
            path=writer._disk.path,
            hint=f"first_lsn - 1 to next_lsn - 1: {first - 1} to {writer.next_lsn - 1}",
        )


async def _truncate_after(writer: WalWriter, lsn: int) -> None:
    cutting: asyncio.Future[None] = writer._create_future()
    try:
        async with writer.extent.changing():
            check_after(writer, lsn)  # again: another truncation may have come first
            await writer._durable(writer.next_lsn - 1)
            await writer._rotation_ended()
            if lsn < writer.next_lsn - 1:
                await end_at(writer, lsn)  # damage and a full device are found out before the intent is written
                await have_spare(writer)
                await writer._write_meta({"cut": lsn})
                await writer._rotation_ended()
                try:
                    await have_spare(writer)  # the intent may have begun a segment itself
                except NoSpace as error:
                    await revoke_cut(writer, error)
                    raise
                writer.catalog.cutting = cutting
                await finish_cut(writer, lsn)
    finally:
        cutting.set_result(None)
        if writer.catalog.cutting is cutting and writer.health.failure is None:
            writer.catalog.cutting = None
        writer._hold_appends(-1)


async def to_the_end(writer: WalWriter, name: str, change: Coroutine[Any, Any, None]) -> None:
    """Run a change of the log's extent in a task of its own: cancelling the caller ends the wait, not the change. Left
    half done, it would be finished by the next opening, which would drop what was appended and acknowledged since."""
    await asyncio.shield(writer.background.start(name, change, foreseen=(WalError, OSError)))


async def revoke_cut(writer: WalWriter, error: NoSpace) -> None:
    """Take the intent back before any append is let in; terminal if there is no room even for that."""
    try:
        await writer._write_meta({"cut": None})
    except NoSpace:
        raise OSError(error.errno, error.message) from error


class EndAt(NamedTuple):
    """What a log knows that ends with some record.

    Attributes:
        sums: by topic.
        last_crc, last_at: of the group that holds the record, as in walsvc.format.chain.
    """

    sums: Metadata
    last_crc: int
    last_at: int


async def end_at(writer: WalWriter, lsn: int) -> EndAt:
    """What the log knew when it ended with record `lsn`, found in the segment that holds it.

    Raises Corruption where that cannot be read; nothing was changed then.
    """
    metadata = Metadata()
    ids = writer.catalog.view.ids
    first = ids[max(bisect_right(ids, lsn) - 1, 0)]
    _, stream = await open_stream(
        writer._disk, segment_name(first), first, writer.catalog.view.sizes[first], writer._keys
    )
    while stream.chain.next_lsn <= lsn or not stream.bytes_read:
        try:
            raw = await stream.next()
        except BadGroup as error:
            chain = stream.chain
            raise Corruption(
                error.reason, path=writer._disk.path, segment=first, offset=chain.offset, lsn=chain.next_lsn
            ) from None
        absorb(metadata, raw, lsn + 1)
    metadata.fold()
    last_crc, last_at = stream.chain.last_crc, stream.chain.last_at
    if not last_crc:  # the segment was rewritten: the group behind tells what the last one was before
        with suppress(BadGroup):
            last_crc = (await stream.next()).header.last_crc
    return EndAt(metadata, last_crc, last_at)


def rewind_metadata(writer: WalWriter, lsn: int, sums: Metadata) -> None:
    """Make the state what it must be when the log ends with record `lsn`: names stay, nobody waits beyond the end."""
    metadata = writer._metadata
    metadata.cut = None
    positions = {key: lsn + 1 for key, position in metadata.positions.items() if position > lsn + 1}
    holds = {name: lsn + 1 for name, at in metadata.holds.items() if at > lsn + 1}
    purges = {name: lsn + 1 for name, before in metadata.purges.items() if before > lsn + 1}
    metadata.apply({"positions": positions, "holds": holds, "purges": purges})
    metadata.producers.cut(lsn)
    unseen = array("Q", [0]) * (len(metadata.counts) - len(sums.counts))
    metadata.counts, metadata.lasts, metadata.tally = sums.counts + unseen, sums.lasts + unseen, {}


async def have_spare(writer: WalWriter, need: int = 0, *, metadata: bool = True) -> None:
    """Wait for a prepared spare of at least `need` bytes, for `metadata` also one from the reserve. Raises NoSpace where
    there is no room for one."""
    spares = writer._spares
    while spares.fitting(need, metadata=metadata) is None:
        spares.prepare(writer._segment.ordinal + 1, writer._segment.file_bytes, need, metadata=metadata)
        await spares.settle()
        writer.health.raise_failure()
        if (error := writer._no_space()) is not None and spares.fitting(need, metadata=metadata) is None:
            raise error


async def begin_behind(writer: WalWriter, lsn: int) -> None:
    """Begin a segment behind record `lsn` while opening a log whose newest segment was compacted (a restored one's, which
    has lost its successor): its groups are packed and fill it, so nothing is written into it any more, not even a seal.

    Raises NoSpace with nothing changed.
    """
    need = writer._prefix_bytes() + (4 + META_BLOCKS + JOIN_BLOCKS) * writer._segment.block_bytes
    try:
        await have_spare(writer, max(need, first_segment_bytes(writer._config.segment_bytes)))
    except NoSpace:
        try:
            await have_spare(writer, writer._reserve_bytes())
        except NoSpace as error:
            error.hint = (
                "the log's last segment is full; free some space and open it again, or copy it elsewhere (walsvc backup) and go "
                "on there. Nothing was changed"
            )
            raise
    await finish_cut(writer, lsn)


async def finish_cut(writer: WalWriter, lsn: int) -> None:
    """The second half of truncate_after, also run when opening finds it interrupted. Nothing is in flight here."""
    disk, newest = writer._disk, writer._segment
    end = await end_at(writer, lsn)
    await have_spare(writer)
    spare = writer._spares.take()
    ids = writer.catalog.view.ids
    place = bisect_right(ids, lsn) - 1
    holder, ordinal, complete = None, 1, False
    if place >= 0:
        holder = ids[place]
        header, _ = await load_header(disk, segment_name(holder), holder)
        ordinal, complete = header.ordinal + 1, header.seal_at > 0
    elif ids:
        ordinal = (await load_header(disk, segment_name(ids[0]), ids[0]))[0].ordinal
    align = next_align(writer._config, newest.block_bytes)
    writer.catalog.generation += 1
    rewind_metadata(writer, lsn, end.sums)
    prefix, previous_crc, cipher = segment_prefix(
        SegmentHeader(
            block_bytes=newest.block_bytes,
            file_bytes=spare.file_bytes,
            log_id=newest.log_id,
            generation=writer.catalog.generation,
            ordinal=ordinal,
            first_lsn=lsn + 1,
            created_ns=writer._clock(),
            previous_end=0,
            align=align,
            optional=RECYCLED * spare.recycled | METADATA_ONLY * spare.metadata_only,
            before_at=end.last_at,
            before=end.last_crc,
        ),
        writer._metadata,
        durable_lsn=lsn,
        keys=writer._keys,
    )
    await disk.write(spare.name, 0, whole_blocks(prefix, newest.block_bytes))
    await disk.rename(spare.name, segment_name(lsn + 1))
    await disk.sync_directory()
    if holder == newest.id and not complete:
        await writer._seal(newest, lsn + 1)
    gone = [first for first in ids if first > lsn + 1]
    for first in gone:
        if first != newest.id:
            await disk.remove(segment_name(first))
    await disk.sync_directory()
    if newest.id in gone:
        await disk.remove(segment_name(newest.id))
        await disk.sync_directory()
    await disk.close_file(newest.file)
    segment = Segment(
        id=lsn + 1,
        file=spare.file,
        file_bytes=spare.file_bytes,
        align=align,
        block_bytes=newest.block_bytes,
        tail=tail_of(prefix, newest.block_bytes),
        log_id=newest.log_id,
        ordinal=ordinal,
        end=len(prefix),
        previous_crc=previous_crc,
        name=segment_name(lsn + 1),
        cipher=cipher,
        metadata_only=spare.metadata_only,
        durable_end=len(prefix),
        last_crc=end.last_crc,
        last_at=end.last_at,
    )
    writer._new_key = False
    writer._segment = segment
    writer.catalog.cut(lsn, spare.file_bytes, (segment.id, segment.end))
    if writer._replicated is not None:
        writer._replicated.rewind(lsn)
    writer._start_filling(Group(segment, segment.end, lsn + 1))
    rewind_readers(writer, lsn + 1)


def rewind_readers(writer: WalWriter, end: int) -> None:
    """The log ends before LSN `end` now: whoever reads it must know before anything is written there."""
    writer._summaries.forget()
    for place in writer._places.values():
        place.rewind(end)
    writer.waits.wake_beyond(writer.next_lsn)
