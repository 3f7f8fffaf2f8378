"""The log as a plain list: what a crash at any moment may leave of it, and the check of what was found.

The model is told of each call before the log is, and looks at next_lsn and durable_lsn afterwards. It follows the order
of acceptance exactly: an append that waits for room is accepted later, in the order of the calls, unless it was cancelled
or refused while it waited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Entry(NamedTuple):
    """A record as it was appended."""

    payload: bytes
    type: int = 0
    attributes: tuple[tuple[str, Any], ...] = ()


class Live(Protocol):
    """The part of a log that the model looks at."""

    @property
    def first_lsn(self) -> int: ...
    @property
    def next_lsn(self) -> int: ...
    @property
    def durable_lsn(self) -> int: ...


class Violation(AssertionError):
    """The contract was broken."""


@dataclass(slots=True)
class Observed:
    """What opening and reading gave."""

    first: int
    next: int
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a crash at one moment may leave.

    Attributes:
        entries: all that were accepted by then, from LSN 1; the list may have grown since, `count` is its length then.
        durable: every LSN up to it was reported as durable.
        firsts: values of first_lsn that are possible: the acknowledged one, and those that were being made.
        cut: the LSN of a truncate_after under way, which may have taken effect.
        batches: first and last LSN of each atomic batch.
        exists: whether opening had returned; before, there may be no log at all.
    """

    entries: list[Entry]
    count: int
    durable: int
    firsts: frozenset[int]
    cut: int | None
    batches: tuple[tuple[int, int], ...]
    exists: bool

    def check(self, seen: Observed) -> None:
        """Raise Violation unless `seen` is one of the possible outcomes."""
        self.check_range(seen.first, seen.next)
        expected = self.entries[seen.first - 1 : seen.next - 1]
        if seen.entries == expected:
            return
        require(len(seen.entries) == len(expected), f"{len(seen.entries)} records read, {len(expected)} expected")
        for lsn, (found, wanted) in enumerate(zip(seen.entries, expected, strict=True), start=seen.first):
            require(found == wanted, f"LSN {lsn} is {brief(found)}, expected {brief(wanted)}")

    def check_range(self, first: int, after: int) -> None:
        """Raise Violation unless a log from LSN `first` up to, excluding, `after` is possible."""
        last = after - 1
        require(first in self.firsts, f"first_lsn is {first}, possible are {sorted(self.firsts)}")
        require(first <= after, f"first_lsn {first} is above next_lsn {after}")
        if last != self.cut:
            require(last >= self.durable, f"lost: LSN {last + 1} to {self.durable} had been reported as durable")
            require(last <= self.count, f"phantoms: LSN {self.count + 1} to {last} were never accepted")
            for start, end in self.batches:
                require(not start <= last < end, f"half a batch: LSN {start} to {end}, the log ends at {last}")

    def after(self, seen: Observed) -> Bounds:
        """The bounds once `seen` has been reported: all of it is durable then."""
        count = seen.next - 1
        batches = tuple((start, min(end, count)) for start, end in self.batches if start <= count)
        return Bounds(self.entries[:count], count, count, frozenset((seen.first,)), None, batches, True)


@dataclass(slots=True)
class Call:
    """An append that waits for room."""

    entries: Sequence[Entry]
    batch: bool
    behind_cut: bool = False  # truncate_after had been called before


@dataclass(slots=True)
class Model:
    """What a log must hold, as a plain list. `log` is the log under test, None while it is not open."""

    entries: list[Entry] = field(default_factory=list)
    durable: int = 0
    firsts: set[int] = field(default_factory=lambda: {1})
    cut: int | None = None
    batches: list[tuple[int, int]] = field(default_factory=list)
    exists: bool = False
    log: Live | None = None
    waiting: deque[Call] = field(default_factory=deque)
    _abandoned: bool = False

    @classmethod
    def of(cls, bounds: Bounds) -> Model:
        """The model of a log after a crash, to be opened: what it holds is known when opening has returned."""
        entries = bounds.entries[: bounds.count]
        return cls(entries, bounds.durable, set(bounds.firsts), bounds.cut, list(bounds.batches), bounds.exists)

    @property
    def next_lsn(self) -> int:
        """LSN of the next record to be accepted."""
        return len(self.entries) + 1

    def opened(self, log: Live) -> None:
        """The log is open; all that it shows is durable, and what it does not show is gone for ever."""
        self.freeze().check_range(log.first_lsn, log.next_lsn)
        count = log.next_lsn - 1
        self.log = log
        self.exists = True
        self.firsts = {log.first_lsn}
        self.cut, self._abandoned = None, False
        self.durable = count
        self.entries = self.entries[:count]
        self.batches = [(start, min(end, count)) for start, end in self.batches if start <= count]

    def closed(self) -> None:
        """The log was closed in order; all that was accepted is durable."""
        self.settle()
        self.log = None
        self.waiting.clear()
        self.durable = self.next_lsn - 1

    def failed(self) -> None:
        """The log ended with DurabilityLost: what waited for room was refused."""
        self.settle()
        self.log = None
        self.waiting.clear()

    def called(self, entries: Sequence[Entry], *, batch: bool = False) -> Call:
        """An append was called a moment ago."""
        call = Call(entries, batch, self.cut is not None)
        self.waiting.append(call)
        self.settle()
        return call

    def withdrawn(self, call: Call) -> None:
        """An append was cancelled or refused a moment ago: if it had not been accepted, it never will be."""
        self.settle()
        if any(call is each for each in self.waiting):
            self.waiting = deque(each for each in self.waiting if each is not call)

    def settle(self) -> None:
        """Learn from the log what was accepted, became durable or was cut since."""
        if self.log is None or (self.log.next_lsn == self.next_lsn and self.log.durable_lsn == self.durable):
            return
        if self.cut is not None and self.log.durable_lsn < self.durable:
            self.cut_done()
        while self.log.next_lsn > self.next_lsn:
            require(bool(self.waiting), f"next_lsn is {self.log.next_lsn}, but nothing was appended")
            call = self.waiting.popleft()
            start = self.next_lsn
            if self._abandoned and call.behind_cut:
                self.cut, self._abandoned = None, False  # appends go on behind the old end, so it is not to move
            self.entries.extend(call.entries)
            if call.batch and len(call.entries) > 1:
                self.batches.append((start, self.next_lsn - 1))
        require(self.log.next_lsn == self.next_lsn, f"next_lsn is {self.log.next_lsn}, expected {self.next_lsn}")
        self.durable = max(self.durable, self.log.durable_lsn)
        require(self.durable <= len(self.entries), "durable_lsn is above what was accepted")

    def acknowledged(self, lsn: int, entry: Entry, *, durable: bool) -> None:
        """An append was answered."""
        self.settle()
        require(lsn < self.next_lsn, f"acknowledged with LSN {lsn}, which was not given out")
        require(self.entries[lsn - 1] == entry, f"acknowledged as LSN {lsn}, which is another record")
        require(not durable or lsn <= self.durable, f"LSN {lsn} was acknowledged before durable_lsn reached it")

    def cutting(self, lsn: int) -> None:
        """truncate_after is being called."""
        self.settle()
        self.cut, self._abandoned = lsn, False

    def cut_abandoned(self) -> None:
        """The call of truncate_after was cancelled: it may take effect, but not after another append was accepted."""
        self.settle()
        self._abandoned = self.cut is not None

    def cut_done(self) -> None:
        """truncate_after has taken effect."""
        assert self.cut is not None
        self.entries = self.entries[: self.cut]  # a new list: bounds taken before keep the old one
        self.batches = [(start, min(end, self.cut)) for start, end in self.batches if start <= self.cut]
        self.durable, self.cut, self._abandoned = self.cut, None, False

    def freeze(self) -> Bounds:
        """What a crash at this moment may leave."""
        self.settle()
        return Bounds(
            self.entries,
            len(self.entries),
            self.durable,
            frozenset(self.firsts),
            self.cut,
            tuple(self.batches),
            self.exists,
        )


def require(condition: bool, message: str) -> None:
    """Raise Violation with `message` unless the condition holds; also under python -O."""
    if not condition:
        raise Violation(message)


def brief(entry: Entry) -> str:
    """An entry in a few words."""
    return f"{len(entry.payload)} bytes {entry.payload[:12]!r} type {entry.type}"
