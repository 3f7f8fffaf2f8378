"""Sealed segments in object storage: a second place for what the log must not lose, and the way back to any moment of it.

A sealed segment never changes, so it is stored once, in pieces named by their content, and then entered into the manifest
(manifest.py). The bytes go as they are on disk: an encrypted segment stays encrypted, and nothing here needs a key.

A log that was restored as it was earlier, and went on, has segments of the same first LSN with other records. So what counts
as stored is judged by content (sealed.py); from the first segment that differs on, all are entered anew, as after truncate_after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from walsvc.config import MIB
from walsvc.disk.pool import in_thread
from walsvc.engines.archive.manifest import ManifestEntry, encode_entry, kept_entries, last_run, part_name
from walsvc.engines.archive.objects import Objects
from walsvc.engines.archive.sealed import LogState, Sealed, moved_since, sealed_segments, state_of
from walsvc.errors import Closed, Corruption, PathError
from walsvc.log.read.pins import ARCHIVE_HOLD
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from walsvc.api import Log
    from walsvc.log.read.readonly import ReadOnlyLog

PART_BYTES = 8 * MIB  # what an interrupted upload repeats at most
PARTS_AT_ONCE = 4  # 32 MiB of memory at most

OnProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


class Archive(Objects):
    """The archive of logs at a URL. Get it by `Archive.at`.

    Attributes:
        archived_lsn: everything below it was archived at the last push; 0 before the first.
        mended: how many pieces that the store had lost were put there again.
    """

    def __init__(self, store: ObjectStore, url: str, log_id: str | None = None) -> None:
        super().__init__(store, url, log_id)
        self.archived_lsn: int = 0
        self.mended: int = 0
        self._judged_in: tuple[object, ...] = ()  # the log and its state, in which
        self._judged: dict[int, tuple[int, int]] = {}  # by first LSN: next LSN, and the entry that holds it

    async def push(self, log: Log | ReadOnlyLog, on_progress: OnProgress | None = None) -> list[ManifestEntry]:
        """Store every sealed segment that is not stored yet; returns the new entries.

        Where `log` is open for writing, a hold named "archive" keeps from now on what is not archived. An upload that was
        cut off goes on where it stopped. The active segment is stored once it is sealed, or the log is sealed for good.

        A segment that is not what the archive holds under its first LSN (the log was restored as it was earlier, and went
        on) is stored anew, and so is all behind it. Pieces that the store has lost are stored again where the log has them.

        Raises:
            Corruption: a segment is damaged (nothing of it is entered), or the archive is. PathError: the store, which may be a
                directory inside the log.
        """
        self.refuse_inside(log.path)
        added: list[ManifestEntry] = []
        while True:
            segments = await sealed_segments(log)
            state = state_of(log)
            try:
                if await self._push(state, segments, added, on_progress):
                    return added
            except (Corruption, PathError) as error:
                missing = isinstance(error.__cause__, FileNotFoundError)
                if not (missing or isinstance(error, Corruption)) or not await moved_since(state, segments):
                    raise

    async def _push(
        self, state: LogState, segments: list[Sealed], added: list[ManifestEntry], on_progress: OnProgress | None
    ) -> bool:
        """Store the segments that are not stored yet; False: the log has changed meanwhile."""
        if not segments:
            await self._keep(state.log, state.log.first_lsn)
            return True
        self.log_id: str = f"{(await segments[0].load()).log_id:016x}"
        wanted = await self._wanted(state, segments)
        await self._keep(state.log, wanted[0].first_lsn if wanted else segments[-1].next_lsn)
        for segment in segments[max(len(segments) - len(wanted) - 1, 0) :] if wanted else ():
            await segment.check_following()
        total, done = sum(each.file_bytes for each in wanted), 0
        stored: list[tuple[Sealed, list[tuple[int, str]]]] = []
        for segment in wanted:
            parts = await self._store_parts(segment)
            stored.append((segment, parts))
            done += segment.file_bytes
            if on_progress is not None:
                on_progress(done, total)
            if segment.beyond:
                continue  # entered with the next one: as the last one it would bring back what was dropped
            for each, its_parts in stored:
                each.since_ns = await self._since(each, its_parts)
                added.append(await self._enter(each, its_parts))
            stored.clear()
            if not state.lasts():
                return False
            await self._keep(state.log, segment.next_lsn)
        return True

    async def _wanted(self, state: LogState, segments: list[Sealed]) -> list[Sealed]:
        """All segments from the first one on whose stored form differs, or is missing."""
        if not self._whole:
            await self.entries()
            await self._mend(segments)
        pieces = {piece.entry.first_lsn: piece for piece in last_run(kept_entries(self.known))}
        if self._judged_in != state[:3]:
            self._judged_in, self._judged = state[:3], {}
        for place, segment in enumerate(segments):
            piece = pieces.get(segment.first_lsn)
            if piece is None or piece.until < segment.next_lsn:
                return segments[place:]
            verdict = segment.next_lsn, piece.entry.sequence
            if self._judged.get(segment.first_lsn) != verdict:
                if not await segment.stored_as(piece.entry):
                    return segments[place:]
                if segment.following:
                    self._judged[segment.first_lsn] = verdict
        return []

    async def _mend(self, segments: list[Sealed]) -> None:
        """Store the pieces again that entries name and the store has lost, as far as the log still has those bytes."""
        stored = await self.digests()
        lost = {digest: entry.first_lsn for entry in self.known for _, digest in entry.parts if digest not in stored}
        for segment in segments:
            if segment.first_lsn not in lost.values():
                continue
            async for data in segment.pieces(PART_BYTES):
                digest = (await in_thread(sha256, data)).hexdigest()
                if digest in lost:
                    self.mended += await self._create(part_name(str(self.log_id), digest), data)

    async def _keep(self, log: Log | ReadOnlyLog, lsn: int) -> None:
        """Move the hold: everything below `lsn` is archived."""
        self.archived_lsn = lsn
        await hold(log, lsn)

    async def _since(self, segment: Sealed, parts: list[tuple[int, str]]) -> int:
        """The time from which on the log was as in the segment: where the archive holds another one in its place, since they part."""
        pieces = {each.entry.first_lsn: each.entry for each in kept_entries(self.known)}
        before = pieces.get(segment.first_lsn)
        if before is None or before.generation != segment.header.generation:
            return segment.first_ns
        offset = 0
        for ours, theirs in zip(parts, before.parts, strict=False):
            if ours != theirs:
                with suppress(Corruption):  # theirs is damaged: `verify` says so
                    old = await self.part(before.log_id, *theirs)
                    offset += common_bytes(await self.part(before.log_id, *ours), old)
                break
            offset += ours[0]
        return await segment.time_at(offset)

    async def _store_parts(self, segment: Sealed) -> list[tuple[int, str]]:
        """Store a segment's pieces, a few at a time; returns their lengths and hashes in order."""
        slots = asyncio.Semaphore(PARTS_AT_ONCE)
        digests: list[tuple[int, str]] = []
        tasks: set[asyncio.Task[None]] = set()

        async def store(data: bytes, digest: str) -> None:
            try:
                await self._create(part_name(str(self.log_id), digest), data)
            finally:
                slots.release()

        try:
            async for data in segment.pieces(PART_BYTES):
                await slots.acquire()
                digest = (await in_thread(sha256, data)).hexdigest()
                digests.append((len(data), digest))
                task = begin_task(store(data, digest))
                tasks.add(task)
                for ended in [each for each in tasks if each.done()]:
                    tasks.discard(ended)
                    ended.result()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return digests

    async def _enter(self, segment: Sealed, parts: list[tuple[int, str]]) -> ManifestEntry:
        entries = self.known
        entry, data = encode_entry(
            ManifestEntry(
                sequence=len(entries) + 1,
                log_id=str(self.log_id),
                first_lsn=segment.first_lsn,
                next_lsn=segment.next_lsn,
                ordinal=segment.header.ordinal,
                generation=segment.header.generation,
                bytes=segment.used_bytes,
                file_bytes=segment.header.file_bytes,
                first_ns=segment.first_ns,
                last_ns=segment.last_ns,
                parts=tuple(parts),
                end_crc=segment.end_crc,
                since_ns=segment.since_ns,
                previous=entries[-1].check if entries else "",
            )
        )
        if not await self._create(entry.name, data) and await self.fetch(entry.name) != data:
            self._whole = False
            raise PathError(
                "somebody else archives the same log at the same time",
                path=f"{self.url}/{entry.name}",
                lsn=segment.first_lsn,
                hint="let one process archive a log; nothing was overwritten, run it again",
            )
        entries.append(entry)
        return entry


async def hold(log: Log | ReadOnlyLog, lsn: int) -> None:
    """Hold in the log what is not archived: every record from `lsn` on. A log that was sealed for good takes no hold, and drops nothing."""
    from walsvc.api import Log

    if not isinstance(log, Log):
        return
    lsn = max(lsn, log.first_lsn)
    if log.holds().get(ARCHIVE_HOLD) != lsn and lsn <= log.next_lsn:
        try:
            await log.hold(ARCHIVE_HOLD, lsn)
        except Closed:
            if not log.writer.segments.sealed:
                raise


def common_bytes(one: bytes, two: bytes) -> int:
    """How many bytes both begin with."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
