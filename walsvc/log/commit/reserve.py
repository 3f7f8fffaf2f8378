"""The reserve: two small files, prepared with the log, that records never get.

A full device must not keep a log from what makes room again: opening it, truncating it, acknowledging records. So where
metadata finds no room in the active segment and no spare can be had, a file of the reserve becomes the next segment. It
takes metadata only (METADATA_ONLY in its header), so the segment that comes after it begins with the same LSN and replaces
it, as it does with every segment without records. That frees the file's blocks, of which the next reserve is made: with two
of them a log goes on so for as long as the device stays full.

Records begin no segment while the reserve is incomplete. A log is made without one where the device has no room for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from walsvc.disk.base import Disk
from walsvc.format.segment import parse_name, spare_name
from walsvc.log.commit.patience import gone, let_go
from walsvc.log.commit.spare import Spare, allocate_anew

RESERVE_FILES = 2  # one is in use while the other waits to take its place
RESERVE_NAME = 1 << 62  # keeps their names apart from those of other spares


def is_reserve(name: str) -> bool:
    """True if a file of this name is one of the reserve."""
    return (number := parse_name(name, ".spare")) is not None and number >> 62 == 1


class Reserve:
    """The files of the reserve. SparePipeline calls it, one call at a time."""

    def __init__(self, disk: Disk, wanted: Callable[[], int]) -> None:
        self._disk = disk
        self._wanted = wanted
        self.files: dict[str, int] = {}  # name -> length

    @property
    def complete(self) -> bool:
        """True if records may begin a segment. A disk on which no file can take a segment's place has no reserve."""
        wanted = self._wanted()
        return not self._disk.rewrites or sum(length >= wanted for length in self.files.values()) >= RESERVE_FILES

    async def top_up(self) -> None:
        """Make what is missing, and replace what has become too small for the metadata, has got a second name (which keeps what is
        in it), or was cut by somebody. OSError as from allocate."""
        for name in list(self.files):
            if not await self._usable(name):
                await gone(self._disk, name)
                del self.files[name]
        while not self.complete:
            name, length = self._free_name(), self._wanted()
            await allocate_anew(self._disk, name, length)
            self.files[name] = length
            small = [each for each in self.files if self.files[each] < length]
            if len(self.files) > RESERVE_FILES and small:
                await self._disk.remove(small[0])
                del self.files[small[0]]

    async def lend(self, name: str, need: int) -> Spare | None:
        """One of the files as the spare `name`; None if none holds `need` bytes."""
        own = await self._fitting(need)
        if own is None:
            return None
        await self._disk.fill_holes(own, 0)  # a sparse copy of the log may have it
        await self._disk.sync(own)  # a process that was killed may have left it with nothing of it on the device
        await self._disk.rename(own, name)
        length = self.files.pop(own)
        await self._disk.sync_directory()
        return Spare(name, await self._disk.open_file(name), length, recycled=False, metadata_only=True)

    async def _fitting(self, need: int) -> str | None:
        for each, length in list(self.files.items()):
            if length >= need and await self._usable(each):
                return each
        return None

    async def _usable(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            return await self._disk.reusable(name, self.files[name])
        return False

    async def take_back(self, spare: Spare) -> None:
        """Undo `lend`."""
        own = self._free_name()
        await let_go(self._disk, spare.file)
        await self._disk.rename(spare.name, own)
        self.files[own] = spare.file_bytes

    def _free_name(self) -> str:
        numbers = (RESERVE_NAME | number for number in range(len(self.files) + 1))
        return next(name for name in map(spare_name, numbers) if name not in self.files)
