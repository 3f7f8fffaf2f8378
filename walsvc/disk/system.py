"""The differences of systems. Everything here is there on Linux; macOS lacks some, and what stands for it is said beside each.

Logs in directories are for Linux, in production, and for macOS, in development: there the `threads` disk works through the page
cache, with F_FULLFSYNC for every sync. A system without POSIX locks (Windows) opens served logs only; walsvc.opening says so.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: fsync leaves the data in the device's cache, and this does not (fcntl(2) there)."""
O_DIRECT: int = getattr(os, "O_DIRECT", 0)
RWF_DSYNC: int = getattr(os, "RWF_DSYNC", 0)
"""0: a write is made durable by a sync after it."""
CAN_RESERVE: bool = hasattr(os, "posix_fallocate")


def sync(file: int) -> None:
    """fsync a file or a directory."""
    if FULL_SYNC is None:
        os.fsync(file)
    else:
        fcntl.fcntl(file, FULL_SYNC)


def sync_data(file: int) -> None:
    """fdatasync; where there is none, `sync`."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(file)
    else:
        sync(file)


def set_direct(file: int, plain: int) -> None:
    """Switch a file with the flags `plain` to O_DIRECT. OSError(EOPNOTSUPP): the system has none."""
    if not O_DIRECT:
        raise OSError(errno.EOPNOTSUPP, "no O_DIRECT on this system")
    fcntl.fcntl(file, fcntl.F_SETFL, plain | O_DIRECT)


def reserve(file: int, offset: int, length: int) -> None:
    """posix_fallocate. OSError(EOPNOTSUPP): the system has none, and only a write finds out whether there is room."""
    if not CAN_RESERVE:
        raise OSError(errno.EOPNOTSUPP, "no posix_fallocate on this system")
    os.posix_fallocate(file, offset, length)


def advise(file: int, offset: int, length: int, advice: str) -> None:
    """posix_fadvise: "DONTNEED", "WILLNEED", "RANDOM". Nothing, where there is none: it is about speed and room in the cache."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, offset, length, getattr(os, f"POSIX_FADV_{advice}"))


def advise_memory(memory: mmap.mmap, advice: str) -> None:
    """madvise, by the end of its name: "HUGEPAGE". Nothing, where the system does not know it. OSError from the kernel."""
    if (number := getattr(mmap, f"MADV_{advice}", None)) is not None:
        memory.madvise(number)
