"""Records that workers of a shared consumer have already: those that they are to be given again, after a restart or where a worker
came back (Resumed), and those that are gone meanwhile (Vanished)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from walsvc.topics.leases import Job, Leases, State


class Resumed:
    """The records that each worker is to get again, in the order of the log. Loop thread only."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._lines: dict[Hashable, deque[Job]] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def line(self, holder: Hashable) -> deque[Job] | None:
        """The records of a holder, without those that it does not have any more."""
        line = self._lines.get(holder)
        while line and not (self._leases.jobs.get(line[0].lsn) is line[0] and line[0].held_by(holder)):
            line.popleft()
        return line

    def heads(self) -> list[Job]:
        """The first record of each worker."""
        return [line[0] for line in map(self.line, list(self._lines)) if line]

    def found(self, worker: str, job: Job) -> None:
        """Reading has found a record that a worker has; records are found in order."""
        self._lines.setdefault(worker, deque()).append(job)

    def again(self, holder: Hashable, job: Job) -> None:
        """A holder was not given what it has."""
        self._lines[holder] = in_order([*self._lines.get(holder, ()), job])

    def all_of(self, worker: str) -> None:
        """A worker has come back: it gets all that it has."""
        mine = [job for job in self._leases.jobs.values() if job.state is State.OUT and job.held_by(worker)]
        if mine:
            self._lines[worker] = in_order(mine)

    def disown(self, jobs: Iterable[Job]) -> None:
        """These records are other workers' now."""
        gone = {job.lsn for job in jobs}
        for worker, line in self._lines.items():
            self._lines[worker] = deque(job for job in line if job.lsn not in gone)

    def cut(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        for line in self._lines.values():
            while line and line[-1].lsn >= end:
                line.pop()

    def clear(self) -> None:
        """No worker has anything."""
        self._lines.clear()


def in_order(jobs: Iterable[Job]) -> deque[Job]:
    """Records in the order of the log."""
    return deque(sorted(jobs, key=lambda job: job.lsn))


class Stretch(NamedTuple):
    """LSNs that are done without an acknowledgement, and how many records of the topic they are."""

    first: int
    last: int
    records: int


class Vanished:
    """The records that have vanished since the consumer was opened.

    Attributes:
        done: to be kept as done with the next acknowledgement. By last LSN.
        held: the same of what workers without a lease have: it is theirs until they come for what they have, or it is
            acknowledged. By last LSN, with the worker.
    """

    def __init__(self) -> None:
        self.done: dict[int, Stretch] = {}
        self.held: dict[int, tuple[Stretch, str]] = {}

    def add(self, stretch: Stretch, worker: str | None) -> None:
        """A record has vanished, which a worker has, or None. One that its worker has let go may be found again until it is kept as
        done."""
        if worker is None:
            self.done[stretch.last] = stretch
        elif stretch.last not in self.done:
            self.held[stretch.last] = stretch, worker

    def let_go(self, holder: Hashable) -> None:
        """A worker has come for what it has: what has vanished it cannot get."""
        for lsn, (stretch, worker) in list(self.held.items()):
            if worker == holder:
                del self.held[lsn]
                self.done[lsn] = stretch

    def cut(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        self.done = {lsn: each for lsn, each in self.done.items() if lsn < end}
        self.held = {lsn: each for lsn, each in self.held.items() if lsn < end}

    def clear(self) -> None:
        """The consumer was moved: nothing of it counts any more."""
        self.done.clear()
        self.held.clear()
