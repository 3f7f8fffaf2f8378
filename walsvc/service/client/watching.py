"""Callbacks for connections that are lost and made anew, and the time without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from walsvc.errors import WalError
from walsvc.service.client.connector import logger

Watcher = Callable[[WalError | None], None]


class Watchers:
    """Those of one session; each event is also a line in the log of the program."""

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self._loop = loop
        self._url = url
        self._watchers: list[Watcher] = []
        self._lost_at: float | None = None

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` soon after each event; returns a function that ends it. See RemoteLog.on_connection."""
        self._watchers.append(watcher)

        def end() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return end

    def lost(self, error: WalError) -> None:
        """The connection is lost, for this reason."""
        self._lost_at = self._loop.time()
        logger.warning("%s: the connection is lost: %s", self._url, error.message)
        self._tell(error)

    def connected(self) -> None:
        """There is a connection: not worth telling of the first."""
        if self._lost_at is not None:
            seconds, self._lost_at = self._loop.time() - self._lost_at, None
            logger.warning("%s: there is a connection again, after %.1f s", self._url, seconds)
            self._tell(None)

    def _tell(self, error: WalError | None) -> None:
        for watcher in list(self._watchers):
            self._loop.call_soon(watcher, error)
