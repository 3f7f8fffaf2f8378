"""Store and forward, exactly once: a device keeps its readings in a log of its own and passes them on when the network is there.

    sensors | python forward.py edge-7 readings/ wal://central:7420

The three steps of a reading may be cut anywhere. A reading that was passed on, and not yet acknowledged, is passed on again: the
central log knows it by its key, and writes it once. test_forward.py shows that by power cuts on both machines.
"""

from __future__ import annotations

import asyncio
import sys

import walsvc


async def forward(name: str, local: walsvc.Log, central: walsvc.Log) -> None:
    """Pass everything on, and go on with what comes."""
    async with await local.consumer("forward") as readings:
        while True:
            batch = await readings.read_batch(max_records=100)  # waits for at least one
            await asyncio.gather(*(central.append(each.payload, dedupe=f"{name}:{each.lsn}") for each in batch))
            await readings.ack(batch[-1].lsn)  # reclaim="consumed" drops what was passed on


async def main(name: str, directory: str, url: str) -> None:
    """Store the lines of standard input, and pass them on."""
    async with (
        walsvc.open(directory, reclaim="consumed") as local,
        walsvc.open(url) as central,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(forward(name, local, central))
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            await local.append(line)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
