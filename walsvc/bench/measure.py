"""The measuring code of `walsvc bench run`: many tasks append for a while; what came out, as one frozen value.

    outcome = await measure("/data/scratch", Workload(tasks=64, seconds=5))

Every latency is that of one append as its caller sees it, from the call to the resumption of the task; with batches, of
one append_batch. Percentiles are exact to 0.1 us (counted, not sampled; nearest rank).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import walsvc
from walsvc.bench import machine
from walsvc.config import WalConfig
from walsvc.disk.doctor import MEMORY_FILE_SYSTEMS, mount_of
from walsvc.errors import BadOption
from walsvc.model import Mode
from walsvc.targets import scheme_of

if TYPE_CHECKING:
    from walsvc.interface import Log

LAG_INTERVAL = 0.001  # seconds between two looks at the loop; the timer's own resolution is of the same size
FOLD_AT = 1 << 11  # latencies kept as a list before they are counted; counting them takes the loop about 0.2 ms
TICKS_PER_US = 10
NS_PER_TICK = 1000 // TICKS_PER_US
PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The load to measure.

    Attributes:
        tasks: how many tasks append at once, each waiting for its answer before it appends again.
        payload_bytes: size of every payload; its content is random, so that no layer can compress it.
        mode: Strict or Relaxed.
        batch: records in one append_batch; 1 means append.
        seconds: how long, unless `records` is given.
        records: stop after this many (rounded up to whole batches); None: by time.
    """

    tasks: int = 64
    payload_bytes: int = 128
    mode: Mode = Mode.STRICT
    batch: int = 1
    seconds: float = 5.0
    records: int | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "batch"):
            if getattr(self, name) < 1:
                raise BadOption(f"{name}={getattr(self, name)} is less than 1")
        if self.payload_bytes < 0:
            raise BadOption(f"payload_bytes={self.payload_bytes} is negative")
        if self.records is None and not 0 < self.seconds < math.inf:
            raise BadOption(f"seconds={self.seconds} is no duration")
        if self.records is not None and self.records < 1:
            raise BadOption(f"records={self.records} is less than 1")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a set of durations in microseconds."""

    p50: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a run.

    Attributes:
        records, seconds: acknowledged in how long; for Strict the last acknowledgement ends it, for Relaxed a flush.
        latency_us: per append (or append_batch).
        syncs: durable writes that the log issued meanwhile.
        group_records_mean, group_records_max: records that shared one sync.
        written_bytes: what went to the log's segments, headers, padding and blocks written again included; as much again, and
            a block for each group, goes to the double-write file where there is one.
        log_bytes: what of the segments that takes up.
        page_cache_bytes: growth of the log's files in the page cache; None where the kernel does not tell.
        loop_lag_us: how late a 1 ms timer on the same loop ran.
        cpu_seconds: of this process, all threads.
        memory_backed: the file system lives in memory: the figures then say nothing about durable storage.
    """

    workload: Workload
    records: int
    seconds: float
    latency_us: Percentiles
    syncs: int
    group_records_mean: float
    group_records_max: int
    written_bytes: int
    log_bytes: int
    page_cache_bytes: int | None
    loop_lag_us: Percentiles
    cpu_seconds: float
    loop: str
    disk: str
    disk_reason: str
    direct: bool
    block_bytes: int
    layout: str
    double_write: str
    sync_method: str
    file_system: str
    memory_backed: bool

    @property
    def records_per_s(self) -> float:
        """Throughput in records."""
        return self.records / self.seconds

    @property
    def payload_bytes_per_s(self) -> float:
        """Throughput in payload bytes."""
        return self.records_per_s * self.workload.payload_bytes


class Durations:
    """Counts durations at a resolution of 0.1 us. Memory grows with the number of distinct values only."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._recent: list[int] = []

    def note(self, ns: int) -> None:
        """Add one duration in nanoseconds."""
        self._recent.append(ns // NS_PER_TICK)
        if len(self._recent) >= FOLD_AT:
            self._fold()

    def _fold(self) -> None:
        self._counts.update(self._recent)
        self._recent.clear()

    def percentiles(self) -> Percentiles:
        """Of everything noted; zeros when nothing was."""
        self._fold()
        total = self._counts.total()
        if not total:
            return Percentiles(0.0, 0.0, 0.0, 0.0)
        values = sorted(self._counts.items())
        ends = list(itertools.accumulate(count for _, count in values))

        def rank(share: float) -> float:
            wanted = max(1, math.ceil(share * total))
            return next(value for (value, _), end in zip(values, ends, strict=True) if end >= wanted) / TICKS_PER_US

        return Percentiles(rank(0.5), rank(0.99), rank(0.999), values[-1][0] / TICKS_PER_US)


class Measuring:
    """One measurement under way: the tasks share it."""

    def __init__(self, log: Log, workload: Workload) -> None:
        self.log = log
        self.workload = workload
        self.done: int = 0
        self.latency: Durations = Durations()
        self.lag: Durations = Durations()
        self.began: int = time.perf_counter_ns()
        self._deadline = math.inf if workload.records is not None else self.began + workload.seconds * 1e9
        operations = None if workload.records is None else -(-workload.records // workload.batch)
        # Shared by all tasks: each takes one turn for one append.
        self._turns: Iterator[int] = iter(range(operations)) if operations is not None else itertools.count()

    async def go(self) -> None:
        """Let all tasks run to the end. The first error ends them all and is raised as it is."""
        tasks = [asyncio.create_task(self._work()) for _ in range(self.workload.tasks)]
        try:
            await asyncio.gather(*tasks)
            if self.workload.mode is Mode.RELAXED:
                await self.log.flush()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        append: Callable[..., Awaitable[Any]]
        payload: Any = os.urandom(self.workload.payload_bytes)
        append = self.log.append
        if self.workload.batch > 1:
            append, payload = self.log.append_batch, [payload] * self.workload.batch
        mode, batch, note, deadline = self.workload.mode, self.workload.batch, self.latency.note, self._deadline
        clock = time.perf_counter_ns
        began = clock()
        for _ in self._turns:
            await append(payload, mode=mode)
            now = clock()
            note(now - began)
            self.done += batch
            if now >= deadline:
                return
            if mode is Mode.RELAXED:
                # A Relaxed answer is there at once: without this the task would never let another one run.
                await asyncio.sleep(0)
                now = clock()
            began = now

    async def watch_lag(self) -> None:
        """Note how late the loop runs a timer, until cancelled."""
        interval = int(LAG_INTERVAL * 1e9)
        while True:
            due = time.perf_counter_ns() + interval
            await asyncio.sleep(LAG_INTERVAL)
            self.lag.note(max(0, time.perf_counter_ns() - due))


async def measure(
    path: str,
    workload: Workload,
    *,
    config: WalConfig | None = None,
    progress: Callable[[Measuring], None] | None = None,
) -> Outcome:
    """Run `workload` on the log at `path` (created if missing, and left there) on the running loop.

    Args:
        path: the log's directory; use a fresh one, the records stay in it. Or the URL of a served log: the device, its syncs
            and what is written are the server's then, and so are other clients' records among them.
        workload: what to do.
        config: the log's options.
        progress: called now and then with the run under way.
    """
    served = scheme_of(path) is not None
    file_system = "the server's" if served else mount_of(path)[0]
    async with walsvc.open(path, config=None if served else config) as log:
        cached = None if served else machine.cached_bytes(path)
        before, cpu = log.stats(), time.process_time()
        run = Measuring(log, workload)
        watching = [asyncio.create_task(run.watch_lag())]
        if progress is not None:
            watching.append(asyncio.create_task(_every(PROGRESS_SECONDS, lambda: progress(run))))
        try:
            await run.go()
        finally:
            ended = time.perf_counter_ns()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        after, cpu = log.stats(), time.process_time() - cpu
        grown = None if served else machine.cached_bytes(path)
    groups = after.groups - before.groups
    return Outcome(
        workload=workload,
        records=run.done,
        seconds=(ended - run.began) / 1e9,
        latency_us=run.latency.percentiles(),
        syncs=after.syncs - before.syncs,
        group_records_mean=run.done / groups if groups else 0.0,
        group_records_max=after.group_records_max,
        written_bytes=after.written_bytes - before.written_bytes,
        log_bytes=after.log_bytes - before.log_bytes,
        page_cache_bytes=None if grown is None or cached is None else grown - cached,
        loop_lag_us=run.lag.percentiles(),
        cpu_seconds=cpu,
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
        disk=after.disk,
        disk_reason=after.disk_reason,
        direct=after.direct,
        block_bytes=after.block_bytes,
        layout=after.layout,
        double_write=after.double_write,
        sync_method=after.sync_method,
        file_system=file_system,
        memory_backed=file_system in MEMORY_FILE_SYSTEMS,
    )


async def _every(seconds: float, action: Callable[[], None]) -> None:
    while True:
        action()
        await asyncio.sleep(seconds)
