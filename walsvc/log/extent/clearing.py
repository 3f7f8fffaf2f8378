"""Removing the files of segments that are dropped, where the system does not let them go at once: no data is at stake.

A file system that copies on write needs room to remove a file, and a directory may have lost its mode. What truncate_before has
dropped may stay: the next truncation tries again. What truncate_after has dropped must go before anything is appended, since the
next opening would finish the cut, and drop that with it: so the log waits, and whoever calls meanwhile is told why.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from walsvc.errors import SPACE_ERRNOS, PathError, WalError, no_space
from walsvc.format.segment import segment_name
from walsvc.log.commit.core import Core
from walsvc.log.commit.patience import patiently
from walsvc.log.commit.spares import SHORTAGES

KEPT_BACK = SHORTAGES | {errno.EACCES, errno.EPERM, errno.EBUSY}
"""Why a file may be there still when it is to go."""
PAUSES = (0.05, 0.1, 0.2, 0.5)
"""Seconds before each further attempt behind truncate_after; the last one again and again."""
AGAIN = "once the reason is gone, truncate again: its room is freed then"
BY_ITSELF = (
    "no record is lost. Once the reason is gone the log goes on by itself, or opens again; until then it takes nothing"
)


def kept_back(core: Core, first: int, error: OSError, hint: str = AGAIN) -> WalError:
    """The error for a segment that cannot be removed now. No record of it is shown any more."""
    text = "a dropped segment cannot be removed yet"
    if error.errno in SPACE_ERRNOS:
        return no_space(error, text, path=core.disk.path, segment=first, hint=hint)
    text = f"{text}: {error.strerror or error}"
    return PathError(text, errno=error.errno, path=core.disk.path, segment=first, hint=hint)


async def clear(
    core: Core, gone: list[int], newest: int, short: asyncio.Future[WalError] | None, cut: Callable[[], None]
) -> None:
    """Remove the segments that truncate_after has dropped, durably; the one that holds its intent last.

    Args:
        gone: first LSNs of the segments.
        newest: of the one that holds the intent, whether it goes or not.
        short: gets the reason why a file cannot be removed now; then the removal is tried until it succeeds or the log is closed.
            None: that reason is raised.
        cut: called once, when all files are gone, or before `short` is told: lets the log end at the cut.
    """
    for first in (each for each in gone if each != newest):
        await remove(core, first, short, cut)
    await core.disk.sync_directory()
    if newest in gone:
        await remove(core, newest, short, cut)
        await core.disk.sync_directory()
    if short is None or not short.done():
        cut()


async def remove(core: Core, first: int, short: asyncio.Future[WalError] | None, cut: Callable[[], None]) -> None:
    """Remove one segment, and see to those who wait meanwhile."""
    attempts = 0
    while True:
        try:
            await patiently(core.disk.remove, segment_name(first))
            return
        except OSError as error:
            if error.errno not in KEPT_BACK:
                raise
            reason = kept_back(core, first, error, BY_ITSELF)
            if short is None:
                raise reason from error
            if core.health.closed is not None:
                core.health.told += 1  # by `short`
                raise
        if not short.done():
            cut()
            short.set_result(reason)
            core.catalog.begin_cutting(short)  # whoever looks again finds all that there is
        core.extent.refuse(reason)
        core.queue.refuse(reason)
        await asyncio.sleep(PAUSES[min(attempts, len(PAUSES) - 1)])
        attempts += 1
