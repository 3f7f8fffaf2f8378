"""The two directions of a connection's transport: what waits to be written, and why nothing is read."""

from __future__ import annotations

import asyncio

from walsvc.service.server.budget import Share
from walsvc.service.server.progress import Progress

FULL_SECONDS = 2.0  # so long may a peer take nothing while there is no room for what others are to be sent


class Duplex(asyncio.Protocol):
    """A transport that is written to once for all that is said in a turn of the loop, and that stops when it must.

    Args:
        loop: in which it lives.
        share: of what the server holds.
        progress: the clock of what its peer has begun to say; it stands while nothing is read.

    Attributes:
        name: of the peer, for the server's log.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, share: Share, progress: Progress) -> None:
        self.loop = loop
        self.share = share
        self.progress: Progress = progress
        self.name: str = "?"
        self.sent_bytes: int = 0
        self.stuck_since: float | None = None  # since when the peer does not read
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._flush_due = False
        self._paused: set[str] = set()  # why nothing is read
        self._write_waiters: list[asyncio.Future[None]] = []
        self._taken_bytes = 0  # by the peer, and
        self._taken_at = loop.time()  # when that was seen to grow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        self.name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        # It tells of every byte that it keeps, so that all of them are counted.
        transport.set_write_buffer_limits(high=1, low=0)  # type: ignore[attr-defined]

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def lost(self) -> None:
        """The transport is gone; nobody waits for it any more."""
        self._transport = None
        self._outgoing.clear()
        self.share.send(0)
        self._wake_writers()

    # ---- writing

    def write(self, data: bytes, *, more: bool) -> None:
        """Let `data` leave at once, or with what else comes in this turn of the loop, where `more` may come."""
        self._outgoing.append(data)
        if self._flush_due:
            return
        if more:
            self._flush_due = True
            self.loop.call_soon(self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        self._flush_due = False
        if self._outgoing and self._transport is not None and not self._transport.is_closing():
            data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
            self._outgoing.clear()
            self.sent_bytes += len(data)
            self._transport.write(data)
            if self.share.unsent:
                self._weigh()

    def _weigh(self) -> None:
        """Count what waits to be sent. Too much of it, and nothing is read: it would only be answered into the same buffer."""
        assert self._transport is not None
        size = self._transport.get_write_buffer_size()
        self.share.send(size)
        if self.stuck_since is None and size > self.share.outgoing.allowance:
            self.stuck_since = self.loop.time()
            self.pause_reading("writing")

    def takes_nothing(self, now: float, idle_seconds: float) -> bool:
        """True if the peer must go, for it does not read: for so many seconds, or since others wait for the room that it takes.
        Asked now and then."""
        if self.share.unsent and self._transport is not None:
            self._weigh()
        taken = self.sent_bytes - self.share.unsent
        if taken != self._taken_bytes or not self.share.unsent:
            self._taken_bytes, self._taken_at = taken, now
        full_since = self.share.outgoing.full_since
        if full_since is not None and min(now - self._taken_at, now - full_since) > FULL_SECONDS:
            return True
        return self.stuck_since is not None and now - self.stuck_since > idle_seconds

    @property
    def stuck(self) -> bool:
        """The peer does not read what was sent."""
        return self.stuck_since is not None

    async def writable(self) -> None:
        """Wait until the peer takes bytes and there is room for what waits to be sent, or the transport is gone."""
        while self._transport is not None:
            if self.stuck:
                waiter: asyncio.Future[None] = self.loop.create_future()
                self._write_waiters.append(waiter)
                await waiter
            elif self.share.full:
                await self.share.room()
            else:
                return

    def pause_writing(self) -> None:
        """The transport keeps what the peer has not taken."""
        self._weigh()

    def resume_writing(self) -> None:
        """The peer has taken everything."""
        self.share.send(0)
        self.stuck_since = None
        self._wake_writers()
        self.resume_reading("writing")

    def _wake_writers(self) -> None:
        waiters, self._write_waiters = self._write_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---- reading

    @property
    def reading(self) -> bool:
        """True if what the peer says is heard at all."""
        return not self._paused

    def pause_reading(self, why: str) -> None:
        """Read nothing until nobody wants that any more."""
        if self.reading:
            self.progress.paused(self.loop.time())
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused.add(why)

    def resume_reading(self, *why: str) -> None:
        """These reasons for not reading are gone."""
        if self._paused:
            self._paused.difference_update(why)
            if self._paused:
                return
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
            self.progress.resumed(self.loop.time())
