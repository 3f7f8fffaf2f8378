"""Queue: appends that are not the plain case, or find no room, and turns at having the log alone.

Owns the order in which calls are accepted. From the decision to accept a record to its LSN nothing awaits: an accepted entry is
in a group whose place is guaranteed. Called by the Intake for what it does not take, and by everybody who frees room.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from walsvc.config import WalConfig, between
from walsvc.errors import Backpressure, Conflict, NoSpace, RecordTooLarge, WalError
from walsvc.format.dedupe import DEDUPE_BYTES
from walsvc.format.group import GROUP_HEADER_BYTES, INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.format.meta import Metadata, change_bytes_max, merge
from walsvc.format.producers import REQUEST_BYTES, ROW, Request, RequestRow
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.conditions import Conditions, check_expected, check_key
from walsvc.log.commit.group import Group, Labels
from walsvc.log.commit.health import Health
from walsvc.log.commit.payload import pack_attributes, to_bytes
from walsvc.log.commit.pipeline import Pipeline
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.queued import Joining, QueuedAppend
from walsvc.log.commit.results import BatchResult, Part
from walsvc.log.commit.tail import Tail
from walsvc.log.commit.waits import Waits
from walsvc.log.commit.whole import whole
from walsvc.model import AppendResult, Mode, Strict
from walsvc.tasks import TWICE

NO_LABELS = Labels()


class Turn:
    """A turn at having the log alone. `end` must be called, once or more, whatever became of it."""

    __slots__ = ("_ended", "_queue", "granted")

    def __init__(self, queue: Queue, granted: asyncio.Future[None]) -> None:
        self._queue = queue
        self._ended = False
        self.granted: asyncio.Future[None] = granted

    def end(self, _: object = None) -> None:
        """Leave the queue, or let the appends go on that waited for this turn."""
        if not self._ended:
            self._queue.end_turn(self)

    def leave(self) -> bool:
        """For the queue: be over. True if the turn had come."""
        self._ended = True
        if self.granted.done() and not self.granted.cancelled() and self.granted.exception() is None:
            return True
        self.granted.cancel()
        return False


class Queue:
    """The queue in front of the filling group. Loop thread only.

    Args:
        first: called before the queue moves up: changes of metadata do not starve behind appends.
        new_ack: makes the answer of an append.

    Attributes:
        conditions: decides whether an append may be accepted.
    """

    def __init__(
        self,
        config: WalConfig,
        placement: Placement,
        pipeline: Pipeline,
        *,
        path: str,
        metadata: Metadata,
        tail: Tail,
        waits: Waits,
        health: Health,
        first: Callable[[], None],
        new_ack: Callable[[], Any],
    ) -> None:
        self.new_ack = new_ack
        self.conditions: Conditions = Conditions(metadata, placement, tail, waits, path)
        self._path = path
        self._config = config
        self._metadata = metadata
        self._placement = placement
        self._intake = placement.intake
        self._pipeline = pipeline
        self._tail = tail
        self._waits = waits
        self._health = health
        self._first = first
        self._waiting: OrderedDict[QueuedAppend, None] = OrderedDict()  # those that are cancelled leave it
        self._holds = 0
        self._relaxed_timers: list[asyncio.TimerHandle] = []  # two, see TWICE
        self._relaxed_round = 0
        self._intake.armed = config.relaxed_interval is None

    # ---- looking

    @property
    def waiting(self) -> list[asyncio.Future[Any]]:
        """Calls that wait for room or for a turn, in order."""
        return [entry.future for entry in self._waiting]

    @property
    def length(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def held(self) -> bool:
        """Whether somebody has the log alone: appends wait until it is through."""
        return self._holds > 0

    def no_space(self) -> NoSpace | None:
        """The error for those who wait, when the last preparation of a segment met a shortage."""
        return self._tail.no_space(self._placement.next_lsn)

    # ---- entering

    def append(
        self,
        payload: Any,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        topic: str | None,
        *,
        expected: int | None = None,
        dedupe: str | None = None,
        wait: bool = True,
    ) -> Any:
        """Any append of one record: check it, accept it or let it wait. With `wait` False it never waits: Backpressure, NoSpace
        instead, and the answer is an asyncio.Future, which asyncio.wait takes."""
        piece = self.checked(payload)
        self._health.check_call(mode)
        between("type", type, 0, 0xFFFF)
        check_expected(expected)
        check_key(dedupe)
        labels = None
        packed = pack_attributes(attributes)
        if type or packed:
            labels = Labels(type, 0, len(packed))
            piece = packed + piece
        answer = self.new_ack() if wait else self._health.loop.create_future()
        entry = QueuedAppend(
            [piece], mode, labels, batch=False, future=answer, topic=topic, expected=expected, dedupe=dedupe
        )
        return self.enter(entry, wait=wait)

    def checked(self, payload: Any) -> bytes:
        """A payload as bytes of our own. Raises BadPayload, RecordTooLarge."""
        piece = to_bytes(payload)
        self.check_length(len(piece))
        return piece

    def check_length(self, length: int) -> None:
        """RecordTooLarge for a payload over max_record_bytes."""
        if length > self._config.max_record_bytes:
            raise RecordTooLarge(
                f"the payload has {length} bytes, the limit is {self._config.max_record_bytes}",
                path=self._path,
                hint="split it, or open the log with a larger max_record_bytes",
            )

    @whole("accepting a record")
    def enter(self, entry: QueuedAppend, *, wait: bool = True) -> Ack[Any]:
        """Accept an entry, or let it wait for room."""
        no_space = self.no_space()  # accepting starts another attempt, and forgets the last one
        try:
            if not self._holds and not self._waiting and self._accept(entry):
                return cast("Ack[Any]", entry.future)
        except Conflict as conflict:
            entry.future.set_exception(conflict)
            return cast("Ack[Any]", entry.future)
        if not wait:
            raise no_space or Backpressure(
                f"no room: {self._placement.unwritten_bytes} bytes are pending, {len(self._waiting)} appends wait",
                path=self._path,
                lsn=self._placement.next_lsn,
                expected=f"at most {self._config.max_pending_bytes} pending bytes and a prepared segment",
                hint="await append instead, or try again later",
            )
        self._add(entry)
        self._intake.want()
        return cast("Ack[Any]", entry.future)

    def _add(self, entry: QueuedAppend) -> None:
        """Let an entry wait, behind all others. Cancelled while it waits it leaves the queue at once."""
        self._waiting[entry] = None
        entry.future.add_done_callback(partial(self._leave, entry))
        self._placement.hold(True)

    @whole("leaving the queue")
    def _leave(self, entry: QueuedAppend, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and entry in self._waiting:
            del self._waiting[entry]
            self.move_up()  # it may have been the one that the others waited for

    # ---- having the log alone

    @whole("taking a turn")
    def take_turn(self) -> Turn:
        """Queue for having the log alone: every append called before comes first, every later one waits."""
        entry = QueuedAppend([], Strict, None, batch=False, future=self._health.loop.create_future())
        if self._holds or self._waiting:
            self._add(entry)
        else:
            self.hold(1)
            entry.future.set_result(None)
        return Turn(self, entry.future)

    @whole("ending a turn")
    def end_turn(self, turn: Turn) -> None:
        """For Turn.end."""
        if turn.leave():
            self.hold(-1)

    @whole("holding appends")
    def hold(self, change: int) -> None:
        """Let new appends wait (1), or no longer (-1)."""
        self._holds += change
        if self._holds:
            self._placement.hold(True)
        else:
            self.move_up()

    async def room_change(self, *, metadata: bool = False) -> None:
        """Wait for a change of what room there is, for records or for `metadata`. Raises what ends all waiting: NoSpace,
        DurabilityLost."""
        await self._waits.room()
        self._health.raise_failure()
        lent = metadata and self._tail.spares.fitting(metadata=True) is not None
        if not lent and (no_space := self.no_space()) is not None:
            raise no_space

    # ---- accepting

    def _accept(self, entry: QueuedAppend) -> bool:
        """Put an entry into the filling group, or a new one behind it; False if there is no room yet; True also where it is there
        already, under its key. Raises Conflict."""
        if entry.dedupe is not None and (row := self.conditions.find(entry.topic, entry.dedupe)) is not None:
            self.conditions.repeat(entry.future, row, entry.mode, batch=entry.batch)
            return True
        self.conditions.check(entry.topic, entry.expected)
        for topic, lsn in entry.conditions:
            self.conditions.check(topic, lsn)
        intake, count, cost = self._intake, len(entry.payloads), LENGTH_BYTES
        if entry.labels is not None or entry.topic is not None or entry.rows is not None:
            cost = INDEX_BYTES_MAX
        need = entry.size + max(cost, intake.cost) * count
        relabel = (cost - intake.cost) * len(intake.group.payloads) if cost > intake.cost else 0
        if not self._fits(entry, need + relabel):
            pending = self._placement.unwritten_bytes
            if pending and pending + entry.size > self._config.max_pending_bytes:
                return False
            self._pipeline.cut_off()
            need, relabel = entry.size + cost * count, 0
            rows = SUMMARY_ROW_BYTES * len(entry.topics)
            if not self._placement.place(need + self._metadata_bytes(entry), rows=rows):
                return False
        self._put(entry, need + relabel, max(intake.cost, cost))
        self._placement.set_room()
        if entry.mode is not Strict:
            self.arm_relaxed_timer()
        elif not intake.wanted:
            intake.want()
        return True

    def _fits(self, entry: QueuedAppend, need: int) -> bool:
        """Whether the entry can join the filling group as it is."""
        group = self._placement.group
        if self._tail.new_key:
            return False
        rows, more = self._topic_bytes(entry.topics)[1], self._metadata_bytes(entry)
        in_segment = group.segment.limit_with(rows) - group.offset - GROUP_HEADER_BYTES - group.reserved - more
        if self._intake.filled_bytes + need > min(in_segment, self._config.max_group_bytes):
            return False
        if self._placement.unwritten_bytes + entry.size > self._config.max_pending_bytes:
            return False
        return not group.payloads or len(group.payloads) + len(entry.payloads) <= self._config.max_group_records

    def _metadata_bytes(self, entry: QueuedAppend) -> int:
        """Bytes that an entry adds to its group's metadata, at most."""
        size = self._topic_bytes(entry.topics)[0]
        if entry.request is not None:
            size += REQUEST_BYTES
        if entry.dedupe is not None:
            size += DEDUPE_BYTES
        if entry.joining is not None:
            size += change_bytes_max(entry.joining.change(), {})
        return size

    def _topic_bytes(self, topics: Sequence[str]) -> tuple[int, int]:
        """Bytes that records add to their group's metadata, where their topics are new, and to their segment's summary."""
        names = rows = 0
        for topic in topics:
            number = self._metadata.topics.get(topic)
            if number is None:
                names += change_bytes_max({"topics": {topic: 0}}, {})
            if number is None or not (number in self._metadata.tally or number in self._placement.group.new_topics):
                rows += SUMMARY_ROW_BYTES
        return names, rows

    def _labels_of(self, labels: Labels | None, topic: str | None, group: Group) -> Labels | None:
        """A record's labels; a new topic gets its number here, and its name goes with the group."""
        if topic is None:
            return labels
        name_bytes, rows = self._topic_bytes((topic,))
        group.reserved += name_bytes
        group.segment.summary_bytes += rows
        number = self._metadata.topics.get(topic)
        if number is None:
            number = len(self._metadata.names)
            change = {"topics": {topic: number}}
            self._metadata.apply(change)
            merge(group.joined, change)
        if number not in self._metadata.tally:
            group.new_topics.add(number)
        return (labels or NO_LABELS)._replace(topic=number)

    def _put(self, entry: QueuedAppend, need: int, cost: int) -> None:
        group, strict = self._placement.group, entry.mode is Strict
        single = entry.future if strict and not entry.batch else None
        labels = self._labels_of(entry.labels, entry.topic, group)
        if entry.rows is None:
            index, offset = self._intake.add(entry.payloads, single, need=need, cost=cost, labels=labels)
        else:
            index, offset = self._intake.add([], None, need=need, cost=cost, labels=None)
            for payload, (topic, own) in zip(entry.payloads, entry.rows, strict=True):
                self._intake.add([payload], None, need=0, cost=cost, labels=self._labels_of(own, topic, group))
        lsn = group.first_lsn + index
        if entry.request is not None:
            self.note_request(group, entry.request, RequestRow(lsn, group.segment.id, offset, len(entry.payloads), 1))
        if entry.dedupe is not None:
            number = 0 if labels is None else labels.topic
            self.conditions.note(group, number, entry.dedupe, (lsn, group.segment.id, offset, entry.size))
        if entry.joining is not None:
            self._join(group, entry.joining)
        if entry.batch:
            part = Part(lsn, group.segment.id, offset, entry.lengths or array("I", map(len, entry.payloads)))
            if strict:
                group.batches.append((part, entry.future))
            else:
                entry.future.set_result(BatchResult([part], durable=False, sync_us=0))
        elif not strict:
            entry.future.set_result(AppendResult(lsn, group.segment.id, offset, entry.size, False, 0))

    def note_request(self, group: Group, request: Request, row: RequestRow) -> None:
        """Remember an accepted request, in memory and with its group."""
        self._metadata.producers.note(request.producer, request.seq, request.done, row)
        merge(group.joined, {"producers": ROW.pack(request.producer, request.seq, request.done, *row)})
        group.reserved += REQUEST_BYTES

    def _join(self, group: Group, joining: Joining) -> None:
        """Let a change be in the group of the records that are just put there."""
        change = joining.change()
        group.reserved += change_bytes_max(change, group.joined)
        self._metadata.apply(change)
        merge(group.joined, change)
        joining.accepted()

    # ---- the relaxed timer

    def arm_relaxed_timer(self) -> None:
        """Relaxed records wait for at most half the interval, which leaves the other half for the write itself."""
        interval = self._config.relaxed_interval
        if interval is not None and not self._relaxed_timers and not self._intake.wanted:
            self._relaxed_round += 1
            call_later = partial(self._health.loop.call_later, interval / 2, self._relaxed_due, self._relaxed_round)
            self._relaxed_timers = [call_later() for _ in TWICE]
            self._intake.armed = True

    @whole("committing what is relaxed")
    def _relaxed_due(self, number: int) -> None:
        if number != self._relaxed_round or not self._relaxed_timers:
            return
        self._relaxed_timers = []
        self._intake.armed = False
        if not self._placement.group.empty and self._health.failure is None:
            self._intake.want()

    def stop_timer(self) -> None:
        """The log is closed."""
        for timer in self._relaxed_timers:
            timer.cancel()

    # ---- moving up

    @whole("going on with a prepared segment")
    def spare_ready(self) -> None:
        """A preparation of a segment has ended. A shortage is the callers' matter; any other error is terminal."""
        error = self._tail.spares.error
        if self._health.released:
            return
        if error is not None and self.no_space() is None:
            place = (self._tail.segment.id, 0, self._placement.next_lsn)
            self._health.fail("preparing the next segment failed", error, place)
        self.move_up()

    @whole("accepting what waited")
    def move_up(self) -> None:
        """Room may have become available, or never will: let the queue move up, in order; tell it of a shortage."""
        self.look_again()

    def look_again(self) -> None:
        """The same, for callers that fail the log themselves where an exception cuts it short."""
        self._first()
        while self._waiting:
            entry = next(iter(self._waiting))
            if not entry.future.done():
                try:
                    if not self._admit(entry):
                        if not self._placement.group.empty:
                            self._intake.want()
                        break
                except WalError as error:
                    if not entry.future.done():
                        entry.future.set_exception(error)
            self._waiting.pop(entry, None)
        self._placement.hold(self._holds > 0 or bool(self._waiting))
        self._waits.wake_room()
        if self._health.over:
            self._waits.wake_beyond(self._placement.next_lsn)
            self._waits.wake_topics()

    def _admit(self, entry: QueuedAppend) -> bool:
        """Give the first entry of the queue what it waits for; False if it must go on waiting. Raises what ends its wait."""
        if (error := self._health.ended() or self.no_space()) is not None:
            raise error
        if self._holds:
            return False
        if entry.payloads:
            return self._accept(entry)
        self._holds += 1  # the turn of one that wants the log for itself
        entry.future.set_result(None)
        return True
