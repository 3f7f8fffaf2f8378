"""A delivery of a shared consumer behind a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from walsvc.model import Record
from walsvc.service.client.session import Session
from walsvc.topics.shared import Delivery


class Home(Protocol):
    """The consumer."""

    @property
    def id(self) -> int:
        """Of its stream."""

    def is_of(self, session: Session) -> bool:
        """True if it is a consumer of that log."""

    def check(self) -> None:
        """Raise whatever makes any call of it vain."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries of it."""

    async def call(self, method: str, **args: Any) -> Any:
        """Call a method of it at the server."""


class RemoteDelivery(Delivery):
    """A delivery of a log behind a server."""

    __slots__ = ("_deadline", "home", "token")

    def __init__(self, home: Home, record: Record, attempt: int, token: str, deadline: float | None) -> None:
        super().__init__(record, attempt)
        self.home: Home = home
        self.token: str = token
        self._deadline = deadline

    @property
    def deadline(self) -> float | None:
        """See Delivery."""
        return self._deadline

    def said(self) -> dict[str, Any]:
        """Which delivery, for the server."""
        return {"lsn": self.record.lsn, "attempt": self.attempt, "token": self.token}

    def row(self) -> list[Any]:
        """The same, as one of several."""
        return [self.record.lsn, self.attempt, self.token]

    async def _ack(self) -> None:
        await self.home.ack([self])

    async def _nak(self, delay: float) -> None:
        await self.home.call("shared.nak", **self.said(), delay=float(delay))

    async def _extend(self, seconds: float) -> None:
        left = await self.home.call("shared.extend", **self.said(), seconds=float(seconds))
        self._deadline = None if left is None else asyncio.get_running_loop().time() + left
