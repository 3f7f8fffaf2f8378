"""What a producer has sent and not seen answered: sequence numbers, bytes, deadlines."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from walsvc.service.client.session import Session


class Account(ABC):
    """Keeps it. Requests have a `seq`, a `size`, a `deadline`, and are told by `expired` when they are late.

    Attributes:
        session: on whose connection.
        pending_bytes_max: so much may be unanswered.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pending_bytes_max = 0
        self._loop = session.loop
        self._seq = 0
        self._open: dict[int, Any] = {}  # by seq: requests that are not answered
        self._sent_bytes = 0  # of those, payloads with RECORD_COST
        self._requests_max = 0
        self._pulse: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _set_room(self) -> None:
        """There may be more room, or less."""

    @abstractmethod
    def _settled(self) -> None:
        """A request is answered."""

    @abstractmethod
    def _expire(self) -> None:
        """Tell those that are late."""

    def new_seq(self, request: Any) -> int:
        """The next sequence number of this producer, for a request with a `size`."""
        self._seq += 1
        self._open[self._seq] = request
        self._sent_bytes += request.size
        return self._seq

    def done(self) -> int:
        """Every request below this sequence number is answered."""
        return next(iter(self._open), self._seq + 1)

    def answered(self, request: Any) -> None:
        """A request is over."""
        if self._open.pop(request.seq, None) is not None:
            self._sent_bytes -= request.size
            self._set_room()
            self.pulse()
            self._settled()

    async def change(self) -> None:
        """For a batch: wait until there may be more room, or the connection has changed."""
        if self._pulse is None:
            self._pulse = self._loop.create_future()
        await asyncio.shield(self._pulse)

    def pulse(self) -> None:
        """End every `change`."""
        if self._pulse is not None:
            self._pulse.set_result(None)
            self._pulse = None

    def fits(self, size: int) -> bool:
        """Whether a part of a batch may be sent now."""
        if len(self._open) > self._requests_max:
            return False
        return not self._sent_bytes or self._sent_bytes + size <= self.pending_bytes_max

    def resize(self, request: Any, change: int) -> None:
        """A request has more or fewer bytes that are not answered."""
        request.size += change
        self._sent_bytes += change
        if change < 0:
            self._set_room()
            self.pulse()

    def deadline(self) -> float | None:
        """When a request of now is late; None: never."""
        timeout = self.session.config.timeout
        if timeout is None:
            return None
        at = self._loop.time() + timeout
        self._arm(at)
        return at

    def _arm(self, at: float | None) -> None:
        if at is not None and self._timer is None:
            self._timer = self._loop.call_at(at, self._expire)

    def stop(self) -> None:
        """Nobody is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
