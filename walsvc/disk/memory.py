"""Memory that the device may read and write itself, and writing all of it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import suppress

from walsvc.disk.system import advise_memory

HUGE_PAGE_BYTES = 2 << 20


def aligned_buffer(length: int) -> memoryview:
    """Zeroed memory of `length` bytes that begins on a page. Private, so that a forked child never shares it.

    Large ones lie on huge pages where the kernel gives them: O_DIRECT then hands the device a few long runs of memory
    instead of one for each 4 KiB, of which a virtio disk takes 254 at a time (reading was three times as fast).
    """
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if length < HUGE_PAGE_BYTES:
        return memoryview(mmap.mmap(-1, max(length, 1), flags=private))[:length]
    memory = mmap.mmap(-1, length + HUGE_PAGE_BYTES, flags=private)
    with suppress(OSError):  # a kernel without huge pages
        advise_memory(memory, "HUGEPAGE")
    view = memoryview(memory)
    start = -address(view) % HUGE_PAGE_BYTES
    return view[start : start + length]


def address(view: memoryview) -> int:
    """The address at which writable memory begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def page_aligned(view: memoryview) -> bool:
    """True if O_DIRECT can fill it, whatever the device."""
    return not view or address(view) % mmap.PAGESIZE == 0


def write_all(file: int, data: memoryview, offset: int, *, block_bytes: int = 1) -> None:
    """Write every byte, going on after a short write as long as what is left keeps to `block_bytes`."""
    while data:
        written = os.pwrite(file, data, offset)
        if written == 0 or (written % block_bytes and written != len(data)):
            raise OSError(errno.EIO, f"short write: {written} of {len(data)} bytes at offset {offset}")
        data = data[written:]
        offset += written
