"""What a log says by logging: findings at opening, slow syncs, shortages and their end, its failure."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from types import SimpleNamespace

import pytest

import walsvc
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit import writing
from walsvc.opening import open_on

SMALL = {"segment_bytes": 1 << 16, "max_group_bytes": 1 << 12}


@pytest.fixture
def said(caplog):
    """Lines by logger and level."""
    caplog.set_level(logging.INFO, "walsvc")
    return lambda name: [(each.levelname, each.getMessage()) for each in caplog.records if each.name == name]


def test_a_crash_is_told_at_the_next_opening(said):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(**SMALL))
        await log.append(b"x")
        again = await open_on(SimDisk(device.crash()), WalConfig(**SMALL))
        assert [each.kind for each in again.report.findings] == ["unclean_close"]
        await again.close()

    run_sim(main, seed=1)
    ((level, line),) = said("walsvc.recovery")
    assert level == "INFO"
    assert "unclean_close: the log was not closed in order" in line
    assert "[segment 1, offset " in line


def test_slow_syncs_are_warned_of_once_a_second_with_their_number(said, monkeypatch):
    async def main(seed: int) -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(writing, "time", SimpleNamespace(perf_counter=loop.time))
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(slow_sync_seconds=0.1, **SMALL))
        for seconds in (0.01, 0.3, 0.3, 0.3, 2.0):
            device.stall_sync(seconds)
            await log.append(b"x")
        await log.close()

    run_sim(main, seed=1)
    lines = said("walsvc.log")
    assert [level for level, _ in lines] == ["WARNING", "WARNING"]
    assert "write and sync of LSN 2 to 2" in lines[0][1]
    assert "slow_sync_seconds is 0.1" in lines[0][1]
    assert "write and sync of LSN 5 to 5" in lines[1][1]
    assert "and 2 more since the last warning" in lines[1][1]


def test_none_turns_the_warning_off(said, monkeypatch):
    async def main(seed: int) -> None:
        monkeypatch.setattr(writing, "time", SimpleNamespace(perf_counter=asyncio.get_running_loop().time))
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(slow_sync_seconds=None, **SMALL))
        device.stall_sync(60)
        await log.append(b"x")
        await log.close()

    run_sim(main, seed=1)
    assert said("walsvc.log") == []


@pytest.mark.parametrize("seconds", [0.0, 3601.0, True, "1"])
def test_bounds_of_slow_sync_seconds(seconds):
    with pytest.raises(walsvc.BadOption, match="slow_sync_seconds"):
        WalConfig(slow_sync_seconds=seconds)


def test_a_shortage_is_said_once_and_so_is_its_end(said):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(**SMALL))
        device.capacity = sum(device.file(name).visible_size for name in await log.writer.core.disk.list())
        refused = 0
        while refused < 5:
            try:
                await log.append(bytes(1000))
            except walsvc.NoSpace:
                refused += 1
        device.capacity = None
        with contextlib.suppress(walsvc.NoSpace):
            await log.append(bytes(1000))
        await log.append(bytes(1000))
        await log.close()

    run_sim(main, seed=1)
    (begun, begun_line), (over, over_line) = said("walsvc.log")
    assert (begun, over) == ("WARNING", "INFO")
    assert "no room for the next segment" in begun_line
    assert "the next segment can be prepared again" in over_line


def test_a_directory_that_lets_no_file_be_made_is_no_full_device(said):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(**SMALL))
        device.fail("allocate", errno=errno.EACCES, times=1000)
        with pytest.raises(walsvc.NoSpace):
            while True:
                await log.append(bytes(1000))
        await log.close()

    run_sim(main, seed=1)
    ((begun, begun_line),) = said("walsvc.log")
    assert begun == "WARNING"
    assert "the file of the next segment cannot be made" in begun_line
    assert "no room" not in begun_line


def test_a_failure_is_an_error_with_its_place_and_said_once(said):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, WalConfig(**SMALL))
        await log.append(b"x")
        device.fail("submit.write", errno=errno.EIO)
        for _ in range(2):
            with pytest.raises(walsvc.DurabilityLost):
                await log.append(b"y")
        await log.close()

    run_sim(main, seed=1)
    ((level, line),) = said("walsvc.log")
    assert level == "ERROR"
    assert line.startswith("DurabilityLost: ")
    assert "LSN 2" in line
    assert "open it again" in line
