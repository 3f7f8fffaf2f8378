"""Opening a log for writing: make true on disk what recovery found, then let appends in.

The order matters, and each step may be cut by a crash: (1) sync what was found, so that nobody sees a record that could
still vanish; (2) give an adopted segment its name, remove successors that were never acknowledged, and sync the
directory, before anything is written behind the end; (3) seal a predecessor whose seal is missing; (4) begin a new segment
where the newest one was compacted, as in a restored log; (5) write an OPEN group with a higher generation, after which
nothing that an earlier run left behind the end can validate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from walsvc.config import BLOCK_BYTES_MIN, WalConfig
from walsvc.disk.base import Disk
from walsvc.errors import SPACE_ERRNOS, BadOption, NoSpace, PathError, WalError, no_space, read_failed, taking_space
from walsvc.format.meta import Metadata
from walsvc.format.segment import SegmentHeader, parse_name, segment_name, spare_name
from walsvc.log.commit.core import Core, StartingPoint
from walsvc.log.commit.double_write import (
    DoubleWrite,
    install_double_write,
    prepare_double_write,
)
from walsvc.log.commit.framing import install_segment, segment_prefix
from walsvc.log.commit.reserve import is_reserve
from walsvc.log.commit.segment import Segment, first_segment_bytes, next_align
from walsvc.log.extent.cutting import begin_behind, finish_cut
from walsvc.log.extent.dropping import drop_segments
from walsvc.log.extent.rekey import after_opening, check_keys
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.findings import tell
from walsvc.log.recover.foreign import REWRITE_SUFFIX, make_own
from walsvc.log.recover.overlay import write_images
from walsvc.log.recover.recovery import Recovered, recover
from walsvc.log.recover.sealing import missing_seal, segment_at, write_seal
from walsvc.log.writer import WalWriter
from walsvc.model import Finding, RecoveryReport

DEFAULT_ALIGN = 4096
CUT_HINT = (
    "a truncate_after was interrupted and goes on here, which takes a segment; free some space and open the log again. "
    "Nothing was changed"
)
ROOM_HINT = "free some space and open it again; until then read_only=True reads it, and `walsvc backup` copies it to a place with room"


@contextlib.asynccontextmanager
async def releasing(disk: Disk) -> AsyncIterator[None]:
    """Close the disk if opening a log on it fails; what the operating system says becomes a PathError."""
    try:
        yield
    except OSError as error:
        await disk.close()
        if isinstance(error, WalError):
            raise
        if error.errno in SPACE_ERRNOS:
            raise no_space(error, "cannot open the log", path=disk.path, hint=ROOM_HINT) from error
        raise read_failed(disk.path, error) from error
    except BaseException:
        await disk.close()
        raise


@contextlib.asynccontextmanager
async def unless_refused(core: Core) -> AsyncIterator[None]:
    """Around steps of opening: what keeps a segment from its name now, for which an open log waits, ends them. Nobody could make room
    through a log that does not open."""
    refusals: list[WalError] = []

    def refuse(error: WalError) -> None:
        if not refusals:
            error.hint = ROOM_HINT
            refusals.append(error)
            limit.reschedule(core.health.loop.time())

    try:
        async with asyncio.timeout(None) as limit:
            core.extent.on_refusal = refuse
            try:
                yield
            finally:
                core.extent.on_refusal = lambda _: None
    except TimeoutError:
        if not refusals:
            raise
        core.health.release()
        await core.disk.close()
        await core.pipeline.rotation.ended()
        raise refusals[0] from None


async def open_writer(disk: Disk, config: WalConfig) -> tuple[WalWriter, RecoveryReport]:
    """Recover or create the log on `disk`. On any error nothing stays open but the disk itself."""
    found = await recover(disk, config.keys)
    if found is None:
        return await create_log(disk, config)
    await check_keys(disk, found, config.keys)
    seal = await missing_seal(found.through(disk), found, config.keys)
    check_writable(disk, config, found, seal)
    for each in (found.active, seal):
        if each is not None and not each.header.seal_at and not found.active.metadata.sealed:
            await make_own(disk, each.name, each.header.first_lsn, found.sizes[each.name])
    new = await prepare_double_write(disk, config, found.active.header.block_bytes, found.sizes)
    await write_images(disk, found.images)
    for name in found.unsynced:
        await disk.sync(name)
    if found.adopted is not None:
        await disk.rename(found.adopted, segment_name(found.active.header.first_lsn))
    await disk.sync_directory()
    for name in reversed(found.dropped):  # newest first and one by one: none in the middle may ever be missing
        await disk.remove(name)
        await disk.sync_directory()
    double_write = await install_double_write(disk, config, found.sequence, new=new)
    if seal is not None:
        await write_seal(disk, double_write, found, seal, config.keys)
    writer = await writer_at(disk, config, found, double_write)
    if found.active.header.seal_at and not writer.core.metadata.sealed:
        await begin_behind(writer.core, writer.next_lsn - 1 if found.cut is None else found.cut)
    elif found.cut is not None:
        try:
            await finish_cut(writer.core, found.cut)
        except NoSpace as error:
            error.hint = CUT_HINT
            raise
    if writer.core.metadata.sealed:
        writer.core.health.seal()
        writer.core.changes.marked = found.clean or found.active.header.seal_at > 0  # a compacted segment takes nothing
        writer.core.placement.set_room()
    else:
        with contextlib.suppress(NoSpace, PathError):  # a later truncation tries again
            await drop_segments(writer.core)
        await writer.core.tail.spares.make_reserve()
        async with unless_refused(writer.core):
            await writer.core.changes.open()
            await writer.core.pipeline.rotation.ended()
            await after_opening(writer.core, was_plain=not found.active.header.cipher)
    report = report_of(found, writer)
    tell(disk.path, report)
    return writer, report


def check_writable(disk: Disk, config: WalConfig, found: Recovered, unsealed: Examined | None) -> None:
    """BadOption where the log cannot be written with these options; nothing was changed yet."""
    block_bytes = found.active.header.block_bytes
    if not disk.suit(block_bytes):
        raise BadOption(
            f"the log's groups are aligned to {block_bytes} bytes, this device needs {disk.block_bytes}",
            path=disk.path,
            hint="open it with direct=False",
        )
    for each in (found.active, unsealed):
        if each is None or each.header.seal_at:
            continue  # it was compacted: nothing is written into it
        if each.chain.align < each.header.block_bytes and config.double_write == "off":
            raise BadOption(
                f"{each.name} is packed, and to write on in it double_write is needed",
                path=disk.path,
                segment=each.header.first_lsn,
                hint='open the log with double_write="direct" or "buffered" (layout="pad" holds from the next segment on), or '
                "with read_only=True",
            )


def report_of(found: Recovered, writer: WalWriter) -> RecoveryReport:
    """The report of recovery."""
    return RecoveryReport(
        clean=found.clean,
        created=False,
        first_lsn=writer.core.metadata.truncated,
        next_lsn=writer.next_lsn,
        segments=len(writer.core.catalog.view.ids),
        bytes_read=found.bytes_read,
        findings=tuple(found.findings),
    )


async def writer_at(disk: Disk, config: WalConfig, found: Recovered, double_write: DoubleWrite | None) -> WalWriter:
    """A writer that stands at the end of what was found."""
    chain = found.active.chain
    segment = await segment_at(disk, found.active)
    await fill_holes(disk, segment, found)
    segment.file = await disk.open_file(segment.name)
    start = StartingPoint(
        segment,
        next_lsn=chain.next_lsn,
        generation=chain.generation + 1,
        metadata=found.active.metadata,
        sizes={first: found.sizes[file] for first, file in found.names.items()},
        double_write=double_write,
    )
    writer = WalWriter(disk, config, start)
    for file, length in found.sizes.items():
        if parse_name(file, REWRITE_SUFFIX) is not None:
            await disk.remove(file)  # compaction was cut short
        if parse_name(file, ".spare") is None or file in (found.adopted, *found.dropped):
            continue
        if is_reserve(file):
            writer.core.tail.spares.reserve.files[file] = length
            continue
        plain_before = config.keys is not None and segment.cipher is None  # then it may hold plain records
        if length == config.segment_bytes and not writer.core.tail.spares.recyclable and not plain_before:
            await disk.sync(file)  # a process that was killed may have left it with nothing of it on the device
            writer.core.tail.spares.recyclable[file] = length
        else:
            await disk.remove(file)
    return writer


async def fill_holes(disk: Disk, segment: Segment, found: Recovered) -> None:
    """Allocate what a sparse copy has left out of the active segment. Where there is no room for that, the report says so."""
    try:
        await disk.fill_holes(segment.name, segment.end)
    except OSError as error:
        if error.errno not in SPACE_ERRNOS:
            raise
        text = "the file has holes, as a sparse copy has, and there is no room to fill them: a write may fail for want of it"
        found.findings.append(Finding("sparse_segment", text, segment.id, segment.end))


async def create_log(disk: Disk, config: WalConfig) -> tuple[WalWriter, RecoveryReport]:
    """A new log: its first segment gets its name only when header and snapshot are durable."""
    for file in await disk.list():
        if parse_name(file, ".spare") is not None:
            await disk.remove(file)
    name, length = spare_name(1), first_segment_bytes(config.segment_bytes)
    block_bytes = max(config.block_bytes or DEFAULT_ALIGN, disk.block_bytes, BLOCK_BYTES_MIN)
    header = SegmentHeader(
        block_bytes=block_bytes,
        file_bytes=length,
        log_id=int.from_bytes(os.urandom(8), "big"),
        generation=1,
        ordinal=1,
        first_lsn=1,
        created_ns=time.time_ns(),
        previous_end=0,
        align=next_align(config, block_bytes),
    )
    prefix = segment_prefix(header, Metadata(), durable_lsn=0, keys=config.keys)
    with taking_space(
        "no room for a new log",
        path=disk.path,
        expected=f"{length} bytes",
        hint="free space and open it again; nothing was left behind",
    ):
        await disk.allocate(name, length)
    try:
        new = await prepare_double_write(disk, config, block_bytes, await disk.list())
    except BaseException:
        await disk.remove(name)
        raise
    double_write = await install_double_write(disk, config, 0, new=new)
    segment = await install_segment(disk, name, header, prefix)
    start = StartingPoint(
        segment, next_lsn=1, generation=1, metadata=Metadata(), sizes={1: length}, double_write=double_write
    )
    writer = WalWriter(disk, config, start)
    await writer.core.tail.spares.make_reserve()
    return writer, RecoveryReport(clean=True, created=True, first_lsn=1, next_lsn=1, segments=1, bytes_read=0)
