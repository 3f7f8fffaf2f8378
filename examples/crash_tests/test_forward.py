"""Crash tests of forward.py: both machines lose power at any moment, and every reading arrives, once."""

from __future__ import annotations

import asyncio
from collections import Counter

from forward import forward

import walsvc
from walsvc.testing import Disk, PowerCuts

READINGS = 5


async def program(disk: Disk) -> None:
    """The device reads and passes on. After a power cut it goes on with the next reading that nobody was told of."""
    async with (
        walsvc.open(disk, namespace="local", reclaim="consumed") as local,
        walsvc.open(disk, namespace="central") as central,
    ):
        forwarding = asyncio.create_task(forward("edge-7", local, central))
        for number in range(len(disk.witness), READINGS):
            await local.append(b"%d" % number)
            disk.witness.append(number)
        await asyncio.sleep(0.01)
        forwarding.cancel()
        await asyncio.wait([forwarding])


async def check(disk: Disk) -> None:
    """Let the forwarding come to its end: then everything that was stored is at the centre, and nothing twice."""
    async with (
        walsvc.open(disk, namespace="local", reclaim="consumed") as local,
        walsvc.open(disk, namespace="central") as central,
    ):
        forwarding = asyncio.create_task(forward("edge-7", local, central))
        await asyncio.sleep(1)  # simulated
        forwarding.cancel()
        await asyncio.wait([forwarding])
        arrived = Counter([int(record.payload) async for record in central.read()])
        stored = local.next_lsn - 1
    assert set(disk.witness) <= set(arrived)
    assert sum(arrived.values()) == stored


def test_every_reading_arrives_once(power_cuts: PowerCuts) -> None:
    power_cuts(program, check, seeds=2, lives=2)
