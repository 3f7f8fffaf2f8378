"""Closing the log of a client: answers, Relaxed records, readers, and then the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from walsvc.config import check_timeout
from walsvc.errors import Closed, WalTimeout, closed_log
from walsvc.service.client.appends import Appends
from walsvc.tasks import begin_task


class Closing:
    """Closes one log, once, however often it is asked to."""

    def __init__(self, appends: Appends) -> None:
        self._appends = appends
        self._session = appends.session
        self._path = appends.session.address.url
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """True if it was asked to, or nothing connects any more."""
        return self._task is not None or self._session.closed is not None

    async def close(self, timeout: float | None, end_readers: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """See RemoteLog.close. `end_readers` waits until readers have what is durable."""
        self._session.check_loop()
        check_timeout(timeout)
        if self._task is None:
            self._session.closed = self._session.closed or closed_log(self._path)
            self._task = begin_task(self._close(end_readers))
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])
            raise WalTimeout(
                f"closing took longer than {timeout} s",
                path=self._path,
                expected="all appends answered",
                actual=f"{self._appends.unanswered_bytes} bytes not answered",
                hint="the server or its device is stalled; what was not answered may still become durable",
            )
        if not self._task.cancelled():
            self._task.result()

    async def _close(self, end_readers: Callable[[], Coroutine[Any, Any, None]]) -> None:
        closed = self._session.closed or closed_log(self._path)
        try:
            await self._appends.drain()
            await self._settle_relaxed()
            await end_readers()
        finally:
            self._appends.end(closed)
            await self._session.end(closed)
            self._appends.stop()

    async def _settle_relaxed(self) -> None:
        """Records of this client that were accepted and not yet durable become durable."""
        if self._appends.relaxed_lsn > self._session.state[2] and isinstance(self._session.closed, Closed):
            await self._session.request("flush")
