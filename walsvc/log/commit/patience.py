"""Patience: a call of the disk that the system put off, in the middle of a change that must come to its end.

Called by rotation, truncation, compaction and batches between their first change and their last: what fails there ends the log,
and a shortage that lasts a moment shall not. Only for calls that did nothing where they failed, and so never for a sync: a
sync that failed is never repeated.

A change of names may be refused for as long as somebody does nothing about it: a file system that copies on write needs room even to
remove a file, and a directory may have lost its mode. No data is at stake, so whoever is in the middle of a change insists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from errno import EACCES, EBUSY, EFBIG, EISDIR, EMFILE, ENFILE, EPERM
from typing import ParamSpec, TypeVar

from walsvc.disk.base import Disk
from walsvc.errors import PASSING_ERRNOS, SPACE_ERRNOS, PathError, WalError, no_space

P = ParamSpec("P")
T = TypeVar("T")

PAUSES = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
"""Seconds before each further attempt: as a disk tries a write again that the kernel put off."""
NO_DESCRIPTOR = frozenset({EMFILE, ENFILE})
FORBIDDEN = frozenset({EACCES, EPERM, EBUSY, EISDIR})
SHORTAGES = SPACE_ERRNOS | PASSING_ERRNOS | FORBIDDEN | {EFBIG}
"""Why a file may not be made, named or removed now, though it may be later: where no data is at stake, the log tries again. A directory
may have lost its mode, or have been made immutable; somebody may have made one under the name of a file."""
INSISTING = (0.05, 0.1, 0.2, 0.5)
"""Seconds before each further attempt of `insist`; the last one again and again."""
BY_ITSELF = "no record is lost. Once the reason is gone the log goes on by itself, or opens again"


async def patiently(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await `call(...)`, again while it fails by PASSING_ERRNOS, for about half a second. Raises what the last attempt raises."""
    return await _again(PASSING_ERRNOS, lambda: call(*args, **kwargs))


async def insist(call: Callable[[], Awaitable[T]], refused: Callable[[OSError], None]) -> T:
    """Await `call()`, a change of names, until the system lets it. `refused(error)` is called each time that it does not, by one of
    SHORTAGES, and raises what ends the attempts."""
    attempts = 0
    while True:
        try:
            return await patiently(call)
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            refused(error)
        await asyncio.sleep(INSISTING[min(attempts, len(INSISTING) - 1)])
        attempts += 1


async def gone(disk: Disk, name: str) -> None:
    """Remove a file; somebody may have done so already."""
    with suppress(FileNotFoundError):
        await disk.remove(name)


def kept_back(error: OSError, text: str, *, path: str, segment: int, hint: str = BY_ITSELF) -> WalError:
    """The error for a name that cannot be changed now: NoSpace or PathError, with `text`, which says whose name it is."""
    if error.errno in SPACE_ERRNOS:
        return no_space(error, text, path=path, segment=segment, hint=hint)
    text = f"{text}: {error.strerror or error}"
    return PathError(text, errno=error.errno, path=path, segment=segment, hint=hint)


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
