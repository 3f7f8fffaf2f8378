"""The appends that wait for room to be sent, in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from walsvc.errors import WalError, copy_of
from walsvc.service.client.labels import Unsent


class Queue:
    """Appends that wait, and batches that wait for their turn.

    Attributes:
        entries: them. One whose future is done stays until it is at the head.
        holds: batches that are being streamed: nothing leaves the queue meanwhile.
    """

    def __init__(self) -> None:
        self.entries: deque[Unsent] = deque()
        self.holds = 0

    @property
    def busy(self) -> bool:
        """True if what is appended has to wait behind others."""
        return bool(self.entries) or self.holds > 0

    @property
    def last(self) -> asyncio.Future[Any] | None:
        """The future of the last entry."""
        return self.entries[-1].future if self.entries else None

    def deadlines(self) -> list[float]:
        """Those of the entries that have one."""
        return [each.deadline for each in self.entries if each.deadline is not None]

    def expire(self, now: float, error: WalError) -> None:
        """Tell those that are late; they leave at the head, as those that were cancelled."""
        for entry in self.entries:
            if entry.deadline is not None and entry.deadline <= now and not entry.future.done():
                entry.future.set_exception(copy_of(error))

    def end(self, error: WalError) -> None:
        """Tell everybody, and forget them."""
        while self.entries:
            future = self.entries.popleft().future
            if not future.done():
                future.set_exception(copy_of(error))
