"""Files in a log's directory that are not the log's alone: links, and things that are no files, under the names of its files.

A log never puts anything in their place. A file that has a second name somewhere, as in a backup that was made of hard links
(cp -al), is left to that name: it is not recycled, and a segment gets a copy of its own before it is written on.
"""

from __future__ import annotations

import os

from walsvc.config import MIB
from walsvc.disk.base import Disk
from walsvc.errors import PathError, taking_space
from walsvc.format.double_write import DOUBLE_WRITE_NAME, DOUBLE_WRITE_NEW
from walsvc.format.segment import parse_name
from walsvc.log.commit.spare import allocate_anew

REWRITE_SUFFIX = ".rewrite"
COPY_BYTES = 1 * MIB


def is_own(name: str) -> bool:
    """True if a file of a log has this name."""
    if name in (DOUBLE_WRITE_NAME, DOUBLE_WRITE_NEW):
        return True
    return any(parse_name(name, suffix) is not None for suffix in (".wal", ".spare", REWRITE_SUFFIX))


async def refuse_strangers(disk: Disk, files: dict[str, int]) -> None:
    """PathError where the name of one of the log's files stands for something else, or is written in other letters.

    Args:
        disk: of the log.
        files: what `list` has found.
    """
    for name, kind in (await disk.others()).items():
        if is_own(name.lower()):
            raise PathError(
                f"{name} has the name of a file of the log, but is no regular file: it is {kind}",
                path=os.path.join(disk.path, name),
                hint="put the file itself in its place, or move it elsewhere; nothing was changed",
            )
    for name in files:
        if not is_own(name) and is_own(name.lower()):
            raise PathError(
                f"{name} is the name of a file of the log, in other letters",
                path=os.path.join(disk.path, name),
                hint=f"rename it to {name.lower()}, or move it elsewhere; nothing was changed",
            )


async def make_own(disk: Disk, name: str, first_lsn: int, length: int) -> None:
    """Give a segment a file of its own where the present one has another name, too. NoSpace: nothing was changed."""
    if not await disk.shared(name):
        return
    copy = f"{first_lsn:016x}{REWRITE_SUFFIX}"
    with taking_space(
        f"no room for a copy of {name}, which is hard-linked elsewhere and would be changed there, too",
        path=disk.path,
        segment=first_lsn,
        expected=f"{length} bytes free",
        hint="free some space, or remove the other name of the file; nothing was changed",
    ):
        await allocate_anew(disk, copy, length)
    for offset in range(0, length - length % disk.block_bytes, COPY_BYTES):
        data = await disk.read(name, offset, min(COPY_BYTES, length - length % disk.block_bytes - offset))
        if data.strip(b"\0"):
            await disk.write(copy, offset, data)
    await disk.rename(copy, name)
    await disk.sync_directory()
