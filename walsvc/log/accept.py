"""Accepting records: into the filling group, into a new one behind it, or into the queue that waits for room."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from itertools import repeat
from typing import Any, cast

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.errors import Backpressure, WalError
from walsvc.format.group import GROUP_HEADER_BYTES, INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.format.meta import Metadata, change_bytes_max, merge
from walsvc.format.producers import REQUEST_BYTES, ROW, Request, Row
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.commit.ack import Ack
from walsvc.log.committing import Committer
from walsvc.log.double_write import DoubleWrite
from walsvc.log.group import Group, Labels
from walsvc.log.results import BatchResult, Part
from walsvc.log.segments import Segment
from walsvc.model import AppendResult, Mode, Strict

NO_LABELS = Labels()


class Entry:
    """An append that is being accepted, or waits in the queue for room."""

    __slots__ = ("batch", "future", "labels", "mode", "payloads", "request", "size", "topic")

    def __init__(
        self,
        payloads: list[bytes],
        mode: Mode,
        labels: Labels | None,
        *,
        batch: bool,
        future: Any,
        topic: str | None = None,
        request: Request | None = None,
    ) -> None:
        self.payloads = payloads
        self.mode = mode
        self.labels = labels
        self.batch = batch
        self.future: Any = future  # an Ack, or an asyncio.Future for append_nowait and turns
        self.topic = topic  # by name: it gets its number when its first record is accepted
        self.request = request  # of an idempotent producer: remembered with the records, in their group
        self.size = sum(map(len, payloads))


class Turn:
    """A turn at having the log alone. `end` must be called, once or more, whatever became of it."""

    __slots__ = ("_ended", "_owner", "granted")

    def __init__(self, owner: Acceptor, granted: asyncio.Future[None]) -> None:
        self._owner = owner
        self._ended = False
        self.granted = granted

    def end(self, _: object = None) -> None:
        """Leave the queue, or let the appends go on that waited for this turn."""
        if self._ended:
            return
        self._ended = True
        if self.granted.done() and not self.granted.cancelled() and self.granted.exception() is None:
            self._owner._hold_appends(-1)
        else:
            self.granted.cancel()


class Acceptor(Committer):
    """The queue in front of the filling group. From the decision to accept a record to its LSN nothing awaits."""

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
    ) -> None:
        self._waiting: OrderedDict[Entry, None] = OrderedDict()  # that are cancelled remove themselves
        self._holds = 0  # truncations that new appends wait for
        self._relaxed_timer: asyncio.TimerHandle | None = None
        super().__init__(
            disk,
            config,
            segment,
            next_lsn=next_lsn,
            generation=generation,
            metadata=metadata,
            sizes=sizes,
            double_write=double_write,
        )

    # ---- accepting

    def _enter(self, entry: Entry, *, wait: bool) -> Ack[Any]:
        no_space = self._no_space()  # accepting starts another attempt, and forgets the last one
        if not self._held() and self._accept(entry):
            return cast("Ack[Any]", entry.future)
        if not wait:
            raise no_space or Backpressure(
                f"no room: {self._pending_bytes + self._filled_bytes} bytes are pending, {len(self._waiting)} appends wait",
                path=self._disk.path,
                lsn=self.next_lsn,
                expected=f"at most {self._config.max_pending_bytes} pending bytes and a prepared segment",
                hint="await append instead, or try again later",
            )
        self._queue(entry)
        self._want_commit()
        return cast("Ack[Any]", entry.future)

    def _queue(self, entry: Entry) -> None:
        """Let an entry wait for room, behind all others. Cancelled while it waits it leaves the queue at once."""
        self._waiting[entry] = None
        entry.future.add_done_callback(partial(self._leave, entry))
        self._set_room()

    def _leave(self, entry: Entry, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and entry in self._waiting:
            del self._waiting[entry]
            self._room_freed()  # it may have been the one that the others waited for

    def _enter_now(self, entry: Entry) -> asyncio.Future[Any]:
        """Enter an entry that cannot wait for room. Its answer is an asyncio.Future, which asyncio.wait takes."""
        entry.future = self._create_future()
        return cast("asyncio.Future[Any]", self._enter(entry, wait=False))

    def _take_turn(self) -> Turn:
        """Queue for having the log alone: every append called before comes first, every later one waits."""
        entry = Entry([], Strict, None, batch=False, future=self._create_future())
        if self._held():
            self._queue(entry)
        else:
            self._hold_appends(1)
            entry.future.set_result(None)
        return Turn(self, entry.future)

    def _hold_appends(self, change: int) -> None:
        """Let new appends wait (1), or no longer (-1)."""
        self._holds += change
        if self._holds:
            self._set_room()
        else:
            self._room_freed()

    async def _room_change(self, *, metadata: bool = False) -> None:
        """Wait for a change of what room there is, for records or for `metadata`. Raises what ends all waiting: NoSpace,
        DurabilityLost."""
        await self.waits.room()
        self.health.raise_failure()
        lent = metadata and self._spares.fitting(metadata=True) is not None
        if not lent and (no_space := self._no_space()) is not None:
            raise no_space

    def _held(self) -> bool:
        return self._holds > 0 or bool(self._waiting)

    def _accept(self, entry: Entry) -> bool:
        """Put an entry into the filling group, or a new one behind it; False if there is no room yet.

        From the decision to the LSN nothing awaits: an accepted entry is in a group whose place is guaranteed.
        """
        count, cost = len(entry.payloads), LENGTH_BYTES
        if entry.labels is not None or entry.topic is not None:
            cost = INDEX_BYTES_MAX
        need = entry.size + max(cost, self._record_cost) * count
        relabel = (cost - self._record_cost) * len(self._payloads) if cost > self._record_cost else 0
        if not self._fits(entry, need + relabel):
            pending = self._pending_bytes + self._filled_bytes
            if pending and pending + entry.size > self._config.max_pending_bytes:
                return False
            if not self._filling.empty:
                self._cut_off()
            need, relabel = entry.size + cost * count, 0
            more = self._topic_bytes(entry)[0] + (REQUEST_BYTES if entry.request is not None else 0)
            if not self._place(need + more, rows=SUMMARY_ROW_BYTES if entry.topic else 0):
                return False
        self._add(entry, need + relabel, max(self._record_cost, cost))
        return True

    def _fits(self, entry: Entry, need: int) -> bool:
        """Whether the entry can join the filling group as it is."""
        group = self._filling
        if self._new_key:
            return False
        name_bytes, rows = self._topic_bytes(entry)
        if entry.request is not None:
            name_bytes += REQUEST_BYTES
        in_segment = group.segment.limit_with(rows) - group.offset - GROUP_HEADER_BYTES - group.reserved - name_bytes
        if self._filled_bytes + need > min(in_segment, self._config.max_group_bytes):
            return False
        pending = self._pending_bytes + self._filled_bytes + entry.size
        if pending > self._config.max_pending_bytes:
            return False
        return not self._payloads or len(self._payloads) + len(entry.payloads) <= self._records_max

    def _topic_bytes(self, entry: Entry) -> tuple[int, int]:
        """What an entry adds to its group's metadata, if its topic is new, and to its segment's summary."""
        if entry.topic is None:
            return 0, 0
        number = self._metadata.topics.get(entry.topic)
        if number is None:
            return change_bytes_max({"topics": {entry.topic: 0}}, {}), SUMMARY_ROW_BYTES
        known = number in self._metadata.tally or number in self._filling.new_topics
        return 0, 0 if known else SUMMARY_ROW_BYTES

    def _labels_of(self, entry: Entry, group: Group) -> Labels | None:
        """An entry's labels; a new topic gets its number here, and its name goes with the group."""
        if entry.topic is None:
            return entry.labels
        name_bytes, rows = self._topic_bytes(entry)
        group.reserved += name_bytes
        group.segment.summary_bytes += rows
        number = self._metadata.topics.get(entry.topic)
        if number is None:
            number = len(self._metadata.names)
            change = {"topics": {entry.topic: number}}
            self._metadata.apply(change)
            merge(group.joined, change)
        if number not in self._metadata.tally:
            group.new_topics.add(number)
        return (entry.labels or NO_LABELS)._replace(topic=number)

    def _add(self, entry: Entry, need: int, cost: int) -> None:
        try:
            self._put(entry, need, cost)
        except (
            BaseException
        ) as error:  # an exception of a signal handler, or no memory: the record may be there by halves
            self.health.broken("accepting a record was cut short", error)
            raise
        self._set_room()
        if entry.mode is not Strict:
            self._arm_relaxed_timer()
        elif not self._commit_wanted:
            self._want_commit()

    def _put(self, entry: Entry, need: int, cost: int) -> None:
        group = self._filling
        index = len(group.payloads)
        offset = group.offset + GROUP_HEADER_BYTES + self._filled_bytes - self._record_cost * index
        self._room -= need
        self._record_cost = cost
        group.payloads.extend(entry.payloads)
        strict = entry.mode is Strict
        if (labels := self._labels_of(entry, group)) is not None:
            group.labels.update(zip(range(index, index + len(entry.payloads)), repeat(labels)))
        if entry.request is not None:
            row = Row(group.first_lsn + index, group.segment.id, offset, len(entry.payloads), 1)
            self._note_request(group, entry.request, row)
        if entry.batch:
            group.waiters.extend([None] * len(entry.payloads))
            lengths = array("I", map(len, entry.payloads))
            part = Part(group.first_lsn + index, group.segment.id, offset, lengths)
            if strict:
                group.batches.append((part, entry.future))
            else:
                entry.future.set_result(BatchResult([part], durable=False, sync_us=0))
        else:
            group.waiters.append(entry.future if strict else None)
            if not strict:
                result = AppendResult(group.first_lsn + index, group.segment.id, offset, entry.size, False, 0)
                entry.future.set_result(result)

    def _note_request(self, group: Group, request: Request, row: Row) -> None:
        """Remember an accepted request, in memory and with its group."""
        self._metadata.producers.note(request.producer, request.seq, request.done, row)
        merge(group.joined, {"producers": ROW.pack(request.producer, request.seq, request.done, *row)})
        group.reserved += REQUEST_BYTES

    def _arm_relaxed_timer(self) -> None:
        """Relaxed records wait for at most half the interval, which leaves the other half for the write itself."""
        interval = self._config.relaxed_interval
        if interval is not None and self._relaxed_timer is None and not self._commit_wanted:
            self._relaxed_timer = self._loop.call_later(interval / 2, self._relaxed_due)

    def _relaxed_due(self) -> None:
        self._relaxed_timer = None
        if not self._filling.empty and self.health.failure is None:
            self._want_commit()

    def _room_freed(self) -> None:
        """Let waiting appends move up, in order; tell them when the device is full."""
        while self._waiting:
            entry = next(iter(self._waiting))
            if not entry.future.done():
                try:
                    if not self._admit(entry):
                        if not self._filling.empty:
                            self._want_commit()
                        break
                except WalError as error:
                    if not entry.future.done():
                        entry.future.set_exception(error)
            self._waiting.pop(entry, None)
        self._set_room()
        self.waits.wake_room()

    def _admit(self, entry: Entry) -> bool:
        """Give the first entry of the queue what it waits for; False if it must go on waiting. Raises what ends its wait."""
        if (error := self.health.ended() or self._no_space()) is not None:
            raise error
        if self._holds:
            return False
        if entry.payloads:
            return self._accept(entry)
        self._holds += 1  # the turn of one that wants the log for itself
        entry.future.set_result(None)
        return True
