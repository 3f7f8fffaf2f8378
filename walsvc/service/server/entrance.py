"""Clients between accept() and the first byte that the protocol sees: a TLS handshake takes as long as the client likes.

asyncio's own servers tell nobody of a connection before its handshake is done, so silent clients could take all file
descriptors. Here a client counts from its first moment, and the TLS context is asked for at each one: a new certificate is
shown to whoever comes next.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from walsvc.service.server.turns import ACCEPT_UNITS, Turns
from walsvc.tasks import begin_task

logger: logging.Logger = logging.getLogger("walsvc.service")
ACCEPTED_AT_ONCE = 16  # in one turn of the loop, and
ACCEPTED_AT_LEAST = 4  # where clients have used up their part of it: a thousand that come back are not to wait for long
AGAIN_SECONDS = 1.0  # without descriptors or memory accept() is tried again after so long
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OF_THE_CLIENT = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH}
)  # accept(2)


class Doors(Protocol):
    """Counts handshakes."""

    def enter(self, entrance: Entrance) -> bool:
        """A TLS handshake begins; False: it may not."""

    def entered(self, entrance: Entrance, *, secure: bool) -> None:
        """It has ended, well if `secure`; the protocol has been told of its connection by then."""


class Entrance:
    """One client in its handshake.

    Attributes:
        protocol: what takes over.
        opened_at: when it came, in the loop's time.
    """

    def __init__(self, protocol: asyncio.BaseProtocol, opened_at: float) -> None:
        self.protocol = protocol
        self.opened_at = opened_at
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> None:
        """End at once."""
        if self.task is not None:
            self.task.cancel()


class Acceptor:
    """Accepts clients on one listening socket, of which it becomes the owner.

    Args:
        listening: bound, and not blocking.
        factory: makes the protocol of a client.
        tls: gives the context of the moment; None: without TLS.
        doors: counts handshakes.
        seconds: for a handshake.
        turns: of the loop's clients, of which one that comes takes its part; None: of those alone that come here.

    Attributes:
        broken: why nobody is accepted any more, though nobody has closed it.
    """

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        tls: Callable[[], ssl.SSLContext] | None,
        doors: Doors,
        seconds: float,
        *,
        turns: Turns | None = None,
    ) -> None:
        self.broken: OSError | None = None
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._factory = factory
        self._tls = tls
        self._doors = doors
        self._seconds = seconds
        self._turns = turns or Turns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept nobody any more; who is in a handshake goes on. Idempotent."""
        if self._again is not None:
            self._again.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _accept(self) -> None:
        for count in range(ACCEPTED_AT_ONCE):
            if count >= ACCEPTED_AT_LEAST and not self._turns.free:
                return  # the loop calls again in its next turn
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in OF_THE_CLIENT:
                    continue
                self._loop.remove_reader(self._listening)
                if error.errno in SHORTAGES:
                    logger.error("no client is accepted for %g s: %s", AGAIN_SECONDS, error.strerror)
                    self._again = self._loop.call_later(AGAIN_SECONDS, self._accept_again)
                else:
                    self.broken = error
                return
            self._turns.spend(ACCEPT_UNITS)
            accepted.setblocking(False)
            self._let_in(accepted)

    def _accept_again(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _let_in(self, accepted: socket.socket) -> None:
        entrance = Entrance(self._factory(), self._loop.time())
        tls = None if self._tls is None else self._tls()
        if tls is not None and not self._doors.enter(entrance):
            accepted.close()
            return
        task = entrance.task = begin_task(self._open(accepted, entrance, tls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, accepted: socket.socket, entrance: Entrance, tls: ssl.SSLContext | None) -> None:
        opened = False
        try:
            await self._loop.connect_accepted_socket(
                lambda: entrance.protocol,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._seconds,
            )
            opened = True
        except OSError as error:  # ssl.SSLError is one: no TLS, no certificate, too late, or gone
            logger.debug("a client was not let in: %s", error)
        finally:
            if tls is not None:
                self._doors.entered(entrance, secure=opened)
            if not opened:
                accepted.close()  # where it has not come to a transport
