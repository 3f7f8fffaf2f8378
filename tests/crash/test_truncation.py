"""Truncation at both ends, at every moment of it and beside everything else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import pytest

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import BadOption, Closed, NoSpace
from walsvc.opening import open_on

from .plan import SEGMENT_BYTES
from .scenes import USUAL, Film, opened, payloads, run


@pytest.mark.parametrize("ending", ["close", "seal"])
def test_ending_during_a_truncation_waits_for_it(ending: str) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        for number in range(12):
            await log.append(b"%d" % number * 6000)
        truncating = asyncio.ensure_future(log.truncate_after(4) if seed % 2 else log.truncate_before(9))
        await asyncio.sleep(seed * 40e-6)
        await getattr(log, ending)()
        outcome = (await asyncio.gather(truncating, return_exceptions=True))[0]
        assert outcome is None or isinstance(outcome, Closed)
        await log.close()
        log = await opened(device, USUAL)
        assert log.report.clean
        assert (log.first_lsn, log.next_lsn) in {(1, 13), (1, 5), (9, 13)}
        assert [payload[:1] for payload in await payloads(log)] == [
            (b"%d" % (lsn - 1))[:1] for lsn in range(log.first_lsn, log.next_lsn)
        ]
        await log.close()

    run(scenario, 24)


def test_cancelled_truncate_after_never_drops_what_is_acknowledged_later() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        for number in range(4):
            await log.append(b"%d" % number)
        truncating = asyncio.ensure_future(log.truncate_after(1))
        await asyncio.sleep(seed * 40e-6)
        truncating.cancel()
        await asyncio.wait([truncating])
        result = await log.append(b"acknowledged")
        await log.close()
        log = await opened(device, USUAL)
        assert (await payloads(log))[-1] == b"acknowledged"
        assert log.next_lsn == result.lsn + 1
        await log.close()

    run(scenario, 40)


def test_truncate_after_without_room_changes_nothing_now_or_later() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, capacity=SEGMENT_BYTES + 4096)
        log = await opened(device, USUAL)
        wanted = [b"0", b"1", b"2", b"3"]
        for payload in wanted:
            await log.append(payload)
        with pytest.raises(NoSpace):
            await log.truncate_after(1)
        wanted.append(b"acknowledged")
        assert (await log.append(wanted[-1])).lsn == 5
        await log.close()
        device.capacity = None
        log = await opened(device, USUAL)
        assert await payloads(log) == wanted
        await log.close()

    run(scenario)


def test_appends_called_after_truncate_after_are_kept() -> None:
    """It waits its turn behind another truncation; what comes meanwhile stays behind the cut."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        for number in range(12):
            await log.append(b"%d" % number * 6000)
        first = asyncio.ensure_future(log.truncate_before(3))
        second = asyncio.ensure_future(log.truncate_after(8))
        await asyncio.sleep(0)
        result = await log.append(b"later")
        await asyncio.gather(first, second)
        assert result.lsn == 9
        assert (log.first_lsn, log.next_lsn) == (3, 10)
        await log.close()
        log = await opened(device, USUAL)
        assert (await payloads(log))[-1] == b"later"
        await log.close()

    run(scenario, 5)


def test_range_of_a_truncation_is_checked_when_its_turn_comes() -> None:
    async def scenario(seed: int) -> None:
        log = await opened(SimDevice(seed), USUAL)
        for _ in range(10):
            await log.append(b"x")
        outcomes = await asyncio.gather(log.truncate_after(4), log.truncate_before(8), return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], BadOption)
        outcomes = await asyncio.gather(log.truncate_before(4), log.truncate_after(1), return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], BadOption)
        assert (log.first_lsn, log.next_lsn) == (4, 5)
        await log.close()

    run(scenario)


@pytest.mark.parametrize("loose", [False, True])
def test_file_goes_only_after_the_checkpoint_that_allows_it_is_durable(loose: bool) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=loose)
        log = await opened(device)
        for lsn in range(1, 12):
            await log.append(b"%02d" % lsn * 6000)
        await asyncio.sleep(1)
        assert len(log.writer.segments.ids()) >= 3
        with Film(device, log) as film:
            await log.truncate_before(10)
        await log.close()
        for _, image in film.crashes(6):
            again = await opened(image)
            assert (again.first_lsn, again.next_lsn) in {(1, 12), (10, 12)}
            assert await payloads(again) == [b"%02d" % lsn * 6000 for lsn in range(again.first_lsn, 12)]
            await again.close()

    run(scenario, 2)


def test_truncate_after_cut_at_any_operation_on_a_full_device_goes_on_once_there_is_room() -> None:
    """Its intent and its new segment may have taken the whole reserve."""
    refused: list[str] = []

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for _ in range(3):
            await log.append(bytes(6000))
        await asyncio.sleep(1)
        device.capacity = sum(device.file(name).visible_size for name in device.directory.names)
        with contextlib.suppress(NoSpace):
            while True:
                await log.append(bytes(6000))
        for number in range(seed):  # they take the room that is kept for what is no record
            await log.hold(f"h{number}", 1)
        last = log.next_lsn
        with Film(device, log) as film:
            await log.truncate_after(2)
        await log.close()
        for _, image in film.crashes(4):
            image.capacity = sum(image.file(name).visible_size for name in image.directory.names)
            try:
                again = await opened(image)
            except NoSpace as error:
                refused.append(error.hint)
                image.capacity = None
                again = await opened(image)
            assert again.next_lsn in {3, last}
            assert (await payloads(again))[:3] == [bytes(6000)] * min(again.next_lsn - 1, 3)
            await again.close()

    run(scenario, 8)
    assert refused
    assert all("free some space and open the log again" in hint for hint in refused)


def test_truncate_after_cut_at_any_operation_is_done_or_not_begun() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for lsn in range(1, 16):
            await log.append(b"%02d" % lsn * 6000)
        await asyncio.sleep(1)
        assert len(log.writer.segments.ids()) >= 4
        with Film(device, log) as film:
            await log.truncate_after(2)
            film.take()
        await log.close()
        for moment, image in film.crashes(4):
            again = await opened(image)
            assert again.next_lsn == 3 if moment.operation == "end" else again.next_lsn in {3, 16}
            assert await payloads(again) == [b"%02d" % lsn * 6000 for lsn in range(1, again.next_lsn)]
            await again.close()

    run(scenario)


@pytest.mark.parametrize("double_write", ["off", "direct"])
def test_compaction_that_is_called_during_a_cut_writes_nothing_into_what_is_cut(
    double_write: Literal["off", "direct"],
) -> None:
    config = WalConfig(segment_bytes=65_536, double_write=double_write)

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        async with await open_on(SimDisk(device), config) as log:
            for number in range(40):
                await log.topic("ab"[number % 2]).append(bytes(3000))
            await log.topic("a").purge(keep=1)
            cutting = asyncio.ensure_future(log.truncate_after(20))
            await asyncio.sleep((seed % 8 + 5) * 0.0001)
            await log.compact()
            await cutting
            assert (await log.append(b"new")).lsn == 21
        async with await open_on(SimDisk(device), config) as log:
            assert [record.lsn async for record in log.read()] == [*range(2, 21, 2), 21]

    for seed in range(16):
        run_sim(main, seed)
