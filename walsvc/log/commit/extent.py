"""Extent: one change at a time of which segments a log has, and the end of a change that fails half-way.

Truncation, retention, compaction, rekeying, sealing, closing and streamed batches take their turn here, as does whoever copies
segments and wants none of them to change meanwhile.

A turn belongs to a task (walsvc.tasks.TaskLock).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENOMEM
from types import TracebackType

from walsvc.disk.base import Disk
from walsvc.errors import WalError, copy_of, read_failed
from walsvc.log.commit.health import Health
from walsvc.log.commit.patience import patiently
from walsvc.tasks import TaskLock


class Extent(TaskLock):
    """`async with extent:` keeps everybody else from changing the segments. `async with extent.changing():` is for those that
    do: the log's failure, or its end, since they began to wait is raised; an error behind `begin` is terminal, one before it is a
    PathError."""

    def __init__(self, disk: Disk, health: Health) -> None:
        super().__init__()
        self.on_refusal: Callable[[WalError], None] = lambda _: None
        self._disk = disk
        self._health = health

    def refuse(self, error: WalError) -> None:
        """Give `error` to every call that waits for a turn, and to `on_refusal`."""
        self.on_refusal(error)
        for turn in list(self._turns.values())[1:]:
            if turn is not None and not turn.done():
                turn.set_exception(copy_of(error))

    def changing(self) -> Changing:
        """A turn for a change."""
        return Changing(self, self._health, self._disk)

    async def check(self) -> None:
        """DurabilityLost, from now on, where the log's files are not those that were opened."""
        try:
            await patiently(self._disk.check_place)
        except OSError as error:
            if self._health.released:
                return  # closing has seen to it
            self._health.fail("the log was changed under its writer", error)
            raise self._health.failure_told() from error


class Changing:
    """See Extent. No generator, since the end of a loop may drop it in the middle of anything."""

    def __init__(self, extent: Extent, health: Health, disk: Disk) -> None:
        self._extent = extent
        self._health = health
        self._disk = disk
        self._begun = False

    def begin(self) -> None:
        """The first change follows."""
        self._begun = True

    async def __aenter__(self) -> Changing:
        await self._extent.__aenter__()
        try:
            if (ended := self._health.ended()) is not None:
                raise ended
            await self._extent.check()  # since a change may remove files
        except BaseException:
            await self._extent.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, WalError):
                return
            if not self._begun and isinstance(error, (OSError, MemoryError)):
                raise read_failed(self._disk.path, as_os_error(error)) from error
            if isinstance(error, OSError):
                self._health.fail("changing the log's extent failed", error)
                raise self._health.failure_told() from error
            # nothing may come behind half a change
            self._health.broken("changing the log's extent was cut short", error)
        finally:
            await self._extent.__aexit__(kind, error, trace)


def as_os_error(error: OSError | MemoryError) -> OSError:
    """No memory, as the system says it."""
    return error if isinstance(error, OSError) else OSError(ENOMEM, os.strerror(ENOMEM))
