"""Where a server listens: its own addresses, and those of other protocols in front of it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial

from walsvc.errors import WalError
from walsvc.service.server.entrance import Acceptor
from walsvc.service.server.limits import Limits
from walsvc.service.server.listeners import Listener, listen_tcp, listen_unix, socket_path
from walsvc.service.server.roster import Roster
from walsvc.service.server.status import Trouble
from walsvc.service.server.turns import Turns
from walsvc.targets import host_and_port, is_path

Factory = Callable[[], asyncio.BaseProtocol]  # makes the protocol of a client


class Listening:
    """The listeners of one server.

    Args:
        roster: which clients enter.
        limits: of the server.
        unix: path of the server's own Unix socket; None: none.
        host, port: of the server's own TCP address; None: none.
        tls: for TCP; None: without.
        turns: of the server's loop.

    Raises:
        BadOption, PathError: no Unix socket can be at that path.

    Attributes:
        listeners: in the order in which they were opened.
        tls: the context that the next client gets.
    """

    def __init__(
        self,
        roster: Roster,
        limits: Limits,
        *,
        unix: str | os.PathLike[str] | None,
        host: str | None,
        port: int,
        tls: ssl.SSLContext | None,
        turns: Turns,
    ) -> None:
        self.listeners: list[Listener] = []
        self.tls: ssl.SSLContext | None = tls
        self._roster = roster
        self._seconds = limits.handshake_seconds
        self._turns = turns
        self._unix = None if unix is None else socket_path(unix)
        self._host, self._port = host, port

    async def open(self, protocol: Factory) -> None:
        """Listen at the server's own addresses. Raises PathError, Locked, BadOption for one that cannot be had."""
        if self._unix is not None:
            await self._listen_unix(self._unix, protocol)
        if self._host is not None:
            await self._listen_tcp(self._host, self._port, protocol, "wal")

    async def add(self, address: str, protocol: Factory, scheme: str) -> str:
        """Listen at one more address, see Server.listen; returns its URL."""
        if is_path(address):
            await self._listen_unix(address, protocol)
        else:
            await self._listen_tcp(*host_and_port(address), protocol, scheme)
        return self.listeners[-1].url

    async def _listen_unix(self, path: str | os.PathLike[str], protocol: Factory) -> None:
        self.listeners.append(await listen_unix(path, partial(self._accept, None, protocol)))

    async def _listen_tcp(self, host: str, port: int, protocol: Factory, scheme: str) -> None:
        tls = None if self.tls is None else self._current_tls
        accept = partial(self._accept, tls, protocol)
        self.listeners.append(await listen_tcp(host, port, accept, scheme if tls is None else f"{scheme}s"))

    def _accept(
        self, tls: Callable[[], ssl.SSLContext] | None, protocol: Factory, listening: socket.socket
    ) -> Acceptor:
        return Acceptor(listening, protocol, tls, self._roster, self._seconds, turns=self._turns)

    def _current_tls(self) -> ssl.SSLContext:
        assert self.tls is not None, "asked only where there is one"
        return self.tls

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URLs, as clients write them."""
        return tuple(listener.url for listener in self.listeners)

    @property
    def port(self) -> int:
        """The first TCP port; 0 where there is none."""
        return next((listener.port for listener in self.listeners if listener.port), 0)

    def troubles(self) -> Iterator[Trouble]:
        """Listeners that have ended by themselves."""
        for listener in self.listeners:
            if (cause := listener.broken) is not None:
                error = WalError(f"accept() failed: {cause.strerror}", path=listener.url, hint="restart the server")
                yield Trouble("listener", "", f"the listener at {listener.url} has ended", error)

    async def stop_accepting(self) -> None:
        """Let nobody in any more. Idempotent."""
        for listener in self.listeners:
            await listener.stop_accepting()

    async def close(self) -> None:
        """Release the addresses."""
        for listener in self.listeners:
            await listener.close()
