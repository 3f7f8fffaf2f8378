"""Every byte that the server holds for its clients, in and out, and each client's share of them.

What comes in: above the limit nothing more is read until less is held. Not reading delays clients and tells them nothing; TCP and Unix sockets
do the rest. Two kinds of connection are read on, or everybody would wait for everybody: one whose batch the log is writing, since
the log waits for its next part; and, where the log owes nobody an answer, one whose frame or batch is not complete, since nothing
else could make what is held less. What goes out is in outgoing.py.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from walsvc.service.server.outgoing import Outgoing, Turn
from walsvc.service.server.turns import Pace

WHY = "budget"


class Pausable(Protocol):
    """A connection as the budget sees it."""

    @property
    def incomplete(self) -> bool:
        """It has sent a part of something that cannot be done before the rest is there."""

    @property
    def streaming(self) -> bool:
        """The log waits for more of a batch from there."""

    def pause_reading(self, why: str) -> None:
        """Read nothing from there, for this reason."""

    def resume_reading(self, *why: str) -> None:
        """These reasons are gone."""


class Share:
    """The bytes that are held for one connection.

    Attributes:
        arrived: what has come of a frame that is not complete.
        held: records that are not answered, each with RECORD_COST.
        unsent: what waits to be sent.
        ahead: what was read for its streams and is not on its way.
        pace: how much was done for it of late; None: nobody counts that.
    """

    __slots__ = ("_budget", "_lent", "ahead", "arrived", "held", "pace", "unsent")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.arrived: int = 0
        self.held: int = 0
        self.unsent: int = 0
        self.ahead: int = 0
        self.pace: Pace | None = None
        self._lent = False  # the outgoing bytes are of the room that is kept above the limit

    def arrive(self, length: int) -> None:
        """So much is there of a frame that is not complete: nothing is held for what is only announced."""
        change, self.arrived = length - self.arrived, length
        self._budget.charge(change)

    def hold(self, cost: int) -> None:
        """So much more is not answered; below 0: so much less."""
        self.held += cost
        self._budget.charge(cost)

    def send(self, length: int) -> None:
        """So much waits to be sent."""
        if length != self.unsent:
            self._charge_outgoing(length - self.unsent, 0)

    def read(self, cost: int) -> None:
        """So much more was read for a stream; below 0: so much less."""
        self._charge_outgoing(0, cost)

    def _charge_outgoing(self, unsent: int, ahead: int) -> None:
        outgoing = self._budget.outgoing
        if self._poor:
            self._lent = outgoing.full
        self.unsent += unsent
        self.ahead += ahead
        outgoing.charge(unsent + ahead, lent=self._lent)

    @property
    def full(self) -> bool:
        """True if nothing more should be read for this connection."""
        return self.outgoing.closed_to(poor=self._poor)

    @property
    def _poor(self) -> bool:
        """It has taken all that it was sent."""
        return not (self.unsent or self.ahead)

    async def room(self) -> None:
        """Wait until more may be read for this connection."""
        await self.outgoing.room(poor=self._poor)

    def turn(self) -> Turn:
        """A turn at reading, as an asynchronous context manager."""
        return self.outgoing.turn(poor=self._poor, heavy=self.pace is not None and not self.pace.light)

    @property
    def outgoing(self) -> Outgoing:
        """The bytes that go out to all connections."""
        return self._budget.outgoing

    def check(self) -> None:
        """Take note of bytes that came: above the limit nothing more is read."""
        self._budget.check(self)

    def leave(self) -> None:
        """The connection is over. What the log has not answered is given back when it is. Idempotent."""
        self.arrive(0)
        self.send(0)
        self._budget.forget(self)


class Budget:
    """The bytes that are held of all connections.

    Attributes:
        limit: above it nothing more is read.
        bytes: what has arrived of frames that are not complete, and records that are not answered, each with RECORD_COST.
        asked: requests that the log has, and will answer.
        tight_since: since when connections are not read from, in the loop's time; None: all are.
        outgoing: what waits to be sent.
    """

    def __init__(self, limit: int) -> None:
        self.outgoing: Outgoing = Outgoing(limit)
        self.bytes: int = 0
        self.asked: int = 0
        self.tight_since: float | None = None
        self.limit: int = limit
        self._shares: dict[Share, Pausable] = {}  # of connections that work
        self._held: dict[Share, Pausable] = {}  # not read from, in the order in which they were stopped
        self._favoured: Share | None = None

    def share(self, holder: Pausable) -> Share:
        """The share of a new connection."""
        share = Share(self)
        self._shares[share] = holder
        return share

    @property
    def over(self) -> bool:
        """True if so much is held that nothing more should be read."""
        return self.bytes > self.limit

    @property
    def held(self) -> int:
        """How many connections are not read from."""
        return len(self._held)

    def charge(self, cost: int) -> None:
        """So much more is held, or less."""
        self.bytes += cost
        if self._held and self.bytes <= self.limit // 2:
            held, self._held = self._held, {}
            self.tight_since = None
            for holder in held.values():
                holder.resume_reading(WHY)

    def answered(self) -> None:
        """The log has answered a request."""
        self.asked -= 1
        self._go_on()

    def check(self, share: Share) -> None:
        """Take note of bytes that came of a connection. Above the limit no connection is read from: each might have some ready."""
        if self.bytes <= self.limit and not self._held and self._favoured is None:
            return
        if share is self._favoured and not self._shares[share].incomplete:
            self._favoured = None
        if self.over:
            for each in (share,) if self._held else tuple(self._shares):
                holder = self._shares[each]
                if each not in self._held and not holder.streaming and each is not self._favoured:
                    self._held[each] = holder
                    if self.tight_since is None:
                        self.tight_since = asyncio.get_running_loop().time()
                    holder.pause_reading(WHY)
        self._go_on()

    def forget(self, share: Share) -> None:
        """A connection is over."""
        self._shares.pop(share, None)
        self._held.pop(share, None)
        if not self._held:
            self.tight_since = None
        if share is self._favoured:
            self._favoured = None
        self._go_on()

    def _go_on(self) -> None:
        """See the head of this file."""
        if not self._held or self.asked or self._favoured is not None:
            return
        self._favoured = next((each for each, holder in self._held.items() if holder.incomplete), None)
        if self._favoured is not None:
            self._held.pop(self._favoured).resume_reading(WHY)
