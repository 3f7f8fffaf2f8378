"""Feed: brings a shared consumer's records to those who wait for them.

What was read is offered to Leases, which say what may go out next; Supply has the callers that wait, and asks this part to bring
more while a caller waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from walsvc.errors import Truncated, WalError
from walsvc.format.queues import DONE_BYTES, HELD_BYTES, ConsumerWindow
from walsvc.model import Record
from walsvc.topics.ahead import Ahead, Found
from walsvc.topics.leases import LOOK_SECONDS_MAX, Job, Lease, Leases, Moment, State
from walsvc.topics.names import WHOLE_LOG, overtaken
from walsvc.topics.resumed import Resumed, Stretch, Vanished
from walsvc.topics.sharing import NOT_BEFORE
from walsvc.topics.supply import NEVER, Supply

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.read.segments import Segments

WINDOW_RECORDS_MAX = 20_000  # that are read and not done: SQS looks through as many for a message group that is free
WINDOW_BYTES_MAX = 64 << 10  # of ranges and counts in the log's metadata, which every segment repeats


class Out(NamedTuple):
    """A delivery and its record."""

    lease: Lease
    record: Record


class Feed:
    """The records of one shared consumer. Loop thread only.

    Attributes:
        key: the consumer's in the metadata.
        leases, ahead: what is out, and what was read.
        supply: the callers that wait.
        vanished: what is done without an acknowledgement.
        resumed: records that workers have had since before they came.
    """

    def __init__(
        self, segments: Segments, core: Core, topic: str | None, *, key: str, leases: Leases, label: str | None
    ) -> None:
        self.key = key
        self.leases = leases
        self.vanished: Vanished = Vanished()
        self.resumed: Resumed = Resumed(leases)
        self._segments = segments
        self._topic = topic
        self._number = int(key.partition("/")[0])
        self._label = label
        self._core = core
        self._marks = segments.marks
        self.supply: Supply = Supply(core, self)
        self.ahead: Ahead = Ahead(segments, self._number, self.position)

    # ---- looking

    @property
    def position(self) -> int:
        """LSN below which everything is done."""
        return self._core.metadata.positions.get(self.key, 1)

    @property
    def window(self) -> ConsumerWindow:
        """Records above that which are done, and those that were tried."""
        return self._core.metadata.queues.get(self.key) or ConsumerWindow()

    @property
    def waiting(self) -> int:
        """How many wait though there is something, since as many records are out as may be."""
        return self.supply.waiting if self.leases.full else 0

    def now(self) -> Moment:
        """The time on both clocks."""
        return Moment(self._core.health.loop.time(), self._core.tail.clock() / 1e9)

    def look(self) -> None:
        """Take notice of what has happened to the log. Raises Truncated where records that are not done were dropped."""
        if self._marks is not self._segments.marks:
            self._marks = self._segments.marks
            for job in list(self.leases.jobs.values()):
                record = self.ahead.get(job.lsn)
                if record is not None and job.state is not State.OUT and self._hidden(record):
                    self.forget(job)
        first, position = self._segments.first_of(self._number), self.position
        if position < first:
            raise overtaken(self.key.partition("/")[2], position, first, self._segments.disk.path)

    def _hidden(self, record: Record) -> bool:
        number = self._core.metadata.topics.get(record.topic or "", 0)
        return self._marks.hides(record.lsn, number, record.attributes)

    # ---- taking

    def take(self, holder: Hashable, *, own: bool = True) -> Out | None:
        """The next record that is there, to a holder; None: it has to wait. With `own` what it has had since before it came is first."""
        self._look_for(holder, own=own)
        return self._take(holder, self.now(), None, own=own)

    def take_several(self, holder: Hashable, max_bytes: int, max_records: int) -> list[Out]:
        """The next records that are there, its own first: no more than `max_records`, and together no more payload than `max_bytes`, unless
        the first alone is larger."""
        self._look_for(holder, own=True)
        now = self.now()
        outs: list[Out] = []
        size = 0
        while len(outs) < max_records and (size < max_bytes or not outs):
            if (out := self._take(holder, now, max_bytes - size if outs else None, own=True)) is None:
                break
            outs.append(out)
            size += len(out.record.payload)
        return outs

    def _look_for(self, holder: Hashable, *, own: bool) -> None:
        self.look()
        if own and self.vanished.held:
            self.vanished.let_go(holder)

    def _take(self, holder: Hashable, now: Moment, bytes_max: int | None, *, own: bool) -> Out | None:
        line = self.resumed.line(holder) if own else None
        if line:
            job: Job | None = line[0]
        else:
            job = None if self.leases.full else self.leases.ready(now)
        if job is None or (record := self.ahead.get(job.lsn)) is None:
            return None
        if bytes_max is not None and len(record.payload) > bytes_max:
            return None
        if line:
            line.popleft()
            return Out(self.leases.again(job), record)
        return Out(self.leases.give(job, holder, now), record)

    def takeable(self) -> bool:
        """True if a record may go out now."""
        job = None if self.leases.full else self.leases.ready(self.now())
        return job is not None and job.lsn in self.ahead

    async def stocked(self) -> bool:
        """True if there is a record that is not out: it may go out now, later, or once it is read. Raises Truncated, see `look`."""
        self.look()
        if len(self.leases.jobs) > self.leases.out:
            return True
        last = self._core.catalog.durable_lsn
        if self._number != WHOLE_LOG:
            _, last = await self._segments.topic_sums(self._number)
        return last >= self.ahead.following

    def unread(self, max_bytes: int, max_records: int) -> bool:
        """True if a batch of so much may need more than was read."""
        return len(self.leases.jobs) - self.leases.out < max_records and self.ahead.bytes < max_bytes

    def give_again(self, lease: Lease) -> None:
        """A worker was not given what it has: it gets that the next time."""
        lease.unseen = True
        self.resumed.again(lease.holder, lease.job)
        self.supply.wake_all()

    def oldest_seconds(self) -> float | None:
        """Age of the oldest record that is not done, as far as it is in memory."""
        record = self.ahead.get(next(iter(self.leases.jobs), 0))
        return None if record is None else max(self.now().wall - record.timestamp_ns / 1e9, 0.0)

    # ---- bringing

    async def bring(self) -> bool:
        """Load what is to go out next, or read on; False where neither helps now."""
        self.look()
        heads = [head for head in self.resumed.heads() if head.lsn not in self.ahead]
        job = self.leases.ready(self.now())
        if job is not None and job.lsn not in self.ahead and not self.leases.full:
            heads.append(job)
        for head in heads:
            if await self.ahead.load(head.lsn) is None and self.leases.jobs.get(head.lsn) is head:
                self.forget(head)
        if heads:
            if self.resumed:
                self.supply.wake_all()
            return True
        return job is None and await self.read_on()

    async def read_on(self) -> bool:
        """Read what comes next and is durable, or wait for another task that does, since what it brings may be enough, or all that there
        is room for. False where there is nothing, or no room for it."""
        if not self._roomy():
            return False
        behind = self.ahead.behind
        try:
            if (found := await self.ahead.read(self._core.catalog.durable_lsn + 1)) is None:
                return True
            with self._core.health.whole("reading for a shared consumer"):
                now = self.now()
                for each in found:
                    self._offer(each, now)
                if not found:
                    self._pass_over(behind, self.ahead.following)
        except Truncated:
            self.look()  # raises, unless retention has moved the position beyond what is gone
            self.ahead.move(self.position, self.position)
            return True
        except (WalError, asyncio.CancelledError):
            raise
        except BaseException:  # no worker has what was read, and an acknowledgement of the next record would cover it
            self.ahead.move(behind, behind)
            raise
        return bool(found)

    async def find(self, lsn: int) -> Job | None:
        """Find the record with this LSN, and read on up to it; None: it is done, or not there, or there is no room for it."""
        while lsn not in self.leases.jobs and lsn >= self.ahead.following and await self.read_on():
            pass
        return self.leases.jobs.get(lsn)

    def _roomy(self) -> bool:
        """True if more records may be read: each may need a range, or a count, in the metadata."""
        jobs = len(self.leases.jobs)
        each = HELD_BYTES + 32 if self.leases.lease is None else DONE_BYTES
        used = self.window.rows_bytes + min(jobs, self.leases.outstanding_max) * each
        return jobs < WINDOW_RECORDS_MAX and (used < WINDOW_BYTES_MAX or not jobs)

    def _offer(self, found: Found, now: Moment) -> None:
        record, window = found.record, self.window
        if record.lsn < self.position or record.lsn in self.leases.jobs:
            return
        first = self._pass_over(found.first, record.lsn)
        if window.covers(record.lsn):
            if not window.spans(max(first, self.position), record.lsn):
                self.vanished.add(Stretch(first, record.lsn, 0), None)
            return
        job = Job(record.lsn, first, self._key_of(record), not_before_of(record))
        held = window.held.get(record.lsn)
        job.attempts = held.attempts if held is not None else window.tried.get(record.lsn, 0)
        self.ahead.keep(record)
        if held is None or self.leases.lease is not None:
            self.leases.offer(job, now)
            return
        self.leases.hold(job, held.worker, now)
        self.resumed.found(held.worker, job)
        self.supply.wake_all()

    def _pass_over(self, first: int, end: int) -> int:
        """There is no record of the topic from LSN `first` up to `end`. What a worker has there has vanished; returns the LSN behind that."""
        if self.leases.lease is None and first < end:
            held = self.window.held
            for lsn in sorted(lsn for lsn in held if first <= lsn < end and lsn not in self.leases.jobs):
                self.vanished.add(Stretch(first, lsn, 0), held[lsn].worker)
                first = lsn + 1
        return first

    def _key_of(self, record: Record) -> bytes | None:
        if self._label is None or self._label not in record.attributes:
            return None
        packed: bytes = msgpack.packb(record.attributes[self._label])
        return packed

    def opens(self) -> float | None:
        """Seconds until the time of a record may have come; None: none waits for its time."""
        opens = self.leases.opens(self.now())
        return None if opens is None else min(opens, LOOK_SECONDS_MAX)

    def change(self) -> asyncio.Future[Any] | None:
        """Resolved when `bring` may help; None: it may help now. Raises what has ended the log."""
        following, health = self.ahead.following, self._core.health
        if self.leases.ready(self.now()) is None and self._roomy():
            if following <= self._core.catalog.durable_lsn:
                return None
            if (terminal := health.terminal()) is not None:
                raise terminal
            if self._number == WHOLE_LOG:
                return self._core.durable_above(following - 1)
            assert self._topic is not None
            return self._core.topic_record(self._topic, following)
        if (ended := health.ended()) is not None:
            raise ended
        return self._core.waits.durable(NEVER)  # fails with the log

    # ---- ends

    def finished(self, job: Job, now: Moment | None = None) -> None:
        """The record is done."""
        self.leases.done(job, now or self.now())
        self.ahead.drop(job.lsn)

    def forget(self, job: Job) -> None:
        """The record is purged, or not there any more: nobody gets it."""
        self.finished(job)
        held = self.window.held.get(job.lsn) if self.leases.lease is None else None
        self.vanished.add(Stretch(job.first, job.lsn, 1), None if held is None else held.worker)

    def forget_topic(self, topic: str) -> None:
        """A topic is deleted: nobody gets those of its records that are in memory. The others will not be found."""
        for job in list(self.leases.jobs.values()):
            record = self.ahead.get(job.lsn)
            if record is None or record.topic != topic:
                continue
            self.ahead.drop(job.lsn)
            if job.state is not State.OUT:
                self.forget(job)

    def restart(self, lsn: int) -> None:
        """The consumer was moved to `lsn`: nothing that went out before counts any more."""
        for job in list(self.leases.jobs.values()):
            self.finished(job)
        self.vanished.clear()
        self.resumed.clear()
        self.ahead.move(lsn, lsn)
        self.supply.wake_all()

    def cut(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        jobs = self.leases.jobs
        for job in [job for job in jobs.values() if job.lsn >= end]:
            self.finished(job)
        self.resumed.cut(end)
        self.vanished.cut(end)
        following, behind = self.ahead.following, self.ahead.behind
        if following > end:
            known = [self.position, *(lsn + 1 for lsn in jobs), *(last + 1 for last in self.window.lasts[-1:])]
            following, behind = end, max(known)
        self.ahead.move(following, behind)  # in any case, since no reader goes beyond a cut that came after it was made
        self.supply.wake_all()


def not_before_of(record: Record) -> float:
    """Unix time, in seconds, before which a record is not delivered; 0.0: none is said."""
    micros = record.attributes.get(NOT_BEFORE, 0)
    return micros / 1e6 if isinstance(micros, (int, float)) else 0.0
