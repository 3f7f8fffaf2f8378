"""Patience: a call of the disk that the system put off, in the middle of a change that must come to its end.

Called by rotation, truncation, compaction and batches between their first change and their last: what fails there ends the log,
and a shortage that lasts a moment shall not. Only for calls that did nothing where they failed, and so never for a sync: a
sync that failed is never repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from errno import EMFILE, ENFILE
from typing import ParamSpec, TypeVar

from walsvc.disk.base import Disk
from walsvc.errors import PASSING_ERRNOS

P = ParamSpec("P")
T = TypeVar("T")

PAUSES = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
"""Seconds before each further attempt: as a disk tries a write again that the kernel put off."""
NO_DESCRIPTOR = frozenset({EMFILE, ENFILE})


async def patiently(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await `call(...)`, again while it fails by PASSING_ERRNOS, for about half a second. Raises what the last attempt raises."""
    return await _again(PASSING_ERRNOS, lambda: call(*args, **kwargs))


async def write_patiently(disk: Disk, name: str, offset: int, data: bytes) -> None:
    """Disk.write, again while no descriptor is to be had for it: what else it may lack, its sync may have lacked."""
    await _again(NO_DESCRIPTOR, lambda: disk.write(name, offset, data))


async def _again(numbers: frozenset[int], call: Callable[[], Awaitable[T]]) -> T:
    for pause in PAUSES:
        try:
            return await call()
        except OSError as error:
            if error.errno not in numbers:
                raise
        await asyncio.sleep(pause)
    return await call()


async def let_go(disk: Disk, file: int) -> None:
    """Close a file all of which is durable. The system releases the descriptor also where it says that it was interrupted, or short
    of something."""
    try:
        await disk.close_file(file)
    except OSError as error:
        if error.errno not in PASSING_ERRNOS:
            raise
