"""Metrics of a log in one's own process, for prometheus_client: the names are those that `walsvc serve` answers at /metrics.

from prometheus_client import REGISTRY, start_http_server
from walsvc.metrics import Collector

async with walsvc.open("data/") as log:
    REGISTRY.register(Collector(log))
    start_http_server(9100)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from walsvc.errors import BadOption
from walsvc.extras import need

need("prometheus_client", "walsvc.metrics")

from walsvc.api import Log  # noqa: E402  behind the line that says what is missing
from walsvc.metrics.families import families  # noqa: E402
from walsvc.metrics.looking import Counting, LogStatus, fresh, look  # noqa: E402

if TYPE_CHECKING:
    from prometheus_client.core import Metric

ANSWER_SECONDS = 5.0  # for a look from another thread: half of what Prometheus waits for a scrape


class Replica(NamedTuple):
    """The progress of an embedded log's replica; see walsvc.metrics.looking.CopyProgress."""

    lsn: int
    records: int
    bytes: int
    state: str


class Collector:
    """A prometheus_client collector over logs that are open in this process. Register it, or give it to an exposition.

    It may be asked in any thread, such as that of prometheus_client's start_http_server: the looking is done on the log's loop. Asked on
    the loop itself it never waits, and lags of consumers and free space are as counted at the last look. It keeps no log open; one that
    is closed shows its last numbers.

    Args:
        logs: a log that is open for writing, or several by name; the name is the label `namespace`, which is empty for a single one.

    Raises:
        BadOption: something else than a log of a directory, such as one behind a server, whose own /metrics has its numbers; or
            prometheus_client is not installed.
    """

    def __init__(self, logs: Log | Mapping[str, Log]) -> None:
        named = {"": logs} if not isinstance(logs, Mapping) else dict(logs)
        for name, log in named.items():
            if not isinstance(log, Log):
                raise BadOption(
                    f"Collector takes logs that are open for writing in this process, not {type(log).__name__} {name!r}",
                    hint="a server has its own metrics: walsvc serve --http HOST:PORT, at /metrics",
                )
        self._counts: dict[str, Counting] = {name: Counting(log) for name, log in named.items()}

    def describe(self) -> Iterator[Metric]:
        """The families without samples: a registry asks, so that it can refuse names that it has already."""
        yield from families(())

    def collect(self) -> Iterator[Metric]:
        """All metric families of the logs. TimeoutError: the loop of a log did not answer in five seconds."""
        yield from families([self._status(name, counting) for name, counting in self._counts.items()])

    def _status(self, name: str, counting: Counting) -> LogStatus:
        loop = counting.log.writer.core.health.loop
        if not loop.is_running():  # nobody changes anything
            return status_of(name, counting)
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - asyncio exports it; None instead of an error where no loop runs
            counting.refresh()
            return status_of(name, counting)
        return asyncio.run_coroutine_threadsafe(counted(name, counting), loop).result(ANSWER_SECONDS)


async def counted(name: str, counting: Counting) -> LogStatus:
    """A log as it is now, with fresh counts where they take no time."""
    await fresh([counting])
    return status_of(name, counting)


def status_of(name: str, counting: Counting) -> LogStatus:
    """A log as it is now. Its replica is known from its counters."""
    stats = counting.log.stats()
    copies = {}
    if stats.replicated_lsn is not None:
        copies["replication"] = Replica(
            stats.replicated_lsn, stats.replica_records, stats.replica_bytes, stats.replica_state or ""
        )
    return look(name, counting.log, counting, copies)
