"""A client at a shared consumer of a server, for the tests of calls that share frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import walsvc
from walsvc.service.server.server import Server
from walsvc.topics.shared import SharedConsumer

from .simulated import serving


@asynccontextmanager
async def working(path: Path, records: int, **options: Any) -> AsyncIterator[tuple[Server, walsvc.Log, SharedConsumer]]:
    """A server, a client's log with so many records in topic "t", and its consumer "w"."""
    async with serving(path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append_batch([b"x"] * records)
        yield server, log, await log.topic("t").consumer("w", shared=True, **options)


def calls_of(server: Server) -> int:
    return server.status().requests.get("call", 0)


async def calls_for_all(server: Server, consumer: SharedConsumer, tasks: int) -> int:
    """Let so many tasks do 20 records each, which are all that there are; returns the calls that it took."""
    before, done = calls_of(server), list[int]()

    async def work() -> None:
        for _ in range(20):
            async with await consumer.next() as delivery:
                done.append(delivery.record.lsn)

    await asyncio.gather(*(work() for _ in range(tasks)))
    assert sorted(done) == list(range(1, 20 * tasks + 1))
    return calls_of(server) - before
