"""Migration: bring a log that an older version wrote up to the present format, segment by segment, oldest first.

Every segment is rewritten under its name (walsvc.log.extent.rewrite), so a kill leaves a directory of old and new segments, each
of them whole. Opening refuses it until the last one is new; migrating again goes on with what is still old. Nothing is lost
and nothing is judged here: where the old log was not closed in order, its own version has to look at its end first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.choose import open_disk
from walsvc.disk.paths import checked_path
from walsvc.errors import Corruption, PathError, UnsupportedFormat
from walsvc.format.cipher import cipher_of
from walsvc.format.content import Content
from walsvc.format.group import Flag
from walsvc.format.segment import (
    SEGMENT_HEADER_BYTES,
    VERSION,
    BadSegment,
    SegmentHeader,
    parse_name,
    segment_name,
)
from walsvc.format.versions import Format, format_of, present_content, present_header
from walsvc.keyring import KeyRing
from walsvc.log.extent.rewrite import Rewriting, drop_unfinished, next_group, rewrite, rewrite_name
from walsvc.log.offline.inspect import reading
from walsvc.log.opening import releasing
from walsvc.log.read.stream import GroupStream, RawGroup
from walsvc.log.recover.findings import foreign
from walsvc.log.recover.looking import settled

OnSegment = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Migration:
    """Segments that were migrated, or would be.

    Attributes:
        version: the present format version, which the log has afterwards.
        segments: names of the files that were of an older version, oldest first.
        versions: theirs, in the same order.
        present: how many segments were of the present version already.
        applied: it was done; False: it would be done.
    """

    version: int
    segments: tuple[str, ...]
    versions: tuple[int, ...]
    present: int
    applied: bool


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A segment of any version."""

    name: str
    file_bytes: int
    form: Format
    header: SegmentHeader


async def migrate(
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    keys: KeyRing | None = None,
    on_segment: OnSegment | None = None,
) -> Migration:
    """Rewrite the segments of the log in directory `path` that are of an older format version. Locks the log, but for a dry run.

    Args:
        path: the log's directory. Take a backup of it with the version that wrote it, or copy the files.
        dry_run: only look, and say what would be done.
        keys: of an encrypted log; the segments are then encrypted with the current one.
        on_segment: called with each file's name when it is done.

    Raises:
        PathError: there is no log. Locked: somebody has it open. UnsupportedFormat: it is newer, too old, or was not closed
        in order by its own version. Corruption: a segment is damaged; it and the later ones stay as they are. NoSpace.
        Whatever is raised, or if it is killed: call it again.
    """
    path = checked_path(path)
    if not os.path.isdir(path):  # noqa: ASYNC240
        raise PathError("there is no log here", path=path, hint="check the path")
    if dry_run:
        async with reading(path) as disk:
            return await settled(disk, lambda seen: migrate_on(seen, keys, dry_run=True))
    config = WalConfig(keys=keys)
    disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=True)
    async with releasing(disk):
        done = await migrate_on(disk, keys, on_segment=on_segment)
    await disk.close()
    return done


async def migrate_on(
    disk: Disk, keys: KeyRing | None, *, dry_run: bool = False, on_segment: OnSegment | None = None
) -> Migration:
    """See migrate; on a given disk, which holds the lock and stays open."""
    found = await find_segments(disk)
    old = [each for each in found if each.form.version != VERSION]
    last = found[-1]
    if last in old and not await closed_in_order(disk, last, keys):
        raise UnsupportedFormat(
            f"the log is of format version {last.form.version} and was not closed in order",
            path=disk.path,
            segment=last.header.first_lsn,
            hint="open and close it once with the walsvc that wrote it, then migrate; nothing was changed",
        )
    done = Migration(
        VERSION,
        tuple(each.name for each in old),
        tuple(each.form.version for each in old),
        len(found) - len(old),
        applied=not dry_run,
    )
    if dry_run or not old:
        return done
    await drop_unfinished(disk)
    for name in await disk.list():
        if parse_name(name, ".spare") is not None:
            await disk.remove(name)  # of an older version, perhaps; after an orderly close they hold nothing
    for each in old:
        following = next(
            (later.header.first_lsn for later in found if later.header.first_lsn > each.header.first_lsn), 0
        )
        await rewrite(rewriting(disk, each, keys, until=following, is_last=each is last))
        await disk.rename(rewrite_name(each.header.first_lsn), each.name)
        await disk.sync_directory()
        if on_segment is not None:
            on_segment(each.name)
    return done


async def find_segments(disk: Disk) -> list[FoundSegment]:
    """All segments in LSN order, whatever their version; numbered without a gap."""
    sizes = await disk.list()
    ids = sorted(first for name in sizes if (first := parse_name(name, ".wal")) is not None)
    if not ids:
        raise PathError("there is no log here", path=disk.path, hint="check the path")
    found: list[FoundSegment] = []
    for first in ids:
        name = segment_name(first)
        data = await disk.read(name, 0, SEGMENT_HEADER_BYTES)
        try:
            form = format_of(data)
            header = present_header(form, data)
        except BadSegment as error:
            kind = UnsupportedFormat if error.newer or error.older else Corruption
            hint = "upgrade walsvc" if error.newer else "nothing was changed; restore the file from a backup"
            if error.older:
                hint = "migrate it with an earlier walsvc first; nothing was changed"
            raise kind(f"{name}: {error.reason}", path=disk.path, segment=first, offset=0, hint=hint) from None
        found.append(FoundSegment(name, sizes[name], form, header))
        if header.log_id != found[0].header.log_id:
            raise foreign(disk, first, header, found[0].header)
        if header.first_lsn != first or header.ordinal != found[0].header.ordinal + len(found) - 1:
            raise Corruption(
                f"{name} is not the segment that belongs there",
                path=disk.path,
                segment=first,
                expected=f"segment number {found[0].header.ordinal + len(found) - 1}, first LSN {first}",
                actual=f"number {header.ordinal}, first LSN {header.first_lsn}",
                hint="nothing was changed; restore the missing or foreign file from a backup",
            )
    return found


async def groups_of(disk: Disk, each: FoundSegment, keys: KeyRing | None) -> GroupStream:
    """The groups of a segment of any version, from the first one on."""
    data = await disk.read(each.name, 0, SEGMENT_HEADER_BYTES)
    chain = each.form.begin(each.header, data, each.file_bytes)
    return GroupStream(disk, each.name, chain, cipher=cipher_of(keys, each.header, disk.path))


async def closed_in_order(disk: Disk, last: FoundSegment, keys: KeyRing | None) -> bool:
    """True if the log's last group is that of an orderly close."""
    stream, flags = await groups_of(disk, last, keys), 0
    while (raw := await next_group(stream, 0)) is not None:
        flags = present_content(last.form, *raw).header.flags
    return bool(flags & Flag.CLOSE)


def rewriting(disk: Disk, each: FoundSegment, keys: KeyRing | None, *, until: int, is_last: bool) -> Rewriting:
    """The steps by which a segment becomes one of the present version. The last one keeps its room: appending goes on there."""

    def change(raw: RawGroup) -> Content:
        return present_content(each.form, *raw)

    return Rewriting(
        disk,
        each.header,
        partial(groups_of, disk, each, keys),
        change,
        keys,
        until,
        align=each.header.align,
        file_bytes_min=each.header.file_bytes if is_last else 0,
    )
