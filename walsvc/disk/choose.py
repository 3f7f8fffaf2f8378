"""Opens the directory of a log and picks the disk for it, saying why.

Order of work, each step before the next may matter: path, directory, lock, O_DIRECT, ways to sync, backend. The first
steps block and run in the disk's own thread pool; the ring is made on the loop's thread, which alone may use it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, NamedTuple

from walsvc.config import WalConfig
from walsvc.disk import dsync, ring, system
from walsvc.disk.base import Disk
from walsvc.disk.directory import Directory
from walsvc.disk.lock import DirectoryLock
from walsvc.disk.measure import BLOCK_BYTES_DEFAULT, Findings, Timings, dsync_wins, say_timings, try_directory
from walsvc.disk.memory import aligned_buffer
from walsvc.disk.paths import checked_path, open_directory, path_error
from walsvc.disk.pool import Pool, heard
from walsvc.disk.posix import cold_executor
from walsvc.disk.threads import ThreadsDisk
from walsvc.disk.uring import UringDisk
from walsvc.errors import SPACE_ERRNOS, BadOption, WalError


class OpenedDirectory(NamedTuple):
    """Result of the blocking part of opening, for the loop."""

    directory: Directory
    timings: Timings
    doubt: str  # why RWF_DSYNC is not believed here; empty where it is
    note: str


async def open_disk(
    path: str | bytes | os.PathLike[Any],
    *,
    config: WalConfig,
    loop: asyncio.AbstractEventLoop,
    exclusive: bool,
    check: Callable[[str, int], None] | None = None,
) -> Disk:
    """Open `path`, or the namespace of `config` in it, for a log: lock it if `exclusive`, probe it, and return the disk that
    suits it. Cancelled, it leaves nothing open.

    With `config.read_only` nothing is created, locked or measured. `check` is called with path and descriptor of the
    directory before anything in it is created or changed; what it raises ends the opening. Raises Locked, PathError (missing, not a directory, no
    permission, ...), NoSpace, and BadOption where `config` insists on what the place cannot do.
    """
    text = checked_path(path, config.namespace)
    try:
        executor = cold_executor()
    except OSError as error:
        raise path_error(error, text) from error
    opening = executor.submit(open_blocking, text, config, exclusive and not config.read_only, check)
    try:
        opened = await heard(opening)
    except BaseException as error:
        await to_its_end(heard(executor.submit(close_unclaimed, opening)))
        executor.shutdown(wait=False)
        if isinstance(error, OSError) and not isinstance(error, WalError):
            raise path_error(error, text) from error
        raise
    try:
        return disk_of(opened, config, loop, executor)
    except BaseException as error:
        opened.directory.close()
        executor.shutdown(wait=False)
        if isinstance(error, OSError) and not isinstance(error, WalError):
            raise path_error(error, text) from error
        raise


def disk_of(opened: OpenedDirectory, config: WalConfig, loop: asyncio.AbstractEventLoop, executor: Pool) -> Disk:
    """The disk that is wished and can be had. BadOption where that is io_uring, OSError where no thread is to be had."""
    directory, timings, doubt = opened.directory, opened.timings, opened.doubt
    why_not = ""
    if config.disk != "threads" and not config.read_only:
        reason = say_timings(timings, "io_uring", "uring ", doubt) + opened.note
        dsync_wanted = dsync_wins(timings, "uring ", doubt)
        try:
            return UringDisk(directory, loop=loop, dsync=dsync_wanted, reason=reason, executor=executor)
        except OSError as error:
            if config.disk == "uring":
                raise ring.unavailable(error, directory.path) from error
            why_not = f"; no io_uring: {ring.explain(error)}"
    reason = "reading only" if config.read_only else say_timings(timings, "a thread", "", doubt) + why_not + opened.note
    disk = ThreadsDisk(directory, loop=loop, dsync=dsync_wins(timings, "", doubt), reason=reason, executor=executor)
    if not config.read_only:
        disk.start()
    return disk


def close_unclaimed(opening: Future[OpenedDirectory]) -> None:
    """Close what was opened for a caller who has gone. Blocks."""
    wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        opening.result().directory.close()


async def to_its_end(ending: asyncio.Future[None]) -> None:
    """Wait for it, however often the caller is cancelled meanwhile."""
    while not ending.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ending])


def open_blocking(
    path: str, config: WalConfig, exclusive: bool, check: Callable[[str, int], None] | None = None
) -> OpenedDirectory:
    """Do the part of opening that may block."""
    descriptor = open_directory(path, create=not config.read_only)
    lock: DirectoryLock | None = None
    try:
        if check is not None:
            check(path, descriptor)
        if exclusive:
            lock = DirectoryLock(path, descriptor)
        findings = find(descriptor, config)
        direct, block_bytes, note = settle_direct(findings, config, path)
        if lock is not None and lock.note:
            note += f"; {lock.note}"
        mapped = config.reading == "mapped"
        directory = Directory(path, descriptor, lock=lock, direct=direct, block_bytes=block_bytes, mapped=mapped)
        directory.device_block_bytes = findings.device_block_bytes
        directory.read_only = config.read_only
        return OpenedDirectory(directory, findings.timings, dsync.doubt(descriptor, direct=direct), note)
    except BaseException:
        if lock is not None:
            lock.release()
        os.close(descriptor)
        raise


def find(descriptor: int, config: WalConfig) -> Findings:
    """Find out what the directory can do. Where nothing may be written, or nothing can be since the device is full (a log on it
    must still open, to be read or truncated), only reading is tried."""
    if not config.read_only:
        make_ring = ring.KernelRing if config.disk != "threads" and ring.why_not() is None else None
        try:
            return try_directory(descriptor, direct=config.direct, make_ring=make_ring)
        except OSError as error:
            if error.errno not in SPACE_ERRNOS:
                raise
    if config.direct is False:
        return Findings(direct=False, device_block_bytes=1, timings={})
    return try_reading(descriptor)


def settle_direct(findings: Findings, config: WalConfig, path: str) -> tuple[bool, int, str]:
    """(direct, block_bytes, what to tell the user) from what was found and what is wished."""
    block_bytes = config.block_bytes or max(BLOCK_BYTES_DEFAULT, findings.device_block_bytes)
    if config.read_only or config.direct is False:
        return findings.direct and block_bytes >= findings.device_block_bytes, block_bytes, ""
    if not findings.direct:
        if config.direct:
            raise BadOption(
                "direct=True, but the file system does not take O_DIRECT",
                path=path,
                hint="leave direct at None, or move the log",
            )
        return False, block_bytes, "; through the page cache, as the file system does not take O_DIRECT"
    if block_bytes < findings.device_block_bytes:
        if config.direct:
            raise BadOption(
                f"block_bytes={block_bytes} is below the device's block with direct=True",
                path=path,
                expected=f"{findings.device_block_bytes} or more",
                actual=block_bytes,
                hint="leave block_bytes at None",
            )
        return False, block_bytes, f"; through the page cache, as the device's block is {findings.device_block_bytes}"
    return True, block_bytes, ""


def try_reading(descriptor: int) -> Findings:
    """Find out if the first segment that is there can be read with O_DIRECT; nothing is created or changed."""
    with os.scandir(descriptor) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".wal"))
    for name in names[:1] if system.O_DIRECT else ():
        with suppress(OSError):
            file = os.open(
                name, os.O_RDONLY | system.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor
            )
            try:
                os.preadv(file, [aligned_buffer(BLOCK_BYTES_DEFAULT)], 0)
            finally:
                os.close(file)
            return Findings(direct=True, device_block_bytes=BLOCK_BYTES_DEFAULT, timings={})
    return Findings(direct=False, device_block_bytes=1, timings={})
