"""Cutting the log's end: truncate_after. It survives a kill at any point.

truncate_after writes its intent into the newest segment, then installs a new segment that begins right behind the cut:
its rename is the commit point. Readers stop at the next segment's first LSN, so what lies beyond the cut in older files
is never looked at. The segments in between go next, and the one that holds the intent goes last: as long as it is there,
opening the log finishes the work, and nothing is appended. Readers are told when all of that is done, or cannot be done now, in
one turn of the loop with the log's new end.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from walsvc.errors import BadOption, NoSpace, WalError, copy_of
from walsvc.format.group import BadGroup
from walsvc.format.meta import Metadata
from walsvc.format.segment import segment_name
from walsvc.log.commit.core import Core
from walsvc.log.commit.framing import install_segment, next_header, segment_prefix
from walsvc.log.commit.group import Group
from walsvc.log.commit.patience import let_go, patiently
from walsvc.log.commit.segment import (
    JOIN_BLOCKS,
    META_BLOCKS,
    first_segment_bytes,
)
from walsvc.log.extent.clearing import Cutting
from walsvc.log.extent.steps import have_spare
from walsvc.log.read.stream import load_header, open_stream
from walsvc.log.recover.absorb import absorb
from walsvc.model import is_lsn


async def truncate_after(core: Core, lsn: int) -> None:
    """Drop all records above `lsn`, durably; the next append gets lsn + 1."""
    core.health.check_call()
    check_after(core, lsn)
    with core.health.whole("truncating"):
        core.queue.hold(1)  # from the call on, not from when its turn has come: it must not drop what came later
        short: asyncio.Future[WalError] = core.health.loop.create_future()
        ending = core.background.start(
            "truncate_after", _truncate_after(core, lsn, short), foreseen=(WalError, OSError)
        )
    either: tuple[asyncio.Future[Any], ...] = (ending, short)
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():
        raise copy_of(short.result())
    ending.result()


def check_after(core: Core, lsn: int) -> None:
    """BadOption unless truncate_after(lsn) is possible."""
    first = core.metadata.truncated
    if not is_lsn(lsn) or not first - 1 <= lsn < core.next_lsn:
        raise BadOption(
            f"truncate_after({lsn!r}) is out of range",
            path=core.disk.path,
            hint=f"first_lsn - 1 to next_lsn - 1: {first - 1} to {core.next_lsn - 1}",
        )


async def _truncate_after(core: Core, lsn: int, short: asyncio.Future[WalError]) -> None:
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
                await finish_cut(core, lsn, short)
                core.catalog.end_cutting()
    finally:
        core.queue.hold(-1)


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


async def finish_cut(core: Core, lsn: int, short: asyncio.Future[WalError] | None = None) -> None:
    """The second half of truncate_after, also run when opening finds it interrupted. Nothing is in flight here. `short`: see Cutting."""
    cutting, disk, newest = Cutting(core, short), core.disk, core.tail.segment
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
    segment = await install_segment(
        disk, spare.name, header, prefix, spare.file, rename=partial(cutting.name, header.first_lsn)
    )
    if holder == newest.id and not complete:
        await core.pipeline.rotation.seal(newest, lsn + 1)

    def cut() -> None:
        """Let the log end here, for everybody."""
        core.tail.go_on_with(segment)
        core.catalog.cut(lsn, spare.file_bytes, (segment.id, segment.end))
        if core.replicated is not None:
            core.replicated.rewind(lsn, core.catalog.changed)
        core.placement.start(Group(segment, segment.end, lsn + 1))
        rewind_readers(core, lsn + 1)

    await cutting.clear([first for first in ids if first > lsn + 1], newest.id, cut)
    await let_go(disk, newest.file)


def rewind_readers(core: Core, end: int) -> None:
    """The log ends before LSN `end` now: whoever reads it must know before anything is written there."""
    core.tail.summaries.forget()
    core.changes.rewind(end)
    core.waits.wake_beyond(core.next_lsn)
    core.catalog.cuts.tell()
