"""Aligned memory for groups, used again: mapping and faulting in fresh pages would cost more than the write."""

from __future__ import annotations

from collections.abc import Callable

from walsvc.config import KIB, MIB

KEEP_BYTES = 32 * MIB  # per pool; enough for every group in flight at the default sizes
SMALLEST = 16 * KIB
SLAB_BYTES = 2 * MIB  # a huge page, of which the kernel pins and splits one for a write, and not hundreds of small ones
SLICED_FROM = 256 * KIB  # smaller buffers gain little: measured, 64 KiB 49 us of CPU a write and 42, 1 MiB 134 and 67


class BufferPool:
    """Buffers in powers of two. A buffer belongs to whoever took it until `give_back`; the kernel may hold it meanwhile.

    Large ones, up to half a slab, are slices of slabs.
    """

    def __init__(self, allocate: Callable[[int], memoryview]) -> None:
        self._allocate = allocate
        self._free: dict[int, list[memoryview]] = {}
        self._kept = 0

    def take(self, length: int) -> memoryview:
        """A buffer of at least `length` bytes; its content is whatever it was."""
        size = max(SMALLEST, 1 << (length - 1).bit_length())
        free = self._free.get(size)
        if free:
            self._kept -= size
            return free.pop()
        if not SLICED_FROM <= size < SLAB_BYTES:
            return self._allocate(size)
        slab = self._allocate(SLAB_BYTES)
        for start in range(size, SLAB_BYTES, size):
            self.give_back(slab[start : start + size])
        return slab[:size]

    def give_back(self, buffer: memoryview) -> None:
        """Return a buffer; only after the disk is done with it."""
        size = len(buffer)
        if self._kept + size <= KEEP_BYTES:
            self._kept += size
            self._free.setdefault(size, []).append(buffer)
