"""The hold by which a log keeps what its replica does not have yet."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from walsvc.errors import WalError
from walsvc.log.read.pins import REPLICA_HOLD
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.api import Log

HOLD_SECONDS = 0.5  # between two moves of the hold while there is more to ship
logger: logging.Logger = logging.getLogger("walsvc.replication")


class ReplicaHold:
    """Moves the hold up behind what one session has shipped."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._segment = 0
        self._not_before = 0.0  # time of the loop
        self._moving: asyncio.Task[None] | None = None

    def move(self, segment: int, *, catching_up: bool) -> None:
        """Let the log drop the segments before the one with first LSN `segment`. Once for each segment, and seldom while it is
        `catching_up`: a move is a group of its own, and is shipped."""
        now = asyncio.get_running_loop().time()
        if segment <= self._segment or (catching_up and now < self._not_before):
            return
        if self._moving is not None and not self._moving.done():
            return
        self._not_before = now + HOLD_SECONDS
        self._segment = segment
        self._moving = begin_task(self._move(segment))

    async def _move(self, segment: int) -> None:
        lsn = max(segment, self._log.first_lsn)
        if self._log.holds().get(REPLICA_HOLD) == lsn:
            return
        try:
            await self._log.hold(REPLICA_HOLD, lsn)
        except WalError as error:
            # a sealed, full, failed or closed log keeps more than it must, and nothing else follows
            logger.debug("%s: the hold stays: %s", self._log.writer.segments.disk.path, error)

    async def stop(self) -> None:
        """End a move that is under way."""
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.wait([self._moving])
