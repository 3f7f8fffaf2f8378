"""Dropping records at the log's head and at its end. Both survive a kill at any point.

At the head (walsvc.log.extent.reclaim decides how much) the new first LSN is written into the log and, once that is durable, whole
segments are removed or recycled, oldest first, so that what is left is always one piece.

truncate_after writes its intent into the newest segment, then installs a new segment that begins right behind the cut:
its rename is the commit point. Readers stop at the next segment's first LSN, so what lies beyond the cut in older files
is never looked at. The segments in between go next, and the one that holds the intent goes last: as long as it is there,
opening the log finishes the work. Readers are told when all of that is done, in one turn of the loop with the log's new end.
"""

from __future__ import annotations

import asyncio
import errno
from bisect import bisect_right
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NamedTuple

from walsvc.errors import SPACE_ERRNOS, BadOption, Corruption, NoSpace, PathError, UnsupportedFormat, WalError, no_space
from walsvc.format.group import BadGroup
from walsvc.format.meta import Metadata
from walsvc.format.segment import segment_name, spare_name
from walsvc.log.commit.core import Core
from walsvc.log.commit.framing import install_segment, next_header, segment_prefix
from walsvc.log.commit.group import Group
from walsvc.log.commit.patience import let_go, patiently
from walsvc.log.commit.segment import (
    JOIN_BLOCKS,
    META_BLOCKS,
    first_segment_bytes,
)
from walsvc.log.commit.spares import SHORTAGES
from walsvc.log.read.stream import load_header, open_stream
from walsvc.log.recover.absorb import absorb
from walsvc.model import is_lsn

RECYCLED_NAME = 1 << 63  # keeps the names of recycled files apart from those of fresh spares
SPARES_KEPT = 2
KEPT_BACK = SHORTAGES | {errno.EACCES, errno.EPERM, errno.EBUSY}
"""Why a file may be there still when it is to go: no data is at stake."""


def check_before(core: Core, lsn: int) -> None:
    """BadOption unless truncate_before(lsn) is possible."""
    if not is_lsn(lsn) or not 1 <= lsn <= core.next_lsn:
        raise BadOption(
            f"truncate_before({lsn!r}) is out of range",
            path=core.disk.path,
            hint=f"first_lsn to next_lsn: {core.metadata.truncated} to {core.next_lsn}",
        )


def droppable(core: Core) -> bool:
    """True if the oldest segment has no record that is not dropped."""
    ids = core.catalog.view.ids
    return len(ids) > 1 and ids[1] <= min(core.metadata.truncated, core.catalog.durable_lsn + 1)


async def drop_segments(core: Core) -> None:
    """Remove or recycle the segments whose records are all below the truncation point; safe to run at any time.

    Raises NoSpace and PathError where a file cannot be removed now, though no data is at stake; OSError and DurabilityLost.
    """
    disk = core.disk
    while True:
        await core.pipeline.rotation.ended()  # now the names of the segments that stay are durable
        core.health.raise_failure()
        if not droppable(core):
            return
        first = core.catalog.view.ids[0]
        length = core.catalog.view.sizes[first]
        fits = length == core.config.segment_bytes and core.tail.spares.count < SPARES_KEPT
        try:
            if fits and await patiently(may_recycle, core, first):
                name = spare_name(RECYCLED_NAME | first)
                await patiently(disk.rename, segment_name(first), name)
                core.tail.spares.recyclable[name] = length
            else:
                await patiently(disk.remove, segment_name(first))
        except OSError as error:
            if error.errno not in KEPT_BACK:
                raise
            raise kept_back(core, first, error) from error
        core.catalog.drop(first)
        await disk.sync_directory()


def kept_back(core: Core, first: int, error: OSError) -> WalError:
    """The error for a segment that cannot be removed now. No record of it is shown any more, and the next truncation or opening tries
    again."""
    text, hint = (
        "a dropped segment cannot be removed yet",
        "once the reason is gone, truncate again: its room is freed then",
    )
    if error.errno in SPACE_ERRNOS:
        return no_space(error, text, path=core.disk.path, segment=first, hint=hint)
    text = f"{text}: {error.strerror or error}"
    return PathError(text, errno=error.errno, path=core.disk.path, segment=first, hint=hint)


async def may_recycle(core: Core, first_lsn: int) -> bool:
    """True if a segment's file may be used again: in an encrypted log only one that never held anything but ciphertext."""
    if core.tail.keys is None:
        return True
    try:
        header, _ = await load_header(core.disk, segment_name(first_lsn), first_lsn)
    except (Corruption, UnsupportedFormat):
        return False
    return header.cipher != 0


async def truncate_after(core: Core, lsn: int) -> None:
    """Drop all records above `lsn`, durably; the next append gets lsn + 1."""
    core.health.check_call()
    check_after(core, lsn)
    with core.health.whole("truncating"):
        core.queue.hold(1)  # from the call on, not from when its turn has come: it must not drop what came later
        ending = core.background.start("truncate_after", _truncate_after(core, lsn), foreseen=(WalError, OSError))
    await asyncio.shield(ending)


def check_after(core: Core, lsn: int) -> None:
    """BadOption unless truncate_after(lsn) is possible."""
    first = core.metadata.truncated
    if not is_lsn(lsn) or not first - 1 <= lsn < core.next_lsn:
        raise BadOption(
            f"truncate_after({lsn!r}) is out of range",
            path=core.disk.path,
            hint=f"first_lsn - 1 to next_lsn - 1: {first - 1} to {core.next_lsn - 1}",
        )


async def _truncate_after(core: Core, lsn: int) -> None:
    try:
        async with core.extent.changing() as change:
            check_after(core, lsn)  # again: another truncation may have come first
            await core.durable(core.next_lsn - 1)
            await core.pipeline.rotation.ended()
            if lsn < core.next_lsn - 1:
                await end_at(core, lsn)  # damage, a shortage, a full device: all found out before the intent is written
                await have_spare(core)
                change.begin()
                await core.changes.write({"cut": lsn})
                await core.pipeline.rotation.ended()
                try:
                    await have_spare(core)  # the intent may have begun a segment itself
                except NoSpace as error:
                    await revoke_cut(core, error)
                    raise
                cutting = asyncio.current_task()
                assert cutting is not None, "a change of the extent runs in a task of its own"
                core.catalog.begin_cutting(cutting)
                await finish_cut(core, lsn)
                core.catalog.end_cutting()
    finally:
        core.queue.hold(-1)


async def run_shielded(core: Core, name: str, change: Coroutine[Any, Any, None]) -> None:
    """Run a change of the log's extent in a task of its own: cancelling the caller ends the wait, not the change. Left
    half done, it would be finished by the next opening, which would drop what was appended and acknowledged since."""
    await asyncio.shield(core.background.start(name, change, foreseen=(WalError, OSError)))


async def revoke_cut(core: Core, error: NoSpace) -> None:
    """Take the intent back before any append is let in; terminal if there is no room even for that."""
    try:
        await core.changes.write({"cut": None})
    except NoSpace:
        raise OSError(error.errno, error.message) from error


class EndAt(NamedTuple):
    """State of a log that ends with some record.

    Attributes:
        sums: by topic.
        last_crc, last_at: of the group that holds the record, as in walsvc.format.chain.
    """

    sums: Metadata
    last_crc: int
    last_at: int


async def end_at(core: Core, lsn: int) -> EndAt:
    """State of the log when it ended with record `lsn`, found in the segment that holds it.

    Raises Corruption where that cannot be read; nothing was changed then.
    """
    metadata = Metadata()
    ids = core.catalog.view.ids
    first = ids[max(bisect_right(ids, lsn) - 1, 0)]
    _, stream = await open_stream(core.disk, segment_name(first), first, core.catalog.view.sizes[first], core.tail.keys)
    while stream.chain.next_lsn <= lsn or not stream.bytes_read:
        try:
            raw = await stream.next()
        except BadGroup as error:
            raise stream.chain.damage(core.disk.path, error.reason) from None
        absorb(metadata, raw, lsn + 1)
    metadata.topics.fold()
    last_crc, last_at = stream.chain.last_crc, stream.chain.last_at
    if not last_crc:  # the segment was rewritten: the group behind tells what the last one was before
        with suppress(BadGroup):
            last_crc = (await stream.next()).header.last_crc
    return EndAt(metadata, last_crc, last_at)


def rewind_metadata(core: Core, lsn: int, sums: Metadata) -> None:
    """Make the state what it must be when the log ends with record `lsn`: names stay, nobody waits beyond the end."""
    metadata = core.metadata
    metadata.cut = None
    metadata.queues.cut(lsn)
    positions = {key: lsn + 1 for key, position in metadata.positions.items() if position > lsn + 1}
    holds = {name: lsn + 1 for name, at in metadata.holds.items() if at > lsn + 1}
    metadata.apply({"positions": positions, "holds": holds})
    metadata.hide_none_above(lsn, lambda number: sums.topics.sums_of(number)[0])
    metadata.producers.cut(lsn)
    metadata.keys.cut(lsn)
    metadata.topics.rewind(sums.topics)


async def have_spare(core: Core, need: int = 0, *, metadata: bool = True) -> None:
    """Wait for a prepared spare of at least `need` bytes, for `metadata` also one from the reserve. Raises NoSpace where
    there is no room for one."""
    spares = core.tail.spares
    while spares.fitting(need, metadata=metadata) is None:
        spares.prepare(
            core.tail.segment.header.ordinal + 1, core.tail.segment.header.file_bytes, need, metadata=metadata
        )
        await spares.settle()
        core.health.raise_failure()
        if (error := core.queue.no_space()) is not None and spares.fitting(need, metadata=metadata) is None:
            raise error


async def begin_behind(core: Core, lsn: int) -> None:
    """Begin a segment behind record `lsn` while opening a log whose newest segment was compacted (a restored one's, which
    has lost its successor): its groups are packed and fill it, so nothing is written into it any more, not even a seal.

    Raises NoSpace with nothing changed.
    """
    need = core.tail.prefix_bytes() + (4 + META_BLOCKS + JOIN_BLOCKS) * core.tail.segment.block_bytes
    try:
        await have_spare(core, max(need, first_segment_bytes(core.config.segment_bytes)))
    except NoSpace:
        try:
            await have_spare(core, core.tail.reserve_bytes())
        except NoSpace as error:
            error.hint = (
                "the log's last segment is full; free some space and open it again, or copy it elsewhere (walsvc backup) and go "
                "on there. Nothing was changed"
            )
            raise
    await finish_cut(core, lsn)


async def finish_cut(core: Core, lsn: int) -> None:
    """The second half of truncate_after, also run when opening finds it interrupted. Nothing is in flight here."""
    disk, newest = core.disk, core.tail.segment
    end = await patiently(end_at, core, lsn)
    await have_spare(core)
    spare = core.tail.spares.take()
    ids = core.catalog.view.ids
    place = bisect_right(ids, lsn) - 1
    holder, ordinal, complete = None, 1, False
    if place >= 0:
        holder = ids[place]
        before, _ = await patiently(load_header, disk, segment_name(holder), holder)
        ordinal, complete = before.ordinal + 1, before.seal_at > 0
    elif ids:
        ordinal = (await patiently(load_header, disk, segment_name(ids[0]), ids[0]))[0].ordinal
    core.catalog.next_generation()
    rewind_metadata(core, lsn, end.sums)
    header = next_header(
        core.config,
        newest,
        spare,
        generation=core.catalog.generation,
        ordinal=ordinal,
        first_lsn=lsn + 1,
        created_ns=core.tail.clock(),
        previous_end=0,
        before_at=end.last_at,
        before=end.last_crc,
    )
    prefix = segment_prefix(header, core.metadata, durable_lsn=lsn, keys=core.tail.keys)
    segment = await install_segment(disk, spare.name, header, prefix, spare.file)
    if holder == newest.id and not complete:
        await core.pipeline.rotation.seal(newest, lsn + 1)
    gone = [first for first in ids if first > lsn + 1]
    for first in gone:
        if first != newest.id:
            await patiently(disk.remove, segment_name(first))
    await disk.sync_directory()
    if newest.id in gone:
        await patiently(disk.remove, segment_name(newest.id))
        await disk.sync_directory()
    await let_go(disk, newest.file)
    core.tail.go_on_with(segment)
    core.catalog.cut(lsn, spare.file_bytes, (segment.id, segment.end))
    if core.replicated is not None:
        core.replicated.rewind(lsn, core.catalog.changed)
    core.placement.start(Group(segment, segment.end, lsn + 1))
    rewind_readers(core, lsn + 1)


def rewind_readers(core: Core, end: int) -> None:
    """The log ends before LSN `end` now: whoever reads it must know before anything is written there."""
    core.tail.summaries.forget()
    core.changes.rewind(end)
    core.waits.wake_beyond(core.next_lsn)
    core.catalog.cuts.tell()
