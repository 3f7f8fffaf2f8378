"""Looking at a log that another process may be writing. Nothing is written, and nothing is locked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, PathError, WalTimeout
from walsvc.keyring import Keys
from walsvc.log.recover.recovery import Recovered, recover

LOOKS_MAX = 20  # rotation and truncation may take a file away while it is read
LOOK_SECONDS = 0.05  # between two looks at what looks damaged
T = TypeVar("T")


async def settled(path: str, look: Callable[[], Awaitable[T]], damage: Callable[[T], object] = lambda _: None) -> T:
    """What `look()` gives, looked at again where that is damaged: what a living log moved under our eyes looks otherwise the
    next time, damage looks the same.

    Args:
        path: of the log.
        look: one look. Its Corruption or FileNotFoundError is raised once it has come twice.
        damage: tells what is wrong with what was found; false: nothing.

    Raises:
        WalTimeout: whatever looked damaged looked otherwise each time.
    """
    before: object = None
    for _ in range(LOOKS_MAX):
        pause = LOOK_SECONDS
        try:
            found = await look()
            told = damage(found)
            if not told or told == before:
                return found
        except (Corruption, FileNotFoundError) as error:
            told = str(error)
            if told == before:
                raise
            if isinstance(error, FileNotFoundError):
                pause = 0  # the writer is through with that file
        before = told
        await asyncio.sleep(pause)
    raise WalTimeout("the log changed under every attempt to read it", path=path, hint="try again")


async def find(disk: Disk, keys: Keys = None) -> Recovered:
    """Recover without writing. Raises PathError where there is no log, and what `settled` raises."""

    async def look() -> Recovered:
        found = await recover(disk, keys)
        if found is None:
            raise PathError("there is no log here", path=disk.path, hint="check the path")
        for name in found.unsynced:
            await disk.sync(name)
        return found

    return await settled(disk.path, look)
