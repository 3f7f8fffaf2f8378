"""Making connections: the first one, and another one whenever it is lost, with pauses that grow."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from abc import ABC, abstractmethod
from typing import Any

from walsvc.errors import (
    Backpressure,
    BadOption,
    Closed,
    Denied,
    ProtocolError,
    Unreachable,
    UnsupportedFormat,
    WalError,
)
from walsvc.service.client.config import Address, ClientConfig
from walsvc.service.client.connection import Connection
from walsvc.service.client.dialing import Dialing
from walsvc.service.client.order import FrameWaiter
from walsvc.service.wire.frames import Frame, Welcome
from walsvc.tasks import begin_task

FINAL = (Denied, ProtocolError, UnsupportedFormat, BadOption)  # another attempt would be answered in the same way
DENIED_SECONDS = 10.0  # but for a token that is being changed: a server looks at its token file every 5 seconds
logger: logging.Logger = logging.getLogger("walsvc.client")


class Connector(ABC):
    """Has a connection, or is about to have one.

    Attributes:
        requests: what waits for answers, in the order of its first sending.
        limits, info: of the last WELCOME.
        connections: how many there were.
        useful: the present one, or the last one, has answered a request.
    """

    def __init__(self, address: Address, config: ClientConfig) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.address = address
        self.config = config
        self.limits: dict[str, int] = {}
        self.info: dict[str, Any] = {}
        self.connections: int = 0
        self.useful: bool = False
        self._welcomed_at = 0.0
        self.requests: dict[int, FrameWaiter] = {}
        self._dialing = Dialing(address, config)
        self._connection: Connection | None = None
        self._process = os.getpid()
        self._runner: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[WalError] | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def connected(self) -> bool:
        """True if there is a connection now."""
        return self._connection is not None

    @abstractmethod
    def received(self, frame: Frame) -> None:
        """A frame came."""

    @abstractmethod
    def _connected(self, welcome: Welcome) -> None:
        """There is a connection."""

    @abstractmethod
    def _disconnected(self, error: WalError) -> None:
        """There is none any more, for this reason."""

    @abstractmethod
    def _give_up(self, error: WalError) -> None:
        """No connection in time: everybody who waits is told."""

    @abstractmethod
    def _finish(self, error: WalError) -> None:
        """There will be none again."""

    def wanted(self) -> None:
        """Note that a caller waits for a connection, and has to be told when there is none."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def lost(self, connection: Connection, error: WalError) -> None:
        """For the connection: it has ended."""
        if connection is self._connection:
            self._connection = None
            self._disconnected(error)
            if self._lost is not None and self._lost.cancelled():  # with the runner, from outside
                self._lost = self.loop.create_future()
            if self._lost is not None and not self._lost.done():
                self._lost.set_result(error)
            if self._runner is not None and self._runner.done():
                self._begin()

    async def open(self) -> None:
        """Connect for the first time; what ends the last attempt is the caller's error."""
        until, attempt = self.loop.time() + self.config.open_seconds, 0
        while True:
            try:
                await self._dialing.connect(self)
                break
            except (Unreachable, Closed, Backpressure):  # nobody there, somebody who is stopping, too many others
                left = until - self.loop.time()
                if left <= 0:
                    raise
            attempt += 1
            await self._pause(attempt, left)
        self._begin()

    def _begin(self) -> None:
        self._runner = begin_task(self._run())
        self._runner.add_done_callback(self._runner_ended)

    def welcomed(self, connection: Connection, welcome: Welcome) -> None:
        """For the connection: it is open, and this is the first frame."""
        self._lost = self.loop.create_future()
        self._connection = connection
        self.connections += 1
        self.useful, self._welcomed_at = False, self.loop.time()
        self.limits, self.info = welcome.limits, welcome.info
        self._connected(welcome)

    async def _run(self) -> None:
        """Make another connection whenever one is lost. One that was of no use does not count: a peer that welcomes and hangs up
        is met after ever longer pauses, and for `reconnect_seconds` in all."""
        since, attempt = self.loop.time(), 0
        while self._lost is not None:
            error = await self._lost
            if self.useful or self.loop.time() - self._welcomed_at > self.config.backoff_max_seconds:
                since, attempt = self.loop.time(), 0
            while not self._is_final(error, self.loop.time() - since):
                left = since + self.config.reconnect_seconds - self.loop.time()
                if left <= 0 and self.requests:
                    self._give_up(error)
                try:
                    await self._pause(attempt, left)
                    attempt += 1
                    await self._dialing.connect(self)
                    break
                except (WalError, OSError) as failure:
                    error = (
                        failure if isinstance(failure, WalError) else Unreachable(str(failure), path=self.address.url)
                    )
            else:
                self._finish(error)
                return

    def _is_final(self, error: WalError, seconds: float) -> bool:
        """True if the session shall connect no more, so many seconds after the connection was lost."""
        if isinstance(error, Denied):
            return seconds >= min(DENIED_SECONDS, self.config.reconnect_seconds)
        return isinstance(error, FINAL)

    def _runner_ended(self, runner: asyncio.Task[None]) -> None:
        """End the requests that wait, because no task connects any more: by a mistake in here, or since the program has cancelled all
        tasks. With a connection there is nothing to do until it is lost."""
        if runner.cancelled():
            if runner is self._runner and self._connection is None:
                self._finish(
                    Unreachable(
                        "the task that makes the connection anew was cancelled from outside",
                        path=self.address.url,
                        hint="open the log again",
                    )
                )
        elif (mistake := runner.exception()) is not None:
            self._finish(WalError(f"the client has met an unexpected error: {mistake!r}", path=self.address.url))

    async def _pause(self, attempt: int, left: float) -> None:
        """Wait before an attempt: a random part of a growing time, so that many clients do not come back all at once. A new
        request ends it, once the time for reconnecting is over, since it has to be told."""
        if attempt == 0:
            return
        longest = min(self.config.backoff_seconds * 2 ** min(attempt - 1, 30), self.config.backoff_max_seconds)
        seconds = random.uniform(0, longest)
        if left > 0:
            await asyncio.sleep(min(seconds, left))
            return
        self._wake = self.loop.create_future()
        await asyncio.wait([self._wake], timeout=seconds)
        self._wake = None
