"""The loops that are compared with each other: asyncio without a log, and the same loop around a log.

Both have the same form, so that their ratio is what the log costs: tasks that await one future after the other, as long
as a list has something in it; no clock is read per append.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.config import MIB

if TYPE_CHECKING:
    from walsvc.interface import Log

LAG_SECONDS = 0.001  # between two looks at the loop
FILLER_BYTES = 80 * MIB  # past the small segments of a young log: 1, 8 and 64 MiB


class Rate(NamedTuple):
    """Operations in seconds."""

    operations: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Throughput."""
        return self.operations / self.seconds


async def ceiling(tasks: int, seconds: float) -> Rate:
    """What asyncio does at most: futures that one callback resolves, `tasks` at a time."""
    loop = asyncio.get_running_loop()
    create_future, call_soon = loop.create_future, loop.call_soon
    waiting: list[asyncio.Future[None]] = []
    count = 0

    def resolve() -> None:
        nonlocal count, waiting
        resolved, waiting = waiting, []
        count += len(resolved)
        for future in resolved:
            future.set_result(None)

    def operate() -> asyncio.Future[None]:
        future = create_future()
        if not waiting:
            call_soon(resolve)
        waiting.append(future)
        return future

    took = await repeat(tasks, seconds, operate)
    return Rate(count, took)


async def appends(log: Log, payload: bytes, tasks: int, seconds: float) -> Rate:
    """Strict appends of `payload` by `tasks` tasks."""
    before, append = log.next_lsn, log.append
    took = await repeat(tasks, seconds, lambda: append(payload))
    return Rate(log.next_lsn - before, took)


async def batches(log: Log, payloads: list[bytes], tasks: int, seconds: float) -> Rate:
    """Strict append_batch of `payloads` by `tasks` tasks; counts records."""
    before, append_batch = log.next_lsn, log.append_batch
    took = await repeat(tasks, seconds, lambda: append_batch(payloads))
    return Rate(log.next_lsn - before, took)


async def repeat(tasks: int, seconds: float, operate: Callable[[], Awaitable[Any]]) -> float:
    """`tasks` tasks that await operate() again and again, each at least once; the seconds from the first call to the last answer."""
    live = [True]

    async def work() -> None:
        await operate()  # whatever the time: on a busy machine it may be over before the loop comes here
        while live:
            await operate()

    running = [asyncio.ensure_future(work()) for _ in range(tasks)]
    began = time.perf_counter()
    stop = asyncio.get_running_loop().call_later(seconds, live.clear)
    try:
        await asyncio.gather(*running)
        return time.perf_counter() - began
    finally:
        stop.cancel()
        for task in running:
            task.cancel()


async def lags(seconds: float) -> list[int]:
    """How late a timer of LAG_SECONDS runs, in nanoseconds, again and again for so long."""
    clock, interval = time.perf_counter_ns, int(LAG_SECONDS * 1e9)
    taken: list[int] = []
    deadline = clock() + int(seconds * 1e9)
    due = 0
    while due < deadline:
        due = clock() + interval
        await asyncio.sleep(LAG_SECONDS)
        taken.append(max(0, clock() - due))
    return taken


class Append(NamedTuple):
    """One append by one task: its latency in nanoseconds and the segment it went to."""

    ns: int
    segment_id: int


async def latencies(log: Log, payload: bytes, seconds: float) -> list[Append]:
    """Strict appends by one task, one at least, each timed from the call to the resumption of the task."""
    append, clock = log.append, time.perf_counter_ns
    taken: list[Append] = []
    began = clock()
    deadline = began + int(seconds * 1e9)
    while not taken or began < deadline:
        result = await append(payload)
        ended = clock()
        taken.append(Append(ended - began, result.segment_id))
        began = clock()
    return taken


async def fill(log: Log, total: int, size: int, batch_bytes: int = MIB // 2) -> None:
    """Append `total` payload bytes in records of `size`, as batches, two of them on their way at a time."""
    payload = os.urandom(size)
    batch = [payload] * max(1, batch_bytes // size)
    count = max(1, total // (size * len(batch)))
    before = log.append_batch(batch)
    for _ in range(count - 1):
        after = log.append_batch(batch)
        await before
        before = after
    await before


async def grown_up(log: Log) -> None:
    """Bring a new log past its small first segments, and drop what was written for it."""
    await fill(log, FILLER_BYTES, 64 << 10)
    await drop_all(log)


async def drop_all(log: Log) -> None:
    """Truncate everything, so that rounds do not fill the disk; the files are recycled."""
    await log.truncate_before(log.next_lsn)
