"""Repair: keep the longest undamaged beginning of a log, after copying everything aside (etcd: evidence before repair).

Opening a log never does this: what it drops was never acknowledged. Repair gives up acknowledged records, so it is a
decision of a person: it explains first, and what it gives up stays in the copy.

The damaged end is not wiped. Like truncate_after, repair installs a new segment that begins right behind the last good
record; readers stop there, and the files behind it go.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import aiofiles

from walsvc.config import MIB
from walsvc.disk.base import Disk
from walsvc.errors import Corruption, NoSpace, PathError, UnsupportedFormat
from walsvc.format.group import align_up
from walsvc.format.meta import FRAME_BYTES
from walsvc.format.segment import SegmentHeader, parse_name, segment_name
from walsvc.keyring import KeyRing
from walsvc.log.framing import segment_prefix
from walsvc.log.inspect import Walk, walk
from walsvc.log.recovery import examine
from walsvc.log.segments import first_segment_bytes, whole_blocks

COPY_BYTES = 4 * MIB
REPAIR_NAME = "ffffffffffffffff.spare"  # no spare of a log has this number: ordinals are small, recycled ones below it


@dataclass(frozen=True, slots=True)
class Plan:
    """What repair would do.

    Attributes:
        keep_from, keep_to: the LSNs that stay; keep_to below keep_from: none.
        lost_to: last LSN that the damaged part is known to have held; keep_to when nothing is lost.
        keep, drop: files that stay and that go.
        reasons: what is wrong, in words, in order of place. Empty: nothing is to be repaired.
        holder: first LSN of the last segment that stays.
        generation: for the new segment.
    """

    keep_from: int
    keep_to: int
    lost_to: int
    keep: tuple[str, ...]
    drop: tuple[str, ...]
    reasons: tuple[str, ...]
    holder: int
    generation: int


async def plan_repair(disk: Disk, keys: KeyRing | None = None) -> Plan:
    """Read everything and say what a repair would keep.

    Raises:
        PathError: there is no log. UnsupportedFormat: a newer walsvc wrote it; nothing is damaged then.
        Corruption: not even the first segment is readable, so nothing can be kept.
        MissingKey, WrongKey: the log is encrypted, and `keys` do not fit. Repair writes metadata, so it needs them.
    """
    sizes = await disk.list()
    ids = sorted(first for name in sizes if (first := parse_name(name, ".wal")) is not None)
    if not ids:
        raise PathError("there is no log here", path=disk.path, hint="check the path")
    walks = [
        each
        for first in ids
        if (each := await walk(disk, segment_name(first), first, sizes[segment_name(first)], keys=keys))
    ]
    for each in walks:
        if isinstance(each.error, UnsupportedFormat):
            raise each.error
    good, reasons = longest_beginning(walks)
    if reasons and await truncation_waits(disk, walks[-1], sizes, keys):
        good, reasons = walks, []
    if not good:
        raise Corruption(
            f"no segment can be kept: {reasons[0]}",
            path=disk.path,
            segment=ids[0],
            hint="restore the log from a backup",
        )
    last = good[-1]
    first = max(last.truncated, ids[0])
    if last.truncated < ids[0]:
        reasons.insert(0, f"the segments that held LSN {last.truncated} to {ids[0] - 1} are missing")
    if not reasons and last.successor is not None:
        reasons.append(f"{last.name} is sealed and names {segment_name(last.successor)}, which is missing")
    return Plan(
        keep_from=first,
        keep_to=last.next_lsn - 1,
        lost_to=max([last.next_lsn - 1, *(each.next_lsn - 1 for each in walks), *lost_files(walks)]),
        keep=tuple(each.name for each in good),
        drop=tuple(each.name for each in walks[len(good) :]),
        reasons=tuple(reasons),
        holder=parse_name(last.name, ".wal") or 0,
        generation=max(each.generation for each in walks) + 1,
    )


def longest_beginning(walks: list[Walk]) -> tuple[list[Walk], list[str]]:
    """The segments from the first on that are whole and follow each other, and what is wrong behind them."""
    good: list[Walk] = []
    for position, each in enumerate(walks):
        if each.error is not None or each.header is None:
            return good, [f"{each.name}: {each.error.message if each.error else 'no header'}"]
        if not each.groups:
            return good, [f"{each.name}, offset {each.end}: {each.reason}; it was durable before the file's name"]
        if good:
            before = good[-1].header
            assert before is not None, "only segments with a header are good"
            if each.header.log_id != before.log_id or each.header.ordinal != before.ordinal + 1:
                return good, [f"{each.name} is not the segment after {good[-1].name}"]
        good.append(each)
        following = walks[position + 1].header if position + 1 < len(walks) else None
        if following is not None and each.next_lsn < following.first_lsn:
            return good, [f"{each.name}, offset {each.end}: {each.reason}; LSN {each.next_lsn} is missing"]
        if each.proof is not None and (following is None or each.next_lsn < following.first_lsn):
            return good, [f"{each.name}, offset {each.end}: {each.reason}; {each.proof}"]
    return good, []


async def truncation_waits(disk: Disk, newest: Walk, sizes: dict[str, int], keys: KeyRing | None) -> bool:
    """A truncate_after was interrupted: segments may be missing, and opening the log finishes it. No damage."""
    if newest.header is None or not newest.groups:
        return False
    found = await examine(disk, newest.name, newest.header.first_lsn, sizes, keys, up_to_forgery=True)
    return found.metadata.cut is not None


def lost_files(walks: list[Walk]) -> list[int]:
    """A file's name says that the LSNs before it existed, even if nothing in it can be read."""
    return [first - 1 for each in walks if (first := parse_name(each.name, ".wal")) is not None]


async def copy_aside(path: str) -> str:
    """Copy all files of the log beside it, synced; returns the new directory.

    Raises:
        NoSpace: there is no room for the copy; nothing was changed. OSError: as the system gives it.
    """
    target = f"{os.path.abspath(path)}.before-repair-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"  # noqa: ASYNC240
    names = [entry.name for entry in os.scandir(path) if entry.is_file() and entry.name != "LOCK"]
    needed = sum(os.stat(os.path.join(path, name)).st_blocks * 512 for name in names)
    place = os.statvfs(path)
    if needed > place.f_bavail * place.f_frsize:
        raise NoSpace(
            "there is no room for a copy of the log, and nothing is repaired without one",
            path=path,
            expected=f"{needed} bytes free",
            actual=f"{place.f_bavail * place.f_frsize}",
            hint="free some space; nothing was changed",
        )
    os.mkdir(target)
    for name in names:
        async with (
            aiofiles.open(os.path.join(path, name), "rb") as source,
            aiofiles.open(os.path.join(target, name), "wb") as copy,
        ):
            while piece := await source.read(COPY_BYTES):
                await copy.write(piece)
            await copy.flush()
            os.fsync(copy.fileno())
    for directory in (target, os.path.dirname(target)):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return target


async def apply_repair(disk: Disk, plan: Plan, segment_bytes: int, keys: KeyRing | None = None) -> None:
    """Carry out a plan on a locked disk whose files were copied aside. Cut by a crash, it can be run again."""
    sizes = await disk.list()
    holder = await examine(disk, segment_name(plan.holder), plan.holder, sizes, keys, up_to_forgery=True)
    metadata, first_lsn = holder.metadata, plan.keep_to + 1
    metadata.truncated = min(max(metadata.truncated, plan.keep_from), first_lsn)
    metadata.cut = metadata.successor = None
    for state in (metadata.positions, metadata.holds, metadata.purges):
        state.update({name: first_lsn for name, lsn in state.items() if lsn > first_lsn})
    metadata.fold()
    replaces = first_lsn == plan.holder
    header = SegmentHeader(
        block_bytes=holder.header.block_bytes,
        file_bytes=first_segment_bytes(segment_bytes) + align_up(metadata.snapshot_bytes_max - FRAME_BYTES, MIB),
        log_id=holder.header.log_id,
        generation=plan.generation,
        ordinal=holder.header.ordinal + (0 if replaces else 1),
        first_lsn=first_lsn,
        created_ns=time.time_ns(),
        previous_end=0,
        align=holder.header.block_bytes,  # not the holder's own: a packed or compacted segment has another one
    )
    prefix = segment_prefix(header, metadata, durable_lsn=plan.keep_to, keys=keys).data
    if REPAIR_NAME in sizes:
        await disk.remove(REPAIR_NAME)
    await disk.allocate(REPAIR_NAME, header.file_bytes)
    await disk.write(REPAIR_NAME, 0, whole_blocks(prefix, header.block_bytes))
    for name in plan.drop:
        if name != header.file_name:
            await disk.remove(name)
    await disk.rename(REPAIR_NAME, header.file_name)
    await disk.sync_directory()
