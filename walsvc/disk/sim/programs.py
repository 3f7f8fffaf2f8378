"""The steps by which the operations of a simulated disk change its device. Each `yield` lets others have their turns."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from walsvc.disk.base import Write
from walsvc.disk.sim.device import SimDevice
from walsvc.disk.sim.faults import system_error
from walsvc.disk.sim.file import SimFile
from walsvc.disk.sim.queue import Program

T = TypeVar("T")


class Programs:
    """Makes the programs of one process' operations.

    Args:
        device: they change it.
        sync_method: "dsync" or "fdatasync", see rule 2.
        direct: without page cache.
    """

    def __init__(self, device: SimDevice, sync_method: str, *, direct: bool) -> None:
        self._device = device
        self._sync_method = sync_method
        self._direct = direct

    def single(self, name: str, effect: Callable[[], T]) -> Program[T]:
        """An operation of one step."""
        yield from ()
        self._device.check(name)
        return effect()

    def failing(self, error: OSError) -> Program[None]:
        """An operation that fails."""
        yield from ()
        raise error

    def submitted(self, write: Write, file: SimFile, number: int, data: bytes, *, cached: bool) -> Program[None]:
        """A durable write that has begun; `cached`: it goes through the page cache."""
        assert bytes(write.view) == data, "the memory of a write changed while it was in flight"
        self._device.land_write("submit.write", file, number, data)
        yield from self._syncing("submit.sync", file, number, cached=cached)
        self._device.check("submit.complete")

    def writing(self, name: str, offset: int, data: bytes) -> Program[None]:
        """A durable write by name."""
        file = self._device.file(name)
        number = self._device.begin_write(file, offset, data)
        yield
        self._device.land_write("write", file, number, data)
        yield from self._syncing("write.sync", file, number)

    def _syncing(self, name: str, file: SimFile, number: int, *, cached: bool = False) -> Program[None]:
        """Make a completed write durable, by this disk's method."""
        numbers = [number]
        if self._sync_method == "fdatasync":
            numbers = file.landed()
            yield
        self._device.sync_file(name, file, numbers, cached=cached or not self._direct)

    def syncing(self, name: str) -> Program[None]:
        """A sync of a file."""
        file = self._device.file(name)
        numbers = file.landed()
        yield
        self._device.sync_file("sync", file, numbers, cached=not self._direct)
        file.drop_lost()

    def syncing_names(self, name: str) -> Program[None]:
        """A sync of the directory, by an operation of this name."""
        mark = self._device.directory.mark
        yield
        self._device.sync_directory(name, mark)

    def allocating(self, name: str, length: int, ended: Callable[[], bool], *, reserved: bool) -> Program[None]:
        """A new file of zeros; given up once `ended` says so."""
        device = self._device
        device.check("allocate")
        file = device.create(name)
        try:
            # Two pieces are enough for a power cut, or `close`, to find a file that is only partly there.
            for end in (length,) if reserved else (length // 2, length):
                yield
                if ended():
                    raise system_error(errno.ECANCELED)
                device.check("allocate.write")
                if end - file.visible_size > device.free_bytes():
                    raise system_error(errno.ENOSPC)
                file.extend(device.next_number(), end)
            numbers = file.landed()
            yield
            device.sync_file("allocate.sync", file, numbers, cached=not self._direct)
            yield from self.syncing_names("allocate.sync_directory")
        except OSError:
            device.directory.change({name: None})
            raise
