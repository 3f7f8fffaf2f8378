"""Opening a log for writing: make true on disk what recovery found, then let appends in.

The order matters, and each step may be cut by a crash: (1) sync what was found, so that nobody sees a record that could
still vanish; (2) give an adopted segment its name, remove successors that were never acknowledged, and sync the
directory, before anything is written behind the end; (3) seal a predecessor whose seal is missing; (4) write an OPEN
group with a higher generation, after which nothing that an earlier run left behind the end can validate.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator

from walsvc.config import BLOCK_BYTES_MIN, WalConfig
from walsvc.disk.base import Disk
from walsvc.errors import BadOption, Closed, Corruption, NoSpace, WalError
from walsvc.format.group import BadGroup, Flag, decode_group_header
from walsvc.format.meta import SUMMARY_ROW_BYTES, Metadata
from walsvc.format.segment import SegmentHeader, parse_name, segment_name, spare_name
from walsvc.log.framing import seal_bytes, segment_prefix
from walsvc.log.reader import read_failed
from walsvc.log.recovery import Recovered, examine, recover
from walsvc.log.retention import drop_segments, finish_cut
from walsvc.log.segments import NO_SPACE, Segment, first_segment_bytes
from walsvc.log.writer import WalWriter
from walsvc.model import RecoveryReport

DEFAULT_ALIGN = 4096


@contextlib.asynccontextmanager
async def releasing(disk: Disk) -> AsyncIterator[None]:
    """Close the disk if opening a log on it fails; what the operating system says becomes a PathError."""
    try:
        yield
    except OSError as error:
        await disk.close()
        if isinstance(error, WalError):
            raise
        raise read_failed(disk, error) from error
    except BaseException:
        await disk.close()
        raise


async def open_writer(disk: Disk, config: WalConfig) -> tuple[WalWriter, RecoveryReport]:
    """Recover or create the log on `disk`. On any error nothing stays open but the disk itself."""
    found = await recover(disk)
    if found is None:
        return await create_log(disk, config)
    chain = found.active.chain
    if disk.direct and chain.align % disk.block_bytes:
        raise BadOption(
            f"the log's groups are aligned to {chain.align} bytes, this device needs {disk.block_bytes}",
            path=disk.path,
            hint="open it with direct=False",
        )
    for name in found.unsynced:
        await disk.sync(name)
    if found.adopted is not None:
        await disk.rename(found.adopted, segment_name(found.active.header.first_lsn))
    await disk.sync_directory()
    for name in reversed(found.dropped):  # newest first and one by one: none in the middle may ever be missing
        await disk.remove(name)
        await disk.sync_directory()
    await seal_predecessor(disk, found)
    writer = await writer_at(disk, config, found)
    if found.cut is not None:
        await finish_cut(writer, found.cut)
    if writer._metadata.sealed:
        writer._closed = Closed("the log is sealed", path=disk.path, hint="a sealed log can only be read")
        writer._set_room()
    else:
        await drop_segments(writer)
        await writer._write_meta({}, Flag.OPEN)
        await writer._rotation_ended()
    return writer, report_of(found, writer)


def report_of(found: Recovered, writer: WalWriter) -> RecoveryReport:
    """What recovery has to tell."""
    return RecoveryReport(
        clean=found.clean,
        created=False,
        first_lsn=writer._metadata.truncated,
        next_lsn=writer.next_lsn,
        segments=len(writer._segment_ids),
        bytes_read=found.bytes_read,
        findings=tuple(found.findings),
    )


async def writer_at(disk: Disk, config: WalConfig, found: Recovered) -> WalWriter:
    """A writer that stands at the end of what was found."""
    header, chain = found.active.header, found.active.chain
    name = segment_name(header.first_lsn)
    segment = Segment(
        id=header.first_lsn,
        file=await disk.open_file(name),
        file_bytes=chain.file_bytes,
        align=chain.align,
        log_id=header.log_id,
        ordinal=header.ordinal,
        end=chain.offset,
        previous_crc=chain.previous_crc,
        name=name,
        previous_end=header.previous_end,
        summary_bytes=SUMMARY_ROW_BYTES * len(found.active.metadata.tally),
    )
    writer = WalWriter(
        disk,
        config,
        segment,
        next_lsn=chain.next_lsn,
        generation=chain.generation + 1,
        metadata=found.active.metadata,
    )
    writer._segment_ids = sorted(found.names)
    writer._segment_bytes = {first: found.sizes[file] for first, file in found.names.items()}
    for file, length in found.sizes.items():
        if parse_name(file, ".spare") is None or file in (found.adopted, *found.dropped):
            continue
        if length == config.segment_bytes and not writer._spares.recyclable:
            await disk.sync(file)  # a process that was killed may have left it with nothing of it on the device
            writer._spares.recyclable[file] = length
        else:
            await disk.remove(file)
    return writer


async def seal_predecessor(disk: Disk, found: Recovered) -> None:
    """A crash may have come between the first write of a segment and the seal of the one before it: write it now."""
    header, ids = found.active.header, sorted(found.names)
    if header.previous_end == 0 or len(ids) < 2 or found.cut is not None:
        return
    name = found.names[ids[-2]]
    block = await disk.read(name, header.previous_end, 4096)
    try:
        sealed = decode_group_header(block)
        if sealed.flags & Flag.SEAL and sealed.segment == ids[-2] and sealed.offset == header.previous_end:
            return
    except BadGroup:
        pass
    previous = await examine(disk, name, ids[-2], found.sizes)
    if previous.last_flags & Flag.SEAL:
        return
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
    chain = previous.chain
    segment = Segment(
        chain.segment, -1, chain.file_bytes, chain.align, chain.log_id, 0, chain.offset, chain.previous_crc, name
    )
    data = seal_bytes(
        segment,
        header.first_lsn,
        tally=previous.metadata.tally,
        generation=header.generation,
        durable_lsn=header.first_lsn - 1,
        timestamp_ns=time.time_ns(),
    )
    await disk.write(name, chain.offset, data)


async def create_log(disk: Disk, config: WalConfig) -> tuple[WalWriter, RecoveryReport]:
    """A new log: its first segment gets its name only when header and snapshot are durable."""
    for file in await disk.list():
        if parse_name(file, ".spare") is not None:
            await disk.remove(file)
    name, length = spare_name(1), first_segment_bytes(config.segment_bytes)
    align = max(config.block_bytes or DEFAULT_ALIGN, disk.block_bytes, BLOCK_BYTES_MIN)
    header = SegmentHeader(
        block_bytes=align,
        file_bytes=length,
        log_id=secrets.randbits(64),
        generation=1,
        ordinal=1,
        first_lsn=1,
        created_ns=time.time_ns(),
        previous_end=0,
        align=align,
    )
    prefix, previous_crc = segment_prefix(header, Metadata(), durable_lsn=0)
    try:
        await disk.allocate(name, length)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise NoSpace(
                f"no room for a new log: {os.strerror(error.errno or 0)}",
                errno=error.errno or 0,
                path=disk.path,
                expected=f"{length} bytes",
                hint="free space and open it again; nothing was left behind",
            ) from error
        raise
    await disk.write(name, 0, prefix)
    await disk.rename(name, header.file_name)
    await disk.sync_directory()
    segment = Segment(
        id=1,
        file=await disk.open_file(header.file_name),
        file_bytes=length,
        align=align,
        log_id=header.log_id,
        ordinal=1,
        end=len(prefix),
        previous_crc=previous_crc,
        name=header.file_name,
    )
    writer = WalWriter(disk, config, segment, next_lsn=1, generation=1, metadata=Metadata())
    writer._segment_ids, writer._segment_bytes = [1], {1: length}
    return writer, RecoveryReport(clean=True, created=True, first_lsn=1, next_lsn=1, segments=1, bytes_read=0)
