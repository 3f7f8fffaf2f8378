"""From a replica back to a log: every group is checked against the one before it on the way, and written as it was."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable

from walsvc.disk.paths import checked_path
from walsvc.disk.pool import in_thread
from walsvc.engines.history import KeptSegment, history
from walsvc.engines.jetstream.connect import connect
from walsvc.engines.jetstream.disk import JetStreamDisk
from walsvc.engines.jetstream.options import Address, JetStreamOptions, login_of, parse_replica
from walsvc.engines.jetstream.segment_table import SegmentFile
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import survey
from walsvc.engines.replication.replica import tail_of
from walsvc.errors import Corruption, PathError
from walsvc.format.chain import Chain
from walsvc.format.group import BadGroup, Bytes, Flag
from walsvc.format.segment import segment_name
from walsvc.log.offline.backup import Copied, checked_copy, write_segment
from walsvc.log.offline.destination import Destination, destination
from walsvc.log.read.stream import GroupStream, load_header

OnProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""
ATTEMPTS = 5  # the log may go on meanwhile, and drop what was about to be read


async def restore_replica(url: str, target: str, *, on_progress: OnProgress | None = None) -> Copied:
    """Make a log in the new directory `target` of the replica at `url`: all that it has, to the group.

    Nothing in the stream is changed, and whoever writes to it goes on. The directory has its name only when everything in it
    was checked and is on stable storage. An encrypted log stays encrypted.

    Args:
        url: as for `replicate=`.
        target: must not exist, or be an empty directory.
        on_progress: called with the bytes done and in all.

    Returns:
        What was restored.

    Raises:
        BadOption: `url`. PathError: there is no such stream, or nothing in it; no server answers; `target` is taken.
        Corruption: a message is damaged or missing; nothing is left of the copy.
    """
    address, options = parse_replica(url)
    async with destination(checked_path(target)) as place:
        stream = await reach(address, options)
        try:
            return await copy_when_whole(stream, place, on_progress)
        finally:
            await stream.close()


async def copy_when_whole(stream: Stream, place: Destination, on_progress: OnProgress | None) -> Copied:
    """Copy the stream; begin again where it was purged meanwhile, which looks like damage."""
    for attempt in range(ATTEMPTS):
        first, _ = await stream.extent()
        try:
            return await copy_stream(stream, place.path, on_progress)
        except Corruption:
            if attempt + 1 == ATTEMPTS or (await stream.extent())[0] == first:
                raise
            await in_thread(place.clear)
    raise AssertionError("the last attempt returns or raises")


async def reach(address: Address, options: JetStreamOptions) -> Stream:
    """Connect to the stream, for reading."""
    stream = Stream(await connect(address, options, **login_of(address, options)), address, options)
    try:
        if await stream.info() is None:
            raise PathError(
                "there is no such stream", path=stream.path, hint="check the name; `nats stream ls` lists them"
            )
    except BaseException:
        await stream.close()
        raise
    return stream


async def copy_stream(stream: Stream, path: str, on_progress: OnProgress | None) -> Copied:
    """Write the segments that the stream holds into the directory `path`, then look at them as a reader of the log does."""
    directory, _, last = await survey(stream)
    kept, _ = history(directory.by_age())
    if not kept:
        raise PathError("there is nothing in the stream", path=stream.path, hint="nothing was replicated to it yet")
    disk = JetStreamDisk(stream, directory, None, words="", last=last, first=0, follows=False)
    ends = [(await tail_of(stream, each.segment)).end for each in kept]
    done = used = 0
    for each, end in zip(kept, ends, strict=True):
        name = segment_name(each.segment.first_lsn)
        used += await write_segment(os.path.join(path, name), each.segment.file_bytes, contents(disk, each, end))
        done += end
        if on_progress is not None:
            on_progress(done, sum(ends))
    return await checked_copy(path, used)


async def contents(disk: JetStreamDisk, kept: KeptSegment[SegmentFile], end: int) -> AsyncGenerator[Bytes, None]:
    """One segment's header block and groups, which in the stream reach up to `end`.

    The last one of a log loses its seal, which names a successor that is not there.
    """
    name, first = segment_name(kept.segment.first_lsn), kept.segment.first_lsn
    header, head = await load_header(disk, name, first)
    stream = GroupStream(disk, name, Chain.begin(header, head, header.file_bytes))
    yield head.ljust(header.data_start, b"\0")
    while stream.chain.offset < end:
        lsn = stream.chain.next_lsn
        try:
            raw = await stream.next()
        except BadGroup as error:
            if kept.until is not None and lsn >= kept.until:
                return  # what truncate_after dropped, and later writes have covered in part
            hint = "nothing was restored; compare the stream's servers"
            raise stream.chain.damage(disk.path, error.reason, hint) from None
        if kept.until is None and raw.header.flags & Flag.SEAL:
            return
        if kept.until is not None and raw.header.records and raw.header.first_lsn >= kept.until:
            return  # dropped by truncate_after
        yield memoryview(raw.data)[raw.at : raw.at + raw.header.group_bytes]
