"""The cuts of a log's end, the topics that have gone and the records that were hidden, for readers that have begun before.

A reader goes nowhere beyond a cut that came after it: what stands there now is not what was there when it began. So `read`
ends there, and `follow` goes on anew from there. When a topic is deleted, a reader looks anew at what it has read ahead.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

FAR = 1 << 64  # behind every LSN


class Numbered(Protocol):
    """A record, or anything else with an LSN."""

    @property
    def lsn(self) -> int: ...


NumberedT = TypeVar("NumberedT", bound=Numbered)


class Hiding(NamedTuple):
    """The records that were hidden, for readers that were sent some of them ahead.

    Attributes:
        topic: whose records they are; None: records of any topic and of none, which `lsns` or `labels` name.
        before: LSN below which all records of the topic are hidden; 0 where `lsns` names them.
        lsns: of single records.
        labels: of the records below `before`; empty: all of them.
    """

    topic: str | None
    before: int
    lsns: Sequence[int] = ()
    labels: Mapping[str, Any] = MappingProxyType({})


class Cuts:
    """The cuts of a log since it was opened.

    Attributes:
        count: how many there were.
        listeners: what is called for each, once the log has its new end and before anything is written there.
        turns: changes with each cut, and when a topic is deleted or truncated.
        deletions: what is called with the name of each topic that is deleted, in the step in which its name is free.
        hidings: what is called with what was hidden, before the call that has hidden it returns.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.listeners: set[Callable[[], None]] = set()
        self.turns: int = 0
        self.deletions: set[Callable[[str], None]] = set()
        self.hidings: set[Callable[[Hiding], None]] = set()
        self._numbers: list[int] = []  # of the cuts that no later one went behind, ascending as their ends are
        self._ends: list[int] = []

    def note(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        self.count += 1
        self.turns += 1
        while self._ends and self._ends[-1] >= end:
            self._ends.pop()
            self._numbers.pop()
        self._numbers.append(self.count)
        self._ends.append(end)

    def tell(self) -> None:
        """The log has its new end."""
        for listener in list(self.listeners):
            listener()

    def turned(self) -> None:
        """Some of a topic is hidden below an LSN, for readers in this process."""
        self.turns += 1

    def hidden(self, hiding: Hiding) -> None:
        """Records are hidden, durably."""
        for listener in list(self.hidings):
            listener(hiding)

    def deleted(self, topic: str) -> None:
        """A topic is deleted."""
        self.turns += 1
        for listener in list(self.deletions):
            listener(topic)

    def since(self, count: int) -> int:
        """Below this LSN all is as it was when there had been `count` cuts; FAR: there was none since."""
        place = bisect_right(self._numbers, count)
        return self._ends[place] if place < len(self._ends) else FAR

    def standing(self, records: Sequence[NumberedT], again: Callable[[int], None]) -> Iterator[NumberedT]:
        """Records one by one, as long as they stand. Where some of them may be hidden by now they end, and `again` is called with the
        LSN from which on they are to be read once more."""
        begun, turns = self.count, self.turns
        for record in records:
            if self.turns != turns:
                if record.lsn < self.since(begun):
                    again(record.lsn)
                return
            yield record
