"""Copying a log: a backup beside a live writer, and the way back. Both are the same: what is copied is checked on the way.

Segment after segment is read group by group, and only valid groups are written, so a copy never holds damage, nor a half
recycled file. The copy ends where the log ended when it began, or later: at least everything that was durable then is in
it. It becomes a log when all of it is on stable storage (walsvc.log.offline.destination).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from walsvc.config import MIB
from walsvc.disk.base import Disk
from walsvc.disk.paths import checked_path
from walsvc.disk.pool import in_thread
from walsvc.errors import Corruption, WalTimeout
from walsvc.format.cipher import SegmentCipher, cipher_of
from walsvc.format.group import BadGroup, Bytes
from walsvc.format.segment import SegmentHeader, parse_name, segment_name
from walsvc.keyring import BLIND, Keys
from walsvc.log.offline.destination import destination, new_file
from walsvc.log.offline.inspect import reading
from walsvc.log.read.boundary import check_boundaries, check_boundary
from walsvc.log.read.stream import RawGroup, load_header, open_stream
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.looking import find
from walsvc.log.recover.recovery import Recovered

ATTEMPTS = 20  # a living log may drop a segment while it is copied
ZEROS_BYTES = 1 * MIB


@dataclass(frozen=True, slots=True)
class Copied:
    """Contents of a copy.

    Attributes:
        first_lsn, next_lsn: its records.
        segments: number of files.
        bytes: of them in use.
    """

    first_lsn: int
    next_lsn: int
    segments: int
    bytes: int


async def copy_log(
    source: str | os.PathLike[str],
    target: str,
    *,
    sparse: bool,
    on_segment: Callable[[str, int], None] | None = None,
    keys: Keys = BLIND,
) -> Copied:
    """Copy the log in directory `source` to the new directory `target`.

    Args:
        source: a log, which another process may be writing.
        target: must not exist, or be an empty directory.
        sparse: leave the unused rest of the files as holes; else it is written with zeros, as a log that goes on wants it.
        on_segment: called with each file's name and bytes in use.
        keys: of an encrypted log. Without them it is copied all the same, as ciphertext that is checked by its CRCs; with
            them every group is authenticated, too. The copy has the keys of the log.

    Raises:
        MissingKey, WrongKey: keys were given that do not fit.
        PathError: there is no log, or `target` is taken. Corruption, UnsupportedFormat: nothing is left of the copy.
    """
    source = checked_path(source)
    async with destination(checked_path(target), source) as place, reading(source) as disk:
        for _ in range(ATTEMPTS):
            found = await find(disk, keys)
            try:
                used = await copy_segments(
                    found.through(disk), found, place.path, keys, sparse=sparse, on_segment=on_segment
                )
                break
            except (FileNotFoundError, Corruption) as error:
                if isinstance(error, Corruption) and not await cut_since(disk, found):
                    raise
                await in_thread(place.clear)  # what was copied has been dropped, recycled or compacted meanwhile
        else:
            raise WalTimeout("the log dropped segments under every attempt to copy it", path=disk.path)
    return copied_of(found, used)


async def cut_since(disk: Disk, found: Recovered) -> bool:
    """True if truncate_after has cut the log since it was found: what was read before and what was read behind it do not fit."""
    again = await find(disk, BLIND)
    return again.active.header.generation != found.active.header.generation


def copied_of(found: Recovered, used: int) -> Copied:
    """The log that was found, as a copy that uses so many bytes."""
    first_lsn = max(found.active.metadata.truncated, min(found.names))  # without the key only the names tell
    return Copied(first_lsn, found.active.chain.next_lsn, len(found.names), used)


async def copy_segments(
    disk: Disk,
    found: Recovered,
    target: str,
    keys: Keys,
    *,
    sparse: bool,
    on_segment: Callable[[str, int], None] | None,
) -> int:
    """Copy every segment; returns the bytes in use. FileNotFoundError where one has gone meanwhile."""
    total = 0
    ids = sorted(found.names)
    for first, following in zip(ids, [*ids[1:], None], strict=True):
        name = found.names[first]
        if following is not None:
            after, _ = await load_header(disk, found.names[following], parse_name(found.names[following], ".wal"))
            await check_boundary(disk, name, first, after)
        path = os.path.join(target, segment_name(first))
        used = await copy_segment(disk, name, path, found, following, keys=keys, sparse=sparse)
        total += used
        if on_segment is not None:
            on_segment(segment_name(first), used)
    return total


async def copy_segment(
    disk: Disk, name: str, path: str, found: Recovered, following: int | None, *, keys: Keys, sparse: bool
) -> int:
    """Copy one segment's header and valid groups, up to the log's end as found; returns the bytes in use."""
    active: Examined | None = found.active if following is None else None
    first = parse_name(name, ".wal")  # None: a crash came before its renaming was durable
    header, stream = await open_stream(disk, name, first, found.sizes[name], BLIND)  # ciphertext is copied as it is
    cipher = cipher_of(keys, header, disk.path)
    same, head = await load_header(disk, name, first)
    if same != header or (active is not None and header != active.header):
        raise FileNotFoundError(name)  # compaction has replaced it
    end: int | None = None if active is None else active.chain.offset
    async with new_file(path) as file:
        await file.write(head.ljust(header.data_start, b"\0"))
        while end is None or stream.chain.offset < end:
            try:
                raw = await stream.next()
            except BadGroup as error:
                await still_there(disk, name, header)
                if active is None and following is not None and stream.chain.next_lsn >= following:
                    break
                raise corruption_of(disk, error, header.first_lsn, stream.chain.offset, stream.chain.next_lsn) from None
            if cipher is not None:
                authenticate(disk, cipher, raw)
            await file.write(memoryview(raw.data)[raw.at : raw.at + raw.header.group_bytes])
        if sparse:
            await file.truncate(stream.chain.file_bytes)
        else:
            await write_zeros(file.write, stream.chain.file_bytes - stream.chain.offset)
    return stream.chain.offset


async def write_segment(path: str, file_bytes: int, contents: AsyncGenerator[Bytes, None]) -> int:
    """Write a segment's file of that length from its header block and groups, zeros behind them; returns the bytes in use."""
    used = 0
    async with new_file(path) as file, aclosing(contents) as pieces:
        async for piece in pieces:
            used += await file.write(piece)
        await write_zeros(file.write, file_bytes - used)
    return used


async def checked_copy(path: str, used: int) -> Copied:
    """Look at a copy in directory `path`, which uses so many bytes, as a reader of the log does; returns what it holds."""
    async with reading(path) as disk:
        found = await find(disk, BLIND)
        await check_boundaries(disk, found.names)
        return copied_of(found, used)


async def still_there(disk: Disk, name: str, header: SegmentHeader) -> None:
    """FileNotFoundError if the segment was recycled, compacted or removed while it was read, which looks like damage."""
    try:
        now, _ = await load_header(disk, name, header.first_lsn)
    except Corruption as error:
        raise FileNotFoundError(name) from error
    if now != header:
        raise FileNotFoundError(name)


def authenticate(disk: Disk, cipher: SegmentCipher, raw: RawGroup) -> None:
    """Corruption where an encrypted group was forged."""
    try:
        cipher.open_group(*raw)
    except BadGroup as error:
        header = raw.header
        raise corruption_of(disk, error, header.segment, header.offset, header.first_lsn) from None


def corruption_of(disk: Disk, error: BadGroup, segment: int, offset: int, lsn: int) -> Corruption:
    """Damage met while copying."""
    return Corruption(
        error.reason,
        path=disk.path,
        segment=segment,
        offset=offset,
        lsn=lsn,
        hint="nothing was copied; see `walsvc verify`",
    )


async def write_zeros(write: Callable[[bytes], Awaitable[int]], length: int) -> None:
    """Fill up with `length` zeros."""
    while length > 0:
        piece = bytes(min(length, ZEROS_BYTES))
        await write(piece)
        length -= len(piece)
