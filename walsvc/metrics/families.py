"""Logs as Prometheus metrics. Names follow etcd's (etcd.io/docs, "Metrics"): subsystem disk_wal for the write-ahead log, server for
what is asked of it; base units, `_total` on counters. docs/METRICS.md lists them all.

The families are made from each look anew: the logs count, and no registry holds a second count that could disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from walsvc.metrics.looking import LogStatus
from walsvc.model import GROUP_RECORDS_BOUNDS, SYNC_US_BOUNDS
from walsvc.topics.names import ConsumerStatus

Value = Callable[[LogStatus], float]

# Of each log, labelled with its namespace.
LOG_COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("disk_wal_write_bytes", "Bytes written to segments, padding included.", lambda log: log.stats.written_bytes),
    ("disk_wal_syncs", "Durable writes: one for each group, and one for each seal.", lambda log: log.stats.syncs),
    ("disk_wal_rotations", "Segments begun.", lambda log: log.stats.rotations),
    ("server_records", "Records accepted.", lambda log: log.stats.records),
    ("server_payload_bytes", "Payload bytes accepted.", lambda log: log.stats.payload_bytes),
    ("retention_dropped_segments", "Segments dropped.", lambda log: log.retention.dropped_segments),
    ("retention_dropped_bytes", "Bytes of segments dropped.", lambda log: log.retention.dropped_bytes),
    ("retention_dropped_records", "Records dropped.", lambda log: log.retention.dropped_records),
    ("retention_overtaken", "Consumers that lost records to a limit.", lambda log: log.retention.overtaken),
)
LOG_GAUGES: tuple[tuple[str, str, Value], ...] = (
    ("disk_wal_size_bytes", "Size of the segments, spares not counted.", lambda log: log.retention.bytes),
    ("disk_wal_segments", "Segments.", lambda log: log.stats.segments),
    ("disk_wal_spares", "Prepared segments.", lambda log: log.stats.spares),
    (
        "disk_wal_failed",
        "1 after a failed write or sync: nothing is accepted any more.",
        lambda log: bool(log.stats.failed),
    ),
    ("server_first_lsn", "LSN of the first record that is kept.", lambda log: log.stats.first_lsn),
    ("server_next_lsn", "LSN that the next record gets.", lambda log: log.stats.next_lsn),
    ("server_durable_lsn", "Every record up to this LSN is on stable storage.", lambda log: log.stats.durable_lsn),
    ("server_pending_bytes", "Payload bytes accepted and not yet durable.", lambda log: log.stats.pending_bytes),
    ("server_appends_waiting", "Appends that wait for room.", lambda log: log.stats.waiting),
    ("server_topics", "Topics.", lambda log: log.stats.topics),
)
# Of each consumer; None: not known, or there is none.
Counted = Callable[[ConsumerStatus], float | None]
CONSUMER_GAUGES: tuple[tuple[str, str, Counted], ...] = (
    ("position_lsn", "LSN of the next record to deliver.", lambda status: status.position),
    ("lag_records", "Records not yet acknowledged.", lambda status: status.lag),
)
SHARED_GAUGES: tuple[tuple[str, str, Counted], ...] = (
    ("outstanding_records", "Records that are out with workers.", lambda status: status.outstanding),
    ("waiting", "Calls of next() that wait for others to acknowledge.", lambda status: status.waiting),
    ("oldest_seconds", "Age of the oldest record that is not done.", lambda status: status.oldest_seconds),
)
SHARED_COUNTERS: tuple[tuple[str, str, Counted], ...] = (
    ("redeliveries", "Deliveries of a record that was out before.", lambda status: status.redeliveries),
    ("dead_letters", "Records that went to the dead-letter topic.", lambda status: status.dead_letters),
)
COPIES = ("archive", "replication")


def families(logs: Sequence[LogStatus]) -> Iterator[Metric]:
    """All metrics of some logs."""
    yield from log_families(logs)
    yield from need_families(logs)
    yield from consumer_families(logs)
    yield from copy_families(logs)


def log_families(logs: Sequence[LogStatus]) -> Iterator[Metric]:
    """The counters of each log."""
    for name, text, value in LOG_COUNTERS:
        counter = CounterMetricFamily(f"walsvc_{name}", text, labels=["namespace"])
        for log in logs:
            counter.add_metric([log.namespace], value(log))
        yield counter
    for name, text, value in LOG_GAUGES:
        gauge = GaugeMetricFamily(f"walsvc_{name}", text, labels=["namespace"])
        for log in logs:
            gauge.add_metric([log.namespace], value(log))
        yield gauge
    free = GaugeMetricFamily("walsvc_disk_free_bytes", "What the log's device has left.", labels=["namespace"])
    for log in logs:
        if log.free_bytes is not None:
            free.add_metric([log.namespace], log.free_bytes)
    yield free
    info = GaugeMetricFamily(
        "walsvc_disk_wal_info", "How the log writes.", labels=["namespace", "disk", "sync", "direct"]
    )
    syncs = HistogramMetricFamily(
        "walsvc_disk_wal_fsync_duration_seconds", "Write and sync of a group.", labels=["namespace"]
    )
    groups = HistogramMetricFamily(
        "walsvc_server_group_records", "Records that shared one sync; 0: metadata alone.", labels=["namespace"]
    )
    for log in logs:
        stats = log.stats
        info.add_metric([log.namespace, stats.disk, stats.sync_method, str(stats.direct).lower()], 1)
        seconds = [bound / 1e6 for bound in SYNC_US_BOUNDS]
        syncs.add_metric([log.namespace], buckets(seconds, stats.sync_us_counts), stats.sync_us_total / 1e6)
        groups.add_metric(
            [log.namespace], buckets(GROUP_RECORDS_BOUNDS, stats.group_records_counts), stats.group_records_total
        )
    yield from (info, syncs, groups)


def buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Counts by bucket as Prometheus wants them: how many are at or below each bound."""
    return list(zip([*map(floatToGoString, bounds), "+Inf"], map(float, accumulate(counts)), strict=True))


def need_families(logs: Sequence[LogStatus]) -> Iterator[Metric]:
    """Consumers and holds: what they keep."""
    pinned = GaugeMetricFamily(
        "walsvc_retention_pinned_bytes",
        "Size of the segments from the oldest record on that a consumer or hold needs.",
        labels=["namespace", "kind", "topic", "name"],
    )
    for log in logs:
        for need in log.needs:
            pin = need.pin
            pinned.add_metric([log.namespace, pin.kind, pin.topic or "", pin.name], pin.bytes)
    yield pinned


def consumer_families(logs: Sequence[LogStatus]) -> Iterator[Metric]:
    """Consumers: how far they are behind, and of shared ones what becomes of their deliveries."""
    labels = ["namespace", "topic", "consumer"]
    found = [
        ([log.namespace, need.pin.topic or "", need.pin.name], need.status)
        for log in logs
        for need in log.needs
        if need.status is not None
    ]
    shared = [(who, status) for who, status in found if status.shared]
    tables = ((GaugeMetricFamily, CONSUMER_GAUGES, found), (GaugeMetricFamily, SHARED_GAUGES, shared))
    for kind, table, those in (*tables, (CounterMetricFamily, SHARED_COUNTERS, shared)):
        for name, text, value in table:
            family = kind(f"walsvc_consumer_{name}", text, labels=labels)
            for who, status in those:
                if (number := value(status)) is not None:
                    family.add_metric(who, number)
            yield family


def copy_families(logs: Sequence[LogStatus]) -> Iterator[Metric]:
    """Archive and replication, where there are any."""
    for kind in COPIES:
        reached = GaugeMetricFamily(f"walsvc_{kind}_lsn", f"Last LSN in the {kind}.", labels=["namespace"])
        records = GaugeMetricFamily(
            f"walsvc_{kind}_lag_records", "Durable records not there yet.", labels=["namespace"]
        )
        size = GaugeMetricFamily(f"walsvc_{kind}_lag_bytes", "Durable bytes not there yet.", labels=["namespace"])
        for log in logs:
            if (copy := log.copies.get(kind)) is not None:
                reached.add_metric([log.namespace], copy.lsn)
                records.add_metric([log.namespace], copy.records)
                size.add_metric([log.namespace], copy.bytes)
        yield from (family for family in (reached, records, size) if family.samples)
