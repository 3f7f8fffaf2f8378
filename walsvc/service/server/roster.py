"""The connections of a server: how many there may be, which one makes room, and which one is a producer's.

The limit is that of connections, or of file descriptors where these are fewer: the log needs some for its segments. A client
counts from its first moment, in a TLS handshake as well, until its descriptor is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from walsvc.errors import Backpressure, InUse, WalError
from walsvc.service.server.auth import Grant
from walsvc.service.server.entrance import Entrance

ENTERING_SPARE = 16  # handshakes beyond the limit: only who is through it can be told that the server is full

Key = tuple[str, int]  # namespace and producer


class Client(Protocol):
    """A connection, as the roster and the server know it.

    Attributes:
        name: for the server's log.
        leaving: it is over, but for its last words.
        sent_bytes: to it so far.
    """

    name: str
    leaving: bool
    sent_bytes: int

    @property
    def grant(self) -> Grant | None:
        """The rights of its token; None: it has not said HELLO."""

    @property
    def opened_at(self) -> float:
        """When it came, in the loop's time."""

    @property
    def streams(self) -> int:
        """How many it has open."""

    def leave(self, error: WalError, reason: str) -> None:
        """Say why it ends, and end it."""

    def replace(self) -> None:
        """End it: a newer one of its producer is here."""

    def abort(self) -> None:
        """End it at once."""

    def pause_reading(self, why: str) -> None:
        """Read nothing from there, for this reason."""

    def look(self, now: float) -> None:
        """End it where it is late, gone or stuck; else tell it what is new."""

    async def settled(self) -> None:
        """Wait until everything that came whole is answered."""


class Roster:
    """The connections of a server.

    Attributes:
        accepted: how many there ever were.
        failed_handshakes: how many were none of those, since no TLS came of it.
        closed: what who comes is told, once nobody is let in any more.
    """

    def __init__(self, connections_max: int, descriptors: Callable[[], int]) -> None:
        """descriptors: how many file descriptors clients may take at this moment."""
        self.accepted: int = 0
        self.failed_handshakes: int = 0
        self._descriptors = descriptors
        self._entering: dict[object, Entrance] = {}  # in a handshake, in the order in which they came
        self.closed: WalError | None = None
        self._connections_max = connections_max
        self._connections: dict[Client, None] = {}  # in the order in which they came
        self._lingering: set[Client] = set()  # which have been told to go
        self._producers: dict[Key, Client] = {}
        self._sent_bytes = 0  # on those that are gone

    def __iter__(self) -> Iterator[Client]:
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

    def admit(self, connection: Client) -> WalError | None:
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

    def _make_room(self, newest: Client | Entrance) -> bool:
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

    def linger(self, connection: Client) -> bool:
        """A connection was told to go, and may take its time; False: so many do that it may not."""
        self._connections.pop(connection, None)
        if len(self._lingering) >= self._connections_max or len(self) + len(self._lingering) >= self._descriptors():
            self._sent_bytes += connection.sent_bytes
            return False
        self._lingering.add(connection)
        return True

    def forget(self, connection: Client) -> None:
        """A connection is gone."""
        if connection in self._connections or connection in self._lingering:
            self._sent_bytes += connection.sent_bytes
        self._connections.pop(connection, None)
        self._lingering.discard(connection)

    def abort(self) -> None:
        """End all that are left, at once."""
        ending: list[Client | Entrance] = [*self._connections, *self._lingering, *self._entering.values()]
        for each in ending:
            each.abort()

    # ---- producers

    def take_over(self, connection: Client, grant: Grant, namespace: str, producer: int) -> Key:
        """A producer has connected: an older connection of it ends, so that what it repeats is never accepted twice. Returns what
        `release` needs. Raises InUse where the older one has another token."""
        key = (namespace, producer)
        older = self._producers.get(key)
        if older is not None:
            if older.grant is None or older.grant.name != grant.name:
                raise InUse("this producer is connected with another token", hint="use another producer number")
            older.replace()
        self._producers[key] = connection
        return key

    def release(self, connection: Client, key: Key) -> None:
        """A connection no longer speaks for its producer. Idempotent."""
        if self._producers.get(key) is connection:
            del self._producers[key]


def opened_at(client: Client | Entrance) -> float:
    """When a client came."""
    return client.opened_at
