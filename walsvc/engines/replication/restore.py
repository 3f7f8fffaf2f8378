"""From a replica back to a log: every group is checked against the one before it on the way, and written as it was."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

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
from walsvc.errors import Corruption, PathError, WalTimeout
from walsvc.format.chain import Chain
from walsvc.format.group import BadGroup, Bytes, Flag
from walsvc.format.segment import segment_name
from walsvc.log.offline.backup import Copied, checked_copy, write_segment
from walsvc.log.offline.destination import destination
from walsvc.log.read.stream import GroupStream, load_header

OnProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""
ATTEMPTS = 20  # in a row that copy nothing: the log may go on meanwhile, and drop what was about to be read


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
        Corruption: a message is damaged or missing; nothing is left of the copy. WalTimeout: the log drops segments faster than they
            can be read.
    """
    address, options = parse_replica(url)
    async with destination(checked_path(target)) as place:
        stream = await reach(address, options)
        try:
            return await copy_when_whole(stream, place.path, on_progress)
        finally:
            await stream.close()


async def copy_when_whole(stream: Stream, path: str, on_progress: OnProgress | None) -> Copied:
    """Copy the stream into the directory `path`; look at it again where it was purged meanwhile, which looks like damage.

    A segment that is copied is not copied again, so a log that drops segments all the time is copied as well.
    """
    copies, attempts = SegmentCopies(stream, path, on_progress), 0
    while attempts < ATTEMPTS:
        (first, _), copied = await stream.extent(), copies.count
        try:
            return await copies.copy()
        except Corruption:
            if (await stream.extent())[0] == first:
                raise
            attempts = attempts + 1 if copies.count == copied else 0
    raise WalTimeout("the log dropped segments under every attempt to copy it", path=stream.path)


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


class SegmentCopy(NamedTuple):
    """The messages of which a segment was copied, where truncate_after has cut it, and the bytes in use."""

    first_sequence: int
    last_sequence: int
    until: int | None
    used: int


class SegmentCopies:
    """The segments of a stream that are copied into a directory.

    Attributes:
        count: how many were copied, those that the log has dropped since included.
    """

    def __init__(self, stream: Stream, path: str, on_progress: OnProgress | None) -> None:
        self.count: int = 0
        self._stream = stream
        self._path = path
        self._on_progress = on_progress
        self._copied: dict[int, SegmentCopy] = {}  # by first LSN

    async def copy(self) -> Copied:
        """Copy every segment that the stream holds as it is now, then look at the copy as a reader of the log does."""
        directory, _, last = await survey(self._stream)
        kept, _ = history(directory.by_age())
        if not kept:
            hint = "nothing was replicated to it yet"
            raise PathError("there is nothing in the stream", path=self._stream.path, hint=hint)
        for lsn in self._copied.keys() - {each.segment.first_lsn for each in kept}:
            await self._forget(lsn)
        disk = JetStreamDisk(self._stream, directory, None, words="", last=last, first=0, follows=False)
        done, total = 0, sum(each.segment.file_bytes for each in kept)
        for each in kept:
            file = each.segment
            there = self._copied.get(file.first_lsn)
            if there is None or there[:3] != (file.first_sequence, file.last_sequence, each.until):
                if there is not None:
                    await self._forget(file.first_lsn)
                await self._copy(disk, each)
            done += file.file_bytes
            if self._on_progress is not None:
                self._on_progress(done, total)
        return await checked_copy(self._path, sum(each.used for each in self._copied.values()))

    async def _copy(self, disk: JetStreamDisk, kept: KeptSegment[SegmentFile]) -> None:
        file = kept.segment
        end = (await tail_of(self._stream, file)).end
        path = self._path_of(file.first_lsn)
        try:
            used = await write_segment(path, file.file_bytes, contents(disk, kept, end))
        except Corruption:
            await in_thread(os.unlink, path)
            raise
        self._copied[file.first_lsn] = SegmentCopy(file.first_sequence, file.last_sequence, kept.until, used)
        self.count += 1

    async def _forget(self, lsn: int) -> None:
        await in_thread(os.unlink, self._path_of(lsn))
        del self._copied[lsn]

    def _path_of(self, lsn: int) -> str:
        return os.path.join(self._path, segment_name(lsn))


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
