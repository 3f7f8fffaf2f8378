"""The server: logs behind sockets.

    async with serve("data/", unix="/run/walsvc.sock") as server:
        ...

All clients append to the same log in the same event loop, so records of many processes share one sync. Connections hold
what belongs to one client; here is what they share: the logs, the limits, the listeners, and the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial

from walsvc.api import Log
from walsvc.config import WalConfig, between
from walsvc.disk.paths import checked_path
from walsvc.errors import BadOption, Closed, WalError
from walsvc.options import unknown_option
from walsvc.service.server.auth import Tokens
from walsvc.service.server.budget import Budget
from walsvc.service.server.connection import Connection
from walsvc.service.server.copying import Copying, end_waiting
from walsvc.service.server.descriptors import for_clients
from walsvc.service.server.limits import Limits
from walsvc.service.server.listening import Listening
from walsvc.service.server.namespaces import Logs, Opener, troubles_of
from walsvc.service.server.options import check_options
from walsvc.service.server.roster import Roster
from walsvc.service.server.shared import Shared
from walsvc.service.server.status import ServerStatus, Trouble
from walsvc.service.server.troubles import Troubles, ended
from walsvc.tasks import begin_task

logger: logging.Logger = logging.getLogger("walsvc.service")
LOOK_SECONDS = 1.0  # how often connections are looked at
LOOKS_A_TURN = 32  # in one turn of the loop: ten thousand idle connections must cost nobody a wait
STOP_SECONDS = 20.0
CLOSE_SHARE = 0.25  # of the deadline is kept for the last sync
TELL_SECONDS = 0.1  # between two looks at whether the replica is down; the last answers may take as long


class Server:
    """Serves one log, or the namespaces of a directory, to clients. Belongs to the event loop in which `start` ran.

    Args:
        source: a directory, whose logs the server opens and closes, or a Log that the caller has opened and will close.
        config: options of the logs in a directory.
        unix: path of the Unix socket; None: none.
        host, port: where to listen for TCP; None: nowhere. Port 0 stands for any that is free.
        tls: for TCP, see walsvc.service.server.listeners.tls_context; None: without.
        tokens: who may do what; None: everybody may do everything.
        namespaces: serve the namespaces of the directory, not only the log of the directory itself.
        limits: see Limits.
        insecure: listen beyond this machine without TLS and tokens.
        opener: opens the log of a WalConfig instead of the directory (tests: on a simulated disk).
        archive: URL of an archive to which sealed segments go; not with namespaces.

    Raises:
        BadOption, PathError for what is wrong or contradicts itself: nothing is made by then.
    """

    def __init__(
        self,
        source: Log | str | os.PathLike[str],
        *,
        config: WalConfig | None = None,
        unix: str | os.PathLike[str] | None = None,
        host: str | None = None,
        port: int = 7420,
        tls: ssl.SSLContext | None = None,
        tokens: Tokens | None = None,
        namespaces: bool = False,
        limits: Limits | None = None,
        insecure: bool = False,
        opener: Opener | None = None,
        archive: str | None = None,
    ) -> None:
        options: dict[str, object] = {
            "config": config,
            "unix": unix,
            "host": host,
            "port": port,
            "tls": tls,
            "tokens": tokens,
            "namespaces": namespaces,
            "limits": limits,
            "insecure": insecure,
            "opener": opener,
            "archive": archive,
        }
        check_options(source, options)
        self.limits: Limits = limits or Limits()
        if isinstance(source, Log):
            self.logs_by_name: Logs = Logs.of(source, self.limits)
        else:
            self.logs_by_name = Logs(
                checked_path(source), config or WalConfig(), self.limits, several=namespaces, opener=opener
            )
        self.roster: Roster = Roster(self.limits.connections, lambda: for_clients(len(self.logs_by_name)))
        self.budget: Budget = Budget(self.limits.pending_total_bytes)
        self.shared: Shared = Shared(
            self.limits, logs=self.logs_by_name, roster=self.roster, budget=self.budget, tokens=tokens
        )
        self._copying = Copying(archive)
        self._listening = Listening(
            self.roster, self.limits, unix=unix, host=host, port=port, tls=tls, turns=self.shared.turns
        )
        self._started_ns = 0
        self._looking: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None  # closes unused namespaces
        self._why_not = "starting"
        self._stopping: asyncio.Task[None] | None = None
        self.failures: tuple[WalError, ...] = ()
        self.troubles: Troubles = Troubles()
        for look in (self.logs_by_name.troubles, lambda: self._copying.troubles(self.logs), self._own_troubles):
            self.troubles.watch(look)

    # ---- life

    async def start(self) -> None:
        """Open the log (with namespaces, none yet) and listen. Raises what opening raises; PathError, Locked, BadOption for an
        address."""
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._started_ns = time.time_ns()
        try:
            if not self.logs_by_name.several:
                await self._copying.start(await self.logs_by_name.take(""))
            await self._listening.open(partial(Connection, self.shared))
        except BaseException:
            await self._listening.close()
            await self._copying.stop()
            await self.logs_by_name.close(STOP_SECONDS)
            raise
        self._why_not = ""
        self._looking = begin_task(self._look_around())
        logger.info("listening on %s", ", ".join(self.addresses))
        if self.roster.most < self.limits.connections:
            logger.warning(
                "at most %d connections instead of %d: the limit of file descriptors is too low (ulimit -n)",
                self.roster.most,
                self.limits.connections,
            )

    async def listen(self, address: str, protocol: Callable[[], asyncio.BaseProtocol], scheme: str) -> str:
        """Listen for another protocol, too; its connections enter the roster as all others do. For a server that has started.

        Args:
            address: HOST:PORT, or the path of a Unix socket.
            protocol: makes a connection.
            scheme: of the address, which is returned; with TLS an `s` is added.

        Raises:
            PathError, Locked, BadOption: the address cannot be had.
        """
        return await self._listening.add(address, protocol, scheme)

    def renew(self, *, tls: ssl.SSLContext | None, tokens: Tokens | None) -> None:
        """Take another certificate and other tokens for connections that come from now on. BadOption where there is one of
        them and was none, or the other way round: that would open or shut a door."""
        if (tls is None, tokens is None) != (self._listening.tls is None, self.shared.tokens is None):
            raise BadOption("TLS and tokens cannot come or go while the server runs", hint="restart it")
        self._listening.tls, self.shared.tokens = tls, tokens

    async def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End in order: not ready, accept nobody, answer what was accepted, tell the clients, sync, close. Idempotent.

        Args:
            timeout: seconds for all of it.

        Raises:
            WalTimeout: the last sync took longer; what was not acknowledged may or may not be durable.
            DurabilityLost: see Log.close.
        """
        if self._stopping is None:
            self._stopping = begin_task(self._stop(timeout))
        await asyncio.shield(self._stopping)

    async def _stop(self, timeout: float) -> None:
        end = self.loop.time() + timeout
        met, logs = self.troubles.look(), self.logs
        self._why_not = "stopping"
        stopping = self.roster.closed = Closed("the server is stopping", hint="connect again later")
        await self._listening.stop_accepting()
        for connection in self.roster:
            connection.pause_reading("stopping")
        await self._answer(timeout * (1 - CLOSE_SHARE))
        for connection in self.roster:
            connection.leave(stopping, "stopping")
        await self.shared.closing.done(max(end - self.loop.time(), 0) / 2)
        if self._looking is not None:
            self._looking.cancel()
        await self._copying.stop()
        troubles = await self.logs_by_name.close(max(end - self.loop.time(), 0))
        self.roster.abort()
        await self._listening.close()
        lost = [trouble for name, log in logs.items() for trouble in troubles_of(name, log) if trouble.part == "log"]
        self.failures = tuple(trouble.error for trouble in {trouble[:2]: trouble for trouble in (*met, *lost)}.values())
        if troubles:
            raise troubles[0]

    async def _answer(self, timeout: float) -> None:
        """Answer what was accepted. While the replica is down nobody waits for it, and at the end of the time nobody at all."""
        end = self.loop.time() + timeout
        left = {begin_task(connection.settled()) for connection in self.roster}
        over = False
        while left and not over:
            over = self.loop.time() >= end
            for log in self.logs.values():
                end_waiting(log, only_down=not over)
            _, left = await asyncio.wait(left, timeout=TELL_SECONDS)
        for late in left:
            late.cancel()
        if left:
            logger.warning("%d connections had requests that were not answered in time", len(left))

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _look_around(self) -> None:
        pause = min(LOOK_SECONDS, self.limits.idle_seconds / 4, self.limits.handshake_seconds / 4)
        while True:
            await asyncio.sleep(pause)
            await self._look_at_all(pause)
            self.troubles.look()
            if self._tidying is None or self._tidying.done():
                self._tidying = begin_task(self._close_idle())  # a slow disk must not hold up any timeout

    async def _look_at_all(self, seconds: float) -> None:
        """Look at every connection, a few in a turn of the loop, spread over the time until the next look: those that are idle must
        cost nobody a wait."""
        connections, news = list(self.roster), self.shared.logs.news
        for first in range(0, len(connections), LOOKS_A_TURN):
            now = self.loop.time()
            for connection in connections[first : first + LOOKS_A_TURN]:
                connection.look(now)
            news.forget()
            if len(connections) > LOOKS_A_TURN:
                await asyncio.sleep(seconds * LOOKS_A_TURN / len(connections))

    async def _close_idle(self) -> None:
        try:
            await self.logs_by_name.close_idle()
        except (WalError, OSError) as error:
            logger.error("closing an unused namespace failed: %s", error)

    def _own_troubles(self) -> Iterator[Trouble]:
        """The parts of the server itself that have ended."""
        if self._stopping is not None:
            return
        yield from self._listening.troubles()
        if self._looking is not None:
            yield from ended(self._looking, "watch", "the watch over connections has ended")

    # ---- what is going on

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses on which it listens, as clients write them."""
        return self._listening.addresses

    @property
    def port(self) -> int:
        """The TCP port; 0 where there is none."""
        return self._listening.port

    @property
    def logs(self) -> Mapping[str, Log]:
        """The open logs by namespace; "" is the log of the directory itself."""
        return self.logs_by_name.open

    def status(self) -> ServerStatus:
        """A picture of the server; takes no time."""
        troubles = self.troubles.look()
        counts = self.shared.counts
        reason = self._why_not or next((trouble.text for trouble in troubles), "")
        return ServerStatus(
            ready=not reason,
            started_ns=self._started_ns,
            reason=reason,
            live=all(trouble.part != "log" for trouble in troubles),
            listeners=self.addresses,
            connections=len(self.roster),
            connections_max=min(self.limits.connections, self.roster.most),
            accepted=self.roster.accepted,
            rejected=dict(counts.rejected + Counter(tls=self.roster.failed_handshakes)),
            streams=sum(each.streams for each in self.roster),
            pending_bytes=self.budget.bytes,
            received_bytes=counts.received_bytes,
            sent_bytes=self.roster.sent_bytes,
            requests=dict(counts.requests),
            errors=dict(counts.errors),
            copies=self._copying.status(self.logs),
            troubles=troubles,
        )


@contextlib.asynccontextmanager
async def serve(
    source: Log | str | os.PathLike[str],
    *,
    unix: str | os.PathLike[str] | None = None,
    host: str | None = None,
    port: int = 7420,
    stop_seconds: float = STOP_SECONDS,
    **options: object,
) -> AsyncIterator[Server]:
    """A running Server, stopped at the end within `stop_seconds`; the other arguments are Server's."""
    known = {*inspect.signature(serve).parameters, *inspect.signature(Server).parameters} - {"source", "options"}
    if unknown := options.keys() - known:
        raise unknown_option(min(unknown), known)
    between("stop_seconds", stop_seconds, 0.0, 1e9)
    server = Server(source, unix=unix, host=host, port=port, **options)  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.stop(stop_seconds)
