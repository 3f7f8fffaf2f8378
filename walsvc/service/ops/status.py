"""What a server tells about itself, as values; /status, /metrics and the status page all show one Snapshot.

Taking one never waits for a disk: counters come from the logs' memory. Only the lag of a topic's consumer has to be counted
in a segment; ConsumerLags does that beside the request, and a request that it keeps waiting too long shows the last figure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from walsvc.api import Log
from walsvc.errors import WalError
from walsvc.model import Pin, Retention, Stats
from walsvc.service.server.status import Copy, ServerStatus, StatusSource
from walsvc.tasks import begin_task
from walsvc.topics.names import ConsumerStatus
from walsvc.topics.registry import Registry

PINS_SHOWN = 100  # consumers and holders of each log, those who need the oldest records first: bounds work and page
LAGS_WAIT_SECONDS = 0.2  # how long a request waits for fresh lags
LAGS_REST = 10  # counting may take one part in this many of the time
LAGS_REST_SECONDS = 0.5  # and pauses at least so long

logger: logging.Logger = logging.getLogger("walsvc.service")


@dataclass(frozen=True, slots=True)
class Need:
    """A consumer or a hold, what it keeps from being dropped, and how far it is behind.

    Attributes:
        pin: who, and from which LSN on it may need records.
        segment: first LSN of the oldest segment that it keeps; None when it needs nothing that is there.
        status: the consumer's position and lag as last counted; None for a hold, and before the first count.
    """

    pin: Pin
    segment: int | None
    status: ConsumerStatus | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    """One log: its counters, what is kept, who needs it (PINS_SHOWN at most), and its copies elsewhere."""

    namespace: str
    path: str
    stats: Stats
    retention: Retention
    needs: tuple[Need, ...]
    copies: Mapping[str, Copy]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server and its logs at Unix time `at_ns`; `reasons`: why it is not ready, empty when it is."""

    at_ns: int
    server: ServerStatus
    logs: tuple[LogStatus, ...]

    reasons: tuple[str, ...] = ()


class Observer:
    """Takes snapshots of one server."""

    def __init__(self, source: StatusSource) -> None:
        self._source = source
        self._lags: dict[str, ConsumerLags] = {}

    async def snapshot(self) -> Snapshot:
        """Everything as it is now, lags as of the last half second where the disk allows."""
        logs = dict(self._source.logs)
        self._lags = {
            name: known if (known := self._lags.get(name)) is not None and known.log is log else ConsumerLags(log)
            for name, log in logs.items()
        }
        counting = [task for each in self._lags.values() if (task := each.refresh()) is not None]
        if counting:
            await asyncio.wait(counting, timeout=LAGS_WAIT_SECONDS)
        server = self._source.status()
        found = tuple(self._look(name, log, server) for name, log in logs.items())
        return Snapshot(time.time_ns(), server, found, tuple(self.reasons()))

    def reasons(self) -> list[str]:
        """Why the server is not ready, one line each, empty when it is: its own reason, and the logs that have failed."""
        server = self._source.status()
        found = [] if server.ready else [server.reason or "the server does not say why"]
        found += [trouble.text for trouble in server.troubles if trouble.text not in found]
        for namespace, log in self._source.logs.items():
            failed = log.stats().failed
            if failed and not any(failed in each for each in found):
                found.append(f"log {namespace or log.path!r} has failed: {failed}")
        return found

    def _look(self, namespace: str, log: Log, server: ServerStatus) -> LogStatus:
        retention = log.retention(PINS_SHOWN)
        segments, lags = sorted(log.segment_ids()), self._lags[namespace].known
        needs = tuple(
            Need(pin, segment_of(segments, pin, retention.next_lsn), lags.get((pin.kind, pin.topic, pin.name)))
            for pin in retention.pins
        )
        return LogStatus(namespace, log.path, log.stats(), retention, needs, server.copies.get(namespace, {}))

    async def close(self) -> None:
        """Give up what is being counted."""
        counting = [task for each in self._lags.values() if (task := each.task) is not None]
        for task in counting:
            task.cancel()
        await asyncio.gather(*counting, return_exceptions=True)


def segment_of(segments: list[int], pin: Pin, next_lsn: int) -> int | None:
    """First LSN of the segment that holds the first record which `pin` needs."""
    if pin.lsn >= next_lsn or not segments:
        return None
    return segments[max(bisect_right(segments, pin.lsn) - 1, 0)]


class ConsumerLags:
    """Counts how far the consumers of a log are behind: those PINS_SHOWN that need the oldest records, one at a time.

    Attributes:
        log: whose.
        known: what was counted last, by (kind, topic, name).
        task: the count that is under way.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.known: dict[tuple[str, str | None, str], ConsumerStatus] = {}
        self.task: asyncio.Task[None] | None = None
        self._rest_until = 0.0

    def refresh(self) -> asyncio.Task[None] | None:
        """Count, unless that was done just now; the task to wait for."""
        if self.task is None and time.monotonic() >= self._rest_until:
            self.task = begin_task(self._count())
        return self.task

    async def _count(self) -> None:
        began = time.monotonic()
        found = {}
        try:
            for pin in self.log.retention(PINS_SHOWN).pins:
                if pin.kind == "consumer" and (status := await self._status(pin)) is not None:
                    found[pin.kind, pin.topic, pin.name] = status
            self.known = found
        finally:
            ended = time.monotonic()
            self._rest_until = ended + max(LAGS_REST_SECONDS, LAGS_REST * (ended - began))
            self.task = None

    async def _status(self, pin: Pin) -> ConsumerStatus | None:
        try:
            return await Registry(self.log.segments, self.log.writer, pin.topic).status(pin.name)
        except (WalError, OSError) as error:  # closed or failed, which the page says; or its users meet the damage
            logger.debug("the lag of %r could not be counted: %s", pin.name, error)
            return None
