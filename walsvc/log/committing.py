"""The commit coordinator: it places groups in segments, writes them, and says when they are durable.

    filling --cut--> ready --submit--> in flight --complete, in LSN order--> durable

Rules that everything here keeps:

* A group's place (segment, offset, first LSN) is decided when it is opened, so an LSN is only given out where room is
  guaranteed: in the active segment, or in one prepared spare.
* At most PIPELINE groups are in flight; completions come in any order, acknowledgements go out in LSN order.
* The first group of a new segment carries the segment header and the snapshot in the same write. It is acknowledged
  after the file has its name. Until then recovery finds it under the spare's name, whose directory entry was synced
  long before; so a rotation costs no extra sync. The directory sync and the seal of the old segment follow at once, and
  no further rotation begins before they are done.
* The first failed write or sync ends it: everybody who waits and every later call gets DurabilityLost with its errno.

All of it runs on the loop's thread, and no function here awaits between reading and changing the state it decides on.
"""

from __future__ import annotations

import time
from abc import abstractmethod

from walsvc.disk.base import Write
from walsvc.errors import DurabilityLost
from walsvc.format.group import Flag, align_up
from walsvc.log.double_write import append_outside
from walsvc.log.framing import seal_bytes
from walsvc.log.group import Group
from walsvc.log.placing import Placing
from walsvc.log.segments import Segment, install, tail_of

PIPELINE = 2  # groups in flight: one on the device while the next is prepared; more only make groups smaller


class Committer(Placing):
    """The steps of group commit after a group was filled: submit, complete, rotate."""

    # ---- writing

    def _want_commit(self) -> None:
        """Somebody waits for the filling group. Three cases: it is already wanted, a completion will take it along, or
        an idle device takes it in this very turn of the loop."""
        self._commit_wanted = True
        if not self._pump_scheduled and self._pipeline_free():
            self._pump_scheduled = True
            if self._commit_delay > 0:
                self._loop.call_later(self._commit_delay, self._pump)
            elif self.counters.group_records_last > 1 or self._in_flight:
                self._loop.call_soon(self._pump)
            else:
                self._pump()  # a lone appender has nobody to wait for, and saves a turn of the loop

    def _pipeline_free(self) -> bool:
        """Whether one more group may be written: behind one in layout pack none, since the two share a block."""
        in_flight = self._in_flight
        return not in_flight or (len(in_flight) < PIPELINE and not in_flight[-1].segment.packed)

    def _pump(self) -> None:
        """Submit what is ready or wanted, as far as the pipeline has room."""
        self._pump_scheduled = False
        try:
            while self._pipeline_free() and self.health.failure is None:
                if self._ready:
                    self._submit(self._ready[0])
                elif self._commit_wanted and not self._filling.empty:
                    self._cut()
                else:
                    break
        except Exception as error:  # noqa: BLE001  # a defect of ours, or no memory: whoever waits is told, and it is shown
            self.health.broken("a group cannot be written", error)
            if not isinstance(error, MemoryError):
                self._loop.call_exception_handler({"message": "walsvc: a group cannot be written", "exception": error})
        except BaseException as error:  # a signal handler's: half a group is on its way
            self.health.broken("writing a group was cut short", error)
            raise
        if self._filling.empty:
            self._commit_wanted = False  # who waits for room asks again once accepted; else nobody would wake the pump

    def _submit(self, group: Group) -> None:
        segment, room = group.segment, 0 if self._double_write is None else self._double_write.room
        if group.head is not None:
            assert isinstance(group.attached, tuple)
            group.begin_segment(group.attached[0], self.catalog.durable_lsn)
        begin = 0 if group.prefix else len(segment.tail)  # in layout pack it begins inside a block
        end = begin + len(group.prefix) + group.group_bytes
        length = align_up(end, segment.block_bytes)
        group.buffer = self._pool.take(room + length)
        view = group.buffer[room : room + length]
        if group.batch_lsn == group.first_lsn:
            self._batch_crc = segment.previous_crc  # to go back here if the batch is given up
            self._batch_last = segment.last_crc, segment.last_at
            self._batch_tail = tail_of(group.prefix, segment.block_bytes) if group.prefix else segment.tail
        group.encode(
            view[begin:end],
            generation=self.catalog.generation,
            durable_lsn=self.catalog.durable_lsn,
            timestamp_ns=self._clock(),
        )
        if segment.packed:
            segment.pack(view, begin, end)
        self._in_flight.append(self._ready.popleft())
        self.counters.submitted(len(group.payloads), length, end - begin)
        group.submitted_at = time.perf_counter()
        write = Write(segment.file, group.offset - len(group.prefix) - begin, view, self._written, group)
        if self._double_write is None:
            self._disk.submit(write)
        else:
            self._double_write.submit(write, group.buffer, segment, begin + len(group.prefix))

    def _written(self, write: Write, error: OSError | None) -> None:
        """The disk's answer: every byte written and synced, or an error."""
        group = write.tag
        assert isinstance(group, Group)
        try:
            self._take_answer(group, error)
        except BaseException as broken:  # a defect of ours, or a signal handler's: the others must not wait for ever
            self.health.broken("answering a group was cut short", broken)
            for each in self._resolving:
                each.fail(self.health.again)
            raise
        finally:
            self._waker.wake()  # last: a woken task may do anything at once

    def _take_answer(self, group: Group, error: OSError | None) -> None:
        assert group.buffer is not None
        self._pool.give_back(group.buffer)
        group.buffer = None
        self.counters.answered(len(group.payloads), int((time.perf_counter() - group.submitted_at) * 1e6))
        if error is not None:
            self.health.fail("a write or its sync failed", error, (group.segment.id, group.offset, group.first_lsn))
        elif group.attached is not None and self.health.failure is None:
            self._rotation = self.background.start("rotation", self._finish_rotation(group))
        elif self.health.failure is None:
            self._complete(group)

    def _complete(self, group: Group) -> None:
        """Acknowledge all groups that are durable without a gap before them; first keep the device busy."""
        group.done = True
        durable: list[Group] = []
        self._resolving = durable
        while self._in_flight and self._in_flight[0].done:
            head = self._in_flight[0]
            self._batch_groups.append(head)  # first: whatever cuts this short, it is in one of the queues
            self._in_flight.popleft()
            self._pending_bytes -= head.payload_bytes
            if head.prefix:
                self._first_pending = False
            if head.passed is not None and not head.passed.done():
                head.passed.set_result(None)
            if not head.batch_lsn or head.flags & Flag.BATCH_END:  # a batch counts from its end on, all at once
                self.catalog.advance(head.next_lsn - 1)
                for each in self._batch_groups:
                    each.segment.durable_end = each.offset + each.group_bytes
                durable += self._batch_groups
                self._batch_groups.clear()
        self._pump()
        for head in durable:
            head.resolve(self._waker, self.counters.sync_us_last)
        self._resolving = []
        if durable:
            last = durable[-1]
            at = self.catalog.place if last.segment.replaced else (last.segment.id, last.offset + last.group_bytes)
            self.catalog.arrive(*at)
        self.waits.reached()
        self._room_freed()

    # ---- rotation

    async def _finish_rotation(self, group: Group) -> None:
        """Name the new segment, acknowledge its first group, then sync the directory and seal the old segment."""
        assert isinstance(group.attached, tuple)
        old, spare = group.attached
        try:
            await self._disk.check_place()  # before a name is taken that may be somebody else's by now
            group.segment.name = await install(self._disk, spare, group.segment.id)
            replaces = group.segment.id == old.id
            if replaces:
                await self._disk.sync_directory()  # before the answer: its number would not be looked for among spares
                old.replaced = True
            self.catalog.begin(group.segment.id, group.segment.file_bytes)
            if replaces:
                self.catalog.arrive(group.segment.id, group.offset)
            group.passed = self._create_future()
            if self.health.failure is None:
                self._complete(group)
                self._waker.wake()
                await self._disk.sync_directory()
                await group.passed  # like all groups before it, so that a seal never says more than is true
            if self.health.failure is None:
                if not replaces:
                    await self._seal(old, group.segment.id)
                await self._disk.close_file(old.file)
        except DurabilityLost:
            assert self.health.failure is not None, "only _fail raises it here, and it told everybody"
        except OSError as error:
            self.health.fail("beginning a new segment failed", error, (group.segment.id, 0, group.first_lsn))
        finally:
            self._rotation = None
        self._room_freed()
        if self.catalog.on_segment is not None:
            self.catalog.on_segment()

    async def _newest_with(self, old: Segment) -> int | None:
        """The highest timestamp of any record up to the end of a complete segment; None where it is not known."""
        if self._newest is None:
            self._newest = await self._newest_before(old.id)
        if self._newest is not None:
            self._newest = max(self._newest, old.index.newest)
        return self._newest

    @abstractmethod
    async def _newest_before(self, segment: int) -> int | None:
        """The highest timestamp of any record before a segment, as the seal before it says; None where nothing does."""

    async def _seal(self, old: Segment, successor: int) -> None:
        """Write the group that ends a segment and names its successor, which is durable by now."""
        data = seal_bytes(
            old,
            successor,
            tally=old.tally,
            newest=await self._newest_with(old),
            generation=self.catalog.generation,
            durable_lsn=min(self.catalog.durable_lsn, successor - 1),
            timestamp_ns=self._clock(),
        )
        assert old.end + len(data) <= old.file_bytes, "no room was kept for the seal"
        await append_outside(self._disk, self._double_write, old, data)
