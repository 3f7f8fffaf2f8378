"""retain_seconds and clocks that are wrong: nothing goes before its time, and nothing stays for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.extent.aging import Ages
from walsvc.opening import open_on

HOUR, YEAR = 3600, 365 * 86400
START = 1_700_000_000
CONFIG = WalConfig(segment_bytes=1 << 16, retain_seconds=HOUR)


class Clock:
    """A wall clock that goes with the loop's time, until it is set."""

    def __init__(self) -> None:
        self.offset = float(START)

    def __call__(self) -> int:
        return int((self.offset + asyncio.get_running_loop().time()) * 1e9)


async def opened(device: SimDevice, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr("time.time_ns", clock)
    log: Log = await open_on(SimDisk(device), CONFIG)
    return log


async def fill(log: Log, seconds: float = 10) -> None:
    """Several segments, over some time."""
    for _ in range(60):
        await log.append(bytes(3000))
        await asyncio.sleep(seconds / 60)


def run(scenario: Callable[[SimDevice, Clock], Awaitable[None]]) -> None:
    async def main(seed: int) -> None:
        await scenario(SimDevice(seed), Clock())

    run_sim(main, 1)


def test_clock_set_ahead_drops_nothing_that_is_young(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(device: SimDevice, clock: Clock) -> None:
        log = await opened(device, clock, monkeypatch)
        await fill(log)
        assert log.retention().clocks is None
        clock.offset += YEAR
        await fill(log)
        await log.reclaim()
        await asyncio.sleep(HOUR / 2)
        assert log.first_lsn == 1
        assert f"{YEAR} s ahead of the monotonic clock" in (log.retention().clocks or "")
        assert len([each for each in caplog.records if each.name == "walsvc.log"]) == 1  # told once
        await asyncio.sleep(HOUR)
        assert log.first_lsn > 60
        await log.close()

    with caplog.at_level(logging.WARNING, "walsvc.log"):
        run(scenario)


def test_clock_set_ahead_drops_nothing_of_an_earlier_run_that_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(device: SimDevice, clock: Clock) -> None:
        log = await opened(device, clock, monkeypatch)
        await fill(log)
        await log.close()
        await asyncio.sleep(HOUR / 2)
        log = await opened(device, clock, monkeypatch)
        clock.offset += YEAR
        await log.reclaim()
        assert log.first_lsn == 1
        await asyncio.sleep(HOUR / 2 + 60)  # the time before this opening counts
        await log.reclaim()
        assert log.first_lsn > 1
        await log.close()

    run(scenario)


@pytest.mark.parametrize("reopened", [False, True])
def test_records_of_a_clock_that_was_ahead_expire(monkeypatch: pytest.MonkeyPatch, reopened: bool) -> None:
    async def scenario(device: SimDevice, clock: Clock) -> None:
        clock.offset += YEAR
        log = await opened(device, clock, monkeypatch)
        await fill(log)
        clock.offset -= YEAR
        if reopened:
            await log.close()
            log = await opened(device, clock, monkeypatch)
        await log.reclaim()
        assert log.first_lsn == 1
        await asyncio.sleep(HOUR + 60)
        await log.reclaim()
        assert log.first_lsn > 1
        await log.close()

    run(scenario)


def test_time_of_a_later_segment_counts_where_a_time_cannot_be_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts more often than retain_seconds: the monotonic clock alone would let nothing expire."""

    async def scenario(device: SimDevice, clock: Clock) -> None:
        clock.offset += YEAR
        log = await opened(device, clock, monkeypatch)
        await fill(log)
        clock.offset -= YEAR
        await fill(log)
        before = len(log.writer.segments.ids())
        for _ in range(5):
            await log.close()
            await asyncio.sleep(HOUR / 4)
            log = await opened(device, clock, monkeypatch)
            await log.reclaim()
        assert log.first_lsn > 60
        assert len(log.writer.segments.ids()) < before
        await log.close()

    run(scenario)


def test_clock_set_back_keeps_records_no_longer_than_the_monotonic_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(device: SimDevice, clock: Clock) -> None:
        log = await opened(device, clock, monkeypatch)
        await fill(log)
        clock.offset -= YEAR
        await asyncio.sleep(HOUR + 60)
        await log.reclaim()
        assert log.first_lsn > 1
        assert "behind the monotonic clock" in (log.retention().clocks or "")
        await log.close()

    run(scenario)


@pytest.mark.parametrize("in_this_run", [False, True])
@pytest.mark.parametrize("set_by", [-YEAR, 0, YEAR])
async def test_age_is_never_above_the_true_one_where_the_clock_was_right_before(set_by: int, in_this_run: bool) -> None:
    wall, monotonic = [float(START)], [100.0]
    begun = START + 10 if in_this_run else START - 10

    async def created(_: int) -> int:
        return begun * 10**9

    ages = Ages(lambda: int(wall[0] * 1e9), lambda: monotonic[0], created)
    ages.note([1] if in_this_run else [1, 2])
    for _ in range(2):
        wall[0] += 10
        monotonic[0] += 10
        ages.note([1, 2])
    wall[0] += set_by
    true_age = START + 20 - begun
    age = await ages.seconds(2, [])
    assert age <= true_age
    if set_by >= 0:
        assert age == true_age
