"""From an archive back to a log: the whole of it, or as it was at an LSN or a moment, exact to the group. And its verification."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import aiofiles

from walsvc.engines.archive import Archive, OnProgress
from walsvc.engines.manifest import Entry, Piece, damaged, history, last_run
from walsvc.errors import BadOption, Corruption
from walsvc.format.chain import Chain, Need
from walsvc.format.group import BadGroup, Flag, GroupHeader
from walsvc.format.segment import BadSegment, decode_segment_header, segment_name
from walsvc.log.backup import Copied, publish, refuse_taken, write_zeros
from walsvc.model import Finding

EVERYTHING = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a restored log ends: with the group that holds LSN `lsn`, and before the first group later than `until_ns`."""

    lsn: int = EVERYTHING
    until_ns: int = EVERYTHING

    def includes(self, header: GroupHeader) -> bool:
        """Whether a group is part of the log at that moment; the one behind the first that is not, is not either."""
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
            left of the copy. PathError: `target` is taken, or the store cannot be reached.
    """
    moment = Moment(EVERYTHING if lsn is None else lsn, EVERYTHING if until is None else nanoseconds(until))
    target = await asyncio.to_thread(os.path.abspath, target)
    await asyncio.to_thread(refuse_taken, target)
    pieces = choose(archive, await archive.entries(), moment, lsn)
    partial_path = f"{target}.partial-{secrets.token_hex(4)}"
    await asyncio.to_thread(os.makedirs, partial_path)
    total, done, next_lsn = sum(each.entry.bytes for each in pieces), 0, 0
    used = 0
    try:
        for piece in pieces:
            last = piece is pieces[-1]
            path = os.path.join(partial_path, segment_name(piece.entry.first_lsn))
            end, next_lsn = await write_segment(archive, piece, path, moment if last else Moment(), last=last)
            used += end
            done += piece.entry.bytes
            if on_progress is not None:
                on_progress(done, total)
        await asyncio.to_thread(publish, partial_path, target)
    except BaseException:
        with suppress(FileNotFoundError):
            shutil.rmtree(partial_path)
        raise
    return Copied(pieces[0].entry.first_lsn, next_lsn, len(pieces), used)


def nanoseconds(moment: datetime) -> int:
    """Unix nanoseconds of an aware datetime. Raises BadOption for a naive one."""
    if moment.tzinfo is None:
        raise BadOption(f"until={moment.isoformat()} has no time zone", hint="for example 2026-01-31T12:00:00+00:00")
    return int(moment.timestamp() * 1_000_000) * 1000 + 999


def choose(archive: Archive, entries: list[Entry], moment: Moment, lsn: int | None) -> list[Piece]:
    """The stored segments that the log at that moment consists of. A truncate_after that came later has not happened yet."""
    pieces = history([each for each in entries if (each.since_ns or each.first_ns) <= moment.until_ns])
    wanted = [each for each in pieces if each.entry.first_lsn <= moment.lsn]
    if not wanted:
        raise BadOption(
            "nothing is archived" if not entries else "the archive does not reach back that far",
            path=archive.url,
            lsn=lsn,
            hint="`walsvc archive ls` shows what is there; a segment is archived once it is sealed",
        )
    run = last_run(wanted)
    if lsn is not None and not run[0].entry.first_lsn <= lsn < run[-1].until:
        raise BadOption(
            f"LSN {lsn} is not archived",
            path=archive.url,
            lsn=lsn,
            hint=f"LSN {run[0].entry.first_lsn} to {run[-1].until - 1} are; later ones follow when their segment is sealed",
        )
    return run


async def write_segment(archive: Archive, piece: Piece, path: str, moment: Moment, *, last: bool) -> tuple[int, int]:
    """Write one segment file up to `moment`, checked group by group; returns its end and next LSN.

    The last one of a log loses its seal, which names a successor that is not there.
    """
    entry = piece.entry
    name = f"{archive.url.rstrip('/')}/{entry.name}"
    data, base, chain = b"", 0, None
    end, next_lsn = 0, entry.first_lsn
    async with aiofiles.open(path, "xb") as file:
        async for part in parts_of(archive, piece):
            data += part
            if chain is None:
                try:
                    header = decode_segment_header(data)
                except BadSegment as error:
                    raise damaged(name, error.reason) from None
                chain = Chain.begin(header, data, header.file_bytes)
                await file.write(data[: header.data_start].ljust(header.data_start, b"\0"))
            ended = False
            while not ended and (taken := take(chain, data, base, name)) is not None:
                dropped = taken.next_lsn > piece.until and moment == Moment()  # truncate_after came inside the group
                ended = last and (dropped or bool(taken.flags & Flag.SEAL) or not moment.includes(taken))
                if not ended:
                    await file.write(data[taken.offset - base : taken.end - base])
                    end, next_lsn = taken.end, taken.next_lsn
            if ended:
                break
            data, base = data[chain.offset - base :], chain.offset
        await write_zeros(file.write, entry.file_bytes - end)
        await file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    return end, next_lsn


def take(chain: Chain, data: bytes, base: int, name: str) -> GroupHeader | None:
    """The next group in `data`, or None where that ends inside it."""
    if chain.offset - base >= len(data):
        return None
    try:
        taken = chain.take(data, base)
    except BadGroup as error:
        raise damaged(name, f"at offset {chain.offset}: {error.reason}") from None
    return None if isinstance(taken, Need) else taken


async def parts_of(archive: Archive, piece: Piece) -> AsyncIterator[bytes]:
    """The pieces of a stored segment in order, the next one on its way."""
    entry = piece.entry
    ahead: asyncio.Task[bytes] | None = None
    try:
        for index, (length, digest) in enumerate(entry.parts):
            data = await (ahead or asyncio.create_task(archive.part(entry.log_id, length, digest)))
            ahead = None
            if index + 1 < len(entry.parts):
                ahead = asyncio.create_task(archive.part(entry.log_id, *entry.parts[index + 1]))
            yield data
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


async def verify(archive: Archive, on_progress: OnProgress | None = None) -> list[Finding]:
    """Fetch every object of the archived log and compare it with what was stored; returns what is wrong, nothing if all is right.

    Raises:
        Corruption: the manifest itself is damaged. PathError: the store cannot be reached.
    """
    entries = await archive.entries()
    total, done = sum(each.bytes for each in entries), 0
    found: list[Finding] = []
    for entry in entries:
        offset = 0
        for length, digest in entry.parts:
            try:
                await archive.part(entry.log_id, length, digest)
            except Corruption as error:
                found.append(
                    Finding(
                        "corruption",
                        f"{error.message}: {error.path}",
                        entry.first_lsn,
                        offset,
                        entry.first_lsn,
                        length,
                        True,
                    )
                )
            offset += length
            done += length
            if on_progress is not None:
                on_progress(done, total)
    return found
