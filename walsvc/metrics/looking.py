"""One log as values: its counters, what is kept, who needs it. The status page, /metrics and a Collector all show these.

Taking a look never waits for a disk: counters come from the log's memory. Only the lag of a topic's consumer has to be counted in a
segment, and the free space to be asked of the file system; Counting does that beside the request, and what is not there in time is
shown as it was last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from walsvc.api import Log
from walsvc.errors import WalError
from walsvc.model import Pin, Retention, Stats
from walsvc.tasks import begin_task
from walsvc.topics.names import ConsumerStatus
from walsvc.topics.registry import Registry

PINS_SHOWN = 100  # consumers and holders of each log, those who need the oldest records first: bounds work and page
WAIT_SECONDS = 0.2  # how long a request waits for fresh counts
REST = 10  # counting may take one part in this many of the time
REST_SECONDS = 0.5  # and pauses at least so long

logger: logging.Logger = logging.getLogger("walsvc.service")


class CopyProgress(Protocol):
    """The progress of a copy of a log elsewhere: its archive or its replica."""

    @property
    def lsn(self) -> int:
        """Every record up to it is there."""
        ...

    @property
    def records(self) -> int:
        """Records that are durable here and not there yet."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes that hold these records."""
        ...

    @property
    def state(self) -> str:
        """In a word or two."""
        ...


@dataclass(frozen=True, slots=True)
class PinNeed:
    """A consumer or a hold, what it keeps from being dropped, and how far it is behind.

    Attributes:
        pin: who, and from which LSN on it may need records.
        segment: first LSN of the oldest segment that it keeps; None when it needs nothing that is there.
        status: the consumer's position, lag and deliveries as last counted; None for a hold, and before the first count.
    """

    pin: Pin
    segment: int | None
    status: ConsumerStatus | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    """One log: its counters, what is kept, who needs it (PINS_SHOWN at most), and its copies elsewhere.

    Attributes:
        free_bytes: that the device has left, as last asked; None before that.
    """

    namespace: str
    path: str
    stats: Stats
    retention: Retention
    needs: tuple[PinNeed, ...]
    copies: Mapping[str, CopyProgress]
    free_bytes: int | None = None


def look(namespace: str, log: Log, counting: Counting, copies: Mapping[str, CopyProgress]) -> LogStatus:
    """A log as it is now, with what was counted last."""
    retention = log.retention(PINS_SHOWN)
    segments, counted = sorted(log.writer.segments.ids()), counting.known
    needs = tuple(
        PinNeed(pin, segment_of(segments, pin, retention.next_lsn), counted.get((pin.kind, pin.topic, pin.name)))
        for pin in retention.pins
    )
    return LogStatus(namespace, log.path, log.stats(), retention, needs, copies, counting.free_bytes)


def segment_of(segments: list[int], pin: Pin, next_lsn: int) -> int | None:
    """First LSN of the segment that holds the first record which `pin` needs."""
    if pin.lsn >= next_lsn or not segments:
        return None
    return segments[max(bisect_right(segments, pin.lsn) - 1, 0)]


class Counting:
    """Counts how far the consumers of a log are behind: those PINS_SHOWN that need the oldest records, one at a time. And asks how
    much space is left.

    Attributes:
        log: whose.
        known: what was counted last, by (kind, topic, name).
        free_bytes: as last asked.
        task: the count that is under way.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.known: dict[tuple[str, str | None, str], ConsumerStatus] = {}
        self.free_bytes: int | None = None
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
            self.free_bytes = await free_bytes_of(self.log)
            for pin in self.log.retention(PINS_SHOWN).pins:
                if pin.kind == "consumer" and (status := await self._status(pin)) is not None:
                    found[pin.kind, pin.topic, pin.name] = status
            self.known = found
        finally:
            ended = time.monotonic()
            self._rest_until = ended + max(REST_SECONDS, REST * (ended - began))
            self.task = None

    async def _status(self, pin: Pin) -> ConsumerStatus | None:
        try:
            return await Registry(self.log.writer.segments, self.log.writer, pin.topic).status(pin.name)
        except (WalError, OSError) as error:  # closed or failed, which the page says; or its users meet the damage
            logger.debug("the lag of %r could not be counted: %s", pin.name, error)
            return None


async def free_bytes_of(log: Log) -> int | None:
    """Free bytes of the log's device; None where it does not say, as of a log that is closed."""
    if log.writer.core.health.closing:
        return None
    try:
        return await log.writer.core.disk.free_bytes()
    except (WalError, OSError) as error:
        logger.debug("the free space of %s is not known: %s", log.path, error)
        return None


async def fresh(counts: list[Counting]) -> None:
    """Let them count, but wait no longer than a request may."""
    counting = [task for each in counts if (task := each.refresh()) is not None]
    if counting:
        await asyncio.wait(counting, timeout=WAIT_SECONDS)
