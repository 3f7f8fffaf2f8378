"""Pipeline: the commit coordinator. It writes groups and says when they are durable.

    filling --cut--> ready --submit--> in flight --complete, in LSN order--> durable

Rules that everything here keeps:

* A group's place (segment, offset, first LSN) is decided when it is opened, so an LSN is only given out where room is
  guaranteed: in the active segment, or in one prepared spare.
* At most PIPELINE groups are in flight; completions come in any order, acknowledgements go out in LSN order.
* The first failed write or sync ends it: everybody who waits and every later call gets DurabilityLost with its errno.
* A step that is cut short by an exception fails the log (walsvc.log.commit.whole): no group is ever in no queue, so everybody
  who waits is told.

All of it runs on the loop's thread, and no function here awaits between reading and changing the state it decides on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.base import Write
from walsvc.errors import WalError
from walsvc.format.double_write import PIPELINE_SLOTS
from walsvc.format.group import Flag
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.counters import Counters
from walsvc.log.commit.group import Group
from walsvc.log.commit.health import Health
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.rotation import Rotation
from walsvc.log.commit.waits import Waits
from walsvc.log.commit.whole import whole
from walsvc.log.commit.writing import Writing
from walsvc.tasks import TWICE

PIPELINE = 2  # groups in flight: one on the device while the next is prepared; more only make groups smaller
assert PIPELINE <= PIPELINE_SLOTS, "each group in flight needs a slot of its own in the double-write file"


class Pipeline:
    """Groups on their way. Loop thread only.

    Args:
        waker: answers and wakes many at once, see walsvc.log.commit.ack.
        freed: called when room may have come.
    """

    def __init__(
        self,
        config: WalConfig,
        placement: Placement,
        writing: Writing,
        rotation: Rotation,
        *,
        catalog: Catalog,
        waits: Waits,
        health: Health,
        counters: Counters,
        waker: Any,
        freed: Callable[[], None],
    ) -> None:
        self.rotation = rotation
        self._delay = config.commit_delay
        self._placement = placement
        self._writing = writing
        self._catalog = catalog
        self._waits = waits
        self._health = health
        self._counters = counters
        self._waker = waker
        self._freed = freed
        self._ready: deque[Group] = deque()
        self._in_flight: deque[Group] = deque()
        self._unended: list[Group] = []  # written, and part of a batch whose end is not
        self._resolving: list[Group] = []  # durable, and just being told so
        self._scheduled = False

    # ---- looking

    @property
    def ready(self) -> int:
        """Groups that are closed and wait to be submitted."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """True if no group is ready or in flight."""
        return not self._in_flight and not self._ready

    # ---- starting

    def wake(self) -> None:
        """Commit the filling group, because a caller waits for it. Three cases: its commit is on its way, a completion will take it
        along, or an idle device takes it in this very turn of the loop. The intake calls it again where an exception cuts it short."""
        if self._scheduled or not self._free():
            return
        loop = self._health.loop
        if self._delay > 0:
            for _ in TWICE:
                loop.call_later(self._delay, self._due)
        elif self._counters.group_records_last > 1 or self._in_flight:
            for _ in TWICE:
                loop.call_soon(self._due)
        else:
            self.pump()  # a lone appender has nobody to wait for, and saves a turn of the loop
            return
        self._scheduled = True

    def _due(self) -> None:
        if self._scheduled:
            self.pump()

    def _free(self) -> bool:
        """True if one more group may be written. Packed layout: one in flight, because the next one rewrites its last block."""
        in_flight = self._in_flight
        return not in_flight or (len(in_flight) < PIPELINE and not in_flight[-1].segment.packed)

    def pump(self) -> None:
        """Submit what is ready or wanted, as far as the pipeline has room. It is whole, in its own lines and in every call."""
        try:
            self._scheduled = False
            intake = self._placement.intake
            while self._ready or (intake.wanted and not intake.group.empty):
                if not self._free() or self._health.failure is not None:
                    break
                if not self._ready:
                    self._ready.append(intake.group)  # first, as in _cut
                    self._placement.cut()
                self._submit(self._ready[0])
            if intake.wanted and intake.group.empty:
                intake.want_no_more()  # a queued append wants it again once it is accepted; else nothing would wake the pump
        except BaseException as error:
            self._health.broken("a group cannot be written", error)
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, MemoryError):  # a defect of ours: whoever waits is told, and it is shown
                self._health.loop.call_exception_handler(
                    {"message": "walsvc: a group cannot be written", "exception": error}
                )

    def cut_off(self) -> None:
        """Close the filling group, if there is something in it, because something must go behind it.

        Raises the terminal failure, also that of doing this: nothing must be put into the groups of a log that has failed,
        because nobody would be told of it.
        """
        if not self._placement.group.empty:
            self._cut()

    def send(self) -> None:
        """Close the filling group, in which somebody waits, be it empty: the futures in it tell what goes wrong."""
        with suppress(WalError):
            self._cut()

    def _cut(self) -> None:
        try:
            self._ready.append(self._placement.group)  # first: whatever cuts this short, it is in one of the queues
            self._placement.cut()
            self.pump()
        except BaseException as error:
            self._health.broken("a group cannot be closed", error)
            if isinstance(error, Exception):
                raise self._health.failure_told() from error
            raise
        self._health.raise_failure()

    def _submit(self, group: Group) -> None:
        write = self._writing.encode(group, self.answered)
        self._in_flight.append(group)
        self._ready.popleft()
        self._writing.submit(write)

    # ---- ending

    def answered(self, write: Write, error: OSError | None) -> None:
        """The disk has answered for a group: every byte is written and synced, or there is an error."""
        try:
            self._take_answer(write, error)
        finally:
            self._waker.wake()  # last: a woken task may do anything at once

    @whole("answering a group")
    def _take_answer(self, write: Write, error: OSError | None) -> None:
        group = write.tag
        assert isinstance(group, Group)
        if not self._writing.ended(group):
            return  # told again, since an exception cut it short
        if error is not None:
            place = (group.segment.id, group.offset, group.first_lsn)
            self._health.fail("a write or its sync failed", error, place)
        elif self._health.failure is None:
            if group.beginning is not None:
                self.rotation.written(group)
            else:
                self._complete(group)

    def begun(self, group: Group) -> None:
        """A segment's first group is durable, and the segment has its name. Called in a task, so nobody is woken before the task's
        end, and an exception has failed the log by then."""
        try:
            self._complete(group)
        finally:
            self._waker.wake()

    def _complete(self, group: Group) -> None:
        """Acknowledge all groups that are durable without a gap before them; first keep the device busy."""
        group.flight.done = True
        durable: list[Group] = []
        self._resolving = durable
        while self._in_flight and self._in_flight[0].flight.done:
            head = self._in_flight[0]
            self._unended.append(head)  # first, as in _cut
            self._in_flight.popleft()
            self._placement.written(head)
            if head.prefix:
                self.rotation.head_durable()
            if head.written_in_order is not None and not head.written_in_order.done():
                head.written_in_order.set_result(None)
            if not head.batch_lsn or head.flags & Flag.BATCH_END:  # a batch counts from its end on, all at once
                self._catalog.advance(head.next_lsn - 1)
                for each in self._unended:
                    each.segment.durable_end = each.offset + each.body.group_bytes
                durable += self._unended
                self._unended.clear()
            else:
                head.let_go()
        if self._ready or self._placement.intake.wanted:
            self.pump()
        for head in durable:
            head.resolve(self._waker, self._counters.sync_us_last)
        self._resolving = []
        if durable:
            last = durable[-1]
            at = (
                self._catalog.place if last.segment.replaced else (last.segment.id, last.offset + last.body.group_bytes)
            )
            self._catalog.arrive(*at, changed=any(each.changes for each in durable))
        self._waits.reached()
        self._freed()

    def settle(self, settled: asyncio.Future[None]) -> None:
        """Resolve a future once everything that was accepted is durable, changes without a record included. A batch that is
        streamed meanwhile is not waited for: it may be given up."""
        if self._health.failure is not None:
            self._health.note_told(1)
            settled.set_exception(self._health.failure_told())
            return
        filling = self._placement.group
        if not (filling.empty or filling.batch_lsn or self._placement.batch_lsn):
            filling.answers.barriers.append((settled, None))
            self._placement.intake.want()
            return
        for group in reversed([*self._unended, *self._in_flight, *self._ready]):
            if not group.batch_lsn or group.flags & Flag.BATCH_END:
                group.answers.barriers.append((settled, None))
                return
        settled.set_result(None)

    async def quiet(self) -> None:
        """Wait until every group that was cut is written, or the log has failed, and no segment is being begun."""
        while not self.idle and self._health.failure is None:
            await self._waits.room()
        await self.rotation.ended()

    def forget_batch(self) -> None:
        """The groups of a batch that is given up are never acknowledged."""
        self._unended.clear()

    def fail(self) -> None:
        """The log has failed: tell whoever waits for a group."""
        try:
            self._fail()
        finally:
            self._waker.wake()  # an exception may have come between a group's answers and their wake-up

    def _fail(self) -> None:
        for group in [*self._resolving, *self._unended, *self._in_flight, *self._ready, self._placement.group]:
            self._health.note_told(group.answers.fail(self._health.failure_told))
            if group.written_in_order is not None and not group.written_in_order.done():
                group.written_in_order.set_exception(self._health.failure_told())
        self._in_flight.clear()
        self._unended.clear()
        self._ready.clear()
