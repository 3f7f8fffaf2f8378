"""Archiving in the background: a task beside an open log that stores each segment once it is sealed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from walsvc.config import between
from walsvc.engines.archive.push import Archive, hold
from walsvc.errors import Closed, Corruption, DurabilityLost, WalError
from walsvc.log.read.pins import ARCHIVE_HOLD
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.api import Log

RETRY_SECONDS_MAX = 60.0
logger: logging.Logger = logging.getLogger("walsvc.archive")


class Archiver:
    """Stores the sealed segments of an open log as long as it runs.

    A store that cannot be reached is tried again, ever more slowly; what is not archived yet stays in the log meanwhile, by
    the hold "archive". Damage ends it: an operator has to look.

    Attributes:
        archived_lsn: every record below it is archived.
        error: what the last attempt met; None when it went well.
    """

    def __init__(self, log: Log, archive: Archive, interval: float = 1.0) -> None:
        """interval: seconds between two looks at the log for a segment that was sealed, 0.001 to 3600."""
        between("interval", interval, 0.001, 3600.0)
        self._log = log
        self._archive = archive
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self.archived_lsn: int = log.holds().get(ARCHIVE_HOLD, log.first_lsn)
        self.error: WalError | None = None

    @property
    def behind(self) -> int:
        """Records that are durable and not archived, those of the active segment included."""
        return max(self._log.durable_lsn + 1 - self.archived_lsn, 0)

    @property
    def state(self) -> str:
        """ "running", "retrying" or "stopped"."""
        if self._task is None or self._task.done():
            return "stopped"
        return "running" if self.error is None else "retrying"

    async def __aenter__(self) -> Archiver:
        self._archive.refuse_inside(self._log.path)
        if ARCHIVE_HOLD not in self._log.holds():
            await hold(self._log, self.archived_lsn)  # before the first segment can be dropped
        self._task = begin_task(self._run())
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None, "__aexit__ without __aenter__"
        self._ending = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause, seen = self._interval, None
        while True:
            try:
                newest = (
                    self._log.writer.segments.ids()[-1],
                    self._log.writer.view.generation,
                    self._log.writer.segments.sealed,
                )
                if newest != seen or self.error is not None:
                    await self._archive.push(self._log)
                    seen, self.error, pause = newest, None, self._interval
                    self.archived_lsn = self._archive.archived_lsn
            except (Closed, DurabilityLost) as error:
                self.error = error
                return
            except Corruption as error:
                self.error = error
                logger.error("archiving stopped: %s", error)
                return
            except WalError as error:
                self.error = error
                pause = min(max(pause * 2, 1.0), RETRY_SECONDS_MAX)
                logger.warning("archiving is tried again in %g s: %s", pause, error)
            await asyncio.sleep(pause)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Note and log why the task has ended, a cancellation from outside included."""
        if self._ending:
            return
        error = asyncio.CancelledError("cancelled from outside") if task.cancelled() else task.exception()
        if error is not None:
            logger.error("archiving ended", exc_info=error)
            self.error = WalError(f"archiving ended: {error!r}", hint="report this; opening the log again goes on")
