"""Shared consumers of a log that is short of something: nobody waits for ever, and no record is forgotten."""

from __future__ import annotations

import asyncio
import errno

import pytest

import walsvc
from walsvc import NoSpace, PathError, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)
OPTIONS = {"lease": 10.0, "max_deliveries": 1, "dead_letter": "dead"}


async def full(log: walsvc.Log, device: SimDevice) -> None:
    """Let the device have no room for another segment, and the active one none for a record of 9,000 bytes."""
    device.capacity = sum(device.file(name).visible_size for name in await log.writer.core.disk.list())
    with pytest.raises(NoSpace):
        while True:
            await log.append(bytes(9000))


@pytest.mark.parametrize("how", ["its consumer", "the log"])
def test_closing_waits_for_no_dead_letter_that_finds_no_room(how: str) -> None:
    """The record goes out once more instead, as after a crash."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        topic = log.topic("jobs")
        await topic.append(bytes(9000))
        consumer = await topic.consumer("workers", shared=True, **OPTIONS)
        delivery = await consumer.next()
        await full(log, device)
        nak = asyncio.ensure_future(delivery.nak())
        await asyncio.sleep(5)
        assert not nak.done()  # it goes as soon as there is room
        async with asyncio.timeout(60):
            if how == "its consumer":
                await consumer.close()
                await (await topic.consumer("workers", shared=True, **OPTIONS)).close()
            await log.close()
            await nak
        device.capacity = None
        async with await open_on(SimDisk(device), CONFIG) as log:
            topic = log.topic("jobs")
            delivery = await (await topic.consumer("workers", shared=True, **OPTIONS)).next()
            assert delivery.record.lsn == 1
            await delivery.nak()
            assert [record.attributes["dead.lsn"] async for record in log.read(topic="dead")] == [1]

    run_sim(main, seed=1)


@pytest.mark.parametrize("options", [{"lease": 10.0}, OPTIONS], ids=["goes back", "dead letter"])
def test_delivery_that_ends_while_the_log_takes_nothing_is_not_forgotten(options: dict[str, object]) -> None:
    """A directory without its mode: truncate_after cannot remove what it has dropped, and who waits is told."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        async with await open_on(SimDisk(device), CONFIG) as log:
            topic = log.topic("jobs")
            await topic.append(b"job")
            consumer = await topic.consumer("workers", shared=True, **options)  # type: ignore[call-overload]
            delivery = await consumer.next()
            for _ in range(20):
                await log.append(bytes(9000))
            device.fail("remove", errno=errno.EACCES, times=12)
            with pytest.raises(PathError):
                await log.truncate_after(2)
            async with asyncio.timeout(60):
                await delivery.nak()
                if "dead_letter" in options:
                    while not [record async for record in log.read(topic="dead")]:
                        await asyncio.sleep(0.1)
                else:
                    assert (await consumer.next()).record.lsn == 1

    run_sim(main, seed=1)
