"""The status of a server: its own state as a value, and the copies of its logs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from walsvc.api import Log
from walsvc.errors import WalError


class Copy(NamedTuple):
    """The progress of a copy of a log elsewhere: its archive or its replica.

    Attributes:
        lsn: every record up to it is there.
        records, bytes: durable here and not there yet.
        state: in a word or two, such as "current", "catching up", "down: connection refused".
    """

    lsn: int
    records: int
    bytes: int
    state: str


PARTS = ("log", "retention", "archive", "replication", "listener", "http", "watch")


class Trouble(NamedTuple):
    """A part of the server that has failed or ended, though nobody has told it to.

    Attributes:
        part: one of PARTS.
        namespace: of the log that it belongs to; "" for the log of the directory itself, and for what belongs to no log.
        words: what has failed, such as "the log has failed".
        error: why.
    """

    part: str
    namespace: str
    words: str
    error: WalError

    @property
    def text(self) -> str:
        """In one line, without place and hint."""
        return f"{self.words}: {self.error.message}"


NONE: Mapping[str, int] = {}
NO_COPIES: Mapping[str, Mapping[str, Copy]] = {}


class ServerStatus(NamedTuple):
    """A server's own state. Counters count from its start.

    Attributes:
        ready: it takes new work; False while starting or stopping, and while there are troubles.
        started_ns: Unix time in nanoseconds.
        reason: why it is not ready, in words.
        live: False only where a restart would help.
        listeners: addresses, as a client writes them.
        connections, connections_max: open now, and how many may be.
        accepted: connections ever.
        rejected: connections turned away, by reason in a word.
        streams: open read, follow and consumer streams.
        pending_bytes: payload bytes received and not answered.
        received_bytes, sent_bytes: on all connections.
        requests: by kind.
        errors: errors answered, by class.
        copies: by namespace, then "archive" or "replication".
        troubles: the parts that have failed or ended.
    """

    ready: bool
    started_ns: int
    reason: str = ""
    live: bool = True
    listeners: tuple[str, ...] = ()
    connections: int = 0
    connections_max: int = 0
    accepted: int = 0
    rejected: Mapping[str, int] = NONE
    streams: int = 0
    pending_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    requests: Mapping[str, int] = NONE
    errors: Mapping[str, int] = NONE
    copies: Mapping[str, Mapping[str, Copy]] = NO_COPIES
    troubles: tuple[Trouble, ...] = ()


class StatusSource(Protocol):
    """The questions of the HTTP side to a server, on its loop; neither call waits or fails."""

    @property
    def logs(self) -> Mapping[str, Log]:
        """The open logs by namespace; "" is the root's own."""

    def status(self) -> ServerStatus:
        """The server's own state."""
