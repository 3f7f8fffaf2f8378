"""A server's snapshot as Prometheus metrics: its own, and those of its logs (walsvc.metrics.families)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from walsvc.metrics.families import families
from walsvc.service.ops.status import Snapshot
from walsvc.service.server.status import PARTS, ServerStatus

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


NO_REQUESTS: Mapping[tuple[str, str], int] = {}


class Families:
    """The registry that prometheus_client's encoders ask for their text."""

    process = ProcessCollector(registry=None)  # process_*: memory, CPU, file descriptors; reads /proc when asked

    def __init__(self, snapshot: Snapshot, version: str, http: Mapping[tuple[str, str], int] = NO_REQUESTS) -> None:
        self._snapshot = snapshot
        self._version = version
        self._http = http  # requests at /v1, by verb and class of the status

    def collect(self) -> Iterator[Metric]:
        """All metric families of the snapshot and of the process."""
        snapshot = self._snapshot
        yield from server_families(snapshot, self._version)
        counter = CounterMetricFamily(
            "walsvc_http_requests", "Requests at /v1 that were answered.", labels=["verb", "status"]
        )
        for labels, count in sorted(self._http.items()):
            counter.add_metric(labels, count)
        yield counter
        yield from families(snapshot.logs)
        yield from self.process.collect()


def server_families(snapshot: Snapshot, version: str) -> Iterator[Metric]:
    """Connections, requests, readiness, version."""
    server = snapshot.server
    family = GaugeMetricFamily("walsvc_server_version", "Which version is running.", labels=["server_version"])
    family.add_metric([version], 1)
    yield family
    yield GaugeMetricFamily("walsvc_server_ready", "1 while /readyz says ready.", value=float(not snapshot.reasons))
    alarm = GaugeMetricFamily(
        "walsvc_disk_free_alarm",
        "1 while the log's device has less space left than free_alarm_bytes.",
        labels=["namespace"],
    )
    for log in snapshot.logs:
        alarm.add_metric([log.namespace], log.namespace in snapshot.short)
    yield alarm
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
