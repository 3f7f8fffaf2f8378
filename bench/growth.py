"""`python -m bench growth`: append, open, seek and memory against length, number of segments and payload size."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import walsvc
from bench import extents, load
from bench.environment import Results, in_own_process, loop_name
from bench.point import Point
from walsvc.config import GIB, KIB, MIB, WalConfig

RECORD_BYTES = 16 * KIB  # of the logs that grow in length


@dataclass(frozen=True, slots=True)
class Steps:
    """The points on each axis, and the seconds of each measurement."""

    lengths: tuple[int, ...] = (MIB, 10 * MIB, 100 * MIB, GIB, 10 * GIB)
    segments: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    payloads: tuple[int, ...] = (16, 128, KIB, 8 * KIB, 64 * KIB, MIB)
    seconds: float = 1.0


FULL = Steps()
QUICK = Steps(lengths=(MIB, 10 * MIB, 100 * MIB, GIB), segments=(1, 10, 100, 1_000), seconds=0.3)


async def run(
    place: str, steps: Steps, config: WalConfig, *, results: Results, tick: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure every point below `place`; each goes to `results` at once. Returns all of them."""
    points: list[dict[str, Any]] = []
    async for axis, value, path, payload_bytes in logs(place, steps, config, tick):
        tick(f"{axis} {value:,}: measuring")
        point = Point(path, config.disk, loop_name(), payload_bytes, steps.seconds)
        found = {"axis": axis, "value": value, **await measured(point)}
        points.append(found)
        results.add(**found)
        await asyncio.to_thread(shutil.rmtree, path)
    return points


async def logs(
    place: str, steps: Steps, config: WalConfig, tick: Callable[[str], None]
) -> AsyncIterator[tuple[str, int, str, int]]:
    """One log after the other: (axis, value, path, payload bytes to append)."""
    path = os.path.join(place, "log")
    for length in steps.lengths:
        tick(f"length {length >> 20:,} MiB: writing")
        async with walsvc.open(path, config=config) as log:
            await load.fill(log, length, RECORD_BYTES)
        yield "length_bytes", length, path, 128
    for count in steps.segments:
        tick(f"{count:,} segments: writing")
        await extents.many_segments(path, count, config)
        yield "segments", count, path, 128
    for size in steps.payloads:
        tick(f"payloads of {size:,} B: writing")
        async with walsvc.open(path, config=config) as log:
            await load.fill(log, 32 * MIB, size)
        yield "payload_bytes", size, path, size


async def measured(point: Point) -> dict[str, float]:
    """In a process of its own."""
    found: dict[str, float] = json.loads(await in_own_process("bench.point", point.as_argument()))
    return found
