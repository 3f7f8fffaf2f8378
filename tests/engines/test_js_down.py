"""A log in JetStream while servers are down: opened for writing and reading, and told apart from servers that do not tell."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, running
from tests.engines.replicas import opening, replica_url
from walsvc import PathError, Quorum
from walsvc.engines.jetstream import durability
from walsvc.engines.jetstream.durability import is_heard_of
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url

pytestmark = pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")


async def payloads(log):
    return [record.payload async for record in log.read()]


@pytest.mark.parametrize("node", [0, 1, 2])
def test_log_opens_while_any_one_server_is_down(node):
    async def check(cluster):
        options = {"monitor": cluster.monitor, "segment_bytes": 65536}
        async with walsvc.open(cluster.url("log"), **options) as log:
            assert "down" not in log.stats().sync_method
        cluster.kill(node)
        await asyncio.to_thread(cluster.wait_ready)
        async with walsvc.open(cluster.url("log"), **options) as log:
            assert "each of which syncs always" in log.stats().sync_method
            assert f"; n{node + 1} was down at opening, and not asked" in log.stats().sync_method
            assert (await log.append(b"without it")).durable
            async with walsvc.open(cluster.url("log"), read_only=True, **options) as reader:
                assert await payloads(reader) == [b"without it"]
        login = {"system_user": "sys", "system_password": "sys"}
        async with walsvc.open(cluster.url("log"), segment_bytes=65536, **login) as log:
            assert f"n{node + 1} was down" in log.stats().sync_method
        cluster.launch(node)
        await asyncio.to_thread(cluster.wait_ready)
        async with walsvc.open(cluster.url("log"), **options) as log:
            assert "down" not in log.stats().sync_method
            assert await payloads(log) == [b"without it"]

    with running(True, True, True) as cluster:
        asyncio.run(check(cluster))


def test_new_stream_is_made_while_a_server_is_down_and_a_majority_that_is_down_is_named(tmp_path):
    async def check(cluster):
        cluster.kill(2)
        await asyncio.to_thread(cluster.wait_ready)
        async with walsvc.open(cluster.url("log"), monitor=cluster.monitor) as log:
            assert (await log.append(b"x")).durable
        async with opening(tmp_path / "log", replica_url(cluster, "replica")) as log:
            assert (await log.append(b"x", mode=Quorum)).durable
            assert log.stats().replica_state == "current"
        cluster.kill(1)
        begun = time.monotonic()
        with pytest.raises(PathError) as caught:
            await walsvc.open(cluster.url("log"), monitor=cluster.monitor, timeout=3)
        assert time.monotonic() - begun >= 3
        said = str(caught.value)  # a leader takes a while to notice that it leads nobody
        assert f"down: {cluster.servers[1]}, {cluster.servers[2]}" in said or "servers n2, n3 of stream log did" in said
        assert "majority" in said

    with running(True, True, True) as cluster:
        asyncio.run(check(cluster))


def test_server_that_is_up_and_does_not_tell_is_refused_though_another_is_down():
    async def check(cluster):
        async with walsvc.open(cluster.url("log"), monitor=cluster.monitor) as log:
            await log.append(b"x")
        with pytest.raises(PathError, match=r"nobody tells whether server n3 of") as caught:
            await walsvc.open(cluster.url("log"), monitor=cluster.monitor[:2])
        assert "monitor=[" in caught.value.hint
        cluster.kill(0)
        with pytest.raises(PathError, match=r"nobody tells whether server n3 of"):
            await walsvc.open(cluster.url("log"), monitor=cluster.monitor[:2])

    with running(True, True, True) as cluster:
        asyncio.run(check(cluster))


def test_server_that_does_not_sync_is_refused_though_another_is_down():
    async def check(cluster):
        async with walsvc.open(cluster.url("log"), monitor=cluster.monitor, allow_unsynced=True):
            pass
        cluster.kill(0)
        with pytest.raises(PathError, match="server n3 of stream log acknowledges before"):
            await walsvc.open(cluster.url("log"), monitor=cluster.monitor)

    with running(True, True, False) as cluster:
        asyncio.run(check(cluster))


def test_what_a_leader_tells_of_the_others():
    info = {
        "cluster": {
            "leader": "n1",
            "replicas": [
                {"name": "n2", "current": True, "active": 500_000_000},
                {"name": "n3", "current": False, "active": 0, "lag": 9},
                {"name": "n4", "current": False, "active": 100_000_000, "offline": True},
            ],
        }
    }
    assert is_heard_of("n1", info, 0.1)
    assert is_heard_of("n2", info, 0.6)
    assert not is_heard_of("n2", info, 0.4)
    assert not any(is_heard_of(name, info, 9.0) for name in ("n3", "n4", "n5"))


async def test_late_answer_of_a_busy_leader_makes_no_server_up_that_is_down(monkeypatch):
    """Server n3 was last heard of just before; each answer of the leader takes longer than that."""
    clock = SimpleNamespace(now=100.0)
    heard = clock.now - 0.1

    class Slow:
        name, path = "log", "nats://h/log"

        async def info(self):
            told = {"name": "n3", "active": int((clock.now - heard) * 1e9)}
            clock.now += 0.3  # on its way
            return cluster_of(told)

    def cluster_of(third):
        replicas = [{"name": "n2", "active": 1, "current": True}, third]
        return {"config": {"num_replicas": 3}, "cluster": {"leader": "n1", "replicas": replicas}}

    async def asked(address, options):
        return {"n1": True, "n2": True}

    async def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(durability, "ask_servers", asked)
    monkeypatch.setattr(durability, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(durability, "asyncio", SimpleNamespace(sleep=sleep))
    options = JetStreamOptions()
    info = cluster_of({"name": "n3", "active": 1})
    found = await durability.check_durability(Slow(), info, parse_url("nats://h/log"), options)
    assert found.down == ("n3",)
