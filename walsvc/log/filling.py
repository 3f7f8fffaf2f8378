"""The filling group: where records go before anybody writes them, and what waits for them.

Its place (segment, offset, first LSN) is decided when it is opened (walsvc.log.placing).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.format.group import GROUP_HEADER_BYTES, LENGTH_BYTES
from walsvc.format.meta import Metadata
from walsvc.format.summary import Tally
from walsvc.log.buffer import BufferPool
from walsvc.log.commit.ack import Waker
from walsvc.log.commit.background import Background
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.counters import Counters
from walsvc.log.commit.extent import Extent
from walsvc.log.commit.health import Health, Place
from walsvc.log.commit.waits import Waits
from walsvc.log.double_write import DoubleWrite
from walsvc.log.group import Group
from walsvc.log.replicated import Replicated
from walsvc.log.reserve import Reserve
from walsvc.log.segments import Segment, SparePipeline


class Filling(ABC):
    """State of group commit: the filling group, what waits for it, and the terminal failure."""

    def __init__(
        self,
        disk: Disk,
        config: WalConfig,
        segment: Segment,
        *,
        next_lsn: int,
        generation: int,
        metadata: Metadata,
        sizes: Mapping[int, int],
        double_write: DoubleWrite | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._disk = disk
        self._config = config
        self._keys = config.keys
        self._new_key = False  # the next record begins a new segment, under another key (walsvc.log.rekey)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._waker = Waker(self._loop)
        self._new_ack: Callable[[], Any] = self._waker.ack
        self.catalog = Catalog(sizes, durable_lsn=next_lsn - 1, place=(segment.id, segment.end), generation=generation)
        self.counters = Counters(next_lsn, double_write)
        self.health = Health(disk.path, self._loop, self._end)
        self.health.listen(self._shut)
        self.health.listen(self._fail_groups)
        self.waits = Waits(self.health, self.catalog)
        self.health.listen(self._room_freed)  # who waits for room must hear of it, too
        self.background = Background(self._loop, self.health.broken)
        self.extent = Extent(self.health, self.check_place)
        self._metadata = metadata
        self._segment = segment
        self._pool = BufferPool(disk.buffer)
        reserve = Reserve(disk, self._reserve_bytes)
        self._spares = SparePipeline(disk, config.segment_bytes, reserve, self._spare_ready, self.background)
        self._double_write = double_write
        self._open_due = 0  # Flag.OPEN where opening found no room for it: the next group of metadata only has it
        self._follower_reads = 0  # under way
        # the filling group (_start_filling); _room is what it may still take, negative whenever append must look closer
        self._room = -1
        self._room_set = -1  # what _room was when it was last set: the difference is what was added since
        self._used = 0  # bytes of records and index in the filling group when _room was last set
        self._record_cost = LENGTH_BYTES
        self._records_max = config.max_group_records
        self._commit_wanted = False
        self._pump_scheduled = False
        self._ready: deque[Group] = deque()
        self._in_flight: deque[Group] = deque()
        self._resolving: list[Group] = []  # durable, and being told so
        self._batch_lsn = 0  # of the batch that is being streamed: nothing else gets an LSN meanwhile
        self._newest = 0 if segment.ordinal == 1 else None  # highest timestamp of a record in older segments, if known
        self._batch_crc = 0  # of the group before it
        self._batch_last = (0, 0)  # last_crc and last_at of its segment before it
        self._batch_tail = b""  # of its segment before it
        self._batch_groups: list[Group] = []  # of it, written but not yet to be acknowledged
        self._batch_mark: tuple[array[int], array[int], dict[int, Tally]] | None = None  # the sums by topic before it
        self._commit_delay = config.commit_delay
        self._first_pending = False  # a group that begins a segment is not durable yet
        self._pending_bytes = 0  # of groups that are cut but not durable
        self._rotation: asyncio.Task[None] | None = None
        self._replicated: Replicated | None = None
        self._start_filling(Group(segment, segment.end, next_lsn))

    # ---- the log's files

    async def check_place(self) -> None:
        """DurabilityLost, from now on, where the log's files are not those that were opened."""
        try:
            await self._disk.check_place()
        except OSError as error:
            if self.health.released:
                return  # closing has seen to it
            self.health.fail("the log was changed under its writer", error)
            raise self.health.again() from error

    # ---- placing

    def _start_filling(self, group: Group) -> None:
        self._filling = group
        self._payloads = group.payloads
        self._waiters = group.waiters
        self._record_cost = LENGTH_BYTES
        self._commit_wanted = False
        self._used, self._room_set = 0, self._room
        self._set_room()

    @property
    def _filled_bytes(self) -> int:
        """Bytes of records and index in the filling group."""
        return self._used + self._room_set - self._room

    def _set_room(self) -> None:
        """How many bytes the filling group may still take without a closer look: the least of all limits."""
        group, used = self._filling, self._filled_bytes
        in_segment = group.segment.limit - group.offset - GROUP_HEADER_BYTES - group.reserved
        pending = self._config.max_pending_bytes - self._pending_bytes
        room = min(in_segment, self._config.max_group_bytes, pending) - used
        if self.health.failure is not None or self.health.closed is not None or self._new_key or self._held():
            room = -1
        self._used, self._room, self._room_set = used, room, room

    @abstractmethod
    def _reserve_bytes(self) -> int:
        """Length of a file of the reserve: it holds the metadata, a change of all of it, and some more."""

    @abstractmethod
    def _held(self) -> bool:
        """Whether new records must queue behind others."""

    @abstractmethod
    def _room_freed(self) -> None:
        """Room may have become available, or never will: let the queue move up."""

    @abstractmethod
    def _pump(self) -> None:
        """Submit what is ready or wanted, as far as the pipeline has room."""

    @abstractmethod
    def _spare_ready(self) -> None:
        """A spare was prepared, or could not be."""

    # ---- looking

    @property
    def next_lsn(self) -> int:
        """The LSN that the next accepted record gets."""
        return self._batch_lsn or self._filling.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage; 0 or the LSN before the first when there is none."""
        return self.catalog.durable_lsn

    # ---- failing

    def _end(self) -> Place:
        """Where the log ends, for messages."""
        return self._segment.id, self._filling.offset, self._filling.first_lsn

    def _shut(self) -> None:
        """The log has failed: nothing is accepted any more."""
        self._room = -1

    def _fail_groups(self) -> None:
        """The log has failed: tell whoever waits for a group."""
        for group in [*self._batch_groups, *self._in_flight, *self._ready, self._filling]:
            self.health.told += group.fail(self.health.again)
            if group.passed is not None and not group.passed.done():
                group.passed.set_exception(self.health.again())
        self._in_flight.clear()
        self._batch_groups.clear()
        self._ready.clear()
