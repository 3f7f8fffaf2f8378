"""A sample of the campaign in tests/crash/outside.py: turns and threads drawn at random, on every disk."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Literal

import pytest

import walsvc
from tests.disks import REAL_DISKS
from tests.waiting import until

from .outside import DISKS, Case, Disk, tried

SAMPLE = 2  # of some 250 turns; each takes about 0.3 s


@pytest.mark.parametrize("disk", DISKS)
def test_tasks_cancelled_at_a_turn_drawn_at_random_hang_nothing_and_lose_nothing(disk: Disk) -> None:
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    told, turns = tried(Case(disk, "cancel", 0))
    assert told == []
    for nth in random.Random(seed).sample(range(1, turns + 1), SAMPLE):
        tried(Case(disk, "cancel", nth))


@pytest.mark.parametrize("disk", [disk for disk in DISKS if disk != "sim"])
def test_thread_that_is_refused_once_the_log_is_open_is_no_error(disk: Disk) -> None:
    tried(Case(disk, "refuse", 1))


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_closing_is_not_cut_short_by_whoever_cancels_all_tasks(
    tmp_path: Path, disk: Literal["threads", "uring"]
) -> None:
    for turns in range(4):
        log = await walsvc.open(tmp_path, disk=disk)
        closing = asyncio.ensure_future(log.close())
        await until(lambda log=log: log.writer.core.disk._closing is not None, 0)
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        await log.close()
    async with walsvc.open(tmp_path, disk=disk) as log:
        assert log.report.clean
