"""P6 and P7: replaying a log, and opening it, against its length."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator
from statistics import median

import walsvc
from bench import load, targets
from bench.device import Device
from bench.plan import Plan
from bench.targets import Point, Verdict
from walsvc.bench import machine
from walsvc.config import MIB, WalConfig

OPENINGS = 5  # of each log in one round; their median counts


async def replays(place: str, device: Device, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P6: rounds of reading back a log of small records and one of large ones."""
    single, batched, large = Verdict(targets.P6A), Verdict(targets.P6B), Verdict(targets.P6C)
    small_path, large_path = os.path.join(place, "small"), os.path.join(place, "large")
    async with (
        walsvc.open(small_path, config=config) as small_log,
        walsvc.open(large_path, config=config) as large_log,
    ):
        yield "P6, writing"
        await load.fill(small_log, plan.replay_records * 128, 128)
        await load.fill(large_log, plan.replay_bytes, 16 << 10)
        for number in range(plan.rounds):
            yield f"P6, round {number + 1} of {plan.rounds}"
            began, count = time.perf_counter(), 0
            async for _ in small_log.read():
                count += 1
            single.points.append(Point(count / (time.perf_counter() - began), 0.5e6))
            began, count = time.perf_counter(), 0
            async for records in small_log.read_batches():
                count += len(records)
            batched.points.append(Point(count / (time.perf_counter() - began), 2e6))
            paths = [entry.path for entry in os.scandir(large_path) if entry.name.endswith(".wal")]
            plain = await asyncio.to_thread(device.reading, sorted(paths)[:-1])  # the last one is not full
            began, length = time.perf_counter(), 0
            async for records in large_log.read_batches():
                length += sum(len(record.payload) for record in records)
            large.points.append(Point(length / (time.perf_counter() - began), plain))
    for verdict in (single, batched, large):
        yield verdict


async def openings(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P7, and P8's page cache, since it has to write the long log anyway."""
    opening, cache = Verdict(targets.P7), Verdict(targets.P8B)
    short, long = os.path.join(place, "short"), os.path.join(place, "long")
    if plan.long_log_bytes != 10 << 30:
        opening.note = f"quick: {plan.long_log_bytes >> 30} GiB"
    yield "P7, writing"
    async with walsvc.open(short, config=config) as log:
        await load.fill(log, plan.short_log_bytes, MIB)
    async with walsvc.open(long, config=config) as log:
        before = machine.cached_bytes(long)
        await load.fill(log, plan.long_log_bytes, MIB)
        after = machine.cached_bytes(long)
    if before is None or after is None:
        cache.note = "the kernel does not tell"
    else:
        cache.points.append(Point(max(0, after - before) / MIB, 16))
        cache.note = f"{plan.long_log_bytes >> 30} GiB written"
    for number in range(plan.rounds):
        yield f"P7, round {number + 1} of {plan.rounds}"
        few, many = [], []
        for _ in range(OPENINGS):
            few.append(await open_once(short, config))
            many.append(await open_once(long, config))
        opening.points.append(Point(median(many) * 1e3, median(few) * 1e3))
    await asyncio.to_thread(shutil.rmtree, long)
    yield opening
    yield cache


async def open_once(path: str, config: WalConfig) -> float:
    """Seconds that opening takes."""
    began = time.perf_counter()
    log = await walsvc.open(path, config=config)
    took = time.perf_counter() - began
    await log.close()
    return took
