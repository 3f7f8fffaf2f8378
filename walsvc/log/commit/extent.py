"""Extent: one change at a time of which segments a log has, and the end of a change that fails half-way.

Truncation, retention, compaction, rekeying, sealing, closing and streamed batches take their turn here, as does whoever copies
segments and wants none of them to change meanwhile.

A turn belongs to a task, and is over at the latest when that task ends, or takes another one: an exception may come between the
end of its work and the line that ends the turn, and others wait for it.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from errno import ENOMEM
from types import TracebackType
from typing import Any

from walsvc.disk.base import Disk
from walsvc.errors import WalError
from walsvc.log.commit.health import Health
from walsvc.log.commit.patience import patiently
from walsvc.log.read.reader import read_failed


class Extent:
    """`async with extent:` keeps everybody else from changing the segments. `async with extent.changing():` is for those that
    do: the log's failure, or its end, since they began to wait is raised; an error behind `begin` is terminal, one before it is a
    PathError."""

    def __init__(self, disk: Disk, health: Health) -> None:
        self._disk = disk
        self._health = health
        self._turns: dict[
            asyncio.Task[Any], asyncio.Future[None]
        ] = {}  # in the order of the calls; the first one has come

    @property
    def busy(self) -> bool:
        """True if somebody has the turn."""
        return bool(self._turns)

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a turn belongs to a task"
        self._end(task)
        try:
            self._turns[task] = turn = self._health.loop.create_future()
            task.add_done_callback(self._end)
            self._grant()
            await turn
        except BaseException:
            self._end(task)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # no loop: it ended in the middle of a change, the coroutine is thrown away
            if (task := asyncio.current_task()) is not None:
                self._end(task)
                task.remove_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._turns.pop(task, None)
        self._grant()

    def _grant(self) -> None:
        for turn in self._turns.values():
            if not turn.done():
                turn.set_result(None)
            return

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
                raise read_failed(self._disk, as_os_error(error)) from error
            if isinstance(error, OSError):
                self._health.fail("changing the log's extent failed", error)
                raise self._health.failure_told() from error
            self._health.broken(
                "changing the log's extent was cut short", error
            )  # nothing may come behind half a change
        finally:
            await self._extent.__aexit__(kind, error, trace)


def as_os_error(error: OSError | MemoryError) -> OSError:
    """No memory, as the system says it."""
    return error if isinstance(error, OSError) else OSError(ENOMEM, os.strerror(ENOMEM))
