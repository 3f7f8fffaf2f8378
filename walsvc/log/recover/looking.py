"""Looking at a log that another process may be writing. Nothing is written, and nothing is locked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, cast

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, PathError, WalTimeout
from walsvc.format.segment import SEGMENT_HEADER_BYTES, parse_name
from walsvc.keyring import Keys
from walsvc.log.recover.recovery import Recovered, recover

LOOKS_MAX = 20  # rotation and truncation may take a file away while it is read
LOOK_SECONDS = 0.05  # between two looks at what looks damaged
T = TypeVar("T")


class Touched:
    """A disk, and the names of the files that were read through it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._disk, name)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """See Disk.read."""
        self.names.add(name)
        return await self._disk.read(name, offset, length)

    async def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """See Disk.read_into."""
        self.names.add(name)
        return await self._disk.read_into(name, offset, view)

    async def births(self) -> dict[str, tuple[int, bytes]]:
        """Which segments stand in the directory: by name their lengths and, of those that were read, the headers' bytes. No two
        segments of a log have the same header: a cut raises the generation, and another content moves the seal."""
        found: dict[str, tuple[int, bytes]] = {}
        for name, file_bytes in (await self._disk.list()).items():
            header = b""
            if name in self.names:
                with suppress(OSError):  # the writer has dropped it, or the device refuses it: the look has told that
                    header = await self._disk.read(name, 0, SEGMENT_HEADER_BYTES)
            if parse_name(name, ".wal") is not None:
                found[name] = file_bytes, header
        return found


async def settled(
    disk: Disk, look: Callable[[Disk], Awaitable[T]], damage: Callable[[T], object] = lambda _: None
) -> T:
    """The outcome of a look, taken again where it shows damage: what a living log moved under our eyes looks otherwise the
    next time, damage looks the same. A writer that cuts again and again may move the same place under two looks, which then
    tell the same: so damage counts only if no segment was exchanged between them either.

    Args:
        disk: of the log.
        look: one look, through the disk that it is given. Its Corruption or FileNotFoundError is raised once it has come twice.
        damage: tells what is wrong with what was found; false: nothing.

    Raises:
        WalTimeout: whatever looked damaged looked otherwise each time.
    """
    before: object = None
    seen = Touched(disk)
    for _ in range(LOOKS_MAX):
        pause = LOOK_SECONDS
        failed: Corruption | FileNotFoundError | None = None
        try:
            found = await look(cast("Disk", seen))
            told = damage(found)
            if not told:
                return found
        except (Corruption, FileNotFoundError) as error:
            failed, told = error, str(error)
            if isinstance(error, FileNotFoundError):
                pause = 0  # the writer is through with that file
        now = told, await seen.births()
        if now == before:
            if failed is not None:
                raise failed
            return found
        before = now
        await asyncio.sleep(pause)
    raise WalTimeout("the log changed under every attempt to read it", path=disk.path, hint="try again")


async def find(disk: Disk, keys: Keys = None) -> Recovered:
    """Recover without writing. Raises PathError where there is no log, and what `settled` raises."""

    async def look(seen: Disk) -> Recovered:
        found = await recover(seen, keys)
        if found is None:
            raise PathError("there is no log here", path=disk.path, hint="check the path")
        for name in found.unsynced:
            await disk.sync(name)
        return found

    return await settled(disk, look)
