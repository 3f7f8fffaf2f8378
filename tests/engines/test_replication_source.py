"""What is read behind a writer to be shipped, on the simulated disk: no servers are needed."""

from __future__ import annotations

import asyncio

from tests.waiting import until
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.engines.replication.source import GroupSource
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536, max_group_bytes=16384)


async def test_segment_that_gave_way_to_another_within_a_batch_is_no_damage():
    """Full of metadata and without records: the next takes its name, and the batch in it is not whole for a while."""
    log = await open_on(SimDisk(SimDevice(1)), CONFIG)
    for number in range(10):
        await log.hold(f"holder {number}", 1)
    go_on, shown = asyncio.Event(), asyncio.Event()

    async def payloads():
        for number in range(40):
            yield bytes(2000)
            if number == 20:
                shown.set()
                await go_on.wait()

    batch = log.append_batch(payloads())
    await shown.wait()
    await until(lambda: log.writer.core.catalog.replacements)
    source = GroupSource(log)
    source.begin(1, 0)
    while (piece := await source.next()) is not None:
        assert piece.lsn == 0, "no record counts before the batch is whole"
    go_on.set()
    assert len(await batch) == 40
    pieces = []
    while (piece := await source.next()) is not None:
        pieces.append(piece)
    assert pieces[-1].lsn == 40
    await log.close()
