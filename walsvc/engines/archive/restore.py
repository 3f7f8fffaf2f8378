"""From an archive back to a log: the whole of it, or as it was at an LSN or a moment, exact to the group. And its verification."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from walsvc.disk.paths import checked_path
from walsvc.engines.archive.manifest import KeptEntry, Manifest, ManifestEntry, damaged, kept_entries, last_run
from walsvc.engines.archive.push import Archive, OnProgress
from walsvc.errors import BadOption, Corruption
from walsvc.format.chain import Chain, Need
from walsvc.format.group import BadGroup, Bytes, Flag, GroupHeader
from walsvc.format.segment import BadSegment, decode_segment_header, segment_name
from walsvc.log.offline.backup import Copied, checked_copy, write_segment
from walsvc.log.offline.destination import destination
from walsvc.model import Finding
from walsvc.tasks import begin_task
from walsvc.visible import counted

EVERYTHING = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """The end of a restored log: with the group that holds LSN `lsn`, and before the first group later than `until_ns`."""

    lsn: int = EVERYTHING
    until_ns: int = EVERYTHING

    def includes(self, header: GroupHeader) -> bool:
        """True if a group is part of the log at that moment. No group behind the first one that is not is part of it either."""
        return header.first_lsn <= self.lsn and header.timestamp_ns <= self.until_ns


async def restore(
    archive: Archive,
    target: str,
    *,
    lsn: int | None = None,
    until: datetime | None = None,
    on_progress: OnProgress | None = None,
) -> Copied:
    """Make a log in the new directory `target` of what is archived.

    Everything is checked on the way, and the directory has its name only when all of it is on stable storage.

    Args:
        archive: of one log.
        target: must not exist, or be an empty directory.
        lsn: the log ends with the group that holds this LSN. None: with the last one archived.
        until: an aware datetime; the log ends before the first group that was written later.
        on_progress: called with the bytes done and in all.

    Returns:
        What was restored.

    Raises:
        BadOption: nothing is archived, or not that far back or on. Corruption: an object is missing or damaged; nothing is
            left of the copy. What lies before a missing or damaged entry of the manifest can be restored, by `lsn` or `until`.
            PathError: `target` is taken, or the store cannot be reached.
    """
    moment = RestorePoint(EVERYTHING if lsn is None else lsn, EVERYTHING if until is None else nanoseconds(until))
    async with destination(checked_path(target)) as place:
        manifest = await archive.manifest()
        if not manifest.entries and not manifest.wrong:
            raise await archive.absent()
        pieces = choose(archive, manifest, moment, lsn)
        total, done, used = sum(each.entry.bytes for each in pieces), 0, 0
        for piece in pieces:
            last = piece is pieces[-1]
            path = os.path.join(place.path, segment_name(piece.entry.first_lsn))
            data = contents(archive, piece, moment if last else RestorePoint(), last=last)
            used += await write_segment(path, piece.entry.file_bytes, data)
            done += piece.entry.bytes
            if on_progress is not None:
                on_progress(done, total)
        return await checked_copy(place.path, used)


def nanoseconds(moment: datetime) -> int:
    """Convert an aware datetime to Unix nanoseconds. Raises BadOption for a naive one."""
    if moment.tzinfo is None:
        raise BadOption(f"until={moment.isoformat()} has no time zone", hint="for example 2026-01-31T12:00:00+00:00")
    return int(moment.timestamp() * 1_000_000) * 1000 + 999


def choose(archive: Archive, manifest: Manifest, moment: RestorePoint, lsn: int | None) -> list[KeptEntry]:
    """The stored segments that the log at that moment consists of. A truncate_after that came later has not happened yet, and
    what lies behind a damaged entry does not count. Raises that damage where the moment does not lie before it."""
    entries = manifest.entries[: manifest.whole]
    run = run_at(entries, moment)
    if manifest.wrong and not (run and covers(run, moment)):
        raise manifest.wrong[0]
    if not run:
        raise BadOption(
            "the archive does not reach back that far",
            path=archive.url,
            lsn=lsn,
            hint="`walsvc archive ls` shows what is there; a segment is archived once it is sealed",
        )
    if lsn is not None and not run[0].entry.first_lsn <= lsn < run[-1].until:
        raise BadOption(
            f"LSN {lsn} is not archived",
            path=archive.url,
            lsn=lsn,
            hint=f"LSN {run[0].entry.first_lsn} to {run[-1].until - 1} are; later ones follow when their segment is sealed",
        )
    return run


def run_at(entries: list[ManifestEntry], moment: RestorePoint) -> list[KeptEntry]:
    """The segments that the log had at that moment, as far as `entries` tell."""
    pieces = kept_entries([each for each in entries if (each.since_ns or each.first_ns) <= moment.until_ns])
    return last_run([each for each in pieces if each.entry.first_lsn <= moment.lsn])


def covers(run: list[KeptEntry], moment: RestorePoint) -> bool:
    """True if the moment lies within these segments: later ones are not needed."""
    return moment.lsn < run[-1].until or moment.until_ns < run[-1].entry.last_ns


async def contents(
    archive: Archive, piece: KeptEntry, moment: RestorePoint, *, last: bool
) -> AsyncGenerator[Bytes, None]:
    """A stored segment's header block and groups up to `moment`, each checked.

    The last one of a log loses its seal, which names a successor that is not there.
    """
    name = f"{archive.url.rstrip('/')}/{piece.entry.name}"
    data, base, chain = b"", 0, None
    async with aclosing(parts_of(archive, piece)) as parts:
        async for part in parts:
            data += part
            if chain is None:
                try:
                    header = decode_segment_header(data)
                except BadSegment as error:
                    raise damaged(name, error.reason) from None
                chain = Chain.begin(header, data, header.file_bytes)
                yield data[: header.data_start].ljust(header.data_start, b"\0")
            while (taken := take(chain, data, base, name)) is not None:
                # truncate_after came inside the group
                dropped = taken.next_lsn > piece.until and moment == RestorePoint()
                if last and (dropped or taken.flags & Flag.SEAL or not moment.includes(taken)):
                    return
                yield data[taken.offset - base : taken.end - base]
            data, base = data[chain.offset - base :], chain.offset


def take(chain: Chain, data: bytes, base: int, name: str) -> GroupHeader | None:
    """Take the next group from `data`; None where `data` ends inside it."""
    if chain.offset - base >= len(data):
        return None
    try:
        taken = chain.take(data, base)
    except BadGroup as error:
        raise damaged(name, f"at offset {chain.offset}: {error.reason}") from None
    return None if isinstance(taken, Need) else taken


async def parts_of(archive: Archive, piece: KeptEntry) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a stored segment in order; the next one is fetched meanwhile."""
    entry = piece.entry
    ahead: asyncio.Task[bytes] | None = None
    try:
        for index, (length, digest) in enumerate(entry.parts):
            data = await (ahead or begin_task(archive.part(entry.log_id, length, digest)))
            ahead = None
            if index + 1 < len(entry.parts):
                ahead = begin_task(archive.part(entry.log_id, *entry.parts[index + 1]))
            yield data
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


async def verify(archive: Archive, on_progress: OnProgress | None = None) -> list[Finding]:
    """Fetch every object of the archived log and compare it with what was stored; returns what is wrong, nothing if all is right.

    Findings that are fatal are objects that are missing or damaged. One that is not tells of pieces that no entry names: an
    upload is under way or was cut off, which harms nothing, or the last entries are lost.

    Raises:
        BadOption: nothing is archived there, or nothing of this log. PathError: the store cannot be reached.
    """
    stored = await archive.digests()  # before the manifest: what is entered meanwhile is named then
    manifest = await archive.manifest()
    if not stored and not manifest.entries and not manifest.wrong:
        raise await archive.absent()
    total, done = sum(each.bytes for each in manifest.entries), 0
    found = [Finding("corruption", f"{error.message}: {error.path}", fatal=True) for error in manifest.wrong]
    for entry in manifest.entries:
        offset = 0
        for length, digest in entry.parts:
            try:
                await archive.part(entry.log_id, length, digest)
            except Corruption as error:
                message = f"{error.message}: {error.path}"
                found.append(
                    Finding("corruption", message, entry.first_lsn, offset, entry.first_lsn, length, fatal=True)
                )
            offset += length
            done += length
            if on_progress is not None:
                on_progress(done, total)
    if unnamed := stored - {digest for entry in manifest.entries for _, digest in entry.parts}:
        found.append(unnamed_pieces(len(unnamed), alone=not manifest.entries))
    return found


def unnamed_pieces(count: int, *, alone: bool) -> Finding:
    """The finding for `count` pieces that no entry names; `alone`: the archive has nothing else."""
    objects = counted(count, "object")
    if alone:
        return Finding(
            "corruption", f"{objects} and no entry: the manifest is lost, or the first upload never ended", fatal=True
        )
    return Finding("unnamed", f"{objects} that no entry names: an upload under way or cut off, or a lost entry")
