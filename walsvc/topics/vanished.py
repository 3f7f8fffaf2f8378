"""Records of a shared consumer that are done without an acknowledgement: purged, deleted, or not there any more."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Stretch(NamedTuple):
    """LSNs that are done without an acknowledgement, and how many records of the topic they are."""

    first: int
    last: int
    records: int


class Vanished:
    """The records that have vanished since the consumer was opened.

    Attributes:
        done: to be kept as done with the next acknowledgement.
        held: the same of what workers without a lease have: it is theirs until they come for what they have, or it is
            acknowledged. By LSN, with the worker.
    """

    def __init__(self) -> None:
        self.done: list[Stretch] = []
        self.held: dict[int, tuple[Stretch, str]] = {}

    def let_go(self, holder: Hashable) -> None:
        """A worker has come for what it has: what has vanished it cannot get."""
        for lsn, (stretch, worker) in list(self.held.items()):
            if worker == holder:
                del self.held[lsn]
                self.done.append(stretch)

    def cut(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        self.done = [each for each in self.done if each.last < end]
        self.held = {lsn: each for lsn, each in self.held.items() if lsn < end}

    def clear(self) -> None:
        """The consumer was moved: nothing of it counts any more."""
        self.done.clear()
        self.held.clear()
