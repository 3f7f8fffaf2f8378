"""The logs' histograms, the exposition as Prometheus' own parsers read it, and what is written about it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import prometheus_client
import pytest
from prometheus_client.openmetrics import parser as openmetrics

import walsvc
from tests.service.watching import COPIES, FULL, Stub, parsed
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit import writing
from walsvc.metrics.families import buckets
from walsvc.model import GROUP_RECORDS_BOUNDS, SYNC_US_BOUNDS
from walsvc.opening import open_on
from walsvc.service.ops.http import HttpSide
from walsvc.service.ops.metrics import Families
from walsvc.service.ops.status import Observer

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "examples" / "grafana" / "walsvc.json"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
AWKWARD = 'a "quoted"\\ topic\n\x1b[31m\a\r<b>é</b>'


async def exposition(source) -> str:
    return prometheus_client.generate_latest(Families(await Observer(source).snapshot(), "1.2.3")).decode()


async def test_histograms_count_every_group_once(tmp_path):
    async with walsvc.open(tmp_path / "log") as log:
        assert log.stats().sync_us_counts == (0,) * (len(SYNC_US_BOUNDS) + 1)
        before = log.stats()
        for size in (1, 1, 2, 3, 4, 5, 100):
            await log.append_batch([b"x"] * size)
        stats = log.stats()
        added = [now - then for now, then in zip(stats.group_records_counts, before.group_records_counts, strict=True)]
        found = {bound: count for bound, count in zip(GROUP_RECORDS_BOUNDS, added, strict=False) if count}
        assert found == {1: 2, 2: 1, 4: 2, 8: 1, 128: 1}
        assert stats.group_records_total - before.group_records_total == 116
        assert sum(stats.sync_us_counts) == sum(stats.group_records_counts) == stats.groups
        least = sum(
            count * (low + 1) for low, count in zip((-1, *SYNC_US_BOUNDS), stats.sync_us_counts, strict=True) if count
        )
        most = sum(
            count * high for high, count in zip((*SYNC_US_BOUNDS, 60_000_000), stats.sync_us_counts, strict=True)
        )
        assert least <= stats.sync_us_total <= most


def test_a_long_stall_is_counted_where_it_belongs(monkeypatch):
    async def main(seed: int) -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(writing, "time", SimpleNamespace(perf_counter=loop.time))
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 20))
        for seconds in (0.3, 30, 5):
            device.stall_sync(seconds)
            await log.append(b"x")
        counts = dict(zip((*SYNC_US_BOUNDS, None), log.stats().sync_us_counts, strict=True))
        assert (counts[409_600], counts[8_192_000], counts[None]) == (1, 1, 1)
        await log.close()

    run_sim(main, seed=1)


def test_a_bucket_includes_its_bound():
    assert SYNC_US_BOUNDS[0] == 25
    assert list(SYNC_US_BOUNDS) == sorted(set(SYNC_US_BOUNDS))
    assert buckets([1, 2.5], (3, 0, 4)) == [("1.0", 3.0), ("2.5", 3.0), ("+Inf", 7.0)]


async def test_prometheus_parses_what_the_logs_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("walsvc.metrics.looking.WAIT_SECONDS", 60.0)  # a busy machine counts slowly
    async with walsvc.open(tmp_path / "a") as log, walsvc.open(tmp_path / "b") as other:
        await log.topic(AWKWARD).append_batch([b"x"] * 7)
        consumer = await log.topic(AWKWARD).consumer("c\\\n")
        source = Stub(root=log, other=other)
        source.tell(**FULL)
        samples = parsed(await exposition(source))
        root, stats = ("namespace", ""), log.stats()
        assert samples["walsvc_server_durable_lsn", frozenset({root})] == 7
        assert samples["walsvc_server_durable_lsn", frozenset({("namespace", "other")})] == 0
        assert samples["walsvc_server_records_total", frozenset({root})] == 7
        assert samples["walsvc_disk_wal_fsync_duration_seconds_count", frozenset({root})] == stats.groups
        total = samples["walsvc_disk_wal_fsync_duration_seconds_sum", frozenset({root})]
        assert total == pytest.approx(stats.sync_us_total / 1e6)
        assert samples["walsvc_server_group_records_bucket", frozenset({root, ("le", "8.0")})] >= 1
        assert samples["walsvc_server_group_records_sum", frozenset({root})] == 7
        assert samples["walsvc_network_rejected_connections_total", frozenset({("reason", "token")})] == 3
        assert samples["walsvc_server_version", frozenset({("server_version", "1.2.3")})] == 1
        who = frozenset({root, ("topic", AWKWARD), ("consumer", "c\\\n")})
        assert samples["walsvc_consumer_lag_records", who] == 7
        les = sorted(
            float(dict(labels)["le"])
            for name, labels in samples
            if name == "walsvc_disk_wal_fsync_duration_seconds_bucket" and root in labels
        )
        assert les[:2] == [25e-6, 35e-6]
        await consumer.close()


async def test_openmetrics_is_given_to_who_asks_for_it(tmp_path):
    async with walsvc.open(tmp_path / "log") as log, HttpSide(Stub(root=log), port=0) as side:
        await log.append(b"x")
        async with aiohttp.ClientSession(side.url) as session:
            async with session.get("/metrics") as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                plain = parsed(await answer.text())
            async with session.get("/metrics", headers={"Accept": OPENMETRICS}) as answer:
                assert answer.content_type == "application/openmetrics-text"
                text = await answer.text()
        families = openmetrics.text_string_to_metric_families(text)
        strict = {sample.name for family in families for sample in family.samples}
        assert {name for name, _ in plain if name.startswith("walsvc_")} == {
            name for name in strict if name.startswith("walsvc_")
        }


async def families_of_everything(tmp_path) -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of every metric that there can be."""
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"x")
        shared = await log.topic("t").consumer("s", shared=True)
        await log.topic("t").append(b"x")
        await shared.next()
        source = Stub(root=log)
        source.tell(**FULL, copies={"": COPIES})
        found = Families(await Observer(source).snapshot(), "1.2.3", {("append", "2xx"): 1}).collect()
        return {
            family.name + ("_total" if family.type == "counter" else ""): (
                family.type,
                frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
            )
            for family in found
        }


async def test_every_metric_is_documented_as_it_is(tmp_path):
    rows = re.findall(
        r"^\| `((?:walsvc|process)_\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs/METRICS.md").read_text(), re.M
    )
    documented = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == await families_of_everything(tmp_path)


async def test_the_dashboard_uses_only_metrics_that_exist(tmp_path):
    known = await families_of_everything(tmp_path)
    samples = set(known) | {
        name + suffix
        for name, (kind, _) in known.items()
        if kind == "histogram"
        for suffix in ("_bucket", "_sum", "_count")
    }
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    variables = [each["definition"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    used = {name for text in [*queries, *variables] for name in re.findall(r"\b(?:walsvc|process)_\w+", text)}
    assert used <= samples, used - samples
    assert len(queries) >= 12
    assert {"walsvc_disk_wal_fsync_duration_seconds_bucket", "walsvc_consumer_lag_records"} <= used
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
