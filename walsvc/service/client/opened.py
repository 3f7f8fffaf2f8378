"""Opening a client's consumer, exclusive or shared, at the server and giving it up there: OPEN, CANCEL, END."""

from __future__ import annotations

import asyncio

from walsvc.service.client.session import Session
from walsvc.service.wire.frames import Cancel


class OpenedThere:
    """The consumers' common part; they make what it needs. The session calls `lost`."""

    _session: Session
    _id: int
    _open: bool  # it is not being closed
    _opened: asyncio.Future[None]
    _closed: asyncio.Future[None]

    def lost(self) -> None:
        """It will be opened again, unless it is being closed: then it is."""
        if not self._open:
            self._gone()

    async def opened(self) -> None:
        """Wait until the server has opened it; raises what it says instead."""
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._leave()
            raise

    def _leave(self) -> None:
        """Give it up on the server."""
        self._open = False
        self._session.send(Cancel(self._id))
        if not self._session.connected:
            self._gone()

    def _gone(self) -> None:
        """The server has it open no more."""
        self._session.requests.pop(self._id, None)
        if not self._closed.done():
            self._closed.set_result(None)
