"""The changes of a shared consumer that join a group: acknowledgements, moves, holders of records; and the latest acknowledgements."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from walsvc.format.queues import KEY, Held, done_row, held_row, moved_row
from walsvc.topics.leases import Job, Lease
from walsvc.topics.names import Start, check_start, parse_key

if TYPE_CHECKING:
    from walsvc.topics.hub import Hub
    from walsvc.topics.resumed import Stretch

PAST_MAX = 20_000  # acknowledgements that a client may have to repeat: more are not out at a time


class Acking:
    """Acknowledgements that join a group, alone or with other things that are to be durable with them."""

    def __init__(self, hub: Hub, leases: Sequence[Lease], vanished: Sequence[int] = ()) -> None:
        self._hub = hub
        self._leases = list(dict.fromkeys(leases))  # a record counts once
        self._vanished = vanished  # LSNs of what is not there any more
        self._gone: list[Stretch] = []

    def change(self) -> dict[str, Any]:
        """Say which records are done by it. Raises LeaseLost where one of them was given to somebody else."""
        for lease in self._leases:
            if not lease.done and not self._hub.leases.owns(lease):
                raise self._hub.lost(lease)
        rows = done_rows([each.job for each in self._leases if not each.done])
        self._gone = list(self._hub.feed.vanished.done.values())
        held = self._hub.feed.vanished.held
        rows += [done_row(*each) for each in (*self._gone, *(held[lsn][0] for lsn in self._vanished if lsn in held))]
        return {KEY: {self._hub.key: {"rows": b"".join(rows)}}}

    def accepted(self) -> None:
        """The records are done."""
        now = self._hub.feed.now()
        for lease in self._leases:
            lease.done = True
            self._hub.feed.finished(lease.job, now)
            self._hub.past.note(lease)
        for lsn in self._vanished:
            self._hub.feed.vanished.held.pop(lsn, None)
        for each in self._gone:
            self._hub.feed.vanished.done.pop(each.last, None)
        self._hub.changed()


def done_rows(jobs: Sequence[Job]) -> list[bytes]:
    """Rows that say that records are done: one for those that follow each other in the topic."""
    rows = []
    first, last, records = 0, 0, 0
    for job in jobs:
        if records and job.first == last + 1:
            last, records = job.lsn, records + 1
            continue
        if records:
            rows.append(done_row(first, last, records))
        first, last, records = job.first, job.lsn, 1
    if records:
        rows.append(done_row(first, last, records))
    return rows


class Keeping:
    """Which workers have records that were taken, as it joins a group.

    Attributes:
        kept: it is in a group: the log says so from here on, whatever becomes of the caller.
    """

    def __init__(self, hub: Hub, leases: Sequence[Lease]) -> None:
        self.kept: bool = False
        self._hub = hub
        self._leases = leases

    def change(self) -> dict[str, Any]:
        """The holder of each record that is still out."""
        out = [each for each in self._leases if self._hub.leases.is_out(each)]
        return held_change(self._hub, out, [Held(each.attempt, str(each.holder), now_ms(self._hub)) for each in out])

    def accepted(self) -> None:
        """It is in a group."""
        self.kept = True


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Terms:
    """The conditions on which records are taken over.

    Attributes:
        count: it is a delivery, which counts as an attempt.
        attempts: so many were made by now, whatever was counted; None: those that were counted.
        since_ms: Unix time of the delivery, in milliseconds; None: now.
        force: also records that nobody has had.
    """

    count: bool = True
    attempts: int | None = None
    since_ms: int | None = None
    force: bool = False


AS_USUAL = Terms()


class Claiming:
    """A worker takes records over that are out; joins a group. Nothing changes hands before it is accepted.

    Attributes:
        given: its deliveries then.
    """

    def __init__(self, hub: Hub, worker: str, leases: Sequence[Lease], terms: Terms) -> None:
        self.given: list[Lease] = []
        self._hub = hub
        self._worker = worker
        self._leases = leases
        self._terms = terms
        self._out: list[Lease] = []

    def change(self) -> dict[str, Any]:
        """The worker has each record that is still out."""
        self._out = [each for each in self._leases if self._hub.leases.is_out(each)]
        since_ms = now_ms(self._hub) if self._terms.since_ms is None else self._terms.since_ms
        held = [Held(self._attempts(each), self._worker, since_ms) for each in self._out]
        return held_change(self._hub, self._out, held)

    def accepted(self) -> None:
        """The records are the worker's."""
        for each in self._out:
            attempts = self._attempts(each)
            given = self._hub.leases.pass_on(each.job, self._worker, count=self._terms.count)
            given.attempt = given.job.attempts = attempts
            self.given.append(given)
        self._hub.feed.resumed.disown(each.job for each in self.given)

    def _attempts(self, lease: Lease) -> int:
        return lease.attempt + self._terms.count if self._terms.attempts is None else self._terms.attempts


def held_change(hub: Hub, leases: Sequence[Lease], held: Sequence[Held]) -> dict[str, Any]:
    """The change of metadata that says who has the records of `leases`."""
    rows = [held_row(each.job.lsn, row) for each, row in zip(leases, held, strict=True)]
    return {KEY: {hub.key: {"rows": b"".join(rows)}}}


def now_ms(hub: Hub) -> int:
    """Unix time in milliseconds."""
    return int(hub.feed.now().wall * 1000)


class Moving:
    """A move of the consumer that joins a group."""

    def __init__(self, hub: Hub, to: Start) -> None:
        self._hub = hub
        self._to = to
        self._lsn = 0

    def change(self) -> dict[str, Any]:
        """The position that the consumer gets. Raises BadOption."""
        self._lsn = check_start(self._hub.writer, self._to, parse_key(self._hub.key)[0])
        return {KEY: {self._hub.key: {"rows": moved_row(self._lsn)}}}

    def accepted(self) -> None:
        """Take note that the consumer is moved."""
        self._hub.feed.restart(self._lsn)
        self._hub.past.clear()
        self._hub.changed()


class Past:
    """Which deliveries were acknowledged lately, so that one that is acknowledged again, since its answer was lost, is answered.

    Attributes:
        token: tells the deliveries of this hub from those of earlier ones of the same consumer.
    """

    def __init__(self) -> None:
        self.token: str = os.urandom(8).hex()
        self._attempts: OrderedDict[int, int] = OrderedDict()

    def note(self, lease: Lease) -> None:
        """Remember that the record was acknowledged by this delivery."""
        self._attempts[lease.job.lsn] = lease.attempt
        if len(self._attempts) > PAST_MAX:
            self._attempts.popitem(last=False)

    def clear(self) -> None:
        """Forget all: the consumer was moved, and the same attempt of the same record may be another delivery."""
        self._attempts.clear()

    def has(self, lsn: int, attempt: int, token: str) -> bool:
        """True if a record that is done may have been acknowledged by that delivery."""
        return token != self.token or self._attempts.get(lsn) == attempt
