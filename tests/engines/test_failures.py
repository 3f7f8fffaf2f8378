"""Servers that die under load, and servers that would lose what they acknowledge."""

from __future__ import annotations

import asyncio
import random

import pytest

import walsvc
from tests.engines.campaign import Outcome, kill_rounds, takeovers
from tests.engines.cluster import NODES, WHY_NO_SERVER, Cluster
from walsvc import PathError


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
def test_killed_servers_take_no_acknowledged_record_along():
    outcome = Outcome()
    plan = [[0], list(range(NODES))]
    cluster = Cluster().start()  # of its own: other tests need theirs alive
    try:
        asyncio.run(kill_rounds(cluster, plan, 16, random.Random(1), outcome))
    finally:
        cluster.stop()
    assert outcome.rounds == 2
    assert outcome.acknowledged > 100
    assert outcome.bad == 0, outcome


async def test_writers_under_load_are_fenced_exactly(cluster):
    outcome = Outcome()
    await takeovers(cluster, 4, 32, random.Random(2), outcome)
    assert outcome.takeovers == 4
    assert outcome.bad == 0, outcome


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
def test_server_that_does_not_sync_always_is_refused_with_the_line_to_put_in():
    cluster = Cluster(sync_always=(True, True, False)).start()

    async def check() -> None:
        with pytest.raises(PathError) as caught:
            await walsvc.open(cluster.url("log"), monitor=cluster.monitor)
        assert "server n3 of stream log acknowledges before it has synced" in str(caught.value)
        assert "jetstream { sync_interval: always }" in (caught.value.hint or "")
        async with walsvc.open(cluster.url("log"), monitor=cluster.monitor, allow_unsynced=True) as log:
            assert "NOT known to be synced by server n3" in log.stats().sync_method
            assert (await log.append(b"x")).durable

    try:
        asyncio.run(check())
    finally:
        cluster.stop()
