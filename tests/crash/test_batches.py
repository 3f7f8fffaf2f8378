"""Batches over several groups: whole or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator

import pytest

import walsvc
from walsvc.disk.sim import SimDevice
from walsvc.testing import Disk, PowerCuts

from .damage import groups
from .scenes import CONFIG, opened, payloads, run, segments

SMALL_GROUPS = dataclasses.replace(CONFIG, max_group_bytes=4096)


def test_batch_visible_before_written() -> None:
    """Neither a reader nor a follower nor durable_lsn shows a batch before the last of its groups is durable."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, SMALL_GROUPS)
        await log.append(b"before")
        seen: list[int] = []

        async def watch() -> None:
            async for record in log.follow():
                seen.append(record.lsn)

        watching = asyncio.ensure_future(watch())

        async def source() -> AsyncIterator[bytes]:
            for number in range(12):
                yield b"%d" % number * 1500
                await asyncio.sleep(0.01)  # what was given so far has been written meanwhile
                assert log.durable_lsn == 1
                assert [record.lsn async for record in log.read()] == [1]
                assert seen == [1]

        await log.append_batch(source())
        await asyncio.sleep(0.01)
        assert seen == list(range(1, 14))
        await log.close()
        await watching

    run(scenario)


def test_rollback_that_leaves_a_hole() -> None:
    """A batch is given up after many of its groups were written: what follows stands where it began, in LSN and on disk."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, SMALL_GROUPS)
        first = await log.append(b"before")

        async def source() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield bytes(3500)
            raise RuntimeError("the source failed")

        with pytest.raises(RuntimeError, match="source"):
            await log.append_batch(source())
        after = await log.append(b"after")
        assert (first.lsn, after.lsn) == (1, 2)
        assert after.segment_id == first.segment_id
        await log.append(bytes(30_000))
        await log.append(bytes(30_000))
        image = device.fork().crash()
        await log.close()
        for name in segments(image):
            found = groups(image, name)
            assert all(each.offset == before.end for before, each in itertools.pairwise(found))
        again = await opened(image)
        assert await payloads(again) == [b"before", b"after", bytes(30_000), bytes(30_000)]
        await again.close()

    run(scenario, 3)


def test_entries_keep_their_labels_or_are_not_there() -> None:
    """Power is cut at every operation around batches with labels, in one group and in several, of a log and of a new topic."""
    given = [walsvc.Entry(b"%d" % number, number % 3, {"n": number}) for number in range(5)]
    large = [*given, walsvc.Entry(bytes(3000), 1, {"large": True}), bytes(3000), *given]
    batches = [("", given), ("t", given), ("", large), ("u", large)]

    async def program(disk: Disk) -> None:
        async with walsvc.open(disk, segment_bytes=65_536, max_group_bytes=4096) as log:
            for topic, batch in batches:
                await (log.topic(topic) if topic else log).append_batch(batch)
                disk.witness.append(len(batch))

    async def check(disk: Disk) -> None:
        async with walsvc.open(disk, segment_bytes=65_536, max_group_bytes=4096) as log:
            found = [(each.topic or "", each.payload, each.type, each.attributes) async for each in log.read()]
        whole = [
            (topic, each.payload, each.type, each.attributes or {})
            if isinstance(each, walsvc.Entry)
            else (topic, each, 0, {})
            for topic, batch in batches
            for each in batch
        ]
        ends = list(itertools.accumulate((len(batch) for _, batch in batches), initial=0))
        assert len(found) in ends
        assert len(found) >= sum(disk.witness)
        assert found == whole[: len(found)]

    explored = PowerCuts()(program, check, seeds=1)
    assert explored.checks > 50
