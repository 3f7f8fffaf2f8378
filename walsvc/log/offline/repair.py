"""Repair: keep the longest undamaged beginning of a log, after copying everything aside (etcd: evidence before repair).

Opening a log never does this: what it drops was never acknowledged. Repair gives up acknowledged records, so it is a
decision of a person: it explains first, and what it gives up stays in the copy.

The damaged end is not wiped. Like truncate_after, repair installs a new segment that begins right behind the last good
record; readers stop there, and the files behind it go. A file that was cut gets its length back, as zeros: nothing reads a
segment that is shorter than it was made.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass

from walsvc.config import MIB
from walsvc.disk.base import Disk
from walsvc.disk.paths import sync_directory
from walsvc.disk.pool import in_thread
from walsvc.errors import Corruption, NoSpace, PathError, UnsupportedFormat, WalError
from walsvc.format.group import align_up
from walsvc.format.meta import FRAME_BYTES
from walsvc.format.segment import SegmentHeader, parse_name, segment_name
from walsvc.keyring import KeyRing
from walsvc.log.commit.framing import segment_prefix
from walsvc.log.commit.segment import first_segment_bytes, whole_blocks
from walsvc.log.offline.destination import new_file, told
from walsvc.log.offline.inspect import SegmentWalk, walk
from walsvc.log.read.boundary import check_boundary
from walsvc.log.recover.foreign import refuse_strangers
from walsvc.log.recover.looking import settled
from walsvc.log.recover.overlay import find_images, laid_over, write_images
from walsvc.log.recover.recovery import examine

COPY_BYTES = 4 * MIB
REPAIR_NAME = "ffffffffffffffff.spare"  # no spare of a log has this number: ordinals are small, recycled ones below it


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """Changes that repair would make.

    Attributes:
        keep_from, keep_to: the LSNs that stay; keep_to below keep_from: none.
        lost_to: last LSN that the damaged part is known to have held; keep_to when nothing is lost.
        keep, drop: files that stay and that go.
        grow: the files among those kept that were cut, and the lengths that they were made with.
        reasons: what is wrong, in words, in order of place. Empty: nothing is to be repaired.
        holder: first LSN of the last segment that stays.
        generation: for the new segment.
    """

    keep_from: int
    keep_to: int
    lost_to: int
    keep: tuple[str, ...]
    drop: tuple[str, ...]
    grow: dict[str, int]
    reasons: tuple[str, ...]
    holder: int
    generation: int


async def segment_files(disk: Disk) -> dict[int, str]:
    """The segments' files by their first LSNs, ascending. PathError: there is no log, or something that is no file has the name
    of one of its files, so that no repair could end."""
    sizes = await disk.list()
    await refuse_strangers(disk, sizes)
    found = {first: name for name in sizes if (first := parse_name(name, ".wal")) is not None}
    if not found:
        raise PathError("there is no log here", path=disk.path, hint="check the path")
    return dict(sorted(found.items()))


async def look_at(disk: Disk, keys: KeyRing | None = None) -> RepairPlan:
    """Like plan_repair, beside a writer: nothing is locked, and what looks damaged is looked at twice."""
    return await settled(disk, lambda seen: plan_repair(seen, keys), lambda plan: plan.reasons)


async def plan_repair(disk: Disk, keys: KeyRing | None = None) -> RepairPlan:
    """Read everything and say what a repair would keep. Changes nothing.

    Raises:
        PathError: there is no log. UnsupportedFormat: a newer walsvc wrote it; nothing is damaged then.
        Corruption: not even the first segment is readable, so nothing can be kept.
        MissingKey, WrongKey: the log is encrypted, and `keys` do not fit. Repair writes metadata, so it needs them.
    """
    files, sizes = await segment_files(disk), await disk.list()
    images, _ = await find_images(disk, sizes)
    disk = laid_over(disk, images)  # opening the log restores them, so they need no repair
    found = [await walk(disk, name, first, sizes.get(name, 0), keys=keys) for first, name in files.items()]
    walks = [each for each in found if each is not None]
    for each in walks:
        if isinstance(each.error, UnsupportedFormat):
            raise each.error
    good, reasons = longest_beginning(walks, await other_histories(disk, walks))
    if reasons and walks[-1].cut is not None and walks[-1].error is None:
        good, reasons = walks, []  # a truncate_after was interrupted: segments may be missing, and opening finishes it
    lowest = min(files)
    if not good:
        raise Corruption(
            f"no segment can be kept: {reasons[0]}",
            path=disk.path,
            segment=lowest,
            hint="restore the log from a backup",
        )
    last = good[-1]
    first = max(last.truncated, lowest)
    if last.truncated < lowest:
        reasons.insert(0, f"the segments that held LSN {last.truncated} to {lowest - 1} are missing")
    if not reasons and last.successor is not None:
        reasons.append(f"{last.name} is sealed and names {segment_name(last.successor)}, which is missing")
    return RepairPlan(
        keep_from=first,
        keep_to=last.next_lsn - 1,
        lost_to=max([last.next_lsn - 1, *(each.next_lsn - 1 for each in walks), *lost_files(walks)]),
        keep=tuple(each.name for each in good),
        drop=tuple(each.name for each in walks[len(good) :]),
        grow={each.name: each.header.file_bytes for each in good if each.header is not None and each.short},
        reasons=tuple(reasons),
        holder=parse_name(last.name, ".wal") or 0,
        generation=max(each.generation for each in walks) + 1,
    )


async def other_histories(disk: Disk, walks: list[SegmentWalk]) -> dict[str, str]:
    """The files that do not belong behind the ones before them, and why."""
    found: dict[str, str] = {}
    for before, after in itertools.pairwise(walks):
        if before.header is not None and after.header is not None and before.next_lsn >= after.header.first_lsn:
            try:
                await check_boundary(disk, before.name, before.header.first_lsn, after.header)
            except Corruption as error:
                found[after.name] = error.message
    return found


def longest_beginning(walks: list[SegmentWalk], others: dict[str, str]) -> tuple[list[SegmentWalk], list[str]]:
    """The segments from the first on that follow each other, up to the one where something is missing, and what is wrong.
    `others`: files of another history."""
    good: list[SegmentWalk] = []
    cut: list[str] = []
    for position, each in enumerate(walks):
        place = f"{each.name}, offset {each.end}: {each.reason}"
        if each.header is None or (each.error is not None and not each.short):
            return good, [*cut, f"{each.name}: {said(each.error) if each.error else 'no header'}"]
        if not each.groups:
            return good, [*cut, f"{place}; it was durable before the file's name"]
        if good and (stranger := why_not_behind(good[-1], each) or others.get(each.name, "")):
            return good, [*cut, f"{each.name} is not the segment after {good[-1].name}: {stranger}"]
        good.append(each)
        if each.error is not None:
            cut.append(f"{each.error.message} ({each.file_bytes} of {each.header.file_bytes} bytes)")
        following = walks[position + 1].header if position + 1 < len(walks) else None
        if following is not None and each.next_lsn < following.first_lsn:
            return good, [*cut, f"{place}; LSN {each.next_lsn} is missing"]
        if each.proof is not None and (following is None or each.next_lsn < following.first_lsn):
            return good, [*cut, f"{place}; {each.proof}"]
    return good, cut


def said(error: WalError) -> str:
    """An error with what may be done instead of a repair."""
    return f"{error.message}. {error.hint}" if error.hint else error.message


def why_not_behind(before: SegmentWalk, each: SegmentWalk) -> str:
    """Why a segment cannot be the next one; empty: it can."""
    assert before.header is not None, "only segments with a header are good"
    assert each.header is not None, "nor is anything else asked for"
    if each.header.log_id != before.header.log_id:
        return "it belongs to another log; move it elsewhere and look again"
    if each.header.ordinal != before.header.ordinal + 1:
        return f"it is number {each.header.ordinal}, and that one number {before.header.ordinal}"
    return ""


def lost_files(walks: list[SegmentWalk]) -> list[int]:
    """A file's name says that the LSNs before it existed, even if nothing in it can be read."""
    return [first - 1 for each in walks if (first := parse_name(each.name, ".wal")) is not None]


async def copy_aside(path: str) -> str:
    """Copy all files of the log beside it, synced; returns the new directory. Where the directory above is another file
    system's, or not ours to write, the copy is a subdirectory of the log's.

    Raises:
        NoSpace: there is no room for the copy. PathError: it cannot be written. Nothing was changed then.
        OSError: from reading the log, as the system gives it.
    """
    path = await in_thread(os.path.realpath, path)
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
    target = await in_thread(directory_aside, path)
    try:
        for name in names:
            async with new_file(os.path.join(target, name)) as copy:
                with open(os.path.join(path, name), "rb") as source:  # noqa: ASYNC230  opening waits for no data
                    while piece := await in_thread(source.read, COPY_BYTES):
                        await copy.write(piece)
        with told(target):
            for directory in (target, os.path.dirname(target)):
                sync_directory(directory)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def directory_aside(path: str) -> str:
    """A new directory for the copy of the log at `path`."""
    name = f"before-repair-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    inside = os.path.join(path, name)
    with told(inside):
        if os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev:
            return make_free(inside)
        try:
            return make_free(f"{path}.{name}")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        return make_free(inside)


def make_free(path: str) -> str:
    """Make the directory `path`, or the first of `path-2`, `path-3`, ... that does not exist yet."""
    for target in itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2))):
        with suppress(FileExistsError):
            os.mkdir(target)
            return target
    raise AssertionError("numbers do not end")


async def apply_repair(disk: Disk, plan: RepairPlan, segment_bytes: int, keys: KeyRing | None = None) -> None:
    """Carry out a plan on a locked disk whose files were copied aside. Cut by a crash, it can be run again."""
    sizes = await disk.list()
    await write_images(disk, (await find_images(disk, sizes))[0])
    for name, length in plan.grow.items():
        await grow(disk, name, sizes[name], length)
        sizes[name] = length
    holder = await examine(disk, segment_name(plan.holder), plan.holder, sizes, keys, up_to_forgery=True)
    metadata, first_lsn = holder.metadata, plan.keep_to + 1
    metadata.truncated = min(max(metadata.truncated, plan.keep_from), first_lsn)
    metadata.cut = metadata.successor = None
    metadata.queues.cut(plan.keep_to)
    metadata.hide_none_above(plan.keep_to, lambda number: metadata.topics.sums_of(number)[0])
    for state in (metadata.positions, metadata.holds):
        state.update({name: first_lsn for name, lsn in state.items() if lsn > first_lsn})
    metadata.topics.fold()
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
        before_at=holder.chain.last_at,
        before=holder.chain.last_crc,
    )
    prefix = segment_prefix(header, metadata, durable_lsn=plan.keep_to, keys=keys)
    if REPAIR_NAME in sizes:
        await disk.remove(REPAIR_NAME)
    await disk.allocate(REPAIR_NAME, header.file_bytes)
    await disk.write(REPAIR_NAME, 0, whole_blocks(prefix.data, header.block_bytes))
    for name in plan.drop:
        if name != header.file_name:
            await disk.remove(name)
    await disk.rename(REPAIR_NAME, header.file_name)
    await disk.sync_directory()


async def grow(disk: Disk, name: str, file_bytes: int, length: int) -> None:
    """Give a file that was cut its length again, as zeros."""
    block_bytes = disk.block_bytes if disk.direct else 1
    start = file_bytes - file_bytes % block_bytes
    data = await disk.read(name, start, file_bytes - start)
    while start < length:
        piece = data.ljust(min(COPY_BYTES, length - start), b"\0")
        await disk.write(name, start, piece)
        start, data = start + len(piece), b""
