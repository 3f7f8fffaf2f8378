"""`python -m bench sessions`: what a topic for each session costs, when it is over."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import walsvc
from bench.environment import Results
from walsvc.config import KIB, MIB, WalConfig

LIVE = 1_000  # sessions at a time
RECORD_BYTES = 100
AFTER_BYTES = 8 * MIB  # appended once all sessions are over
AFTER_RECORD_BYTES = 1 * KIB
WAYS = ("truncated", "deleted", "kept")


@dataclass(frozen=True, slots=True)
class Cost:
    """What sessions have cost.

    Attributes:
        way: how they end: the log is truncated behind them, each topic is deleted, or they stay.
        topics: how many there were, each with one record.
        seconds: for all of them.
        record_bytes: payloads of their records.
        written_bytes: to segments meanwhile.
        log_bytes: of the log's files when all are over.
        open_ms, open_bytes: opening it then, and what was read for that.
        after_bytes: written to segments for AFTER_BYTES of payloads that were appended then.
    """

    way: str
    topics: int
    seconds: float
    record_bytes: int
    written_bytes: int
    log_bytes: int
    open_ms: float
    open_bytes: int
    after_bytes: int


async def run(
    place: str, topics: int, config: WalConfig, *, results: Results, tick: Callable[[str], None], live: int = LIVE
) -> list[Cost]:
    """Measure each way below `place`; each goes to `results` at once. Returns all of them.

    Args:
        place: a directory.
        topics: how many sessions there are.
        config: of the logs.
        results, tick: take what was measured, and how far it has come.
        live: sessions at a time.
    """
    costs = []
    for way in WAYS:
        path = os.path.join(place, "log")
        tick(f"{topics:,} topics, {way}")
        costs.append(await measured(path, way, topics, live, config))
        results.add(**asdict(costs[-1]))
        await asyncio.to_thread(shutil.rmtree, path)
    return costs


async def measured(path: str, way: str, topics: int, live: int, config: WalConfig) -> Cost:
    """One way, in a log of its own."""
    started = time.perf_counter()
    async with walsvc.open(path, config=config) as log:
        await live_through(log, way, topics, live)
        await log.flush()
        seconds, written = time.perf_counter() - started, log.stats().written_bytes
    started = time.perf_counter()
    async with walsvc.open(path, config=config) as log:
        opened, read = time.perf_counter() - started, log.report.bytes_read
        length, before = log.retention().bytes, log.stats().written_bytes
        for _ in range(AFTER_BYTES // (64 * AFTER_RECORD_BYTES)):
            await asyncio.gather(*(log.append(bytes(AFTER_RECORD_BYTES)) for _ in range(64)))
        after = log.stats().written_bytes - before
    return Cost(way, topics, seconds, topics * RECORD_BYTES, written, length, opened * 1e3, read, after)


async def live_through(log: walsvc.Log, way: str, topics: int, live: int) -> None:
    """Begin sessions, `live` at a time, each with a record, and end them."""
    for begin in range(0, topics, live):
        names = [f"session {number}" for number in range(begin, min(begin + live, topics))]
        await asyncio.gather(*(log.topic(name).append(bytes(RECORD_BYTES)) for name in names))
        if way == "truncated":
            await log.truncate_before(log.next_lsn)
        elif way == "deleted":
            await asyncio.gather(*map(log.delete_topic, names))
