"""A replica's stream that is looked at and refused is no outage: who waits for it is told what to change, once and at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, Cluster
from tests.engines.replicas import opening, replica_url
from tests.engines.streams import api, configuration
from tests.waiting import until
from walsvc import BadOption, Quorum, ReplicaLost
from walsvc.engines.jetstream.connect import within
from walsvc.engines.replication import shipping

WRONG = {
    "replicas": ({"num_replicas": 1}, "--replicas=3"),
    "discard": ({"discard": "old"}, "--discard=new"),
    "memory": ({"storage": "memory"}, "--storage=file"),
    "age": ({"max_age": 3_600_000_000_000}, "--max-age=0"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_quorum_names_what_is_wrong_with_the_stream(tmp_path, cluster, stream, name):
    changes, hint = WRONG[name]
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, **changes))
    async with opening(tmp_path / "log", replica_url(cluster, stream)) as log:
        for _ in range(2):
            async with asyncio.timeout(60):
                with pytest.raises(ReplicaLost, match="refused") as caught:
                    await log.append(b"x", mode=Quorum)
            assert hint in caught.value.hint
        assert (await log.append(b"x")).durable
        assert log.stats().replica_state.startswith("lost: the replica is refused")


async def test_stream_that_was_mended_is_taken(tmp_path, cluster, stream, monkeypatch, caplog):
    monkeypatch.setattr(shipping, "RETRY_SECONDS_MAX", 0.1)
    caplog.set_level(logging.WARNING, "walsvc.replication")
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream, discard="old"))
        async with opening(tmp_path / "log", replica_url(cluster, stream)) as log:
            with pytest.raises(ReplicaLost):
                await log.append(b"x", mode=Quorum)
            await asyncio.sleep(1)
            assert len(caplog.records) == 1
            await ask(f"STREAM.UPDATE.{stream}", configuration(stream))
            async with asyncio.timeout(60):
                await until(lambda: not log.stats().replica_state.startswith("lost"), 0.05)
                assert (await log.append(b"y", mode=Quorum)).lsn == 2


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
def test_server_that_does_not_sync_always_is_named(tmp_path):
    cluster = Cluster(sync_always=(True, True, False)).start()

    async def check() -> None:
        async with opening(tmp_path / "log", replica_url(cluster, "log")) as log:
            with pytest.raises(ReplicaLost, match=r"server n3 .* acknowledges before it has synced") as caught:
                await log.append(b"x", mode=Quorum)
            assert "sync_interval: always" in caught.value.hint

    try:
        asyncio.run(check())
    finally:
        cluster.stop()


async def test_connecting_ends_in_time_though_a_cancellation_is_swallowed():
    ended = []

    async def connecting():
        try:
            with contextlib.suppress(asyncio.CancelledError):  # as asyncio.wait_for of CPython 3.11 does at times
                await asyncio.sleep(60)
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        await within(0.01, connecting())
    assert ended


async def test_unreachable_servers_are_told_once_for_each_reason(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shipping, "RETRY_SECONDS_MAX", 0.05)
    caplog.set_level(logging.WARNING, "walsvc.replication")
    log = await opening(tmp_path / "log", "nats://127.0.0.1:1/log?timeout=1")
    async with asyncio.timeout(60):
        await until(lambda: log.stats().replica_state.startswith("down"), 0.05)
    await asyncio.sleep(3)
    assert len(caplog.records) == 1
    await log.close(timeout=2)


@pytest.mark.parametrize("option", ["monitor=junk", "monitor=http://h:8222,junk", "timeout=0", "nonsense=1"])
def test_options_that_are_none_are_refused_at_once(tmp_path, option):
    for target, more in ((tmp_path, {"replicate": f"nats://h/s?{option}"}), (f"nats://h/s?{option}", {})):
        with pytest.raises(BadOption) as caught:
            walsvc.open(target, **more)
        assert caught.value.hint or "timeout" in str(caught.value)
