"""Cutting: the names that truncate_after changes behind its intent, where the system does not change them at once: no data is at stake.

A file system that copies on write needs room to rename or remove a file, and a directory may have lost its mode. What truncate_before
has dropped may stay: the next truncation tries again. What truncate_after has dropped must go before anything is appended, since
the next opening would finish the cut, and drop that with it: so the log waits, and whoever calls meanwhile is told why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from walsvc.errors import WalError
from walsvc.format.segment import segment_name
from walsvc.log.commit.core import Core
from walsvc.log.commit.patience import BY_ITSELF, gone, insist, kept_back

STAYS = "a dropped segment cannot be removed yet"
UNNAMED = "the segment behind the cut cannot take its name yet"
TAKES_NOTHING = f"{BY_ITSELF}; until then it takes nothing"


class Cutting:
    """A truncate_after whose intent is durable.

    Args:
        core: of the log.
        short: gets the reason why a name cannot be changed now; then that is tried until it succeeds or the log is closed.
            None, while opening: that reason is raised.
    """

    def __init__(self, core: Core, short: asyncio.Future[WalError] | None) -> None:
        self._core = core
        self._short = short
        self._cut: Callable[[], None] | None = None

    async def name(self, first: int, spare: str, name: str) -> None:
        """Give the spare its name as segment `first`: the commit point."""
        await self._change(first, UNNAMED, lambda: self._core.disk.rename(spare, name))

    async def clear(self, dropped: list[int], newest: int, cut: Callable[[], None]) -> None:
        """Remove the segments that are dropped, durably; the one that holds the intent last.

        Args:
            dropped: first LSNs of the segments.
            newest: of the one that holds the intent, whether it goes or not.
            cut: called once, when all files are gone, or before somebody is told that they are not: lets the log end at the cut.
        """
        disk, self._cut = self._core.disk, cut
        if self._short is not None and self._short.done():
            task = asyncio.current_task()
            assert task is not None, "a change of the extent runs in a task of its own"
            self._core.catalog.begin_cutting(task)  # readers that look again wait for the cut
        for first in (each for each in dropped if each != newest):
            await self._remove(first)
        await disk.sync_directory()
        if newest in dropped:
            await self._remove(newest)
            await disk.sync_directory()
        self._end_there()

    async def _remove(self, first: int) -> None:
        await self._change(first, STAYS, partial(gone, self._core.disk, segment_name(first)))

    async def _change(self, first: int, text: str, call: Callable[[], Awaitable[None]]) -> None:
        await insist(call, partial(self._refused, first, text))

    def _refused(self, first: int, text: str, error: OSError) -> None:
        """See to those who wait meanwhile."""
        core, short = self._core, self._short
        reason = kept_back(error, text, path=core.disk.path, segment=first, hint=TAKES_NOTHING)
        if short is None:
            raise reason from error
        if core.health.closed is not None:
            core.health.note_told(int(short.done()))
            raise error
        self._end_there()
        if not short.done():
            short.set_result(reason)
        core.catalog.begin_cutting(short)  # readers that look again find all that there is
        core.refuse(reason)

    def _end_there(self) -> None:
        """Let the log end at the cut, if that is due and was not done."""
        cut, self._cut = self._cut, None
        if cut is not None:
            cut()
