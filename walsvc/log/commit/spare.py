"""A spare: a prepared file that becomes a segment by its first write and its renaming."""

from __future__ import annotations

from typing import NamedTuple

from walsvc.disk.base import Disk


class Spare(NamedTuple):
    """A prepared file, synced with its directory entry: every byte was written once (zeros, or a former segment), or is reserved."""

    name: str
    file: int
    file_bytes: int
    recycled: bool  # it may hold old bytes instead of zeros
    metadata_only: bool = False  # it is lent from the reserve


async def allocate_anew(disk: Disk, name: str, length: int, *, reserved: bool = False) -> None:
    """Allocate a file, in place of one that an attempt has left that ended behind this step."""
    try:
        await disk.allocate(name, length, reserved=reserved)
    except FileExistsError:
        await disk.remove(name)
        await disk.allocate(name, length, reserved=reserved)
