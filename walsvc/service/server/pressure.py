"""How much all clients together may have unanswered: above it nothing more is read until some of it is.

Not reading delays clients and tells them nothing; TCP and Unix sockets do the rest. Two kinds of connection are read on, or
everybody would wait for everybody: one whose batch the log is writing, since the log waits for its next part; and, where the
log owes nobody an answer, one whose frame or batch is not complete, since nothing else could make what is held less.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from walsvc.service.server.connection import Connection

WHY = "pressure"


class Pressure:
    """What is unanswered, of all connections.

    Attributes:
        bytes: records that are not answered, each with RECORD_COST, and what has come of frames that are not complete.
        tight_since: since when connections are not read from, in the loop's time; None: all are.
        asked: requests that the log has, and will answer.
    """

    def __init__(self, limit: int) -> None:
        self.bytes: int = 0
        self.asked: int = 0
        self.tight_since: float | None = None
        self._limit = limit
        self._held: dict[Connection, None] = {}  # not read from, in the order in which they were stopped
        self._favoured: Connection | None = None

    @property
    def over(self) -> bool:
        """Whether so much is unanswered that nothing more should be read."""
        return self.bytes > self._limit

    @property
    def held(self) -> int:
        """How many connections are not read from."""
        return len(self._held)

    def charge(self, length: int) -> None:
        """More bytes, or less, are unanswered."""
        self.bytes += length
        if self._held and self.bytes <= self._limit // 2:
            held, self._held = self._held, {}
            self.tight_since = None
            for connection in held:
                connection.resume_reading(WHY)

    def answered(self) -> None:
        """The log has answered a request."""
        self.asked -= 1
        self._go_on()

    def check(self, connection: Connection, everybody: Iterable[Connection]) -> None:
        """Something came from a connection. Above the limit nobody is read from: each might have something ready."""
        if connection is self._favoured and not connection.incomplete:
            self._favoured = None
        if self.over:
            for each in (connection,) if self._held else tuple(everybody):
                if each not in self._held and not each.streaming and each is not self._favoured:
                    self._held[each] = None
                    if self.tight_since is None:
                        self.tight_since = each.loop.time()
                    each.pause_reading(WHY)
        self._go_on()

    def forget(self, connection: Connection) -> None:
        """A connection is gone, with what it had charged."""
        self._held.pop(connection, None)
        if connection is self._favoured:
            self._favoured = None
        self._go_on()

    def _go_on(self) -> None:
        """See the head of this file."""
        if not self._held or self.asked or self._favoured is not None:
            return
        self._favoured = next((each for each in self._held if each.incomplete), None)
        if self._favoured is not None:
            del self._held[self._favoured]
            self._favoured.resume_reading(WHY)
