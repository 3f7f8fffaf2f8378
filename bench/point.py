"""`python -m bench.point OPTIONS`: open a log, append, seek, and print what each costs as one line of JSON.

A process of its own for each point, so that resident memory is that of this log alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass
from statistics import median

import walsvc
from bench import load
from bench.environment import Argument, loop_factory
from bench.memory import resident_bytes
from walsvc.config import DiskKind

SEEKS = 100


@dataclass(frozen=True, slots=True)
class Point(Argument):
    """What to measure.

    Attributes:
        path, disk, loop: the log, which must exist, and how to open it.
        payload_bytes: of the appends.
        seconds: how long to append by one task, and again by 64.
    """

    path: str
    disk: DiskKind
    loop: str
    payload_bytes: int
    seconds: float


async def measure(point: Point) -> dict[str, float]:
    """Microseconds of opening, appending and seeking (medians), appends per second of 64 tasks, bytes of memory."""
    before = resident_bytes()
    began = time.perf_counter()
    async with walsvc.open(point.path, disk=point.disk) as log:
        opened = time.perf_counter() - began
        first, last = log.first_lsn, log.next_lsn - 1
        memory = resident_bytes() - before
        segments = log.stats().segments
        seeks = []
        generator = random.Random(last)
        for _ in range(SEEKS):
            lsn = generator.randint(first, last)
            began = time.perf_counter()
            async for record in log.read(lsn, lsn + 1):
                assert record.lsn == lsn
            seeks.append(time.perf_counter() - began)
        payload = os.urandom(point.payload_bytes)
        taken = await load.latencies(log, payload, point.seconds)
        rate = await load.appends(log, payload, 64, point.seconds)
    return {
        "open_us": opened * 1e6,
        "seek_us": median(seeks) * 1e6,
        "append_us": median(each.ns for each in taken) / 1e3,
        "appends_per_s_64": rate.per_s,
        "memory_bytes": memory,
        "segments": segments,
    }


if __name__ == "__main__":
    asked = Point.given()
    with asyncio.Runner(loop_factory=loop_factory(asked.loop)) as runner:
        print(json.dumps(runner.run(measure(asked))))
