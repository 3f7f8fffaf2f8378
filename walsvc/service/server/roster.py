"""Who is connected: how many may be, who makes room, and which connection is a producer's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from walsvc.errors import Backpressure, InUse, WalError
from walsvc.service.server.pressure import Pressure

if TYPE_CHECKING:
    from walsvc.service.server.connection import Connection


class Roster:
    """The connections of a server.

    Attributes:
        accepted: how many there ever were.
        closed: what who comes is told, once nobody is let in any more.
    """

    def __init__(self, connections_max: int, pressure: Pressure) -> None:
        self.accepted = 0
        self.closed: WalError | None = None
        self._connections_max = connections_max
        self._pressure = pressure
        self._connections: dict[Connection, None] = {}  # in the order in which they came
        self._lingering: set[Connection] = set()  # which have been told to go
        self._producers: dict[tuple[str, int], Connection] = {}
        self._sent_bytes = 0  # on those that are gone

    def __iter__(self) -> Iterator[Connection]:
        """Those that work, as they are now; they may go meanwhile."""
        return iter(tuple(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def sent_bytes(self) -> int:
        """On all connections ever."""
        return self._sent_bytes + sum(each.sent_bytes for each in (*self._connections, *self._lingering))

    def admit(self, connection: Connection) -> WalError | None:
        """A new connection; the error if there is no room for it. The oldest that has not said HELLO makes room, so that who
        only holds places does not keep out who has something to say."""
        self.accepted += 1
        self._connections[connection] = None
        if self.closed is not None:
            return self.closed
        if len(self._connections) <= self._connections_max:
            return None
        refusal = Backpressure(
            "too many connections",
            expected=f"at most {self._connections_max}",
            hint="try again later, or start the server with a higher limit",
        )
        silent = next((each for each in self._connections if each.grant is None), connection)
        if silent is connection:
            return refusal
        silent.leave(refusal, "connections")
        return None

    def linger(self, connection: Connection) -> bool:
        """A connection was told to go, and may take its time; False: so many do that it may not."""
        self._connections.pop(connection, None)
        self._pressure.forget(connection)
        if len(self._lingering) >= self._connections_max:
            self._sent_bytes += connection.sent_bytes
            return False
        self._lingering.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection in self._connections or connection in self._lingering:
            self._sent_bytes += connection.sent_bytes
        self._connections.pop(connection, None)
        self._lingering.discard(connection)
        self._pressure.forget(connection)

    def abort(self) -> None:
        """End all that are left, at once."""
        for connection in (*self._connections, *self._lingering):
            connection.abort()

    # ---- producers

    def take_over(self, connection: Connection, namespace: str) -> None:
        """A producer has connected: an older connection of it ends, so that what it repeats is never accepted twice. Raises
        InUse where that has another token."""
        if not connection.producer:
            return
        key = (namespace, connection.producer)
        older = self._producers.get(key)
        if older is not None:
            if older.grant is None or connection.grant is None or older.grant.name != connection.grant.name:
                raise InUse("this producer is connected with another token", hint="use another producer number")
            older.replace()
        self._producers[key] = connection
        connection.producer_key = key

    def release(self, connection: Connection) -> None:
        """A connection no longer speaks for its producer. Idempotent."""
        key = connection.producer_key
        if key is not None and self._producers.get(key) is connection:
            del self._producers[key]
