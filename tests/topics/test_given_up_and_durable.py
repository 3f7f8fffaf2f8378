"""Whoever opens a consumer has it durably, though an earlier caller gave up what made or moved it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on
from walsvc.topics.topic import Topic

SMALL = WalConfig(segment_bytes=65536)
TURNS = 12  # of the loop, of which the call takes fewer


async def given_up(call: Awaitable[object], turns: int) -> bool:
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def positions_after_crashes(device: SimDevice) -> set[int | None]:
    found = set()
    for image in device.fork().crash_states(8):
        async with await open_on(SimDisk(image), SMALL) as log:
            consumers = await log.topic("orders").consumers()
            found.add(consumers[0].position if consumers else None)
    return found


async def made(topic: Topic) -> None:
    await (await topic.consumer("c")).close()


async def moved(topic: Topic) -> None:
    await topic.move_consumer("c", 3)


@pytest.mark.parametrize("call", [made, moved])
def test_consumer_that_is_opened_is_durable(call: Callable[[Topic], Awaitable[None]]) -> None:
    async def main(seed: int) -> None:
        met = 0
        for turns in range(TURNS):
            device = SimDevice(seed)
            log: Log = await open_on(SimDisk(device), SMALL)
            topic = log.topic("orders")
            for number in range(4):
                await topic.append(b"%d" % number)
            if call is moved:
                await made(topic)
            device.stall_sync(5)
            met += await given_up(call(topic), turns)
            async with await topic.consumer("c") as consumer:
                assert await positions_after_crashes(device) == {consumer.position}
            assert not log.writer.core.changes.unsure
            await log.close()
        assert met > 2, "nothing was given up before it was durable"

    run_sim(main, 5)
