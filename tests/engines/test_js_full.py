"""A stream, an account or a server without room: what works is told, and the way out that an error names works."""

from __future__ import annotations

import asyncio
import errno
from functools import partial

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, Cluster
from tests.engines.replicas import opening, records_in, replica_url
from tests.engines.streams import api, configuration
from tests.waiting import until
from walsvc import DurabilityLost, NoSpace
from walsvc.engines.replication import shipping
from walsvc.engines.replication.restore import restore_replica

PAYLOAD = bytes(range(1, 251)) * 4


class Limited(Cluster):
    """One server, whose account may store 400 KB."""

    def _configure(self, node: int) -> str:
        return super()._configure(node).replace("LOGS { jetstream: enabled", "LOGS { jetstream { max_file: 400KB }")


async def until_full(log):
    """Append until there is no room; the last LSN."""
    with pytest.raises(NoSpace):
        while True:
            await log.append(PAYLOAD)
    return log.next_lsn - 1


async def lsns(log):
    return [record.lsn async for record in log.read()]


async def test_full_stream_opens_again_and_again_until_it_is_no_space_and_its_hint_works(cluster, stream, open_stream):
    async with api(cluster) as ask:

        async def limit(bytes_max):
            await ask(f"STREAM.UPDATE.{stream}", configuration(stream, max_bytes=bytes_max, num_replicas=1))

        options = {"replicas": 1, "allow_unsynced": True}
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, max_bytes=300_000, num_replicas=1))
        async with open_stream(**options) as log:
            last = await until_full(log)
        refused, opened = [], 0
        for left in range(0, 6_000, 300):  # too little, enough for some of the messages, enough
            await limit((await ask(f"STREAM.INFO.{stream}"))["state"]["bytes"] + left)
            try:
                async with open_stream(**options) as log:
                    opened += log.next_lsn == last + 1
            except NoSpace as error:
                refused.append(error)
        assert opened > 2
        assert len(refused) > 2
        assert all(error.errno == errno.ENOSPC for error in refused)
        assert f"nats stream edit {stream} --max-bytes" in refused[-1].hint
        async with open_stream(read_only=True, **options) as log:
            assert await lsns(log) == list(range(1, last + 1))
        await limit(400_000)
        async with open_stream(**options) as log:
            assert await lsns(log) == list(range(1, last + 1))
            await log.truncate_before(last)
        await limit(300_000)
        async with open_stream(**options) as log:
            assert (await log.append(PAYLOAD)).lsn == last + 1
            assert await lsns(log) == [last, last + 1]


async def test_change_that_finds_no_room_in_a_full_stream_is_no_space(cluster, stream, open_stream):
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, max_bytes=300_000, num_replicas=1))
        async with open_stream(replicas=1, allow_unsynced=True) as log:
            await until_full(log)
            with pytest.raises(NoSpace):
                while True:
                    await asyncio.wait_for(log.hold("copy", log.next_lsn), 60)
            await log.truncate_before(log.next_lsn, force=True)
            await log.append(PAYLOAD)


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
async def test_full_account_is_told_as_such_and_another_stream_that_is_deleted_makes_room():
    cluster = Limited(sync_always=(True,)).start()
    try:
        async with api(cluster) as ask:
            await ask("STREAM.CREATE.other", configuration("other", num_replicas=1))
            for _ in range(10):
                await ask.client.request("walsvc.other", bytes(10_000), timeout=5)
            await ask("STREAM.CREATE.log", configuration("log", num_replicas=1))

            alone = {"monitor": cluster.monitor, "replicas": 1, "allow_unsynced": True, "segment_bytes": 65536}
            again = partial(walsvc.open, cluster.url("log"), **alone)

            async with again() as log:
                with pytest.raises(DurabilityLost, match="resource limits exceeded for account") as caught:
                    while True:
                        await log.append(PAYLOAD)
                assert caught.value.errno == errno.ENOSPC
                last = log.durable_lsn
            for _ in range(3):
                with pytest.raises(NoSpace, match="resource limits exceeded for account"):
                    await again()
            async with again(read_only=True) as log:
                assert (await lsns(log))[:last] == list(range(1, last + 1))
            await ask("STREAM.DELETE.other")
            async with again() as log:
                assert (await lsns(log))[:last] == list(range(1, last + 1))
                await log.truncate_before(last)
                await log.append(PAYLOAD)
    finally:
        cluster.stop()


async def test_replica_on_a_full_stream_is_down_with_the_reason_and_goes_on(tmp_path, cluster, stream, monkeypatch):
    monkeypatch.setattr(shipping, "RETRY_SECONDS_MAX", 0.2)
    url = replica_url(cluster, stream, replicas=1, allow_unsynced=1)
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, max_bytes=100_000, num_replicas=1))
        async with opening(tmp_path / "log", url) as log:
            for _ in range(150):
                await log.append(PAYLOAD)
            await until(lambda: "no room" in (log.stats().replica_state or ""))
            assert log.stats().replica_state.startswith("down: ")
            await ask(f"STREAM.UPDATE.{stream}", configuration(stream, num_replicas=1))
            await asyncio.wait_for(log.wait_replicated(), 60)
        await restore_replica(url, str(tmp_path / "back"))
        assert len(await records_in(tmp_path / "back")) == 150
