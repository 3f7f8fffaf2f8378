"""A snapshot as Prometheus metrics. Names follow etcd's (etcd.io/docs, "Metrics"): subsystem disk_wal for the write-ahead log,
server for what is asked of it, network for connections; base units, `_total` on counters. docs/METRICS.md lists them all.

The families are made from each snapshot anew: the logs count, and no registry holds a second count that could disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from walsvc.model import GROUP_RECORDS_BOUNDS, SYNC_US_BOUNDS
from walsvc.service.ops.status import LogStatus, Snapshot
from walsvc.service.server.status import PARTS, ServerStatus

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
# Of the server.
COUNTERS: tuple[tuple[str, str, Callable[[ServerStatus], float]], ...] = (
    ("network_connections", "Connections accepted.", lambda server: server.accepted),
    ("network_client_received_bytes", "Bytes received from clients.", lambda server: server.received_bytes),
    ("network_client_sent_bytes", "Bytes sent to clients.", lambda server: server.sent_bytes),
)
COUNTERS_BY: tuple[tuple[str, str, str, Callable[[ServerStatus], Mapping[str, int]]], ...] = (
    ("network_rejected_connections", "reason", "Connections turned away.", lambda server: server.rejected),
    ("server_requests", "type", "Requests received.", lambda server: server.requests),
    ("server_errors", "error", "Errors answered, by class.", lambda server: server.errors),
)
GAUGES: tuple[tuple[str, str, Callable[[ServerStatus], float]], ...] = (
    ("server_start_time_seconds", "When the server started, Unix time.", lambda server: server.started_ns / 1e9),
    ("network_open_connections", "Connections open now.", lambda server: server.connections),
    ("network_open_connections_max", "How many connections may be open.", lambda server: server.connections_max),
    ("server_streams", "Open read, follow and consumer streams.", lambda server: server.streams),
    ("server_unanswered_bytes", "Payload bytes received and not yet answered.", lambda server: server.pending_bytes),
)
COPIES = ("archive", "replication")


class Families:
    """What prometheus_client's encoders ask for their text."""

    process = ProcessCollector(registry=None)  # process_*: memory, CPU, file descriptors; reads /proc when asked

    def __init__(self, snapshot: Snapshot, version: str) -> None:
        self._snapshot = snapshot
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """All metric families of the snapshot and of the process."""
        snapshot = self._snapshot
        yield from server_families(snapshot, self._version)
        yield from log_families(snapshot.logs)
        yield from need_families(snapshot.logs)
        yield from copy_families(snapshot.logs)
        yield from self.process.collect()


def server_families(snapshot: Snapshot, version: str) -> Iterator[Metric]:
    """Connections, requests, readiness, version."""
    server = snapshot.server
    family = GaugeMetricFamily("walsvc_server_version", "Which version is running.", labels=["server_version"])
    family.add_metric([version], 1)
    yield family
    yield GaugeMetricFamily("walsvc_server_ready", "1 while /readyz says ready.", value=float(not snapshot.reasons))
    trouble = GaugeMetricFamily(
        "walsvc_server_trouble", "1 for each part that has failed or ended by itself.", labels=["namespace", "part"]
    )
    met = {(each.namespace, each.part) for each in server.troubles}
    for namespace, part in sorted(met | {("", part) for part in PARTS}):
        trouble.add_metric([namespace, part], (namespace, part) in met)
    yield trouble
    for name, text, value in GAUGES:
        yield GaugeMetricFamily(f"walsvc_{name}", text, value=value(server))
    for name, text, value in COUNTERS:
        yield CounterMetricFamily(f"walsvc_{name}", text, value=value(server))
    for name, label, text, values in COUNTERS_BY:
        counter = CounterMetricFamily(f"walsvc_{name}", text, labels=[label])
        for key, count in sorted(values(server).items()):
            counter.add_metric([key], count)
        yield counter


def log_families(logs: Sequence[LogStatus]) -> Iterator[Metric]:
    """What each log counts."""
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
    """Consumers and holds: what they keep, and how far they are behind."""
    who = ["namespace", "topic", "consumer"]
    pinned = GaugeMetricFamily(
        "walsvc_retention_pinned_bytes",
        "Size of the segments from the oldest record on that a consumer or hold needs.",
        labels=["namespace", "kind", "topic", "name"],
    )
    position = GaugeMetricFamily("walsvc_consumer_position_lsn", "LSN of the next record to deliver.", labels=who)
    lag = GaugeMetricFamily("walsvc_consumer_lag_records", "Records not yet acknowledged.", labels=who)
    for log in logs:
        for need in log.needs:
            pin, status = need.pin, need.status
            pinned.add_metric([log.namespace, pin.kind, pin.topic or "", pin.name], pin.bytes)
            if status is not None:
                position.add_metric([log.namespace, pin.topic or "", pin.name], status.position)
            if status is not None and status.lag is not None:
                lag.add_metric([log.namespace, pin.topic or "", pin.name], status.lag)
    yield from (pinned, position, lag)


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
