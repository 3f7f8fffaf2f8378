"""Aligned memory for groups, used again: mapping and faulting in fresh pages would cost more than the write."""

from __future__ import annotations

from collections.abc import Callable

from walsvc.config import MIB

KEEP_BYTES = 32 * MIB  # per pool; enough for every group in flight at the default sizes
SMALLEST = 16 << 10


class BufferPool:
    """Buffers in powers of two. A buffer belongs to whoever took it until `give_back`; the kernel may hold it meanwhile."""

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
        return self._allocate(size)

    def give_back(self, buffer: memoryview) -> None:
        """Return a buffer; only after the disk is done with it."""
        size = len(buffer)
        if self._kept + size <= KEEP_BYTES:
            self._kept += size
            self._free.setdefault(size, []).append(buffer)
