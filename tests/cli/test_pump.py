"""The pump of `append` on a disk that fails: what was printed is there after the power went off."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator

import pytest

from walsvc.cli import exits
from walsvc.cli.pump import Pump
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import DurabilityLost, NoSpace, RecordTooLarge
from walsvc.model import Mode, Strict
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536, max_group_bytes=4096)


async def numbered(count: int, at_once: int = 7) -> AsyncIterator[list[bytes]]:
    for first in range(1, count + 1, at_once):
        yield [b"%0500d" % n for n in range(first, min(first + at_once, count + 1))]
        await asyncio.sleep(0)


async def payloads_after_a_power_cut(device: SimDevice) -> list[bytes]:
    async with await open_on(SimDisk(device.fork().crash()), CONFIG) as log:
        return [record.payload async for record in log.read()]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("nth", range(1, 8))
async def test_a_failing_sync_ends_it_and_what_was_printed_is_there(
    capsysbinary: pytest.CaptureFixture[bytes], nth: int, batch: int
) -> None:
    device = SimDevice(seed=nth)
    log = await open_on(SimDisk(device), CONFIG)
    device.fail("submit.sync", nth=nth, errno=errno.EIO)
    with pytest.raises(DurabilityLost) as caught:
        await Pump(log, mode=Strict, batch=batch, quiet=False).run(numbered(400))
    assert caught.value.errno == errno.EIO
    await log.close()
    printed = capsysbinary.readouterr().out.split()
    assert printed == [b"%d" % n for n in range(1, len(printed) + 1)]
    stored = await payloads_after_a_power_cut(device)
    assert stored[: len(printed)] == [b"%0500d" % int(lsn) for lsn in printed]


async def test_a_full_device_ends_it_and_what_was_printed_is_there(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    device = SimDevice(seed=1, capacity=200_000)
    log = await open_on(SimDisk(device), CONFIG)
    with pytest.raises(NoSpace):
        await Pump(log, mode=Strict, batch=1, quiet=False).run(numbered(2000))
    await log.close()
    printed = capsysbinary.readouterr().out.split()
    assert printed == [b"%d" % n for n in range(1, len(printed) + 1)]
    assert len(printed) > 50
    assert len(await payloads_after_a_power_cut(device)) >= len(printed)


async def test_an_error_of_the_source_comes_after_what_is_under_way(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    async def source() -> AsyncIterator[list[bytes]]:
        yield [b"a", b"b"]
        raise RecordTooLarge("line 3 of the input is too long")

    async with await open_on(SimDisk(SimDevice(seed=1)), CONFIG) as log:
        with pytest.raises(RecordTooLarge):
            await Pump(log, mode=Strict, batch=1, quiet=False).run(source())
        assert log.durable_lsn == 2
    assert capsysbinary.readouterr().out == b"1\n2\n"


async def test_a_signal_stops_the_reading_and_a_second_one_the_waiting(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    device = SimDevice(seed=1)
    log = await open_on(SimDisk(device), CONFIG)
    both_under_way = asyncio.Event()

    async def source() -> AsyncIterator[list[bytes]]:
        yield [b"a"]
        await log.wait_durable(1)
        device.stall_sync(2.0)
        yield [b"b"]
        os.kill(os.getpid(), signal.SIGINT)
        both_under_way.set()
        await asyncio.sleep(60)

    running = asyncio.ensure_future(Pump(log, mode=Strict, batch=1, quiet=False).run(source()))
    await both_under_way.wait()
    await asyncio.wait([running], timeout=0.1)
    assert not running.done()  # it waits for the stalled sync
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == exits.INTERRUPTED
    assert log.durable_lsn == 1  # it has not waited
    assert capsysbinary.readouterr().out == b"1\n"
    await log.close()


@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.RELAXED])
async def test_the_window_bounds_what_is_under_way(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    monkeypatch.setattr("walsvc.cli.pump.WINDOW_BYTES", 10_000)
    device = SimDevice(seed=1)
    most = 0

    async def source() -> AsyncIterator[list[bytes]]:
        nonlocal most
        async for lines in numbered(300, at_once=1):
            most = max(most, log.stats().pending_bytes)
            yield lines

    async with await open_on(SimDisk(device), CONFIG) as log:
        assert await Pump(log, mode=mode, batch=1, quiet=True).run(source()) == exits.OK
        assert log.next_lsn == 301
        if mode is Strict:
            assert most <= 10_000 + 2 * 504
