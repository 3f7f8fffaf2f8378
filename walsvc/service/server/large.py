"""Large batches of all clients: those of more than a group. While one is written everybody else's appends wait, so the log gets it when
all of it is here, and no more than two at a time: appends of others come between them, and no client holds up the log by its own pace.

What has come of them takes memory. So they have places, and whose batch has none is not heard until one is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from walsvc.service.server.progress import TIGHT_BYTES_PER_SECOND, TIGHT_SECONDS

WRITTEN_MAX = 2  # that a log has: one of them waits for the device, and the other one is placed meanwhile


class Sender(Protocol):
    """The connection that sends one."""

    def hold_back(self) -> None:
        """Hear nothing more of it."""

    def let_on(self) -> None:
        """Hear it again."""


class Due(NamedTuple):
    """A batch that waits for its turn."""

    log: object
    sender: Sender
    give: Callable[[], None]


class Large:
    """See the head of this file.

    Args:
        places: how many may come at the same time.
        bytes_max: of each, before the log gets it. It bounds how long a place is kept while others wait for one.

    Attributes:
        bytes_max: see there.
        crowded_since: since when some wait for a place, in the loop's time; None: none do.
    """

    def __init__(self, places: int, bytes_max: int) -> None:
        self.bytes_max: int = bytes_max
        self.crowded_since: float | None = None
        self._most = places
        self._places: dict[object, float] = {}  # since when
        self._waiting: dict[object, Sender] = {}  # for a place
        self._written: dict[object, object] = {}  # and its log
        self._due: dict[object, Due] = {}  # all is here, or all that can come

    @property
    def written(self) -> int:
        """How many the log has."""
        return len(self._written)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def gather(self, batch: object, sender: Sender) -> None:
        """More than a group of it has come, and more will. Its sender is held back where there is no place for it."""
        if batch in self._places or batch in self._waiting:
            return
        if len(self._places) < self._most:
            self._places[batch] = asyncio.get_running_loop().time()
            return
        self._waiting[batch] = sender
        if self.crowded_since is None:
            self.crowded_since = asyncio.get_running_loop().time()
        sender.hold_back()

    def give(self, batch: object, log: object, sender: Sender, give: Callable[[], None]) -> None:
        """Let its log have it by `give`, now or when it is its turn; what its sender says behind it waits for that, or it would come
        first."""
        if self._has_room(log):
            self._written[batch] = log
            give()
        else:
            self._due[batch] = Due(log, sender, give)
            sender.hold_back()

    def _has_room(self, log: object) -> bool:
        return sum(each is log for each in self._written.values()) < WRITTEN_MAX

    def leave(self, batch: object) -> None:
        """The log has answered, or it is given up. Idempotent."""
        if (waiting := self._waiting.pop(batch, None)) is not None:
            waiting.let_on()
        if (due := self._due.pop(batch, None)) is not None:
            due.sender.let_on()
        self._places.pop(batch, None)
        self._written.pop(batch, None)
        while self._waiting and len(self._places) < self._most:
            following = next(iter(self._waiting))
            self._places[following] = asyncio.get_running_loop().time()
            self._waiting.pop(following).let_on()
        if not self._waiting:
            self.crowded_since = None
        while (ready := next((each for each in self._due if self._has_room(self._due[each].log)), None)) is not None:
            log, sender, give = self._due.pop(ready)
            self._written[ready] = log
            sender.let_on()
            give()

    def late(self, batch: object, now: float) -> bool:
        """True if a batch keeps its place for too long while others wait for one."""
        if self.crowded_since is None or batch not in self._places or batch in self._written or batch in self._due:
            return False
        seconds = now - max(self._places[batch], self.crowded_since) - TIGHT_SECONDS
        return seconds > self.bytes_max / TIGHT_BYTES_PER_SECOND
