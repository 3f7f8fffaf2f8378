"""`python -m bench.memory PATH APPENDS DISK LOOP`: append, and print resident memory after a tenth and at the end."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, cast

import walsvc
from bench.environment import loop_factory
from walsvc.config import DiskKind

if TYPE_CHECKING:
    from walsvc.interface import Log

TASKS = 1024


async def watch(path: str, appends: int, disk: DiskKind) -> tuple[int, int]:
    """Resident bytes after a tenth of the appends and after all of them."""
    payload = os.urandom(128)
    async with walsvc.open(path, disk=disk) as log:
        await append_until(log, payload, appends // 10)
        early = resident_bytes()
        await append_until(log, payload, appends)
        return early, resident_bytes()


async def append_until(log: Log, payload: bytes, last_lsn: int) -> None:
    """Let all tasks append until `last_lsn` is given out."""

    async def work() -> None:
        while log.next_lsn <= last_lsn:
            await log.append(payload)

    await asyncio.gather(*(work() for _ in range(TASKS)))


def resident_bytes() -> int:
    """Of this process (proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as line:
        return int(line.read().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory(sys.argv[4])) as runner:
        print(*runner.run(watch(sys.argv[1], int(sys.argv[2]), cast(DiskKind, sys.argv[3]))))
