"""A program cancels all tasks, those of its served log among them: nothing waits for ever, and the log goes on or says why not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, shared_cluster
from walsvc.errors import DurabilityLost, Unreachable
from walsvc.service.server.server import serve

HANGS_SECONDS = 60.0


def cancel_all_others(keep: set[asyncio.Task[object]]) -> None:
    for task in asyncio.all_tasks() - keep - {asyncio.current_task()}:
        task.cancel()


async def test_served_log_connects_again_though_all_tasks_were_cancelled(tmp_path: Path) -> None:
    async with serve(tmp_path / "log", unix=str(tmp_path / "s")) as server, asyncio.timeout(HANGS_SECONDS):
        servers = asyncio.all_tasks()
        async with walsvc.open(server.addresses[0]) as log:
            cancel_all_others(servers)
            await log.append(b"on the connection that is there")
            cancel_all_others(servers)
            await asyncio.sleep(0)
            for connection in server.roster:
                connection.abort()
            assert (await log.append(b"on another one")).lsn == 2
            assert await log.flush() == 2


async def test_served_readers_go_on_though_all_tasks_of_the_server_were_cancelled(tmp_path: Path) -> None:
    async with (
        serve(tmp_path / "log", unix=str(tmp_path / "s")) as server,
        asyncio.timeout(HANGS_SECONDS),
        walsvc.open(server.addresses[0]) as log,
    ):
        consumer, followed = await log.consumer("c"), log.follow()
        shared = await log.topic("jobs").consumer("queue", shared=True)
        waiting = [asyncio.create_task(call) for call in (consumer.next(), anext(followed), shared.next())]
        await log.refresh()  # all three are asked by now
        cancel_all_others(set(waiting))
        await asyncio.sleep(0)
        await log.topic("jobs").append(b"x")
        one, other, delivery = await asyncio.gather(*waiting)
        assert one.lsn == other.lsn == delivery.record.lsn == 1


async def test_served_log_that_was_just_connecting_says_why_it_ended(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with asyncio.timeout(HANGS_SECONDS):
        async with serve(tmp_path / "log", unix=path) as server:
            log = await walsvc.open(server.addresses[0], reconnect_seconds=3600.0)
        while log.connected:
            await asyncio.sleep(0)
        waiting = log.append(b"x")
        await asyncio.sleep(0)
        cancel_all_others(set())
        with pytest.raises(Unreachable, match="cancelled from outside"):
            await waiting
        await log.close()


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
async def test_log_in_jetstream_whose_tasks_were_cancelled_fails_and_hangs_nothing() -> None:
    cluster = shared_cluster()
    url = cluster.url(cluster.new_stream())
    async with asyncio.timeout(HANGS_SECONDS):
        log = await walsvc.open(url, monitor=cluster.monitor, segment_bytes=65536)
        await log.append(b"before")
        log.writer.core.disk._publisher._task.cancel()
        with pytest.raises(DurabilityLost, match="cancelled from outside"):
            await log.append(b"after")
        await log.close()
        async with walsvc.open(url, monitor=cluster.monitor) as log:
            assert [record.payload async for record in log.read()] == [b"before"]
