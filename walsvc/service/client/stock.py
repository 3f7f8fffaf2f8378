"""Stock: deliveries of a shared consumer that have come with the answers to acknowledgements, before a caller asks for them.

A worker acknowledges a record when it is about to ask for the next one: the server sends that along, so a job costs one round trip and not
two. Deliveries run against their deadlines here. What no caller has taken in time goes back as if it had not been out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from walsvc.service.client.delivery import RemoteDelivery

BYTES_MAX = 1 << 20  # of an answer; the server takes less
KEPT_SECONDS = 1.0  # or half of what is left of the lease, where that is less


class Returning(Protocol):
    """The consumer."""

    def return_unseen(self, deliveries: Sequence[RemoteDelivery]) -> None:
        """Return deliveries that no caller got."""


class Stock:
    """See the head of this file. Loop thread only.

    Attributes:
        most: deliveries that may be here, with those that are asked for; 0: none.
    """

    def __init__(self, home: Returning, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.most: int = most
        self._home = home
        self._loop = loop
        self._deliveries: deque[tuple[float, RemoteDelivery]] = deque()  # each with the time at which it goes back
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def asked(self) -> int:
        """How many are asked for, and not answered."""
        return self._asked

    # ---- asking

    def ask(self) -> int:
        """How many deliveries an acknowledgement is to bring; `answered` is told when it is over."""
        count = max(self.most - len(self._deliveries) - self._asked, 0)
        self._asked += count
        return count

    def answered(self, count: int) -> None:
        """An acknowledgement that was to bring so many has ended."""
        self._asked -= count

    # ---- deliveries

    def put(self, deliveries: Sequence[RemoteDelivery]) -> None:
        """Keep deliveries for whoever asks next."""
        now = self._loop.time()
        for each in deliveries:
            left = 2 * KEPT_SECONDS if each.deadline is None else each.deadline - now
            self._deliveries.append((now + min(KEPT_SECONDS, left / 2), each))
        if self._timer is None and self._deliveries:
            self._timer = self._loop.call_at(self._deliveries[0][0], self._look)

    def take(self) -> RemoteDelivery | None:
        """The next delivery, if there is one."""
        now = self._loop.time()
        while self._deliveries:
            if self._deliveries[0][0] <= now:
                self._return_late(now)
                continue
            return self._deliveries.popleft()[1]
        return None

    def take_several(self, max_bytes: int, max_records: int) -> list[RemoteDelivery]:
        """The next deliveries, as many as are there: no more than `max_records`, and together no more payload than `max_bytes`, unless the
        first alone is larger."""
        taken: list[RemoteDelivery] = []
        size = 0
        while len(taken) < max_records and (each := self.take()) is not None:
            size += len(each.record.payload)
            if size > max_bytes and taken:
                self.put([each])
                self._deliveries.rotate(1)
                break
            taken.append(each)
        return taken

    def _look(self) -> None:
        self._timer = None
        self._return_late(self._loop.time())
        if self._deliveries:
            self._timer = self._loop.call_at(self._deliveries[0][0], self._look)

    def _return_late(self, now: float) -> None:
        late = []
        while self._deliveries and self._deliveries[0][0] <= now:
            late.append(self._deliveries.popleft()[1])
        self._home.return_unseen(late)

    # ---- ends

    def give_back(self) -> None:
        """Nobody will ask: all of them go back."""
        deliveries = [each for _, each in self._deliveries]
        self.forget()
        self._home.return_unseen(deliveries)

    def forget(self) -> None:
        """The server has freed them."""
        self._deliveries.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
