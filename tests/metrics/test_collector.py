"""Collector: the metrics of a log in one's own process."""

from __future__ import annotations

import asyncio
import importlib
import sys

import prometheus_client
import pytest

import walsvc
from tests.service.watching import parsed
from walsvc.metrics import Collector


def values(text: str) -> dict[tuple[str, str, str], float]:
    """By metric, namespace and consumer."""
    return {
        (name, dict(labels).get("namespace", ""), dict(labels).get("consumer", "")): value
        for (name, labels), value in parsed(text).items()
    }


def scrape(*collectors: Collector) -> str:
    registry = prometheus_client.CollectorRegistry()
    for each in collectors:
        registry.register(each)
    return prometheus_client.generate_latest(registry).decode()


async def test_scrape_in_another_thread_has_fresh_counts_of_a_log_that_is_at_work(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        collector = Collector(log)
        jobs = log.topic("jobs")
        await jobs.append_batch([b"a", b"b", b"c", b"d"])
        workers = await jobs.consumer("workers", shared=True, max_outstanding=2)
        first = await workers.next()
        await first.nak()
        again, other = await workers.next(), await workers.next()
        waits = asyncio.ensure_future(workers.next())
        await asyncio.sleep(0)
        found = values(await asyncio.to_thread(scrape, collector))
        assert (again.attempt, other.attempt) == (2, 1)
        of_workers = {name: value for (name, _, who), value in found.items() if who == "workers"}
        oldest = of_workers.pop("walsvc_consumer_oldest_seconds")
        assert 0 <= oldest < 60
        assert of_workers == {
            "walsvc_consumer_position_lsn": 1,
            "walsvc_consumer_lag_records": 4,
            "walsvc_consumer_outstanding_records": 2,
            "walsvc_consumer_waiting": 1,
            "walsvc_consumer_redeliveries_total": 1,
            "walsvc_consumer_dead_letters_total": 0,
        }
        assert found["walsvc_server_durable_lsn", "", ""] == 4
        assert found["walsvc_disk_free_bytes", "", ""] > 0
        await again.ack()
        await (await waits).ack()
        found = values(await asyncio.to_thread(scrape, collector))
        assert found["walsvc_server_records_total", "", ""] == 4


async def test_scrape_on_the_loop_itself_never_waits(tmp_path):
    async with walsvc.open(tmp_path / "a") as first, walsvc.open(tmp_path / "b") as second:
        collector = Collector({"orders": first, "audit": second})
        await first.append(b"x")
        found = values(scrape(collector))
        assert found["walsvc_server_next_lsn", "orders", ""] == 2
        assert found["walsvc_server_next_lsn", "audit", ""] == 1


async def test_a_closed_log_shows_its_last_numbers(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"x")
        collector = Collector(log)
    assert values(scrape(collector))["walsvc_server_durable_lsn", "", ""] == 1
    found = await asyncio.to_thread(scrape, collector)
    assert values(found)["walsvc_server_durable_lsn", "", ""] == 1


def test_after_its_loop_has_ended(tmp_path):
    async def main() -> Collector:
        async with walsvc.open(tmp_path / "log") as log:
            await log.append(b"x")
            return Collector(log)

    assert values(scrape(asyncio.run(main())))["walsvc_server_durable_lsn", "", ""] == 1


async def test_a_registry_refuses_a_second_one(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        with pytest.raises(ValueError, match="walsvc_disk_wal_syncs"):
            scrape(Collector(log), Collector(log))


async def test_other_logs_are_refused_with_where_their_numbers_are(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"x")
    async with walsvc.open(tmp_path / "log", read_only=True) as log:
        with pytest.raises(walsvc.BadOption, match=r"/metrics"):
            Collector(log)


def test_without_prometheus_client_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in [each for each in sys.modules if each.startswith("walsvc.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(walsvc.BadOption, match=r"walsvc\[service\]"):
        importlib.import_module("walsvc.metrics")
