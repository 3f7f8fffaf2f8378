"""The filling group and its place: where records go before anybody writes them.

A group's place (segment, offset, first LSN) is decided when it is opened, so an LSN is only given out where room is
guaranteed: in the active segment, or in one prepared spare. The terminal failure lives here too, since everything asks it.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import os
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.base import Disk, TakenOver
from walsvc.errors import Closed, DurabilityLost, Fenced, NoSpace, WalError
from walsvc.format.group import GROUP_HEADER_BYTES, LENGTH_BYTES, Flag, align_up
from walsvc.format.meta import SUMMARY_ROW_BYTES, Metadata, Tally, encode_map
from walsvc.format.segment import RECYCLED, SEGMENT_HEADER_BYTES, SegmentHeader
from walsvc.log.buffer import BufferPool
from walsvc.log.framing import segment_prefix
from walsvc.log.group import Group
from walsvc.log.replicated import Replicated
from walsvc.log.segments import JOIN_BLOCKS, META_BLOCKS, NO_SPACE, Segment, SparePipeline
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
        self._failure: DurabilityLost | None = None
        self._told_failure = 0  # how many have been told of it
        self._closed: Closed | None = None
        self._released = False
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
        self._rewinds = 0  # batches given up: what readers had read ahead is void then
        self._batch_crc = 0  # of the group before it
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
        if self._failure is not None or self._closed is not None or self._held():
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

    def _place(self, need: int, *, rows: int = 0, metadata: bool = False, joining: bool = False) -> bool:
        """Make the filling group, which is empty, fit for `need` bytes of records and index, or of `metadata`.

        Metadata may use the room that is kept for it; less of it where it is `joining`, which more may follow. Begins a new segment where the active one is full. False: no room is guaranteed yet; a spare is being prepared
        and `_spare_ready` will be called.
        """
        group, total = self._filling, GROUP_HEADER_BYTES + need
        assert group.empty, "only an empty group can be placed anew"
        limit = group.segment.meta_limit if metadata else group.segment.limit_with(rows)
        if group.offset + total <= (group.segment.join_limit if joining else limit):
            return True
        wanted = self._prefix_bytes() + align_up(total, group.segment.align)
        wanted += (3 + META_BLOCKS + JOIN_BLOCKS) * group.segment.align  # as in Segment.limit, with a summary
        spare = self._spares.spare
        if self._rotation is None and not self._first_pending:
            if spare is not None and spare.file_bytes >= wanted:
                self._begin_segment()
                return True
            self._spares.prepare(group.segment.ordinal + 1, group.segment.file_bytes, wanted)
        return False

    def _prefix_bytes(self) -> int:
        start = max(SEGMENT_HEADER_BYTES, self._segment.align)
        return start + align_up(GROUP_HEADER_BYTES + self._metadata.snapshot_bytes_max, self._segment.align)

    def _begin_segment(self) -> None:
        """Place the filling group at the head of the prepared spare.

        A segment without records has the LSN, and so the name, that its successor needs: the new one takes its place,
        with its number and its predecessor. What it held was metadata, and the snapshot carries that on.
        """
        old, spare = self._segment, self._spares.take()
        first_lsn = self._filling.first_lsn
        replaces = old.id == first_lsn
        ordinal = old.ordinal if replaces else old.ordinal + 1
        previous_end = old.previous_end if replaces else old.end
        old.tally = self._metadata.fold()
        prefix, previous_crc = segment_prefix(
            SegmentHeader(
                block_bytes=old.align,
                file_bytes=spare.file_bytes,
                log_id=old.log_id,
                generation=self._generation,
                ordinal=ordinal,
                first_lsn=first_lsn,
                created_ns=self._clock(),
                previous_end=previous_end,
                align=old.align,
                optional=RECYCLED if spare.recycled else 0,
            ),
            self._metadata,
            durable_lsn=self._durable_lsn,
        )
        self._segment = Segment(
            id=first_lsn,
            file=spare.file,
            file_bytes=spare.file_bytes,
            align=old.align,
            log_id=old.log_id,
            ordinal=ordinal,
            end=len(prefix),
            previous_crc=previous_crc,
            name=spare.name,
            previous_end=previous_end,
        )
        self._rotations += 1
        self._first_pending = True
        group = Group(self._segment, len(prefix), first_lsn, prefix)
        group.attached = (old, spare)
        self._start_filling(group)

    def _cut(self) -> None:
        """Close the filling group and open the next one behind it."""
        group = self._filling
        group.close()
        if group.batch_lsn == group.first_lsn:  # never so without a batch: LSNs begin with 1
            self._batch_mark = self._metadata.mark()
        if group.topics is not None:
            self._count_topics(group, group.topics)
        group.segment.end += group.group_bytes
        self._pending_bytes += group.payload_bytes
        self._payload_bytes += group.payload_bytes
        self._ready.append(group)
        self._start_filling(Group(group.segment, group.segment.end, group.next_lsn))
        settled = self._rotation is None and not self._first_pending
        if group.segment.end > group.segment.file_bytes // 4 and settled and self._spares.error is None:
            self._spares.prepare(group.segment.ordinal + 1, group.segment.file_bytes)

    def _count_topics(self, group: Group, topics: array[int]) -> None:
        """Add a closed group to the sums by topic, and tell who waits for records of its topics."""
        self._metadata.count(group.first_lsn, topics)
        group.segment.summary_bytes = SUMMARY_ROW_BYTES * len(self._metadata.tally)
        if self._topic_waiters:
            for number in set(topics):
                for waiter in self._topic_waiters.pop(self._metadata.names[number] or "", ()):
                    if not waiter.done():
                        waiter.set_result(None)

    def _cut_meta(self, change: dict[str, Any], flags: Flag) -> asyncio.Future[int] | None:
        """Append a group of metadata only; its future gets its end offset. None: no room yet."""
        if self._batch_lsn:
            return None  # it would go with the batch if that is given up
        if not self._filling.empty:
            self._cut()
        meta = encode_map(change) if change else b""
        if not self._place(len(meta), metadata=True):
            return None
        self._filling.meta = meta
        self._filling.flags |= flags
        self._metadata.apply(change)
        future: asyncio.Future[int] = self._create_future()
        self._filling.barriers.append((future, self._filling.offset))
        self._cut()
        self._pump()
        return future

    def _spare_ready(self) -> None:
        """The pipeline ended a preparation. A full device is the callers' matter; any other error is terminal."""
        error = self._spares.error
        if self._released:
            return
        if error is not None and error.errno not in NO_SPACE:
            self._fail("preparing the next segment failed", error, self._segment.id, 0, self.next_lsn)
        self._room_freed()

    def _no_space(self) -> NoSpace | None:
        """The error for callers, when the last preparation found the device full."""
        error = self._spares.error
        if error is None or error.errno not in NO_SPACE:
            return None
        return NoSpace(
            f"no room for the next segment: {os.strerror(error.errno or 0)}",
            errno=error.errno or 0,
            path=self._disk.path,
            lsn=self.next_lsn,
            hint="nothing was written and no LSN was used; free space (or truncate_before) and append again",
        )

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

    def _again(self) -> DurabilityLost:
        """The terminal failure as a new exception, so that tracebacks of many waiters do not pile up in one."""
        first = self._failure
        assert first is not None
        error = type(first)(
            first.message,
            errno=first.errno,
            path=first.path,
            segment=first.segment,
            offset=first.offset,
            lsn=first.lsn,
            hint=first.hint,
        )
        error.__cause__ = first.__cause__
        return error

    def _terminal(self) -> WalError | None:
        """The error that every call gets from now on, if there is one."""
        if self._failure is not None:
            self._told_failure += 1
            return self._again()
        return self._closed
