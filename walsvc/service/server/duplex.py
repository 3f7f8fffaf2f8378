"""The two directions of a connection's transport: what is collected to be written, and why nothing is read."""

from __future__ import annotations

import asyncio

WRITE_BUFFER_BYTES = 1 << 20  # above it streams wait, and no more requests are read


class Duplex(asyncio.Protocol):
    """A transport that is written to once for all that is said in a turn of the loop, and that stops when it must."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.sent_bytes: int = 0
        self.stuck_since: float | None = None  # since when the peer does not read
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._flush_due = False
        self._paused: set[str] = set()  # why nothing is read
        self._write_waiters: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)  # type: ignore[attr-defined]

    def lost(self) -> None:
        """The transport is gone; nobody waits for it any more."""
        self._transport = None
        self._outgoing.clear()
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

    @property
    def stuck(self) -> bool:
        """The peer does not read what was sent."""
        return self.stuck_since is not None

    async def writable(self) -> None:
        """Wait until the peer takes bytes, or the transport is gone."""
        while self.stuck and self._transport is not None:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._write_waiters.append(waiter)
            await waiter

    def pause_writing(self) -> None:
        """The transport has more than it likes: what is read now would only be answered into the same buffer."""
        self.stuck_since = self.loop.time()
        self.pause_reading("writing")

    def resume_writing(self) -> None:
        """The transport takes more."""
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
        """Whether what the peer says is heard at all."""
        return not self._paused

    def pause_reading(self, why: str) -> None:
        """Read nothing until nobody wants that any more."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused.add(why)

    def resume_reading(self, *why: str) -> None:
        """These reasons for not reading are gone."""
        if self._paused:
            self._paused.difference_update(why)
            if not self._paused and self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
