"""`python -m bench.crowd OPTIONS`: 1,024 tasks in a process of its own, on either event loop, and print what each round gave.

Nothing is imported here that a server would not import, and the garbage collector is as it comes: what a program sees that does
nothing about it.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass

import walsvc
from bench import load
from bench.environment import Argument, loop_factory
from walsvc.config import MIB, DiskKind

TASKS = 1024


@dataclass(frozen=True, slots=True)
class Crowd(Argument):
    """What to measure.

    Attributes:
        path, disk, loop: of a new log, and how to open it.
        rounds, seconds: how often, and for how long each time.
        lag: how late a timer runs beside them, with small segments, instead of their rate beside asyncio's own.
    """

    path: str
    disk: DiskKind
    loop: str
    rounds: int
    seconds: float
    lag: bool = False
    segment_bytes: int = 64 * MIB


async def measure(crowd: Crowd) -> list[tuple[float, float]]:
    """For each round: appends/s and the ceiling/s; or with `lag` microseconds (p99.9) and how many rotations there were."""
    payload = os.urandom(128)
    found: list[tuple[float, float]] = []
    async with walsvc.open(crowd.path, disk=crowd.disk, segment_bytes=crowd.segment_bytes) as log:
        await load.grown_up(log)
        for _ in range(crowd.rounds):
            if crowd.lag:
                before = log.stats().rotations
                appending = load.appends(log, payload, TASKS, crowd.seconds)
                _, taken = await asyncio.gather(appending, load.lags(crowd.seconds))
                found.append((sorted(taken)[int(len(taken) * 0.999)] / 1e3, log.stats().rotations - before))
            else:
                ceiling = await load.ceiling(TASKS, crowd.seconds)
                rate = await load.appends(log, payload, TASKS, crowd.seconds)
                found.append((rate.per_s, ceiling.per_s))
            await load.drop_all(log)
    return found


if __name__ == "__main__":
    asked = Crowd.given()
    with asyncio.Runner(loop_factory=loop_factory(asked.loop)) as runner:
        print(json.dumps(runner.run(measure(asked))))
