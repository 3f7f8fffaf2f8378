"""Who is connected: how many may be, who makes room, and which connection is a producer's.

The limit is that of connections, or of file descriptors where these are fewer: the log needs some for its segments. A client
counts from its first moment, in a TLS handshake as well, until its descriptor is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from walsvc.errors import Backpressure, InUse, WalError
from walsvc.service.server.entrance import Entrance
from walsvc.service.server.pressure import Pressure

ENTERING_SPARE = 16  # handshakes beyond the limit: only who is through it can be told that the server is full

if TYPE_CHECKING:
    from walsvc.service.server.connection import Connection


class Roster:
    """The connections of a server.

    Attributes:
        accepted: how many there ever were.
        failed_handshakes: how many were none of those, since no TLS came of it.
        closed: what who comes is told, once nobody is let in any more.
    """

    def __init__(self, connections_max: int, pressure: Pressure, descriptors: Callable[[], int]) -> None:
        """descriptors: how many file descriptors clients may take at this moment."""
        self.accepted: int = 0
        self.failed_handshakes: int = 0
        self._descriptors = descriptors
        self._entering: dict[asyncio.BaseProtocol, Entrance] = {}  # in a handshake, in the order in which they came
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
        return len(self._connections) + len(self._entering)

    @property
    def most(self) -> int:
        """How many there may be at this moment."""
        return max(min(self._connections_max, self._descriptors() - len(self._lingering)), 1)

    @property
    def sent_bytes(self) -> int:
        """On all connections ever."""
        return self._sent_bytes + sum(each.sent_bytes for each in (*self._connections, *self._lingering))

    def admit(self, connection: Connection) -> WalError | None:
        """A new connection; the error if there is no room for it. The oldest that has not said HELLO makes room, so that who
        only holds places does not keep out who has something to say."""
        self.accepted += 1
        self._entering.pop(connection, None)
        self._connections[connection] = None
        if self.closed is not None:
            return self.closed
        if len(self) <= self.most or self._make_room(connection):
            return None
        return self._full()

    def _full(self) -> Backpressure:
        fewer = self.most < self._connections_max
        return Backpressure(
            "too many connections",
            expected=f"at most {self.most}" + (" with its limit of file descriptors" if fewer else ""),
            hint="try again later, or start the server with a higher limit" + (" (ulimit -n)" if fewer else ""),
        )

    def _make_room(self, newest: Connection | Entrance) -> bool:
        """End the oldest client that has not said HELLO; False where that is the newest one itself."""
        silent = [
            next(iter(self._entering.values()), None),
            next((each for each in self._connections if each.grant is None), None),
        ]
        oldest = min((each for each in silent if each not in (None, newest)), key=opened_at, default=None)
        if oldest is None:
            return False
        if isinstance(oldest, Entrance):
            del self._entering[oldest.protocol]
            oldest.abort()
        else:
            oldest.leave(self._full(), "connections")
        return True

    # ---- handshakes, see walsvc.service.server.entrance

    def enter(self, entrance: Entrance) -> bool:
        """A TLS handshake begins; False: it may not."""
        if self.closed is not None:
            return False
        self._entering[entrance.protocol] = entrance
        full = len(self._connections) >= self.most
        if len(self) <= self.most or (full and len(self._entering) <= ENTERING_SPARE) or self._make_room(entrance):
            return True
        del self._entering[entrance.protocol]
        return False

    def entered(self, entrance: Entrance, *, secure: bool) -> None:
        """A handshake has ended, well if `secure`: then the connection has been admitted."""
        self._entering.pop(entrance.protocol, None)
        self.failed_handshakes += not secure

    # ---- the end

    def linger(self, connection: Connection) -> bool:
        """A connection was told to go, and may take its time; False: so many do that it may not."""
        self._connections.pop(connection, None)
        self._pressure.forget(connection)
        if len(self._lingering) >= self._connections_max or len(self) + len(self._lingering) >= self._descriptors():
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
        ending: list[Connection | Entrance] = [*self._connections, *self._lingering, *self._entering.values()]
        for each in ending:
            each.abort()

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


def opened_at(client: Connection | Entrance) -> float:
    """When a client came."""
    return client.opened_at
