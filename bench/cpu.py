"""A program: CPU time of one durable append, by the walsvc that PYTHONPATH names. It runs on the first version as well, so it uses
nothing of this repository's tools.

    cpu.py PATH DISK LOOP TASKS SECONDS

Prints microseconds of the whole process for each append, the kernel's worker threads for its ring included.
"""

import asyncio
import importlib
import os
import sys
import time
from typing import Any

import walsvc

WARM_UP = 0.2  # of the time


async def main(path: str, disk: Any, tasks: int, seconds: float) -> float:
    """See the head of this file."""
    payload = os.urandom(128)
    async with walsvc.open(path, disk=disk) as log:

        async def phase(seconds: float) -> tuple[int, float]:
            live = [True]

            async def work() -> None:
                while live:
                    await log.append(payload)

            before, began = log.next_lsn, time.process_time()
            asyncio.get_running_loop().call_later(seconds, live.clear)
            await asyncio.gather(*(work() for _ in range(tasks)))
            return log.next_lsn - before, time.process_time() - began

        await phase(seconds * WARM_UP)
        appends, cpu = 0, 0.0
        while not appends:  # a device may stall for longer than that
            appends, cpu = await phase(seconds)
    return cpu / appends * 1e6


if __name__ == "__main__":
    _, path, disk, loop, tasks, seconds = sys.argv
    with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
        print(runner.run(main(path, disk, int(tasks), float(seconds))))
