"""Durable consumers: a name, a position that survives restarts, and records from there on.

A position is metadata of the log itself, so an acknowledgement is a change that joins the next group commit. It is the
LSN of the next record to deliver: acknowledging record n makes it n + 1, and with that everything below is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from walsvc.errors import LeaseLost, Truncated, WalError
from walsvc.format.queues import KEY, ConsumerWindow, done_row
from walsvc.log.commit.changes import Standing
from walsvc.log.commit.queued import Joined
from walsvc.log.read.counting import count_behind
from walsvc.log.read.reader import cursor_at
from walsvc.log.read.segments import Segments
from walsvc.model import Record, is_lsn
from walsvc.topics.delivering import Delivering
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import WHOLE_LOG, Start, check_start, key_of, overtaken
from walsvc.topics.standing import advanced, moved

if TYPE_CHECKING:
    from walsvc.log.writer import WalWriter


class Consumer(Delivering):
    """Delivers a topic's records (or the whole log's) in order, and remembers which were acknowledged.

    Get it by `await topic.consumer(name)` or `await log.consumer(name)`. What was delivered and not acknowledged comes again
    when the consumer is opened the next time, or after `seek(consumer.position)`. One task at a time reads; others may
    acknowledge meanwhile. Every method raises Closed after `close` of the consumer or the log, DurabilityLost after a
    failed write, and Truncated while records at its position are dropped: seek goes on behind the gap.

    Attributes:
        name: its name.
        topic: its topic's name; None: the whole log.
        delivery: StrictlyOnce() or AtLeastOnce(...).
        turn: for the service: a step of reading the log happens inside of what this makes.
    """

    _place: Standing

    def __init__(
        self,
        segments: Segments,
        writer: WalWriter,
        topic: str | None,
        name: str,
        *,
        number: int,
        delivery: Delivery,
        place: Standing,
    ) -> None:
        super().__init__(segments.disk.path, topic, name, delivery, place)
        self._segments = segments
        self._writer = writer
        self._number = number
        self._key = key_of(number, name)
        self._turns = place.turns
        self._marks = segments.marks
        self._cursor = cursor_at(segments, place.following, number)
        self._unsaved = 0  # records acknowledged and not known to be durable as such
        self.turn: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
        if number == WHOLE_LOG:
            segments.cuts.deletions.add(self._drop_topic)

    # ---- looking

    @property
    def position(self) -> int:
        """LSN of the next record to be acknowledged, or below that: everything before it is done."""
        return max(self._place.position, self._writer.core.metadata.positions.get(self._key, 0))

    @property
    def turns(self) -> int:
        """For the service: changes whenever the consumer was moved, so that what was read ahead is void."""
        return self._place.turns

    @property
    def reads_ahead(self) -> bool:
        """For the service: whether it holds what it has read ahead, or may be about to."""
        return bool(self._ahead) or self._cursor.next_lsn <= self._segments.durable_lsn

    def let_go(self) -> None:
        """For the service: nobody reads for a while. What was read ahead and not delivered is dropped, and read again later."""
        if not self._reading.locked():
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Read again what was read ahead and not delivered."""
        self._ahead.clear()
        self._cursor = cursor_at(self._segments, self._place.following, self._number)

    async def lag(self) -> int:
        """How many records are in the topic and not acknowledged, those that a purge by labels hides included. Reads a part of the log to count
        them."""
        self._check()
        limit = await self._segments.reach()
        done = 0

        def stands() -> int:
            nonlocal done
            self._check_position()
            done = sum(self._window.records) if self._window is not None else 0
            return self.position

        if self._number == WHOLE_LOG:
            return max(limit - stands() - done, 0)
        lag = await count_behind(self._segments, stands, self._number)
        assert lag is not None, "a consumer that was overtaken has raised Truncated"
        return max(lag - done, 0)

    @property
    def _window(self) -> ConsumerWindow | None:
        """The window of records that were acknowledged above the position, if any were."""
        return self._writer.core.metadata.queues.get(self._key)

    # ---- reading

    async def _have_one(self) -> None:
        """Wait until a record is read ahead."""
        while True:
            self._check_place()
            if self._ahead:
                return
            if await self._read_on():
                continue  # the consumer may have been closed or moved meanwhile
            following = self._cursor.next_lsn
            if following <= self._writer.durable_lsn:
                continue
            if (terminal := self._writer.core.health.terminal()) is not None:
                raise terminal
            if self.topic is None:
                self._waiter = self._writer.core.durable_above(following - 1)
            else:
                self._waiter = self._writer.core.topic_record(self.topic, following)
            await self._waiter

    async def _read_on(self) -> Sequence[Record]:
        """Read what comes next and is durable; nothing where there is nothing."""
        turns = self._place.turns
        try:
            async with self.turn():
                records = await self._cursor.take(self._writer.durable_lsn + 1)
            if turns != self._place.turns:
                return ()
            if (window := self._window) is None:
                self._ahead.extend(records)
            else:
                self._ahead.extend(record for record in records if not window.covers(record.lsn))
        except Truncated:
            return ()  # perhaps nothing was lost, and retention has moved the position: _check_place decides
        except (WalError, asyncio.CancelledError):
            raise
        except BaseException:  # an acknowledgement of the next record would cover what was read, too
            self._begin_anew()
            raise
        return records

    def _check_place(self) -> None:
        """Be where this consumer was moved to meanwhile; Truncated where records it has not seen are gone."""
        self._check()
        position = self.position
        if self._turns != self._place.turns or self._cursor.next_lsn < position:
            self._turns = self._place.turns
            self._shown.clear()
            self._unsaved = 0
            self._place.following = max(self._place.following, position)
            self._begin_anew()
        if self._marks is not self._segments.marks:
            self._drop_purged()
        self._check_position()

    def _drop_purged(self) -> None:
        """Records were purged since these were read ahead."""
        self._marks, numbers = self._segments.marks, self._writer.core.metadata.topics
        self._ahead = deque(
            record
            for record in self._ahead
            if not self._marks.hides(record.lsn, numbers.get(record.topic or "", 0), record.attributes)
        )

    def _drop_topic(self, topic: str) -> None:
        """A topic is deleted, some records of which may have been read ahead."""
        self._ahead = deque(record for record in self._ahead if record.topic != topic)

    def _check_position(self) -> None:
        first, position = self._segments.first_of(self._number), self.position
        if position < first:
            raise overtaken(self.name, position, first, self._path)

    # ---- acknowledging

    async def _ack(self, lsn: int) -> None:
        if lsn < self.position and not (self._shown and self._shown.first <= lsn):
            return  # what was shown and is done may not be durable yet: its caller may have given up
        self._check_shown(lsn)
        await self._ack_below(lsn + 1, self._shown.up_to(lsn))

    def is_of(self, writer: WalWriter) -> bool:
        """True if it is a consumer of that writer's log."""
        return self._writer is writer

    def acking(self, lsn: int) -> Joined:
        """The acknowledgement of everything up to record `lsn`, to be made durable with something else. Raises what `ack` raises."""
        self._check()
        self._check_lsn(lsn)
        if lsn >= self.position:
            self._check_shown(lsn)
        turns, metadata = self._place.turns, self._writer.core.metadata

        def change() -> dict[str, Any]:
            self._check()
            if turns != self._place.turns:
                raise LeaseLost(
                    f"consumer {self.name!r} was moved since LSN {lsn} was delivered",
                    path=self._path,
                    lsn=lsn,
                    hint="read on: what is not done comes again",
                )
            return advanced(metadata, self._key, lsn + 1) if lsn >= self.position else {}

        return Joined(change, lambda: self._acknowledged(lsn + 1))

    async def _ack_only(self, lsn: int) -> None:
        window = self._window
        if lsn not in self._shown and (lsn < self.position or (window is not None and window.covers(lsn))):
            return
        self._check_shown(lsn)
        if self._shown.first == lsn:
            await self._ack_below(self._shown.second or max(self._place.following, lsn + 1), 1)
            return
        if lsn not in self._shown:
            return  # it was acknowledged before, or is no record of the topic
        turns, cuts = self._place.turns, self._segments.cuts.count
        self._unsaved += 1

        def change() -> dict[str, Any]:
            gone = self._segments.cuts.since(cuts) <= lsn  # the end may have been cut since
            return {KEY: {self._key: {"rows": b"" if gone else done_row(lsn, lsn, 1)}}}

        changes = self._writer.core.changes
        if self._unsaved >= self.delivery.persist_every or not changes.join_lazily(change):
            await changes.join(change)
            self._unsaved = 0
        if turns == self._place.turns and lsn in self._shown:
            self._shown.remove(lsn)

    async def _ack_below(self, position: int, records: int) -> None:
        """Everything below `position` is acknowledged, which is so many records more."""
        turns = self._place.turns
        await self._save(position, records)
        if turns == self._place.turns:
            self._acknowledged(position)

    async def _save(self, position: int, records: int) -> None:
        """Write the position down: now, when otherwise too much might be repeated, else with whatever comes along."""
        self._unsaved += records
        cuts, metadata = self._segments.cuts.count, self._writer.core.metadata

        def change() -> dict[str, Any]:
            standing = min(position, self._segments.cuts.since(cuts))  # the end may have been cut since
            return advanced(metadata, self._key, standing)

        if self._unsaved >= self.delivery.persist_every:
            await self._writer.core.changes.join(change)
            self._unsaved = 0
        else:
            self._writer.core.changes.join_lazily(change)
        self._writer.core.changes.passed(position)

    async def seek(self, to: Start) -> None:
        """Go on at `to` ("first", "next", or an LSN from first_lsn to next_lsn), forward or back; durable on return.

        What was acknowledged and lies behind `to` is delivered again.
        """
        self._check()
        self._writer.core.health.check_source()
        work = self._seek(to, max(self.position, self._segments.first_of(self._number)))
        await asyncio.shield(self._writer.core.background.start("moving a consumer", work, foreseen=(WalError,)))

    async def _seek(self, to: Start, stood: int) -> None:
        """`seek`, to its end: cancelling the caller ends the wait. Half of it would leave two positions, here and in the log.

        `stood`: where the consumer stood when its caller called. Retention may have gone beyond that since.
        """
        async with self._saving:
            self._check()

            def change() -> dict[str, Any]:
                forward = is_lsn(to) and to >= stood
                start = max(to, self.position, self._segments.first_of(self._number)) if forward else to
                return moved(self._writer.core.metadata, self._key, check_start(self._writer, start, self._number))

            await self._writer.core.changes.join(change)
            lsn = self._writer.core.metadata.positions[self._key]
            self._place.move(lsn, lsn)
        self._writer.core.changes.passed(lsn)

    # ---- ending

    def _check(self) -> None:
        self._writer.core.health.check_open()
        self._check_open()

    async def close(self) -> None:
        """Make what was acknowledged durable, and let others open the name. Idempotent.

        Whoever waits for a record gets Closed; `async for` ends. In the source of a streamed batch it does not wait: what was
        acknowledged becomes durable behind the batch.
        """
        self._writer.core.health.check_loop()
        if self._open:
            self._open = False
            self._wake()
            if self._unsaved and self._writer.core.health.terminal() is None:
                work = self._save_all()
                self._place.leaving = self._writer.core.background.start(
                    "closing a consumer", work, foreseen=(WalError,)
                )
            else:
                self._leave()
        leaving = self._place.leaving
        if leaving is not None and not leaving.done() and not self._writer.core.health.in_source:
            await asyncio.shield(leaving)

    async def _save_all(self) -> None:
        """Make what was acknowledged durable, then give the name free; to its end, whoever waits for it."""
        try:
            await self._writer.core.changes.join(lambda: advanced(self._writer.core.metadata, self._key, self.position))
        finally:
            self._leave()

    def _leave(self) -> None:
        self._segments.cuts.deletions.discard(self._drop_topic)
        if self._writer.core.changes.places.get(self._key) is self._place:
            del self._writer.core.changes.places[self._key]
