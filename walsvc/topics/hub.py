"""Hub: one shared consumer of a log that is open here, whoever uses it: tasks, connections, workers.

    Leases  which records are out, and what may go out next: pure
    Ahead   the records, and the reader
    Feed    brings records
    Supply  the callers that wait, and the task that reads for them
    Hub     what becomes durable: acknowledgements, counts of deliveries, dead letters; and the timer

An acknowledgement is in force from the step in which it joins a group, and durable when the call returns. A count of deliveries is
durable before its record goes out again, so a crash loses the one that was under way and no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from walsvc.errors import Closed, LeaseLost, NoSpace, PathError, WalError
from walsvc.format.queues import KEY, tried_row
from walsvc.log.commit.changes import Standing
from walsvc.tasks import Alarm
from walsvc.topics.acking import Acking, Claiming, Keeping, Moving, Past
from walsvc.topics.dead import bury
from walsvc.topics.feed import Feed, Out
from walsvc.topics.leases import LOOK_SECONDS_MAX, Ended, Job, Lease, Leases
from walsvc.topics.names import Start
from walsvc.topics.sharing import Sharing
from walsvc.topics.supply import Place

if TYPE_CHECKING:
    from walsvc.log.read.segments import Segments
    from walsvc.log.writer import WalWriter


class Shared(Standing):
    """The state of a shared consumer, for callers that ask what is open."""

    hub: Hub | None = None  # while it is being opened

    @property
    def waiting(self) -> int:
        """Calls of next() that wait since as many records are out as may be."""
        return 0 if self.hub is None else self.hub.feed.waiting


class Hub:
    """One shared consumer. Loop thread only.

    Attributes:
        writer, topic, name, key: whose it is.
        sharing: how it was opened.
        leases, feed: see above.
        alarm: rings at the next deadline.
        holders: those who have it open.
        dead: records that went to the dead-letter topic since it was opened.
        past: what was acknowledged lately.
    """

    def __init__(
        self,
        segments: Segments,
        writer: WalWriter,
        topic: str | None,
        name: str,
        *,
        key: str,
        sharing: Sharing,
        ended: Callable[[Hub], None],
    ) -> None:
        self.writer: WalWriter = writer
        self.topic: str | None = topic
        self.name: str = name
        self.key: str = key
        self.sharing: Sharing = sharing
        self.leases: Leases = Leases(sharing.lease, sharing.max_deliveries, sharing.max_outstanding)
        self.feed: Feed = Feed(segments, writer.core, topic, key=key, leases=self.leases, label=sharing.ordered_by)
        self.holders: dict[object, Hashable] = {}
        self.dead = 0
        self.past: Past = Past()
        self._segments = segments
        self._when_ended = ended
        health = writer.core.health
        self.alarm: Alarm = Alarm(health.loop, self._look, partial(health.whole, "looking at deadlines"))
        self._work: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        segments.cuts.listeners.add(self._cut)
        segments.cuts.deletions.add(self._deleted)

    # ---- coming

    def enter(self, face: object, worker: str | None) -> None:
        """One more has it open. A worker without lease gets what it has had before."""
        if worker is not None and worker not in self.holders.values():
            self.feed.resumed.all_of(worker)
        self.holders[face] = face if worker is None else worker
        self.changed()

    # ---- delivering

    async def next(self, face: object) -> Out:
        """The next record for one who has the consumer open."""
        place = Place()
        while True:
            self.check(face)
            if (out := self.feed.take(self.holders[face])) is not None:
                self.changed()
                return out
            await self.feed.supply.wait(place)

    async def batch(self, face: object, max_bytes: int, max_records: int, place: Place) -> list[Out]:
        """The next records that are there, one at least, for which it waits; `place`: where it waits, and may have waited."""
        while True:
            self.check(face)
            more = True
            while more and self.feed.unread(max_bytes, max_records):
                more = await self.feed.read_on()
                self.check(face)  # it may have been closed meanwhile
            if outs := self.feed.take_several(self.holders[face], max_bytes, max_records):
                self.changed()
                return outs
            await self.feed.supply.wait(place)

    async def ahead(self, face: object, max_bytes: int, max_records: int) -> list[Out]:
        """The next records that are there, for one who has the consumer open and will ask for them; none while callers wait, or where any call would
        get an error."""
        supply = self.feed.supply
        try:
            more = True
            while more and supply.idle and self.feed.unread(max_bytes, max_records):
                more = await self.feed.read_on()
            self.check(face)
            outs = self.feed.take_several(self.holders[face], max_bytes, max_records) if supply.idle else []
        except WalError:
            return []  # the next call is told of it
        if outs:
            self.changed()
        return outs

    async def there(self, face: object, *, own: bool = True) -> Out | None:
        """The next record, if there is one that is durable; it is not waited for. `own`: see Feed.take."""
        while True:
            self.check(face)
            if (out := self.feed.take(self.holders[face], own=own)) is not None:
                self.changed()
                return out
            if not await self.feed.bring():
                return None

    async def keep(self, change: Keeping | Claiming) -> None:
        """Make durable which worker has records."""
        await self.writer.core.changes.join(change)

    # ---- what becomes of deliveries

    def acking(self, leases: Sequence[Lease], vanished: Sequence[int] = ()) -> Acking:
        """The acknowledgement of records, and of what workers had and is not there any more, to join a group."""
        return Acking(self, leases, vanished)

    async def ack(self, leases: Sequence[Lease], vanished: Sequence[int] = ()) -> None:
        """Acknowledge records, and what workers had and is not there any more, all or none; durable on return."""
        await self.writer.core.changes.join(Acking(self, leases, vanished))
        self.writer.core.changes.passed(self.feed.position)

    async def find(self, lsn: int, attempt: int, token: str, worker: str | None) -> Lease:
        """The delivery that somebody elsewhere speaks of. One of an earlier hub, from before the log was opened or while nobody
        had the consumer open, counts as long as nobody got the record since. Without leases `worker` speaks, and one that has taken the record over
        may have it with the same count. Raises LeaseLost."""
        if (job := await self.feed.find(lsn)) is not None:
            return self.spoken_of(job, attempt, token, worker)
        done = Lease(Job(lsn, lsn), None, attempt, None, done=True)
        if (lsn < self.feed.position or self.feed.window.covers(lsn)) and self.past.has(lsn, attempt, token):
            return done
        raise self.lost(done)

    def spoken_of(self, job: Job, attempt: int, token: str, worker: str | None) -> Lease:
        """The delivery of a record that is not done, see `find`."""
        earlier = token != self.past.token
        if earlier and job.lease is None:
            job.lease = Lease(job, None, attempt, None)
        lease = job.lease
        counted = self.sharing.lease is None  # by the log, before a record goes out
        if lease is None or lease.attempt != attempt:
            raise self.lost(Lease(job, None, attempt, None))
        if lease.holder not in (None, worker) if counted else (lease.holder is None) != earlier:
            raise self.lost(Lease(job, None, attempt, None))
        return lease

    def unseen(self, lease: Lease) -> None:
        """Let the record of a delivery that nobody got go out again as if it had not been out. Without a lease it stays its worker's."""
        if not self.leases.is_out(lease):
            return
        if self.sharing.lease is None:
            self.feed.give_again(lease)
        else:
            self.leases.untake(lease, self.feed.now())
            self.changed()

    async def give_back(self, lease: Lease, delay: float) -> None:
        """A record goes out again after `delay` seconds, or to the dead-letter topic."""
        if lease.done or not self.leases.owns(lease):
            raise self.lost(lease)
        self.writer.core.health.check_source()
        for task in self._settle(self.leases.give_back(lease, delay, self.feed.now())):
            await asyncio.shield(task)

    def extend(self, lease: Lease, seconds: float) -> float | None:
        """A worker has a record until `seconds` from now; returns them, None where there is no deadline."""
        if not self.leases.is_out(lease):
            raise self.lost(lease)
        self.leases.extend(lease, seconds, self.feed.now())
        self._arm()
        return None if lease.deadline is None else seconds

    def lost(self, lease: Lease) -> LeaseLost:
        """The error for whoever has lost a record."""
        return LeaseLost(
            f"delivery {lease.attempt} of LSN {lease.job.lsn} to consumer {self.name!r} has ended",
            path=self.writer.core.disk.path,
            lsn=lease.job.lsn,
            hint="another worker has the record, or it is done; a longer lease=, or extend() in time, keeps it",
        )

    def _settle(self, ended: Ended) -> list[asyncio.Task[None]]:
        """Keep what deliveries that ended have counted, then let the records go out again, or bury them."""
        tasks = []
        if ended.returning:
            tasks.append(self._start("giving deliveries back", self._return(ended.returning)))
        tasks += [self._start("a dead letter", bury(self, job)) for job in ended.dying]
        self.changed()
        return tasks

    def _start(self, name: str, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.writer.core.background.start(name, work, foreseen=(WalError,))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _return(self, jobs: Iterable[Job]) -> None:
        def change() -> dict[str, Any]:
            rows = [tried_row(job.lsn, job.attempts) for job in jobs if self.leases.jobs.get(job.lsn) is job]
            return {KEY: {self.key: {"rows": b"".join(rows)}}}

        try:
            await self.writer.core.changes.join(change)
        except (NoSpace, PathError):
            pass  # the count is true in memory; a log that takes no change takes no acknowledgement either
        now = self.feed.now()
        for job in jobs:
            self.leases.returned(job, now)
        self.changed()

    # ---- time

    def changed(self) -> None:
        """Look again: a record may go out, or a deadline has moved."""
        self._arm()
        self.feed.supply.wake()

    def _arm(self) -> None:
        due = self.leases.due(self.feed.now())
        if due is None or not self.holders:
            return
        self.alarm.set(self.writer.core.health.loop.time() + min(due, LOOK_SECONDS_MAX))

    def _look(self) -> None:
        self._settle(self.leases.overdue(self.feed.now()))

    def _cut(self) -> None:
        self.feed.cut(self.writer.core.next_lsn)
        self.changed()

    def _deleted(self, topic: str) -> None:
        if self.topic is None:
            self.feed.forget_topic(topic)
            self.changed()

    # ---- checking, moving

    def check(self, face: object) -> None:
        """Raise if the consumer or its log cannot be used any more."""
        self.writer.core.health.check_open()
        if face not in self.holders:
            raise Closed(f"consumer {self.name!r} is closed", path=self.writer.core.disk.path, hint="open it again")

    async def seek(self, to: Start) -> None:
        """Move the consumer; what is out is lost to those who have it."""
        await self.writer.core.changes.join(Moving(self, to))
        self.writer.core.changes.passed(self.feed.position)

    # ---- ending

    async def leave(self, face: object) -> None:
        """One who has it open is gone: others get what it had, at once. Its last user ends it."""
        holder = self.holders.pop(face, None)
        self.feed.supply.wake_all()
        if holder is not None and holder not in self.holders.values() and self.writer.core.health.terminal() is None:
            self._settle(self.leases.leave(holder))
        if not self.holders:
            await self.ended()

    async def ended(self) -> None:
        """Finish what it has begun, and let others open the name. It goes on to its end, whoever waits for it."""
        self.alarm.stop()
        if self._ending is None:
            self._ending = self.writer.core.background.start(
                "closing a shared consumer", self._end(), foreseen=(WalError,)
            )
        if not self.writer.core.health.in_source:  # the work that it finishes may come behind that batch
            await asyncio.shield(self._ending)

    async def _end(self) -> None:
        try:
            # a task that has ended may still be there: a signal handler may have raised before it was told to leave
            while working := [task for task in self._work if not task.done()]:
                await asyncio.wait(working)
        finally:
            self.feed.supply.end()
            self._segments.cuts.listeners.discard(self._cut)
            self._segments.cuts.deletions.discard(self._deleted)
            self._when_ended(self)
