"""Looking into a log without opening it for writing: every segment and every group, as values. Changes nothing.

Recovery reads only what it needs to find the end; a survey reads every byte in use, so it also sees damage in old
segments. It judges nothing: that is for walsvc.log.offline.verify. Both work beside a live writer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from walsvc.config import MIB, WalConfig
from walsvc.disk.choose import open_disk
from walsvc.errors import Corruption, PathError, UnsupportedFormat, WalError, read_failed
from walsvc.format.chain import Chain
from walsvc.format.cipher import cipher_of
from walsvc.format.double_write import DOUBLE_WRITE_NAME, SlotHeader
from walsvc.format.group import BadGroup, Flag, GroupHeader, decode_meta
from walsvc.format.meta import Metadata, decode_map
from walsvc.format.segment import SegmentHeader, parse_name
from walsvc.keyring import BLIND, Keys
from walsvc.log.read.stream import GroupStream, load_header, too_short, unsupported
from walsvc.log.recover.census import refuse_lost_segments
from walsvc.log.recover.foreign import refuse_strangers
from walsvc.log.recover.overlay import read_slots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from walsvc.disk.base import Disk

CHUNK_BYTES = 4 * MIB
OnGroup = Callable[[GroupHeader], None]


class SegmentWalk(NamedTuple):
    """One segment file, read from its header to the end of its valid groups.

    Attributes:
        name, file_bytes: the file.
        header: its segment header; None when that is not valid.
        groups, records, payload_bytes: what the valid groups hold. Records that truncation hides count as well.
        next_lsn: LSN after the last record.
        end: offset behind the last valid group: the bytes in use.
        last_flags, last_timestamp_ns: of the last valid group.
        generation: number of the opening that wrote the last valid group.
        truncated: first LSN that is visible, as its groups say; 0 where they cannot be read for want of keys.
        successor: first LSN of the next segment, where a seal names it and can be read.
        cut: the last LSN that a truncate_after which was interrupted leaves; None where there is none to finish.
        reason: why nothing valid stands at `end`.
        error: what is wrong with the header, with the format of a group or with the file's length; None when nothing is.
        forged: what stands at `end`, where that is a group of an encrypted segment that does not authenticate.
        proof: what shows that a record missing at `end` had been durable; None when nothing does.
        bytes_read: from the disk.
    """

    name: str
    file_bytes: int
    header: SegmentHeader | None = None
    groups: int = 0
    records: int = 0
    payload_bytes: int = 0
    next_lsn: int = 0
    end: int = 0
    last_flags: int = 0
    last_timestamp_ns: int = 0
    generation: int = 0
    truncated: int = 1
    successor: int | None = None
    cut: int | None = None
    reason: str = ""
    error: Corruption | UnsupportedFormat | None = None
    forged: Corruption | None = None
    proof: str | None = None
    bytes_read: int = 0

    @property
    def short(self) -> bool:
        """Its file was cut: it had its full length, durably, before anything was written to it."""
        return self.header is not None and self.file_bytes < self.header.file_bytes

    @property
    def sealed(self) -> bool:
        """A seal ends it: nothing more is ever written here."""
        return bool(self.last_flags & Flag.SEAL)

    @property
    def closed(self) -> bool:
        """A writer closed the log here in order, and nothing was written since."""
        return bool(self.last_flags & Flag.CLOSE)


class Survey(NamedTuple):
    """All files of a log: segments in LSN order, and spares. A spare whose `header` is valid holds the beginning of a
    segment whose renaming a crash cut short, or was a segment before it was recycled."""

    segments: list[SegmentWalk]
    spares: list[SegmentWalk]
    slots: list[SlotHeader] | None = (
        None  # the valid ones of the double-write file, newest first; None: there is no file
    )


@asynccontextmanager
async def reading(path: str | os.PathLike[str]) -> AsyncIterator[Disk]:
    """The disk of directory `path`, without the lock; operating system errors inside become PathError."""
    config = WalConfig.of(None, {"read_only": True})
    disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=False)
    try:
        yield disk
    except OSError as error:
        if isinstance(error, WalError):
            raise
        raise read_failed(disk.path, error) from error
    finally:
        await disk.close()


async def walk(
    disk: Disk,
    name: str,
    first_lsn: int | None,
    file_bytes: int,
    on_group: OnGroup | None = None,
    *,
    keys: Keys = BLIND,
) -> SegmentWalk | None:
    """Read segment file `name` to the end of its valid groups, and look behind it for proof that something is missing.

    Memory is bounded by CHUNK_BYTES and the largest group.

    Args:
        disk: where.
        name, file_bytes: the file and its length.
        first_lsn: what its name says; None for a spare.
        on_group: called with each valid group's header, in order.
        keys: of an encrypted log; BLIND: check it from outside. Only with keys is every group authenticated.

    Returns:
        What was found, damage included; None when the log's writer removed or renamed the file meanwhile.

    Raises:
        MissingKey, WrongKey: `keys` are no BLIND, and do not fit.
    """
    try:
        header, data = await load_header(disk, name, first_lsn)
        cipher = cipher_of(keys, header, disk.path)
        stream = GroupStream(disk, name, Chain.begin(header, data, file_bytes), CHUNK_BYTES, cipher)
        walked = SegmentWalk(name, file_bytes, header, end=header.data_start, next_lsn=header.first_lsn)
        walked = await _to_the_end(stream, walked, on_group)
        if walked.error is None and first_lsn is not None and walked.short:
            walked = walked._replace(error=too_short(disk, name, header, file_bytes))
        return walked
    except FileNotFoundError:
        return None
    except (Corruption, UnsupportedFormat) as error:
        return SegmentWalk(name, file_bytes, error=error)


async def _to_the_end(stream: GroupStream, walked: SegmentWalk, on_group: OnGroup | None) -> SegmentWalk:
    groups = records = payload_bytes = 0
    metadata, last = Metadata(), None
    reason, proof = "", None
    forged: Corruption | None = None
    error: UnsupportedFormat | None = None
    evidence: GroupHeader | None = None
    looked_ahead = False
    while True:
        try:
            raw = await stream.next()
            if stream.readable:
                change = decode_map(decode_meta(raw.header, raw.data, raw.at))
                metadata.apply(change, snapshot=bool(raw.header.flags & Flag.SNAPSHOT))
        except Corruption as refused:
            forged, reason = refused, refused.message
            proof = "a write that was cut would not have its CRCs right"
            break
        except BadGroup as bad:
            if not looked_ahead and not bad.newer:
                evidence, looked_ahead = await stream.evidence(), True
                if evidence is not None:
                    continue  # the groups that it calls durable have been written meanwhile, unless they are damaged
            reason = bad.reason
            if bad.newer:
                error = unsupported(stream, bad)
            break
        last = raw.header
        groups, records = groups + 1, records + last.records
        payload_bytes += last.payload_bytes
        if on_group is not None:
            on_group(last)
    chain = stream.chain
    if evidence is not None and chain.refuted_by(evidence):
        proof = "a later group shows that it was durable"
    return walked._replace(
        groups=groups,
        records=records,
        payload_bytes=payload_bytes,
        next_lsn=chain.next_lsn,
        end=chain.offset,
        last_flags=0 if last is None else last.flags,
        last_timestamp_ns=0 if last is None else last.timestamp_ns,
        generation=chain.generation,
        truncated=metadata.truncated if stream.readable else 0,
        successor=metadata.successor,
        cut=metadata.cut,
        reason=reason,
        error=error,
        forged=forged,
        proof=proof,
        bytes_read=stream.bytes_read,
    )


async def survey(path: str | os.PathLike[str], on_group: OnGroup | None = None, keys: Keys = BLIND) -> Survey:
    """Walk every segment and spare of the log in directory `path`; `on_group` sees the valid groups of the segments.
    An encrypted log can be surveyed without its keys, from outside.

    Raises:
        MissingKey, WrongKey: keys were given that do not fit.
        PathError: there is no log, or it cannot be read. Damage is not raised: each Walk tells of it. But Corruption where a
        spare shows that there had been segments, and none is left.
    """
    async with reading(path) as disk:
        sizes = await disk.list()
        await refuse_strangers(disk, sizes)
        segments, spares = [], []
        for name in sorted(sizes):
            first = parse_name(name, ".wal")
            if first is not None:
                segments.append(await walk(disk, name, first, sizes[name], on_group, keys=keys))
            elif parse_name(name, ".spare") is not None:
                spares.append(await walk(disk, name, None, sizes[name]))
        if not segments:
            await refuse_lost_segments(disk, sizes)
            raise PathError("there is no log here", path=disk.path, hint="check the path")
        slots = None
        if DOUBLE_WRITE_NAME in sizes:
            slots = [header for header, _ in await read_slots(disk, sizes[DOUBLE_WRITE_NAME])]
    return Survey([each for each in segments if each is not None], [each for each in spares if each is not None], slots)
