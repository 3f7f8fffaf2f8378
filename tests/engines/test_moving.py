"""docs/ENGINES.md, "From one to the next": a log moves from files to a service, to JetStream and back, and loses nothing."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, Cluster
from walsvc import Record
from walsvc.service.server.server import serve


async def grow(log: Any, where: str) -> None:
    """Some records of each kind, and a consumer that goes on."""
    await log.append_batch([f"{where} {number}".encode() for number in range(20)])
    orders = log.topic("orders")
    await orders.append(where.encode(), type=3, attributes={"where": where})
    billing = await orders.consumer("billing")
    await billing.ack((await billing.next()).lsn)
    await billing.close()


async def records(log: Any) -> list[Record]:
    return [record async for record in log.read()]


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "there are servers")
async def test_log_moves_from_files_to_a_service_to_jetstream_and_back(cluster: Cluster, stream: str, tmp_path):
    options = {"segment_bytes": 65536, "disk": "threads"}
    async with walsvc.open(tmp_path / "data", **options) as log:
        await grow(log, "files")
        before = await records(log)

    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        socket = f"{place}/socket"
        async with serve(tmp_path / "data", unix=socket), walsvc.open(f"unix://{socket}") as log:
            assert await records(log) == before
            await grow(log, "service")
            before = await records(log)

    address = cluster.url(stream) + "?monitor=" + ",".join(cluster.monitor)
    async with walsvc.open(tmp_path / "data", replicate=address, **options) as log:
        assert await records(log) == before
        await log.wait_replicated(log.next_lsn - 1)

    async with walsvc.open(cluster.url(stream), monitor=cluster.monitor, segment_bytes=65536) as log:
        assert await records(log) == before
        await grow(log, "engine")
        before = await records(log)

    from walsvc.engines.replication.restore import restore_replica

    await restore_replica(address, str(tmp_path / "back"))
    async with walsvc.open(tmp_path / "back", **options) as log:
        assert await records(log) == before
        assert [record.lsn for record in before] == list(range(1, 64))
        assert await log.topic("orders").count() == 3
        assert [(each.name, each.lag) for each in await log.topic("orders").consumers()] == [("billing", 0)]
