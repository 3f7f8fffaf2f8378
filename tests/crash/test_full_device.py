"""A full device keeps no log from opening, truncating, acknowledging and closing, however often it is opened again."""

from __future__ import annotations

import asyncio
import re

import pytest

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import NoSpace
from walsvc.opening import open_on

from .plan import SEGMENT_BYTES

CONFIG = WalConfig(segment_bytes=SEGMENT_BYTES)
RESTARTS = 50
AT_ONCE = 8  # records that share a block


async def opened(device: SimDevice) -> Log:
    log: Log = await open_on(SimDisk(device), CONFIG)
    return log


def fill(device: SimDevice) -> None:
    """Somebody else takes what is left of the device."""
    device.capacity = sum(device.file(name).visible_size for name in device.directory.names)


async def append_some(log: Log) -> int:
    """Append a block of records; the last LSN."""
    return (await log.topic("orders").append_batch([bytes(90)] * AT_ONCE))[-1].lsn


async def until_full(log: Log) -> int:
    """Append until there is no room; the last LSN."""
    last = log.next_lsn - 1
    with pytest.raises(NoSpace):
        while True:
            last = await append_some(log)
    return last


async def made(device: SimDevice, when: str) -> int:
    """A log on a device that became full: right after the log was made, later, or by the log itself. Its last LSN."""
    log = await opened(device)
    if when == "by the log":
        device.capacity = 5 * SEGMENT_BYTES
    else:
        for _ in range(6 if when == "later" else 0):
            await append_some(log)
        fill(device)
    last = await until_full(log)
    await log.close()
    return last


def test_the_hint_says_what_gives_space_back() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        fill(device)
        with pytest.raises(NoSpace) as first:
            while True:
                await append_some(log)
        assert "there is only one" in str(first.value.hint)
        device.capacity = 6 * SEGMENT_BYTES
        with pytest.raises(NoSpace) as later:
            while True:
                await log.append(bytes(3000))
        named = re.search(r"truncate_before\((\d+)\)", str(later.value.hint))
        assert named is not None, later.value.hint
        await log.truncate_before(int(named[1]))
        for _ in range(10):
            await log.append(bytes(3000))  # the segment is used again
        await log.close()

    run_sim(main, seed=1)


@pytest.mark.parametrize("when", ["at once", "later", "by the log"])
def test_log_on_a_full_device_acknowledges_and_holds_through_any_number_of_restarts(when: str) -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        last = await made(device, when)
        for turn in range(1, RESTARTS + 1):
            log = await opened(device)
            assert log.next_lsn == last + 1
            consumer = await log.topic("orders").consumer("billing")
            assert (await consumer.next()).lsn == turn
            await consumer.ack(turn)
            with pytest.raises(NoSpace):
                await append_some(log)
            await log.hold("copy", turn)
            with pytest.raises(NoSpace):
                await append_some(log)
            assert log.next_lsn == last + 1
            await log.close()
        log = await opened(device)
        assert [record.lsn async for record in log.read()] == list(range(1, last + 1))
        assert log.holds() == {"copy": RESTARTS}
        device.capacity = None
        assert await append_some(log) == last + AT_ONCE
        await log.close()
        log = await opened(device)
        assert log.report.clean
        assert log.next_lsn == last + AT_ONCE + 1
        await log.close()

    run_sim(main, 1)


def test_log_on_a_full_device_is_truncated_after_any_number_of_restarts() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        last = await made(device, "by the log")
        for turn in range(2, RESTARTS + 2):
            log = await opened(device)
            await log.truncate_before(turn)
            assert log.first_lsn == turn
            await log.close()
        log = await opened(device)
        assert [record.lsn async for record in log.read()] == list(range(RESTARTS + 1, last + 1))
        await log.truncate_before(last)
        assert await append_some(log) == last + AT_ONCE  # whole segments have gone
        await log.close()

    run_sim(main, 2)


def test_end_of_a_log_on_a_full_device_can_be_dropped() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        last = await made(device, "later")
        for turn in range(1, RESTARTS + 1):
            log = await opened(device)
            await log.truncate_after(last - turn)
            await log.close()
        log = await opened(device)
        assert [record.lsn async for record in log.read()] == list(range(1, last - RESTARTS + 1))
        await log.close()

    run_sim(main, 3)


def test_change_for_which_there_is_no_reserve_is_told_so() -> None:
    """As in JetStream, where no file can take a segment's place: it is tried once, and not again and again."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        disk.rewrites = False
        log = await open_on(disk, CONFIG)
        await append_some(log)
        fill(device)
        with pytest.raises(NoSpace):
            while True:
                await log.hold("copy", 1)
        operations = device.operations
        results = await asyncio.gather(*(log.hold(f"copy {turn}", 1) for turn in range(3)), return_exceptions=True)
        assert [type(each) for each in results] == [NoSpace] * 3
        assert device.operations - operations < 30
        device.capacity = None
        await log.hold("copy", 2)
        assert log.holds()["copy"] == 2
        await log.close()

    run_sim(main, 1)


def test_who_reads_while_a_segment_takes_the_place_of_one_of_the_reserve_finds_no_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two files have one name and different lengths. The directory is synced meanwhile."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk, synced = SimDisk(device), asyncio.Event()
        log = await open_on(disk, WalConfig(segment_bytes=1 << 16))
        topic = log.topic("topic")
        for _ in range(10):
            await topic.append(bytes(3000))
        device.capacity = sum(device.file(name).visible_size for name in device.directory.names)
        with pytest.raises(NoSpace):
            for _ in range(100):
                await topic.append(bytes(3000))
        last = log.next_lsn
        while log.writer.core.tail.segment.id != last:
            await log.hold("a", 1)
        device.capacity = None
        rename, sync_directory = disk.rename, disk.sync_directory

        async def slow_sync() -> None:
            await synced.wait()
            await sync_directory()

        async def renamed(old: str, new: str) -> None:
            await rename(old, new)
            if new.endswith(".wal"):
                monkeypatch.setattr(disk, "sync_directory", slow_sync)

        monkeypatch.setattr(disk, "rename", renamed)
        appended = asyncio.ensure_future(topic.append(b"behind it"))
        await asyncio.sleep(1)
        assert not appended.done()
        purged = asyncio.ensure_future(topic.purge(before=last))
        await asyncio.sleep(1)
        synced.set()
        assert await purged == last - 1
        assert (await appended).lsn == last
        await log.close()

    run_sim(main, 1)
