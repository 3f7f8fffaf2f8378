"""The shape of performance, asserted without a clock: what must not grow with the number of appends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import walsvc
from bench import load
from walsvc.api import Log
from walsvc.bench import machine
from walsvc.bench.measure import Workload, measure
from walsvc.config import MIB
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on

PAYLOAD = b"x" * 128


async def append_all(log: Log, tasks: int, each: int) -> None:
    """`tasks` tasks append `each` records one after the other."""

    async def work() -> None:
        for _ in range(each):
            await log.append(PAYLOAD)

    await asyncio.gather(*(work() for _ in range(tasks)))


@pytest.mark.parametrize("tasks", [16, 256])
async def test_concurrent_appends_share_syncs(tmp_path: Path, tasks: int) -> None:
    each = 40
    async with walsvc.open(tmp_path / "log") as log:
        before = log.stats()
        await append_all(log, tasks, each)
        after = log.stats()
    assert after.records - before.records == tasks * each
    # In a closed loop nobody appends again before his answer, so a group holds all tasks or, with two groups in flight,
    # half of them; twice as many syncs as that still are far fewer than appends.
    assert after.syncs - before.syncs <= 4 * each
    assert after.group_records_max <= tasks


async def test_one_task_takes_one_sync_for_each_append(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path / "log") as log:
        before = log.stats()
        await append_all(log, 1, 50)
        after = log.stats()
    assert after.groups - before.groups == 50


async def test_batches_take_one_sync_each(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path / "log") as log:
        before = log.stats()
        for _ in range(20):
            await log.append_batch([PAYLOAD] * 256)
        after = log.stats()
    assert after.groups - before.groups == 20
    assert after.group_records_max == 256


async def test_the_page_cache_does_not_grow(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    async with walsvc.open(path) as log:
        if not log.stats().direct:
            pytest.skip("no O_DIRECT here")
        before = machine.cached_bytes(path)
        await load.fill(log, 48 * MIB, 64 << 10)
        after = machine.cached_bytes(path)
    assert before is not None
    assert after is not None
    assert after - before <= MIB


async def test_memory_does_not_grow_with_appends(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path / "log", segment_bytes=MIB) as log:
        await append_all(log, 64, 100)
        gc.collect()
        tracemalloc.start()
        try:
            await append_all(log, 64, 20)
            gc.collect()
            early, _ = tracemalloc.get_traced_memory()
            await append_all(log, 64, 200)
            gc.collect()
            late, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # 12,800 records of 128 B went through; what stays is the list of segments.
    assert late - early < 64 << 10


async def test_the_loop_turns_while_a_write_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, stalled = threading.Event(), threading.Event()
    write = os.pwritev

    def stall(*arguments: Any) -> int:
        stalled.set()
        assert released.wait(60)
        return write(*arguments)

    async with walsvc.open(tmp_path / "log", disk="threads") as log:
        await log.append(PAYLOAD)
        monkeypatch.setattr(os, "pwritev", stall)
        try:
            first = log.append(PAYLOAD)
            assert await asyncio.to_thread(stalled.wait, 60)
            waiting = []
            for _ in range(1000):  # a turn of the loop each, while the disk does nothing at all
                waiting.append(log.append(PAYLOAD))
                await asyncio.sleep(0)
            assert not first.done()
            assert not any(future.done() for future in waiting)
        finally:
            released.set()
        results = await asyncio.gather(first, *waiting)
    assert [result.lsn for result in results] == list(range(2, 1003))


def test_a_stalled_sync_costs_the_loop_few_turns() -> None:
    run_sim(stall_for_a_second, seed=4)


async def stall_for_a_second(seed: int) -> None:
    """While a simulated sync stalls, a ticker keeps its rhythm exactly, and the stall is answered in a handful of turns."""
    loop = asyncio.get_running_loop()
    device = SimDevice(seed)
    log: Log = await open_on(SimDisk(device), walsvc.WalConfig())
    await log.append(PAYLOAD)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(loop.time())
            await asyncio.sleep(0.001)

    ticker = asyncio.create_task(tick())
    device.stall_sync(1.0)
    began = loop.time()
    await asyncio.gather(*(log.append(PAYLOAD) for _ in range(2000)))
    assert loop.time() - began >= 1.0
    ticker.cancel()
    gaps = [after - before for before, after in itertools.pairwise(ticks)]
    assert len(gaps) >= 990
    assert max(gaps) <= 0.005
    assert log.stats().syncs <= 10
    await log.close()


async def test_a_measured_run_counts_what_the_log_counts(tmp_path: Path) -> None:
    outcome = await measure(str(tmp_path / "log"), Workload(tasks=64, records=6400))
    assert outcome.records == 6400
    assert outcome.syncs * 10 <= outcome.records
    assert outcome.group_records_mean >= 16
