"""Sealed segments of a log as bytes to be copied elsewhere: their groups are checked on the way, and nothing else is copied.

Groups are taken as they are on disk, so no key is needed for an encrypted segment. The log lives on meanwhile: truncation and
compaction may exchange a file while it is read, which looks like damage; `moved_since` tells the two apart.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from walsvc.config import WalConfig
from walsvc.engines.archive.manifest import ManifestEntry
from walsvc.errors import WalError, read_failed
from walsvc.format.chain import Chain
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, Flag, GroupHeader, decode_group_header
from walsvc.format.segment import REWRITTEN, SegmentHeader
from walsvc.keyring import BLIND
from walsvc.log.offline.inspect import reading
from walsvc.log.read.boundary import check_boundary
from walsvc.log.read.readonly import ReadOnlyLog
from walsvc.log.read.stream import GroupStream, RawGroup, load_header
from walsvc.log.recover.watched import watch

if TYPE_CHECKING:
    from walsvc.api import Log
    from walsvc.disk.base import Disk
    from walsvc.log.read.segments import Segments


@dataclass(slots=True)
class Sealed:
    """A segment that is complete: nothing more is written to it.

    Attributes:
        disk, name, file_bytes: its file.
        first_lsn, next_lsn: its first LSN, and that of the segment after it.
        following: file of that one; empty for the last segment of a log that was sealed for good.
        least: its groups reach at least to this offset.
        header, head: of the file, and the bytes that it was decoded from; known after `load`.
        used_bytes, first_ns, last_ns, end_crc: as in an Entry, and `beyond`: its last group holds records that
            truncate_after has dropped. Known when `pieces` has ended.
        since_ns: as in an Entry.
    """

    disk: Disk
    name: str
    file_bytes: int
    first_lsn: int
    next_lsn: int
    following: str = ""
    least: int = 0
    _header: SegmentHeader | None = None
    head: bytes = b""
    used_bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    end_crc: int = 0
    beyond: bool = False
    since_ns: int = 0

    @property
    def header(self) -> SegmentHeader:
        """The header as it was loaded last."""
        assert self._header is not None, "header before load()"
        return self._header

    async def load(self) -> SegmentHeader:
        """Read the header. Raises Corruption; PathError where reading failed."""
        self._header, self.head = await self._load(self.name, self.first_lsn)
        return self._header

    async def _load(self, name: str, first_lsn: int) -> tuple[SegmentHeader, bytes]:
        try:
            return await load_header(self.disk, name, first_lsn)
        except OSError as error:
            if isinstance(error, WalError):
                raise
            raise read_failed(self.disk.path, error, lsn=first_lsn) from error

    async def check_following(self) -> None:
        """Raise Corruption where the segment after it is of another history of the log; PathError where reading failed."""
        if self.following:
            after, _ = await self._load(self.following, self.next_lsn)
            try:
                await check_boundary(self.disk, self.name, self.first_lsn, after)
            except OSError as error:
                if isinstance(error, WalError):
                    raise
                raise read_failed(self.disk.path, error, lsn=self.first_lsn) from error

    async def exchanged(self) -> bool:
        """True if another file has its name since the header was loaded."""
        with suppress(OSError):
            return bool(self.head) and await self.disk.read(self.name, 0, len(self.head)) != self.head
        return False

    async def groups(self, *, dropped: bool = False) -> AsyncIterator[RawGroup]:
        """Yield the groups; `dropped`: with those behind the cut of a truncate_after.

        Raises:
            Corruption: the segment ends before the next one begins. PathError: reading failed.
        """
        header = await self.load()
        stream = GroupStream(self.disk, self.name, Chain.begin(header, self.head, header.file_bytes))
        while True:
            try:
                raw = await stream.next()
            except BadGroup as error:
                if stream.chain.next_lsn >= self.next_lsn and stream.chain.offset >= self.least:
                    return  # truncate_after began the next segment, and no seal was written
                hint = "the segment was not archived; see `walsvc verify`"
                raise stream.chain.damage(self.disk.path, error.reason, hint) from None
            except OSError as error:
                raise read_failed(self.disk.path, error, lsn=stream.chain.next_lsn) from error
            if raw.header.records and raw.header.first_lsn >= self.next_lsn and not dropped:
                return
            yield raw
            if raw.header.flags & Flag.SEAL:
                return

    async def pieces(self, piece_bytes: int) -> AsyncIterator[bytes]:
        """The bytes in use, in pieces of `piece_bytes`, the last one shorter. Raises what `groups` does."""
        piece = bytearray()
        self.used_bytes = self.first_ns = 0
        async for raw in self.groups():
            if not self.used_bytes:
                piece += self.head.ljust(self.header.data_start, b"\0")
            piece += memoryview(raw.data)[raw.at : raw.at + raw.header.group_bytes]
            self._note(raw.header)
            while len(piece) >= piece_bytes:
                yield bytes(memoryview(piece)[:piece_bytes])
                del piece[:piece_bytes]
        if piece:
            yield bytes(piece)

    def _note(self, header: GroupHeader) -> None:
        self.used_bytes = header.end
        self.first_ns = self.first_ns or header.timestamp_ns
        self.last_ns = header.timestamp_ns
        self.end_crc = header.header_crc
        self.beyond = header.next_lsn > self.next_lsn

    async def time_at(self, offset: int) -> int:
        """Wall clock of the group that holds the byte at `offset`, or of the last one."""
        time = 0
        async for raw in self.groups():
            time = raw.header.timestamp_ns
            if raw.header.end > offset:
                break
        return time

    # ---- is it stored?

    async def stored_as(self, entry: ManifestEntry) -> bool:
        """True if a stored segment of the same first LSN is this one, at least as far as it is part of the log.

        The CRC of the group with which the stored one ends covers all before it, so it is looked for here: where the seal
        must be, else among all groups. What was compacted since has other bytes, but kept the times of its groups.
        """
        if entry.generation != (await self.load()).generation or entry.next_lsn < self.next_lsn:
            return False
        seal = await self._seal()
        if seal is not None and self._is_end(seal, entry):
            return True
        async for raw in self.groups(dropped=True):
            if raw.header.next_lsn >= self.next_lsn and self._is_end(raw.header, entry):
                return True
        return False

    def _is_end(self, group: GroupHeader, entry: ManifestEntry) -> bool:
        if group.timestamp_ns != entry.last_ns:
            return False
        if self.header.optional & REWRITTEN:
            return True
        return group.end == entry.bytes and entry.end_crc in {None, group.header_crc}

    async def _seal(self) -> GroupHeader | None:
        """Read the seal alone; None where it is not known to be the last group."""
        at = self.header.seal_at
        if not at and self.following:
            at = (await self._load(self.following, self.next_lsn))[0].previous_end
        try:
            seal = decode_group_header(await self.disk.read(self.name, at, GROUP_HEADER_BYTES))
        except BadGroup:
            return None
        except OSError as error:
            raise read_failed(self.disk.path, error, lsn=self.first_lsn) from error
        place = (seal.log_id, seal.segment, seal.offset, seal.first_lsn)
        expected = (self.header.log_id, self.first_lsn, at, self.next_lsn)
        return seal if seal.flags & Flag.SEAL and place == expected else None


@asynccontextmanager
async def from_outside(path: str | os.PathLike[str]) -> AsyncIterator[ReadOnlyLog]:
    """The log in a directory, for archiving without its keys: its segments can be copied, records of an encrypted one cannot be
    read. Nothing is changed, no hold set. Raises what opening does."""
    async with reading(path) as disk:
        yield ReadOnlyLog(await watch(disk, BLIND), WalConfig(read_only=True))


def segments_of(log: Log | ReadOnlyLog) -> Segments:
    """A log's files, as its readers see them."""
    from walsvc.api import Log

    return log.writer.segments if isinstance(log, Log) else log.segments


async def sealed_segments(log: Log | ReadOnlyLog) -> list[Sealed]:
    """All segments of the log, ascending, but the active one; that, too, if the log was sealed for good."""
    from walsvc.api import Log

    last, segments = None, segments_of(log)
    if isinstance(log, Log):
        writer = log.writer
        if segments.sealed:
            async with writer.core.extent:  # its seal is durable then
                last = writer.view.place if writer.core.health.failure is None else None
        await writer.core.pipeline.rotation.ended()  # only then has the last one its seal
    elif log.segments.sealed:
        tail = log.segments.tail
        last = tail.header.first_lsn, tail.chain.offset
    ids = segments.ids()
    files = {first: segments.file(first) for first in ids}
    found = [Sealed(segments.disk, *files[one], one, two, files[two][0]) for one, two in pairwise(ids)]
    if last is not None and last[0] == ids[-1]:
        found.append(Sealed(segments.disk, *files[ids[-1]], ids[-1], log.next_lsn, least=last[1]))
    return found


class LogState(NamedTuple):
    """The state of a log's files: which log, how often files were exchanged, and which there are."""

    log: Log | ReadOnlyLog
    epoch: int
    generation: int
    ids: list[int]

    def lasts(self) -> bool:
        """True if the log still has these files; a segment that has begun since does not count."""
        now = state_of(self.log)
        return now[:3] == self[:3] and now.ids[: len(self.ids)] == self.ids


def state_of(log: Log | ReadOnlyLog) -> LogState:
    """The present state of a log's files."""
    from walsvc.api import Log

    segments, generation = segments_of(log), log.writer.view.generation if isinstance(log, Log) else 0
    return LogState(log, segments.epoch, generation, segments.ids())


async def moved_since(state: LogState, segments: list[Sealed]) -> bool:
    """True if files were exchanged or removed, and so were not what the log had said. A change that is under way tells of
    itself at its end."""
    from walsvc.api import Log

    log = state.log
    if isinstance(log, Log):
        async with log.writer.core.extent:
            await log.writer.core.pipeline.rotation.ended()
        moved = not state.lasts()
    else:
        moved = await log.segments.look_again()
    return moved or any([await each.exchanged() for each in segments])
