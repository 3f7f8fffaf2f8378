"""Facts of the kernel about this machine and about a log's files. Reads /proc; Linux only."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from contextlib import suppress

PROT_READ = 1
MAP_SHARED = 1


def describe() -> dict[str, str | int]:
    """Kernel, processor and Python, for the record of a measurement."""
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return value.strip()
    except OSError:
        pass
    return "unknown"


def cached_bytes(directory: str) -> int | None:
    """Bytes of the files in `directory` that sit in the page cache (what fincore(1) prints); None if it cannot be told.

    Counts the log's own pages, so that what else happens on the machine does not blur the figure as it would blur the
    difference of two /proc/meminfo readings.
    """
    total = 0
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    total += _cached_bytes_of(libc, entry.path)
    except (OSError, AttributeError):
        return None
    return total


def _cached_bytes_of(libc: ctypes.CDLL, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # renamed or removed meanwhile
        return 0
    try:
        length = os.fstat(fd).st_size
        if not length:
            return 0
        address = libc.mmap(None, length, PROT_READ, MAP_SHARED, fd, 0)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        try:
            pages = ctypes.create_string_buffer((length + mmap.PAGESIZE - 1) // mmap.PAGESIZE)
            if libc.mincore(address, length, pages):
                raise OSError(ctypes.get_errno(), "mincore")
        finally:
            libc.munmap(address, length)
    finally:
        os.close(fd)
    return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE


def lock_holder(directory: str) -> int | None:
    """Process id of the program that has the log in `directory` open for writing; None when nobody has, or it is unknown.

    Looks into /proc/locks instead of trying the lock: a try, however short, could turn a writer away that opens just then.
    """
    try:
        locks = [os.stat(directory)]  # locked as well, where that can be done
        with suppress(FileNotFoundError):
            locks.append(os.stat(os.path.join(directory, "LOCK")))
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            for line in lines:
                # 1: FLOCK ADVISORY WRITE 4711 08:02:1234567 0 EOF (proc_locks(5)); a waiting one has "->" in second place
                fields = line.split()
                if len(fields) > 5 and fields[1] == "FLOCK":
                    major, minor, inode = fields[5].split(":")
                    place = os.makedev(int(major, 16), int(minor, 16)), int(inode)
                    if any(place == (lock.st_dev, lock.st_ino) for lock in locks):
                        return int(fields[4])
    except (OSError, ValueError):
        pass
    return None
