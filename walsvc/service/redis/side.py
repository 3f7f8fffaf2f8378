"""The Redis side of a server: where it listens, how many clients it has, and its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Protocol

from walsvc.errors import PathError, WalError
from walsvc.service.redis.client import Client, Grants, Logs
from walsvc.service.redis.held import Held
from walsvc.service.redis.session import Session
from walsvc.service.server.entrance import Acceptor, Entrance
from walsvc.service.server.limits import Limits
from walsvc.service.server.listeners import Listener, listen_tcp, listen_unix
from walsvc.service.server.status import Trouble
from walsvc.targets import host_and_port
from walsvc.tasks import begin_task

logger: logging.Logger = logging.getLogger("walsvc.service")
LOOK_SECONDS = 1.0
STOP_SECONDS = 5.0
PORT = 6379


class Source(Grants, Protocol):
    """The server whose logs it shows."""

    @property
    def limits(self) -> Limits: ...
    @property
    def logs_by_name(self) -> Logs: ...


class RedisSide:
    """Redis Streams in front of a server's logs.

    Args:
        source: the server.
        address: HOST:PORT, or the path of a Unix socket.
        tls: for TCP; None: without.

    Attributes:
        url: where it listens, as redis-cli takes it with -u.
    """

    def __init__(self, source: Source, address: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.url: str = ""
        self._source = source
        self._address = address
        self._tls = tls
        self._held = Held(source.limits.pending_bytes, source.limits.pending_total_bytes)
        self._sessions: dict[Session, None] = {}
        self._entering: dict[asyncio.BaseProtocol, Entrance] = {}
        self._numbers = itertools.count(1)
        self._listener: Listener | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many clients there are."""
        return len(self._sessions) + len(self._entering)

    @property
    def held_bytes(self) -> int:
        """What is unanswered of all of them."""
        return self._held.bytes

    async def start(self) -> None:
        """Listen. Raises PathError with the errno where the address cannot be had."""
        if is_path(self._address):
            self._listener = await listen_unix(self._address, self._accept)
            self.url = self._listener.url
        else:
            host, port = host_and_port(self._address)
            try:
                scheme = "redis" if self._tls is None else "rediss"
                self._listener = await listen_tcp(host, port, self._accept, scheme)
            except PathError as error:
                raise PathError(
                    f"the Redis side {error.message}",
                    errno=error.errno,
                    hint="choose another address with --redis HOST:PORT, or --redis off",
                ) from error
            self.url = self._listener.url
        self._looking = begin_task(self._look_around())

    def _accept(self, listening: socket.socket) -> Acceptor:
        tls: Callable[[], ssl.SSLContext] | None = None if self._tls is None else self._current_tls
        return Acceptor(listening, self._new_session, tls, self, self._source.limits.handshake_seconds)

    def _current_tls(self) -> ssl.SSLContext:
        assert self._tls is not None, "asked only where there is one"
        return self._tls

    def renew(self, tls: ssl.SSLContext) -> None:
        """Take another certificate for clients that come from now on; nothing where it speaks without TLS."""
        if self._tls is not None:
            self._tls = tls

    def _new_session(self) -> Session:
        client = Client(next(self._numbers), self._source.logs_by_name, self._source)
        return Session(client, self._held, self._source.limits.frame_bytes, self)

    # ---- clients, see Session and walsvc.service.server.entrance

    def came(self, session: Session) -> str | None:
        """A client has connected; what it is told where there is no room for it."""
        self._entering.pop(session, None)
        full = self.connections >= self._source.limits.connections
        self._sessions[session] = None
        return "ERR max number of clients reached" if full else None

    def gone(self, session: Session) -> None:
        """A client is gone."""
        self._sessions.pop(session, None)

    def enter(self, entrance: Entrance) -> bool:
        """A TLS handshake begins; False: it may not."""
        if self.connections >= self._source.limits.connections:
            return False
        self._entering[entrance.protocol] = entrance
        return True

    def entered(self, entrance: Entrance, *, secure: bool) -> None:
        """It has ended."""
        self._entering.pop(entrance.protocol, None)

    async def _look_around(self) -> None:
        limits = self._source.limits
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for session in tuple(self._sessions):
                session.look(loop.time(), limits.handshake_seconds, limits.idle_seconds)

    # ---- the end

    async def stop(self) -> None:
        """Accept nobody, answer what was accepted, end. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.stop_accepting()
        if self._looking is not None:
            self._looking.cancel()
        settling = [begin_task(session.settled()) for session in tuple(self._sessions)]
        if settling:
            _, late = await asyncio.wait(settling, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
        ending: list[Session | Entrance] = [*self._sessions, *self._entering.values()]
        for each in ending:
            each.abort()
        await listener.close()

    def troubles(self) -> Iterator[Trouble]:
        """Whether it has ended by itself, for walsvc.service.server.troubles."""
        if self._listener is not None and (cause := self._listener.broken) is not None:
            error = WalError(f"accept() failed: {cause.strerror}", path=self.url, hint="restart the server")
            yield Trouble("redis", "", "the Redis side has ended", error)

    async def __aenter__(self) -> RedisSide:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def is_path(address: str) -> bool:
    """Whether an address is the path of a Unix socket."""
    return "/" in address
