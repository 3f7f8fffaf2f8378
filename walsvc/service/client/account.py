"""The requests of a producer that are not answered: sequence numbers, bytes, deadlines.

Two things are counted: what was accepted from the caller, which is bounded here, and how much of it was sent on this connection,
for which the server gives credit. They differ only while requests wait to be sent again.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from walsvc.log.commit.ack import Waker
from walsvc.service.client.limits import Limits
from walsvc.service.client.session import Session
from walsvc.service.wire.window import Window


class Account(ABC):
    """Keeps it. Requests have a `seq`, a `size`, a `deadline`, say in `counted` whether they were sent on this connection, and are
    told by `expired` when they are late.

    Attributes:
        session: on whose connection.
        limits: of that connection.
        waker: makes and answers Acks.
        relaxed_lsn: highest LSN of this client that was accepted, and not durable when that was said.
        accepted: payloads with APPEND_COST that were accepted and are not answered; its size is the most that may be.
        credit: of that, what was sent on this connection; its size is what the server lets be.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.limits: Limits = Limits(session)
        self.waker: Any = Waker(session.loop)
        self.relaxed_lsn: int = 0
        self.accepted: Window = Window()
        self.credit: Window = Window()
        self._loop = session.loop
        self._seq = 0
        self._open: dict[int, Any] = {}  # by seq: requests that are not answered
        self._used_requests = 0  # of that, by requests that were sent on this connection
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

    def take_limits(self) -> None:
        """There is another connection: keep to its limits."""
        self.limits.take()
        pending = self.session.limits["pending_bytes"]
        self.credit.size, self.accepted.size = pending, min(pending, self.session.config.max_pending_bytes)

    def new_seq(self, request: Any, numbers: int = 1) -> int:
        """The next sequence number of this producer, for a request with a `size`; the request may use so many from there on."""
        seq = self._seq + 1
        self._seq += numbers
        self._open[seq] = request
        self.accepted.take(request.size)
        return seq

    def done(self) -> int:
        """Every request below this sequence number is answered."""
        return next(iter(self._open), self._seq + 1)

    def answered(self, request: Any) -> None:
        """A request is over."""
        if self._open.pop(request.seq, None) is not None:
            self.accepted.give(request.size)
            self.uncount(request)
            self._set_room()
            self.pulse()
            self._settled()

    def count(self, request: Any) -> None:
        """A request is being sent on this connection."""
        if not request.counted:
            request.counted = True
            self.credit.take(request.size)
            self._used_requests += 1

    def uncount(self, request: Any) -> None:
        """A request is answered, or its connection is lost."""
        if request.counted:
            request.counted = False
            self.credit.give(request.size)
            self._used_requests -= 1

    def has_credit(self, request: Any) -> bool:
        """True if the server takes a request that was not sent on this connection yet."""
        return self._used_requests < self.limits.requests_max and self.credit.fits(request.size)

    async def change(self) -> None:
        """For a batch: wait until there may be more room, or the connection has changed."""
        if self._pulse is None:
            self._pulse = self._loop.create_future()
        await asyncio.shield(self._pulse)

    def pulse(self) -> None:
        """There may be more room: end every `change`, and let what waits for credit be sent."""
        if self._pulse is not None:
            self._pulse.set_result(None)
            self._pulse = None
        self.session.order.send_on()

    def accepts(self, size: int) -> bool:
        """True if there is room for a batch."""
        return len(self._open) <= self.limits.requests_max and self.accepted.fits(size)

    def fits(self, size: int) -> bool:
        """True if a part of a batch may be sent now."""
        if self._used_requests > self.limits.requests_max:
            return False
        credit = self.credit
        return not credit.used or credit.used + size <= min(credit.size, self.accepted.size)

    def waits_for(self, request: Any) -> bool:
        """True if nothing but this request has credit, so that only its being consumed gives more, and the server can be asked to."""
        alone = request.size and self.credit.used == request.size
        return bool(alone) and "empty_part" in self.session.info.get("features", ())

    def resize(self, request: Any, change: int) -> None:
        """A request has more or fewer bytes that are not answered."""
        request.size += change
        self.accepted.take(change)
        if request.counted:
            self.credit.take(change)
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
        """Stop waiting for every answer."""
        if self._timer is not None:
            self._timer.cancel()
