"""One connection of a client: bytes to frames, the handshake, and signs of life. It is not used again once it has ended."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Protocol, cast

from walsvc.disk.pool import looking_up
from walsvc.errors import Denied, ProtocolError, Unreachable, WalError
from walsvc.service.client.config import Address
from walsvc.service.wire.codes import farewell_of
from walsvc.service.wire.frames import FROM_SERVER, Frame, Goodbye, Hello, Ping, Welcome
from walsvc.service.wire.protocol import LENGTH_MAX, FrameReader, encode

PINGS_PER_IDLE = 3  # the server ends a connection that says nothing for idle_ms; so nothing is lost by one late timer

WELCOME_BYTES_MAX = 1 << 20  # the first frame tells what recovery found; whoever says more is no server of ours
CLOSE_SECONDS = 1.0  # for what is still to be sent, when nothing is waited for any more


class Owner(Protocol):
    """The owner of a connection, which hears of its frames and its end."""

    def welcomed(self, connection: Connection, welcome: Welcome) -> None:
        """The connection is open."""

    def received(self, frame: Frame) -> None:
        """A frame after WELCOME."""

    def lost(self, connection: Connection, error: WalError) -> None:
        """The connection has ended after WELCOME, for this reason."""


class Connection(asyncio.Protocol):
    """Speaks HELLO, then hands every frame to its owner.

    Attributes:
        welcome: resolved by WELCOME; fails with the reason when the connection ends before.
        gone: resolved when the transport is closed.
    """

    def __init__(self, owner: Owner, hello: Hello, address: Address) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._hello = encode(hello)  # what cannot be said is told before anybody is asked
        self._address = address
        self._reader = FrameReader(FROM_SERVER, WELCOME_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._wrote = self._heard = True  # since the last tick
        self._silent = 0  # ticks since anything was heard
        self._timer: asyncio.TimerHandle | None = None
        self._ended: WalError | None = None
        self.welcome: asyncio.Future[Welcome] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()

    # ---- from the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say HELLO."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Hand on what is complete."""
        self._heard = True
        reader = self._reader
        try:
            reader.receive(data)
            while reader.more and (frame := reader.next_frame()) is not None:
                if self._ended is not None:
                    return
                if self.welcome.done() and frame.__class__ is not Goodbye:
                    self._owner.received(frame)
                else:
                    self._greeted(frame)
        except ProtocolError as wrong:
            error = no_server(reader.foreign) if reader.refused and not self.welcome.done() else wrong
            error.path = self._address.url
            self.end(error)

    def _greeted(self, frame: Frame) -> None:
        if isinstance(frame, Welcome):
            self._tick(frame.limits["idle_ms"])
            self._reader.body_bytes_max = LENGTH_MAX
            self._owner.welcomed(self, frame)
            self.welcome.set_result(frame)
        elif isinstance(frame, Goodbye):
            self.end(farewell_of(frame.code, frame.message, self._address.url))
        else:
            raise ProtocolError(f"the server began with {type(frame).__name__}", expected="Welcome")

    def connection_lost(self, error: Exception | None) -> None:
        """The other side, the network or this side has ended it."""
        number = error.errno if isinstance(error, OSError) else None
        what = "the server closed the connection" if error is None else f"the connection was lost: {error}"
        if not self.gone.done():
            self.gone.set_result(None)
        hint = None if self.welcome.done() else self._perhaps()
        self.end(Unreachable(what, path=self._address.url, errno=number, hint=hint))

    def _perhaps(self) -> str | None:
        """Why a server may have ended the connection without a word."""
        if self._address.path is not None:
            return None
        if self._address.tls:
            return "a server that wants a client's certificate does this: give cert= and key="
        return "a server with TLS does this: open wals:// in place of wal://"

    def _tick(self, idle_ms: int) -> None:
        """Say something where nothing was said; give the connection up where nothing is heard in spite of that."""
        self._silent = 0 if self._heard else self._silent + 1
        if self._silent > PINGS_PER_IDLE:
            expected = f"a sign of life within {idle_ms} ms"
            self.end(Unreachable("the server does not answer any more", path=self._address.url, expected=expected))
            return
        if self._silent or not self._wrote:
            self.write(encode(Ping(0)))
        self._wrote = self._heard = False
        self._timer = self._loop.call_later(idle_ms / 1000 / PINGS_PER_IDLE, self._tick, idle_ms)

    # ---- from the owner

    def write(self, data: bytes) -> None:
        """Send; nothing happens once the connection has ended."""
        if self._transport is not None and self._ended is None:
            self._wrote = True
            self._transport.write(data)

    def end(self, error: WalError) -> None:
        """End it for this reason, at once; what is not sent yet is not sent."""
        if self._ended is not None:
            return
        self._ended = error
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()
        if not self.welcome.done():
            self.welcome.set_exception(error)
            self.welcome.exception()  # whoever waited for it may be gone
        else:
            self._owner.lost(self, error)

    def close(self) -> None:
        """End it in order: what was written is sent first. The owner does not hear of it."""
        if self._ended is None:
            self._ended = Unreachable("the connection was closed here", path=self._address.url)
            self._stop_timer()
            if self._transport is not None:
                self._transport.close()

    async def closed(self) -> None:
        """Close it and wait until it is; a peer that does not read does not hold that up for long."""
        self.close()
        if self._transport is not None:
            await asyncio.wait([self.gone], timeout=CLOSE_SECONDS)
            self._transport.abort()
            await self.gone

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def connect(
    owner: Owner, hello: Hello, address: Address, context: ssl.SSLContext | None, server_name: str | None
) -> None:
    """Make a connection, and wait until it is welcomed, of which the owner hears first.

    Raises:
        Unreachable: nobody listens there, or the connection ended. Denied, UnsupportedFormat, BadOption and others: the
            server's own reason. asyncio.CancelledError leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    made = Connection(owner, hello, address)
    try:
        if address.path is not None:
            await loop.create_unix_connection(lambda: made, address.path)
        else:
            with looking_up():
                await loop.create_connection(
                    lambda: made, address.host, address.port, ssl=context, server_hostname=server_name
                )
        await made.welcome
    except ssl.SSLCertVerificationError as error:
        made.close()
        raise Denied(
            f"the server's certificate is not to be trusted: {error.verify_message}",
            path=address.url,
            hint="give ca=, the authority's certificate, and server_name= where it bears another name",
        ) from error
    except OSError as error:
        made.end(Unreachable("connecting has failed", path=address.url))
        if isinstance(error, WalError):
            raise
        raise unreachable(error, address.url) from error
    except BaseException:
        made.end(Unreachable("connecting was given up", path=address.url))  # the owner may have heard WELCOME already
        raise


def no_server(foreign: str | None) -> ProtocolError:
    """The error for a peer whose first bytes are no frame of a server; `foreign`: the protocol that they are of, where it is known."""
    return ProtocolError(
        "what answers there is no walsvc server" + (f": it speaks {foreign}" if foreign else ""),
        hint="give the address after --listen, or --unix, of `walsvc serve`: its HTTP and Redis ports are others",
    )


def unreachable(error: OSError, url: str) -> Unreachable:
    """The error for a connection that could not be made, whatever words the event loop has for it."""
    reason, hint = error.strerror or str(error), "is `walsvc serve` running, and listening there?"
    if isinstance(error, ssl.SSLError):
        hint = "a server without TLS does this: open wal:// in place of wals://"
    elif isinstance(error, socket.gaierror):
        hint = "check the host's name"
    elif error.errno:
        reason = os.strerror(error.errno)  # asyncio's own words name an address and no reason
    return Unreachable(f"the server cannot be reached: {reason}", path=url, errno=error.errno, hint=hint)
