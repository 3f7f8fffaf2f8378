"""What is unanswered of all clients, in bytes, and who is not read from for it.

A client is read again once all that it has said is answered, so nobody waits for anybody: whatever is held is under way, or is part
of a command that is not complete. For the latter see walsvc.service.redis.session.
"""

from __future__ import annotations

from typing import Protocol


class Pausable(Protocol):
    """A connection that can be read from, or not."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Held:
    """What is unanswered.

    Args:
        each: bytes of one client, above which it is not read from.
        total: of all together.

    Attributes:
        bytes: of all together.
    """

    def __init__(self, each: int, total: int) -> None:
        self.bytes: int = 0
        self._each = each
        self._total = total
        self._of: dict[Pausable, int] = {}
        self._paused: set[Pausable] = set()

    @property
    def over(self) -> bool:
        """Whether all together have as much as they may."""
        return self.bytes > self._total

    def charge(self, client: Pausable, length: int) -> None:
        """So much more has come from a client."""
        self.bytes += length
        own = self._of[client] = self._of.get(client, 0) + length
        if (own > self._each or self.over) and client not in self._paused:
            self._paused.add(client)
            client.pause_reading()

    def settle(self, client: Pausable, rest: int) -> None:
        """Everything is answered that a client has said, but for `rest` bytes of a command that is not complete."""
        self.bytes += rest - self._of.get(client, 0)
        self._of[client] = rest
        if client in self._paused:
            self._paused.discard(client)
            client.resume_reading()

    def forget(self, client: Pausable) -> None:
        """A client is gone."""
        self.bytes -= self._of.pop(client, 0)
        self._paused.discard(client)
