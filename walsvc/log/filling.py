"""The filling group: where records go before anybody writes them, and what waits for them.

Its place (segment, offset, first LSN) is decided when it is opened (walsvc.log.placing). The terminal failure lives here,
too, since everything asks it.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable

from walsvc.config import WalConfig
from walsvc.disk.base import Disk, TakenOver
from walsvc.errors import Closed, DurabilityLost, Fenced, WalError, again
from walsvc.format.group import GROUP_HEADER_BYTES, LENGTH_BYTES
from walsvc.format.meta import Metadata
from walsvc.format.summary import Tally
from walsvc.log.buffer import BufferPool
from walsvc.log.cuts import Cuts
from walsvc.log.double_write import DoubleWrite
from walsvc.log.group import Group
from walsvc.log.replicated import Replicated
from walsvc.log.segments import Segment, SparePipeline
from walsvc.model import GROUP_RECORDS_BOUNDS, SYNC_US_BOUNDS

UNKNOWN_HINT = "what was not acknowledged may or may not be on disk; close this log and open it again to find out"
TAKEN_OVER_HINT = "leave the log to the other writer; opening it again takes it back"


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
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._disk = disk
        self._config = config
        self._keys = config.keys
        self._new_key = False  # the next record begins a new segment, under another key (walsvc.log.rekey)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._generation = generation
        self._metadata = metadata
        self._segment = segment
        self._segment_ids: list[int] = []  # all, oldest first; the active one last
        self._segment_bytes: dict[int, int] = {}
        self._pool = BufferPool(disk.buffer)
        self._spares = SparePipeline(disk, config.segment_bytes, self._spare_ready)
        self._durable_lsn = next_lsn - 1
        self._double_write: DoubleWrite | None = None  # set before anything is written, where there is to be one
        self._failure: DurabilityLost | None = None
        self._told_failure = 0  # how many have been told of it
        self._closed: Closed | None = None  # why no call appends any more
        self._draining = False  # since close has begun: what was called before it is still accepted
        self._released = False
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
        self._batch_lsn = 0  # of the batch that is being streamed: nothing else gets an LSN meanwhile
        self._newest = 0 if segment.ordinal == 1 else None  # highest timestamp of a record in older segments, if known
        self._rewinds = 0  # batches given up, segments rewritten, cuts: what readers had read ahead is void then
        self._cuts = Cuts()
        self._cutting: asyncio.Future[None] | None = None  # while truncate_after changes files, and after it failed
        self._batch_crc = 0  # of the group before it
        self._batch_tail = b""  # of its segment before it
        self._batch_groups: list[Group] = []  # of it, written but not yet to be acknowledged
        self._batch_mark: tuple[array[int], array[int], dict[int, Tally]] | None = None  # the sums by topic before it
        self._topic_waiters: dict[str, list[asyncio.Future[None]]] = {}  # by topic: who waits for its next record
        self._commit_delay = config.commit_delay
        self._first_pending = False  # a group that begins a segment is not durable yet
        self._group_records_last = 0  # records of the group submitted last
        self._pending_bytes = 0  # of groups that are cut but not durable
        self._rotation: asyncio.Task[None] | None = None
        self._on_rotation: Callable[[], None] | None = None  # called when a new segment has begun
        self._durable_place = (segment.id, segment.end)  # the segment and the offset up to which groups are durable
        self._on_durable: Callable[[], None] | None = None  # called when that has moved
        self._replacements = 0  # segments without records that gave way to a new file of the same name
        self._replicated: Replicated | None = None
        self._barriers: list[tuple[int, int, asyncio.Future[int]]] = []
        self._tickets = itertools.count()
        self._start_filling(Group(segment, segment.end, next_lsn))
        # counters for stats()
        self._lsn_at_open = next_lsn
        self._payload_bytes = 0
        self._groups = 0
        self._written_bytes = 0
        self._log_bytes = 0
        self._rotations = 0
        self._group_records_max = 0
        self._sync_us_last = 0
        self._sync_us_total = 0
        self._sync_us_counts = [0] * (len(SYNC_US_BOUNDS) + 1)
        self._group_records_counts = [0] * (len(GROUP_RECORDS_BOUNDS) + 1)
        self._group_records_total = 0

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
        if self._failure is not None or self._closed is not None or self._new_key or self._held():
            room = -1
        self._used, self._room, self._room_set = used, room, room

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

    # ---- waiting and failing

    @property
    def next_lsn(self) -> int:
        """The LSN that the next accepted record gets."""
        return self._batch_lsn or self._filling.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage; 0 or the LSN before the first when there is none."""
        return self._durable_lsn

    def _barrier(self, lsn: int) -> asyncio.Future[int]:
        """A future that gets durable_lsn as soon as it has reached `lsn`."""
        future: asyncio.Future[int] = self._create_future()
        if self._failure is not None:
            future.set_exception(self._again())
        elif lsn <= self._durable_lsn:
            future.set_result(self._durable_lsn)
        else:
            heapq.heappush(self._barriers, (lsn, next(self._tickets), future))
        return future

    def _wake_beyond(self) -> None:
        """Whoever waits for an LSN that was not given out looks again: none comes any more, or others come before it."""
        for lsn, _, barrier in self._barriers:
            if lsn >= self.next_lsn and not barrier.done():
                barrier.set_result(self._durable_lsn)
        self._barriers = [each for each in self._barriers if not each[2].done()]
        heapq.heapify(self._barriers)

    def _fail(self, what: str, error: OSError, segment: int, offset: int, lsn: int) -> None:
        """Terminal. The first failure counts, later ones are its echo."""
        if self._failure is not None:
            return
        kind, hint = DurabilityLost, UNKNOWN_HINT
        if isinstance(error, TakenOver):
            kind, hint = Fenced, TAKEN_OVER_HINT
        self._failure = kind(
            f"{what}: {error.strerror or error}",
            errno=error.errno or errno.EIO,
            path=self._disk.path,
            segment=segment,
            offset=offset,
            lsn=lsn,
            hint=hint,
        )
        self._failure.__cause__ = error
        self._room = -1
        told = 0
        for group in [*self._batch_groups, *self._in_flight, *self._ready, self._filling]:
            told += group.fail(self._again)
            if group.passed is not None and not group.passed.done():
                group.passed.set_exception(self._again())
        for _, _, barrier in self._barriers:
            if not barrier.done():
                barrier.set_exception(self._again())
                told += 1
        self._told_failure += told
        self._in_flight.clear()
        self._batch_groups.clear()
        self._ready.clear()
        self._barriers.clear()
        self._room_freed()  # who waits for room must hear of it, too
        self._room_freed()

    def _again(self) -> WalError:
        """The terminal failure as a new exception."""
        assert self._failure is not None
        return again(self._failure)

    def _terminal(self) -> WalError | None:
        """The error that every call gets from now on, if there is one."""
        if self._failure is not None:
            self._told_failure += 1
            return self._again()
        return None if self._closed is None else again(self._closed)

    @property
    def _over(self) -> bool:
        """Nobody who waits gets his turn any more. Who waited when `close` began still does, until it is through with them."""
        return self._failure is not None or (self._closed is not None and not self._draining)

    def _ended(self) -> WalError | None:
        """The error for whoever waits, once it is over."""
        return self._terminal() if self._over else None
