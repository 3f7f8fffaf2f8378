"""Readers beside the writer: durable records only, and errors that are errors."""

from __future__ import annotations

import asyncio
import errno

import pytest

from walsvc.disk.sim import SimDevice
from walsvc.errors import PathError
from walsvc.model import Relaxed

from .scenes import ONE_EACH, closed_log, opened, payloads, run


def test_read_error_while_reading_is_an_error_and_never_the_end_of_the_log() -> None:
    device = closed_log([14_000] * 12)

    async def scenario(_: int) -> None:
        log = await opened(device)
        device.fail("read", nth=2, errno=errno.EIO)
        with pytest.raises(PathError) as caught:
            await payloads(log)
        assert caught.value.errno == errno.EIO
        assert len(await payloads(log)) == 12
        await log.close()

    run(scenario)


def test_readers_see_durable_records_only() -> None:
    """While the sync stalls, a follower waits, however much was accepted or written."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        await log.append(b"durable")
        seen: list[int] = []

        async def watch() -> None:
            async for record in log.follow():
                assert record.lsn <= log.durable_lsn
                seen.append(record.lsn)

        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0.01)
        device.stall_sync(10)
        await log.append(b"relaxed", mode=Relaxed)
        strict = log.append(b"strict")
        await asyncio.sleep(5)
        assert seen == [1]
        await strict
        await log.append(b"relaxed again", mode=Relaxed)
        await asyncio.sleep(1)
        assert seen == [1, 2, 3]
        await log.close()
        await watching
        assert seen == [1, 2, 3, 4]

    run(scenario)


def test_reader_that_keeps_up_with_groups_in_flight_sees_each_only_when_it_is_durable() -> None:
    async def scenario(seed: int) -> None:
        log = await opened(SimDevice(seed), ONE_EACH)
        seen: list[int] = []

        async def watch() -> None:
            async for record in log.follow():
                assert record.lsn <= log.durable_lsn, "a crash could take it back"
                seen.append(record.lsn)

        watching = asyncio.ensure_future(watch())
        await asyncio.gather(*(log.append(b"%d" % number * 500) for number in range(20)))
        await log.append(b"relaxed", mode=Relaxed)
        await log.close()
        await watching
        assert seen == list(range(1, 22))

    run(scenario, 3)
