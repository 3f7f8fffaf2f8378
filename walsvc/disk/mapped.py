"""Reading files through memory maps, without what maps do to a reader elsewhere: die of SIGBUS, and fill the page cache.

Whoever touches a mapped page that lies behind the end of its file, because somebody has cut the file meanwhile, gets SIGBUS.
The kernel does not: process_vm_readv(2) on the process itself copies out of the map and answers EFAULT, or fewer bytes,
instead. What it leaves out is then asked for with pread(2), which tells a shorter file from a failing device.

mincore(2) says which pages were in the page cache before, and only the others are dropped afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from walsvc.disk.system import advise, advise_memory

NOT_RESIDENT = re.compile(rb"\0+")
AHEAD_BYTES = 128 << 10  # what the kernel reads ahead at a time unless it is told otherwise
LOWEST_BIT = bytes(value & 1 for value in range(256))


class IoVector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@cache
def libc() -> ctypes.CDLL:
    """The C library, with the two calls that Python does not have."""
    library = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.POINTER(IoVector)
    if hasattr(library, "process_vm_readv"):  # Linux; `why_not` tells
        size = ctypes.c_ulong
        library.process_vm_readv.argtypes = (ctypes.c_int, pointer, size, pointer, size, size)
        library.process_vm_readv.restype = ctypes.c_ssize_t
    library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    return library


def copy_out(source: int, target: int, length: int) -> int:
    """Copy `length` bytes of this process' memory from one address to another; returns how many could be read.

    Raises OSError where the kernel does not let us (EPERM, ENOSYS: a seccomp profile). EFAULT is 0 bytes.
    """
    here, there = IoVector(target, length), IoVector(source, length)
    copied: int = libc().process_vm_readv(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if copied >= 0:
        return copied
    if (number := ctypes.get_errno()) == errno.EFAULT:
        return 0
    raise OSError(number, os.strerror(number))


@cache
def why_not() -> str:
    """Why maps cannot be read this way here; empty where they can."""
    source, target = ctypes.create_string_buffer(b"walsvc", 8), ctypes.create_string_buffer(8)
    try:
        copied = copy_out(ctypes.addressof(source), ctypes.addressof(target), 8)
    except (OSError, AttributeError) as error:
        return f"process_vm_readv: {error}"
    return "" if copied == 8 and target.raw == source.raw else "process_vm_readv copies nothing"


@contextmanager
def window(file: int, start: int, length: int) -> Iterator[tuple[mmap.mmap, int]]:
    """A private map of a part of a file, and its address; `start` is a multiple of the page size."""
    mapped = mmap.mmap(file, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=start)
    anchor = ctypes.c_char.from_buffer(mapped)  # needs PROT_WRITE; nobody writes
    address = ctypes.addressof(anchor)
    del anchor
    try:
        yield mapped, address
    finally:
        mapped.close()


def residence(address: int, length: int) -> bytes:
    """For each page of a map 1 if it is in the page cache, 0 if not; empty where the kernel does not tell."""
    pages = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
    if libc().mincore(address, length, pages) != 0:
        return b""
    return pages.raw.translate(LOWEST_BIT)


def cached_pages(file: int) -> int:
    """How many pages of a file are in the page cache; all where the kernel does not tell whoever may not write it."""
    length = os.fstat(file).st_size
    if length == 0:
        return 0
    with window(file, 0, length) as (mapped, address):
        return residence(address, len(mapped)).count(1)


def drop_new(file: int, start: int, before: bytes) -> None:
    """Let those pages of a file go from the page cache that were not there `before`."""
    for run in NOT_RESIDENT.finditer(before):
        first, last = run.span()
        advise(file, start + first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE, "DONTNEED")


def read_mapped(file: int, offset: int, target: int, length: int) -> int:
    """Copy up to `length` bytes of a file from `offset` on to an address; returns how many, fewer where the file ends or
    could not be read."""
    start = offset - offset % mmap.PAGESIZE
    length = min(length, os.fstat(file).st_size - offset)
    if length <= 0:
        return 0
    with window(file, start, offset + length - start) as (mapped, address):
        before = residence(address, len(mapped))
        advise_memory(mapped, "RANDOM")  # the kernel reads these pages, and none around them
        for at in range(start, offset + length, AHEAD_BYTES):  # not all at once: it would take only the first ones
            advise(file, at, min(AHEAD_BYTES, offset + length - at), "WILLNEED")
        copied = copy_out(address + offset - start, target, length)
    drop_new(file, start, before)
    return copied


def read_cached(file: int, offset: int, view: memoryview) -> int:
    """Fill `view` through the page cache, from `offset` on; returns how many bytes, fewer only where the file ends."""
    start = offset - offset % mmap.PAGESIZE
    filled, before = 0, b""
    if (length := min(len(view), os.fstat(file).st_size - offset)) > 0:
        with window(file, start, offset + length - start) as (mapped, address):
            before = residence(address, len(mapped))
    advise(file, 0, 0, "RANDOM")  # what it would read ahead nobody would drop
    while filled < len(view) and (got := os.preadv(file, [view[filled:]], offset + filled)):
        filled += got
    drop_new(file, start, before)
    return filled
