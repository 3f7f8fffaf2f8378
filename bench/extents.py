"""P8 to P11: memory, loop lag, rotation, and what does not grow with the number of segments."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import time
from collections.abc import AsyncGenerator
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import walsvc
from bench import load, targets
from bench.crowd import Crowd
from bench.environment import in_own_process, loop_name
from bench.plan import Plan
from bench.targets import Point, Verdict
from walsvc.config import KIB, MIB, WalConfig

if TYPE_CHECKING:
    from walsvc.interface import Log

FEW_SEGMENTS = 10
SMALL_SEGMENT = 64 * KIB
LAG_SEGMENT = 8 * MIB
SEEKS = 200
TOPICS_AT_ONCE = 1_000


async def memory(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P8: a process of its own appends; its memory after a tenth and at the end."""
    yield "P8"
    verdict = Verdict(targets.P8A, note=f"{plan.memory_appends:,} appends")
    answer = await in_own_process(
        "bench.memory", os.path.join(place, "memory"), str(plan.memory_appends), config.disk, loop_name()
    )
    early, late = map(int, answer.split())
    verdict.points.append(Point(max(0, late - early) / MIB, 8))
    yield verdict


async def lag(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P9: a timer of 1 ms beside 1,024 tasks, with small segments so that there are many rotations. In a process of its own, whose
    collector walks what a log needs and not what these tools have imported."""
    yield "P9"
    verdict = Verdict(targets.P9)
    path, seconds = os.path.join(place, "lag"), plan.watch_seconds
    asked = Crowd(path, config.disk, loop_name(), plan.rounds, seconds, lag=True, segment_bytes=LAG_SEGMENT)
    found = json.loads(await in_own_process("bench.crowd", asked.as_argument()))
    verdict.points += [Point(late, 5000) for late, _ in found]
    verdict.note = f"{found[-1][1]} rotations in the last round"
    yield verdict


async def rotation(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P10: one task on segments of 1 MiB, so that of 256 appends one begins a segment."""
    verdict = Verdict(targets.P10, note="no rotation in the time given")
    small = dataclasses.replace(config, segment_bytes=MIB)
    async with walsvc.open(os.path.join(place, "rotation"), config=small) as log:
        for number in range(plan.rounds):
            yield f"P10, round {number + 1} of {plan.rounds}"
            taken = await load.latencies(log, os.urandom(128), plan.watch_seconds)
            rotations = sum(before.segment_id != after.segment_id for before, after in pairwise(taken))
            if rotations:
                ordered = sorted(each.ns for each in taken)
                verdict.points.append(Point(ordered[int(len(ordered) * 0.999)] / 1e3, median(ordered) / 1e3))
                verdict.note = f"{rotations} rotations among {len(taken)} appends of the last round"
            await load.drop_all(log)
    yield verdict


async def growth(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P11: appending and seeking beside few and beside many segments."""
    note = "" if plan.segments == 10_000 else f"quick: {plan.segments:,} segments"
    appending, seeking = Verdict(targets.P11A, note=note), Verdict(targets.P11B, note=note)
    paths = [os.path.join(place, f"segments-{count}") for count in (FEW_SEGMENTS, plan.segments)]
    for path, count in zip(paths, (FEW_SEGMENTS, plan.segments), strict=True):
        yield f"P11, writing {count:,} segments"
        await many_segments(path, count, config)
    few = await walsvc.open(paths[0], config=config)
    many = await walsvc.open(paths[1], config=config)
    try:
        last = [log.next_lsn - 1 for log in (few, many)]
        for log in (few, many):
            await load.fill(log, load.FILLER_BYTES, 64 << 10)
        for number in range(plan.rounds):
            yield f"P11, round {number + 1} of {plan.rounds}"
            ours = [await append_us(log, plan.seconds / 2) for log in (many, few)]
            appending.points.append(Point(*ours))
            ours = [await seek_us(log, lsn) for log, lsn in ((many, last[1]), (few, last[0]))]
            seeking.points.append(Point(*ours))
    finally:
        await few.close()
        await many.close()
    yield appending
    yield seeking


async def topics(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P11: appending to, and seeking in, one topic of one and of many; both logs hold equally many records."""
    note = "" if plan.topics == 100_000 else f"quick: {plan.topics:,} topics"
    appending, seeking = Verdict(targets.P11C, note=note), Verdict(targets.P11D, note=note)
    yield f"P11, making {plan.topics:,} topics"
    async with (
        walsvc.open(os.path.join(place, "one-topic"), config=config) as one,
        walsvc.open(os.path.join(place, "many-topics"), config=config) as many,
    ):
        for log, count in ((one, 1), (many, plan.topics)):
            for start in range(0, plan.topics, TOPICS_AT_ONCE):
                numbers = range(start, min(start + TOPICS_AT_ONCE, plan.topics))
                await asyncio.gather(*(log.topic(f"topic-{number % count}").append(b"first") for number in numbers))
        for number in range(plan.rounds):
            yield f"P11, topics, round {number + 1} of {plan.rounds}"
            ours = [
                await topic_append_us(log, count, plan.seconds / 2) for log, count in ((many, plan.topics), (one, 1))
            ]
            appending.points.append(Point(*ours))
            ours = [await topic_seek_us(log, count, plan.topics) for log, count in ((many, plan.topics), (one, 1))]
            seeking.points.append(Point(*ours))
    yield appending
    yield seeking


async def topic_append_us(log: Log, topics: int, seconds: float) -> float:
    """Median append of one task, to a topic that changes every time."""
    payload, clock = os.urandom(128), time.perf_counter
    taken: list[float] = []
    chosen = [log.topic(f"topic-{random.randrange(topics)}") for _ in range(min(topics, 1000))]
    deadline = clock() + seconds
    while (began := clock()) < deadline or not taken:
        await chosen[len(taken) % len(chosen)].append(payload)
        taken.append(clock() - began)
    return median(taken) * 1e6


async def topic_seek_us(log: Log, topics: int, records: int) -> float:
    """Median of reading one of the first `records` records through its topic."""
    taken = []
    for _ in range(SEEKS):
        lsn = random.randint(1, records)
        began = time.perf_counter()
        found = [record.lsn async for record in log.topic(f"topic-{(lsn - 1) % topics}").read(lsn, lsn + 1)]
        taken.append(time.perf_counter() - began)
        assert found == [lsn]
    return median(taken) * 1e6


async def many_segments(path: str, count: int, config: WalConfig) -> None:
    """A log of about `count` segments of 64 KiB, each nearly filled by one record."""
    small = dataclasses.replace(config, segment_bytes=SMALL_SEGMENT)
    payload = os.urandom(40 * KIB)
    async with walsvc.open(path, config=small) as log:
        for _ in range(count):
            await log.append(payload)


async def append_us(log: Log, seconds: float) -> float:
    """Median append of one task."""
    return median(each.ns for each in await load.latencies(log, os.urandom(128), seconds)) / 1e3


async def seek_us(log: Log, last_lsn: int) -> float:
    """Median of reading one record somewhere in the log."""
    generator = random.Random(last_lsn)
    taken = []
    for _ in range(SEEKS):
        lsn = generator.randint(1, last_lsn)
        began = time.perf_counter()
        async for record in log.read(lsn, lsn + 1):
            assert record.lsn == lsn
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


async def backend(path: str, config: WalConfig) -> dict[str, str | int | bool]:
    """How a log at `path` writes, for the record of a run."""
    async with walsvc.open(path, config=config) as log:
        stats = log.stats()
    names = ("disk", "disk_reason", "direct", "block_bytes", "sync_method")
    return {name: getattr(stats, name) for name in names}
