"""Writing: one group into an aligned buffer and to the disk, by way of the double-write file where there is one.

Owns the buffers: a group has one from its submission until the disk has answered, and nobody else touches it meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from walsvc.disk.base import Disk, Write
from walsvc.format.group import align_up
from walsvc.log.commit.buffer import BufferPool
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.counters import Counters
from walsvc.log.commit.double_write import DoubleWrite
from walsvc.log.commit.group import Group
from walsvc.log.commit.tail import Tail

logger: logging.Logger = logging.getLogger("walsvc.log")
SLOW_REST_SECONDS = 1.0  # between two warnings: a log that is always slow must not be slowed by saying so


class Writing:
    """Writes the groups of one log. Loop thread only.

    Groups come from Pipeline, which hears from the disk.

    Args:
        slow_sync_seconds: warn of what takes longer; None: of nothing.
    """

    def __init__(
        self,
        disk: Disk,
        double_write: DoubleWrite | None,
        *,
        tail: Tail,
        catalog: Catalog,
        counters: Counters,
        slow_sync_seconds: float | None,
    ) -> None:
        self._disk = disk
        self._double_write = double_write
        self._pool = BufferPool(disk.buffer)
        self._tail = tail
        self._catalog = catalog
        self._counters = counters
        self._slow_seconds = slow_sync_seconds
        self._slow_until = 0.0  # no warning before that
        self._slow = 0  # groups since the last warning

    def encode(self, group: Group, done: Callable[[Write, OSError | None], None]) -> Write:
        """Take a buffer and put the group into it; from here on its place in the chain is fixed. `done` is told of the write's end,
        and then calls `ended`."""
        segment, room = group.segment, 0 if self._double_write is None else self._double_write.room
        if group.beginning is not None:
            group.begin_segment(group.beginning, self._catalog.durable_lsn)
        begin = 0 if group.prefix else len(segment.tail)  # in layout pack it begins inside a block
        end = begin + len(group.prefix) + group.body.group_bytes
        length = align_up(end, segment.block_bytes)
        group.flight.buffer = self._pool.take(room + length)
        view = group.flight.buffer[room : room + length]
        self._tail.checkpoint(group)
        group.encode(
            view[begin:end],
            generation=self._catalog.generation,
            durable_lsn=self._catalog.durable_lsn,
            timestamp_ns=self._tail.clock(),
        )
        if segment.packed:
            segment.pack(view, begin, end)
        self._counters.submitted(len(group.payloads), length, end - begin)
        return Write(segment.file, group.offset - len(group.prefix) - begin, view, done, group)

    def submit(self, write: Write) -> None:
        """Let the disk have it."""
        group = write.tag
        assert isinstance(group, Group)
        assert group.flight.buffer is not None
        group.flight.submitted_at = time.perf_counter()
        if self._double_write is None:
            self._disk.submit(write)
        else:
            at = group.offset - write.offset
            self._double_write.submit(write, group.flight.buffer, group.segment, at)

    def ended(self, group: Group) -> bool:
        """The disk has answered: take the buffer back. False: that was done before."""
        if group.flight.buffer is None:
            return False
        self._pool.give_back(group.flight.buffer)
        group.flight.buffer = None
        seconds = time.perf_counter() - group.flight.submitted_at
        self._counters.answered(len(group.payloads), int(seconds * 1e6))
        if self._counters.observer is not None:
            self._counters.observer(group.first_lsn, len(group.payloads), group.body.group_bytes, seconds)
        if self._slow_seconds is not None and seconds > self._slow_seconds:
            self._tell_slow(group, seconds)
        return True

    def _tell_slow(self, group: Group, seconds: float) -> None:
        """Say that the disk was slow, unless that was said just now."""
        self._slow += 1
        if (ended := group.flight.submitted_at + seconds) < self._slow_until:
            return
        what = f"LSN {group.first_lsn} to {group.next_lsn - 1}" if group.payloads else "metadata"
        others = f" and {self._slow - 1} more since the last warning" if self._slow > 1 else ""
        self._slow, self._slow_until = 0, ended + SLOW_REST_SECONDS
        logger.warning(
            "%s: write and sync of %s (%d bytes) took %.3f s%s; slow_sync_seconds is %g",
            self._disk.path,
            what,
            group.body.group_bytes,
            seconds,
            others,
            self._slow_seconds,
        )
