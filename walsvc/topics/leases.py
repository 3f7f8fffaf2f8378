"""Leases: which of a topic's records are out, with whom, until when, and which may go out next. A pure state machine.

It knows no clock, no log and no task: every call is given the time, and says what has changed. Each record that was read and is not
done is a job in one of these states:

| state     | means                                        | leaves it by                                                  |
|-----------|----------------------------------------------|---------------------------------------------------------------|
| BEHIND    | a record before it has the same key          | done of that one -> READY or DELAYED                          |
| DELAYED   | its time has not come                        | time -> READY                                                 |
| READY     | may go out                                   | take -> OUT                                                   |
| OUT       | a holder has it                              | done; give_back, overdue, leave -> RETURNING or DYING         |
| RETURNING | was given back, the count is being kept      | returned -> READY or DELAYED                                  |
| DYING     | had its last attempt, the dead letter is due | done                                                          |

A delivery may be acknowledged as long as no other holder has got the record since, in whatever state it is. Records with a
key go out one at a time, in order; all other states but BEHIND are those of the first record of its key.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

ENDED_MAX = 1_000  # deadlines of deliveries that have ended, beyond one for each that is out: more are swept away
LOOK_SECONDS_MAX = 60.0  # the wall clock may be set: how long a wait for a time goes on without a look at it


class State(enum.Enum):
    """Of a job."""

    BEHIND = enum.auto()
    DELAYED = enum.auto()
    READY = enum.auto()
    OUT = enum.auto()
    RETURNING = enum.auto()
    DYING = enum.auto()


class Moment(NamedTuple):
    """A time on both clocks, in seconds: the steady one of leases and delays, and the wall's, which records name."""

    steady: float
    wall: float


@dataclass(slots=True, eq=False, repr=False)
class Lease:
    """One delivery of one record.

    Attributes:
        job: the record.
        holder: who has it: any object.
        attempt: 1 for the first delivery.
        deadline: on the steady clock; None: none.
        done: it was acknowledged.
        unseen: it is its holder's, who was never given it: the next time it gets this very delivery.
    """

    job: Job
    holder: Any
    attempt: int
    deadline: float | None
    done: bool = False
    unseen: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Job:
    """A record that is not done.

    Attributes:
        lsn: its LSN.
        first: from here to its LSN there is nothing of the topic but it.
        key: records with an equal one go out in order; None: in any order.
        not_before: Unix time, in seconds, before which it does not go out.
        attempts: deliveries so far.
        state: see above.
        lease: the last delivery.
        delayed_until: on the steady clock.
    """

    lsn: int
    first: int
    key: Any = None
    not_before: float = 0.0
    attempts: int = 0
    state: State = State.READY
    lease: Lease | None = None
    delayed_until: float = 0.0

    def held_by(self, holder: Any) -> bool:
        """True if the last delivery was to that holder."""
        return self.lease is not None and self.lease.holder == holder


class Ended(NamedTuple):
    """Deliveries that have ended without being acknowledged.

    Attributes:
        returning: they go out again; `returned` is to be called once their count is kept.
        dying: that was their last attempt; `done` is to be called once they are in the dead-letter topic.
    """

    returning: list[Job]
    dying: list[Job]


@dataclass(slots=True, eq=False, repr=False)
class Leases:
    """The jobs of one shared consumer.

    Attributes:
        lease: seconds that a holder has a record; None: for ever.
        attempts_max: deliveries of a record, at most; None: any number.
        outstanding_max: records that are out at a time, at most.
        jobs: by LSN.
        out: how many are out.
        redeliveries: deliveries of a record that was out before, so far.
    """

    lease: float | None
    attempts_max: int | None
    outstanding_max: int
    jobs: dict[int, Job] = field(default_factory=dict)
    out: int = 0
    redeliveries: int = 0
    _ready: list[int] = field(default_factory=list)  # heaps; what they name may have changed since
    _delayed: list[tuple[float, int]] = field(default_factory=list)
    _early: list[tuple[float, int]] = field(default_factory=list)  # by the wall clock
    _deadlines: list[tuple[float, int]] = field(default_factory=list)
    _keys: dict[Any, deque[Job]] = field(default_factory=dict)

    # ---- coming and going

    def offer(self, job: Job, now: Moment) -> None:
        """A record was read; they come in the order of their LSNs."""
        self.jobs[job.lsn] = job
        if job.key is not None:
            line = self._keys.setdefault(job.key, deque())
            line.append(job)
            if len(line) > 1:
                job.state = State.BEHIND
                return
        self._admit(job, now)

    def hold(self, job: Job, holder: Any, now: Moment) -> None:
        """A record that was read is out already, with somebody who had it before the log was opened."""
        self.offer(job, now)
        if job.state is not State.BEHIND:
            self._give(job, holder, None)

    def _admit(self, job: Job, now: Moment) -> None:
        """The record is the first of its key, and nobody has it."""
        if job.delayed_until > now.steady:
            job.state = State.DELAYED
            heappush(self._delayed, (job.delayed_until, job.lsn))
        elif job.not_before > now.wall:
            job.state = State.DELAYED
            heappush(self._early, (job.not_before, job.lsn))
        else:
            job.state = State.READY
            heappush(self._ready, job.lsn)

    def done(self, job: Job, now: Moment) -> None:
        """The record is acknowledged, or in the dead-letter topic, or not there any more."""
        if self.jobs.pop(job.lsn, None) is None:
            return
        if job.state is State.OUT:
            self.out -= 1
        if job.key is None:
            return
        line = self._keys[job.key]
        first = line[0] is job
        line.remove(job)
        if not line:
            del self._keys[job.key]
        elif first:
            self._admit(line[0], now)

    # ---- delivering

    def take(self, holder: Any, now: Moment) -> Lease | None:
        """The next record, to a holder; None: there is none, or `full`."""
        job = self.ready(now)
        return None if job is None or self.full else self.give(job, holder, now)

    def give(self, job: Job, holder: Any, now: Moment) -> Lease:
        """The record that is `ready` now goes to a holder."""
        heappop(self._ready)
        self.redeliveries += job.attempts > 0
        job.attempts += 1
        return self._give(job, holder, None if self.lease is None else now.steady + self.lease)

    def pick(self, lsn: int, holder: Any, now: Moment) -> Lease | None:
        """A record that may go out, whatever is before it, goes to a holder; None: it may not, or `full`."""
        self.ready(now)  # those whose time has come
        job = self.jobs.get(lsn)
        if job is None or job.state is not State.READY or job.not_before > now.wall or self.full:
            return None
        job.attempts += 1
        return self._give(job, holder, None)

    def again(self, job: Job) -> Lease:
        """A record that is out goes once more to its holder, which has come back, or was not given it the first time."""
        lease = job.lease
        assert lease is not None, "it is out"
        if not lease.unseen:
            return self.pass_on(job, lease.holder)
        lease.unseen = False
        return lease

    def pass_on(self, job: Job, holder: Any, *, count: bool = True) -> Lease:
        """A record that is out goes to a holder. Without `count` that is no further attempt."""
        self.out -= 1
        self.redeliveries += count
        job.attempts += count
        return self._give(job, holder, None)

    def _give(self, job: Job, holder: Any, deadline: float | None) -> Lease:
        job.state, self.out = State.OUT, self.out + 1
        lease = job.lease = Lease(job, holder, job.attempts, deadline)
        if deadline is not None:
            self._note(deadline, job)
        return lease

    def _note(self, deadline: float, job: Job) -> None:
        """A delivery ends then. Those that have ended before leave now and then: workers do thousands of records in the time of a lease."""
        heappush(self._deadlines, (deadline, job.lsn))
        if len(self._deadlines) > 2 * self.out + ENDED_MAX:
            self._deadlines = [each for each in self._deadlines if self._stands(*each) is not None]
            heapify(self._deadlines)

    def _stands(self, deadline: float, lsn: int) -> Job | None:
        """The record that is out until that deadline; None: its delivery has ended, or got another one."""
        job = self.jobs.get(lsn)
        if job is None or job.state is not State.OUT or job.lease is None or job.lease.deadline != deadline:
            return None
        return job

    def ready(self, now: Moment) -> Job | None:
        """The next record that may go out."""
        for heap, time in ((self._delayed, now.steady), (self._early, now.wall)):
            while heap and heap[0][0] <= time:
                job = self.jobs.get(heappop(heap)[1])
                if job is not None and job.state is State.DELAYED:
                    self._admit(job, now)
        while self._ready:
            job = self.jobs.get(self._ready[0])
            if job is not None and job.state is State.READY:
                if job.not_before <= now.wall:
                    return job
                self._admit(job, now)  # the wall clock was set back
            heappop(self._ready)
        return None

    @property
    def full(self) -> bool:
        """As many records are out as may be."""
        return self.out >= self.outstanding_max

    # ---- deliveries that end

    def owns(self, lease: Lease) -> bool:
        """True if a delivery may still be acknowledged: nobody got the record since, and it is not done."""
        return lease.job.lease is lease and self.jobs.get(lease.job.lsn) is lease.job

    def is_out(self, lease: Lease) -> bool:
        """True if a holder still has the record by this delivery."""
        return self.owns(lease) and lease.job.state is State.OUT

    def extend(self, lease: Lease, seconds: float, now: Moment) -> None:
        """A holder, who has the record, gets it for `seconds` from now."""
        if lease.deadline is not None:
            lease.deadline = now.steady + seconds
            self._note(lease.deadline, lease.job)

    def give_back(self, lease: Lease, delay: float, now: Moment) -> Ended:
        """A delivery that is owned is not acknowledged: the record goes out again after `delay` seconds."""
        job = lease.job
        job.delayed_until = max(job.delayed_until, now.steady + delay) if delay else job.delayed_until
        if job.state is State.OUT:
            return self._end([job])
        if job.state is State.READY and delay:
            self._admit(job, now)
        return Ended([], [])

    def overdue(self, now: Moment) -> Ended:
        """End the deliveries whose deadline has come."""
        late: dict[Job, None] = {}  # one may be named twice: it was extended to the same moment
        while self._deadlines and self._deadlines[0][0] <= now.steady:
            if (job := self._stands(*heappop(self._deadlines))) is not None:
                late[job] = None
        return self._end(late)

    def leave(self, holder: Any) -> Ended:
        """A holder is gone: what it has goes back. Without deadlines it keeps what it has."""
        if self.lease is None:
            return Ended([], [])
        return self._end([job for job in self.jobs.values() if job.state is State.OUT and job.held_by(holder)])

    def _end(self, jobs: Iterable[Job]) -> Ended:
        ended = Ended([], [])
        for job in jobs:
            self.out -= 1
            last = self.attempts_max is not None and job.attempts >= self.attempts_max
            job.state = State.DYING if last else State.RETURNING
            (ended.dying if last else ended.returning).append(job)
        return ended

    def untake(self, lease: Lease, now: Moment) -> None:
        """Undo the delivery of a record that is out: its holder never saw it."""
        job = lease.job
        self.out -= 1
        job.attempts -= 1
        job.lease = None
        self._admit(job, now)

    def returned(self, job: Job, now: Moment) -> None:
        """Take note that the log has kept the giving back: the record may go out again."""
        if job.state is State.RETURNING and self.jobs.get(job.lsn) is job:
            self._admit(job, now)

    # ---- time

    def opens(self, now: Moment) -> float | None:
        """Seconds until a record's time comes; None: no time is waited for."""
        return soonest((self._delayed, now.steady), (self._early, now.wall))

    def due(self, now: Moment) -> float | None:
        """Seconds until time alone changes something; None: never."""
        return soonest((self._deadlines, now.steady), (self._delayed, now.steady), (self._early, now.wall))


def soonest(*heaps: tuple[list[tuple[float, int]], float]) -> float | None:
    """Seconds until the first time of some heaps comes, each with the time now on its clock; None: they are empty."""
    times = [heap[0][0] - time for heap, time in heaps if heap]
    return max(min(times), 0.0) if times else None
