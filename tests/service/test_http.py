"""/livez, /readyz, /status: over real sockets, on real logs."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

import walsvc
from tests.service.watching import Stub, get, serving
from walsvc import Relaxed
from walsvc.disk import threads
from walsvc.topics.registry import Registry


async def status(session):
    async with session.get("/status") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        return await answer.json()


async def test_everything_is_answered_while_a_sync_stalls(tmp_path, monkeypatch):
    async with walsvc.open(tmp_path / "log", disk="threads") as log, serving(Stub(root=log)) as session:
        consumer = await log.topic("orders").consumer("billing")
        await log.topic("orders").append(b"x")
        stalled, go_on = threading.Event(), threading.Event()
        write_durably = threads.write_durably

        def stall(*args, **kwargs):
            stalled.set()
            assert go_on.wait(60)
            return write_durably(*args, **kwargs)

        monkeypatch.setattr(threads, "write_durably", stall)
        futures = [log.topic("orders").append(b"y") for _ in range(10)]
        await asyncio.to_thread(stalled.wait, 60)
        assert await get(session, "/livez") == await get(session, "/healthz") == (200, "live\n")
        assert await get(session, "/readyz") == (200, "ready\n")
        told = (await status(session))["logs"][0]["stats"]
        assert (told["durable_lsn"], told["next_lsn"]) == (1, 12)
        assert "walsvc_server_durable_lsn" in (await get(session, "/metrics"))[1]
        assert not any(future.done() for future in futures)
        go_on.set()
        await asyncio.gather(*futures)
        assert (await status(session))["logs"][0]["stats"]["durable_lsn"] == 11
        await consumer.close()


async def test_a_failed_log_is_not_ready_but_live(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    async with walsvc.open(tmp_path / "good") as good:
        bad = await walsvc.open(tmp_path / "bad", disk="threads")
        source = Stub(root=good, orders=bad)
        async with serving(source) as session:
            await bad.topic("t").consumer("c")
            assert (await get(session, "/readyz"))[0] == 200
            monkeypatch.setattr(threads, "write_durably", fail)
            with pytest.raises(walsvc.DurabilityLost):
                await bad.append(b"x")
            code, text = await get(session, "/readyz")
            assert code == 503
            assert text.startswith("not ready\nlog 'orders' has failed: a write or its sync failed")
            assert (await get(session, "/livez"))[0] == 200
            told = await status(session)
            assert not told["ready"]
            assert [log["stats"]["failed"] is None for log in told["logs"]] == [True, False]
            assert [need["name"] for need in told["logs"][1]["needs"]] == ["c"]
            assert 'walsvc_disk_wal_failed{namespace="orders"} 1.0' in (await get(session, "/metrics"))[1]
        await bad.close()


async def test_a_stopping_server_says_why(tmp_path):
    source = Stub()
    async with serving(source) as session:
        assert await get(session, "/readyz") == (200, "ready\n")
        source.tell(ready=False, reason="stopping")
        assert await get(session, "/readyz") == (503, "not ready\nstopping\n")
        assert (await status(session))["reasons"] == ["stopping"]
        assert await get(session, "/livez") == (200, "live\n")
        source.tell(live=False, reason="a disk is gone: \udce9")
        assert await get(session, "/livez") == (503, "not live: a disk is gone: \\udce9\n")


async def test_looking_makes_nothing_durable_and_lags_are_those_of_consumers(tmp_path, monkeypatch):
    monkeypatch.setattr("walsvc.metrics.looking.WAIT_SECONDS", 60.0)  # a busy machine counts slowly
    options = {"relaxed_interval": None, "segment_bytes": 65536}
    async with walsvc.open(tmp_path / "log", **options) as log, serving(Stub(root=log)) as session:
        orders = log.topic("orders")
        for _ in range(10):
            await orders.append_batch([bytes(1000)] * 30)
        early, late = await orders.consumer("early"), await orders.consumer("late", start="next")
        for _ in range(150):
            last = (await early.next()).lsn
        await early.ack(last)
        await log.hold("backup", 10)
        audit = await log.consumer("audit")
        for _ in range(100):
            last = (await audit.next()).lsn
        await audit.ack(last)
        durable = log.durable_lsn
        await orders.append(b"not yet", mode=Relaxed)
        needs = {need["name"]: need for need in (await status(session))["logs"][0]["needs"]}
        assert log.durable_lsn == durable == 300
        assert log.next_lsn == 302
        assert {name: (need["position"], need["lag"], need["in_use"]) for name, need in needs.items()} == {
            "early": (151, 150, True),
            "late": (301, 0, True),
            "audit": (101, 200, True),
            "backup": (None, None, None),
        }
        segments = log.writer.segments.ids()
        assert len(segments) > 3
        assert needs["backup"]["segment"] == 1
        assert needs["early"]["segment"] == max(first for first in segments if first <= 151)
        await log.flush()
        listed = {each.name: (each.position, each.lag) for each in await log.consumers()}
        assert listed == {"early": (151, 151), "late": (301, 1), "audit": (101, 201)}
        for consumer in (early, late, audit):
            await consumer.close()


async def test_a_consumer_whose_lag_cannot_be_counted_does_not_hide_the_others(tmp_path, monkeypatch):
    status_of = Registry.status

    async def status_of_some(self, name):
        if name == "unlucky":
            raise walsvc.Corruption("a group is damaged")
        return await status_of(self, name)

    monkeypatch.setattr("walsvc.metrics.looking.WAIT_SECONDS", 60.0)  # a busy machine counts slowly
    monkeypatch.setattr(Registry, "status", status_of_some)
    async with walsvc.open(tmp_path / "log") as log, serving(Stub(root=log)) as session:
        await log.append_batch([b"x"] * 3)
        for name in ("lucky", "unlucky", "zoe"):
            await (await log.consumer(name)).close()
        needs = (await status(session))["logs"][0]["needs"]
        assert [(need["name"], need["lag"]) for need in needs] == [("lucky", 3), ("unlucky", None), ("zoe", 3)]
        assert 'walsvc_consumer_lag_records{consumer="zoe"' in (await get(session, "/metrics"))[1]


async def test_only_the_neediest_are_counted_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("walsvc.metrics.looking.WAIT_SECONDS", 60.0)  # a busy machine counts slowly
    monkeypatch.setattr("walsvc.metrics.looking.PINS_SHOWN", 3)
    async with walsvc.open(tmp_path / "log") as log, serving(Stub(root=log)) as session:
        await log.append_batch([b"x"] * 10)
        for start in range(1, 8):
            await (await log.consumer(f"c{start}", start=start)).close()
        needs = (await status(session))["logs"][0]["needs"]
        assert [(need["name"], need["lag"]) for need in needs] == [("c1", 10), ("c2", 9), ("c3", 8)]


async def test_logs_come_go_and_are_closed_between_two_looks(tmp_path):
    source = Stub()
    async with serving(source) as session:
        assert (await status(session))["logs"] == []
        async with walsvc.open(tmp_path / "log") as log:
            source.logs["orders"] = log
            await log.consumer("c")
            assert [each["namespace"] for each in (await status(session))["logs"]] == ["orders"]
        told = (await status(session))["logs"][0]
        assert told["stats"]["failed"] is None
        del source.logs["orders"]
        assert (await status(session))["logs"] == []
