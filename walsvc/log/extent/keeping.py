"""Keeping: topics that have limits of their own lose their oldest records, as topic.truncate_before drops them.

It looks once a second, as long as a topic has limits and something may be over one. A hold keeps what it holds; a consumer is overtaken
and told so, as by the limits of the log. A record is as old as the younger of its two ages, by the wall clock and by this process's
monotonic clock (walsvc.log.extent.aging says why).
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from walsvc.errors import Truncated, WalError
from walsvc.format.limits import TopicLimits
from walsvc.log.commit.background import under_way
from walsvc.log.extent.reclaim import wake_alive
from walsvc.log.read.counting import count_from
from walsvc.log.read.filter import Filter
from walsvc.log.read.lazy import LazyCursor
from walsvc.tasks import TWICE

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.extent.hider import Hider
    from walsvc.log.extent.reclaim import Reclaimer
    from walsvc.log.read.lazy import LazyRecord
    from walsvc.log.read.segments import Segments

logger: logging.Logger = logging.getLogger("walsvc.retention")
LOOK_SECONDS = 1.0
SAMPLES_MAX = 256  # moments of which it is known how far the log had come


@dataclass(slots=True)
class Measured:
    """Payload bytes of a topic's visible records.

    Attributes:
        first, following: the LSNs from which on, and below which, they are counted.
        purged: tells whether anything of it was purged since.
        bytes: so many.
    """

    first: int
    following: int
    purged: object
    bytes: int = 0


class TopicLimiter:
    """Applies the limits of topics. Loop thread only."""

    def __init__(self, core: Core, segments: Segments, hider: Hider, reclaimer: Reclaimer) -> None:
        self._core = core
        self._segments = segments
        self._hider = hider
        self._reclaimer = reclaimer
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []  # two, see TWICE
        self._measured: dict[int, Measured] = {}
        self._opened = (core.health.loop.time(), core.tail.clock(), core.next_lsn)
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)  # time, and next_lsn as it was then
        self._looking = asyncio.Lock()
        self._settled = 0  # next_lsn up to which nothing is over a limit of records or bytes
        self.wake()

    # ---- when

    def wake(self) -> None:
        """There may be something to drop: look, in the background, and again later."""
        self.stop()
        core = self._core
        if not core.metadata.limits or core.health.closing or core.health.failure is not None:
            return
        if not under_way(self._task):
            self._task = core.background.start("retention of topics", self._run())
        alive = weakref.WeakMethod(self.wake)  # the loop keeps no log that was dropped
        self._timers = [core.health.loop.call_later(LOOK_SECONDS, wake_alive, alive) for _ in TWICE]

    def stop(self) -> None:
        """Look no more."""
        for timer in self._timers:
            timer.cancel()

    async def _run(self) -> None:
        try:
            await self.look()
        except (WalError, OSError) as error:  # whoever uses the log is told by the log itself
            if self._core.health.failure is None and self._core.health.closed is None:
                logger.warning("no topic's limits were applied in %s: %s", self._core.disk.path, error)

    async def close(self) -> None:
        """Wait for a look under way, which the closed writer ends."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # ---- what

    async def look(self, only: int | None = None) -> None:
        """Apply all limits, or those of one topic."""
        async with self._looking:
            await self._look(only)

    async def _look(self, only: int | None) -> None:
        core, durable = self._core, self._core.catalog.durable_lsn + 1
        now = core.health.loop.time()
        longest = max((each.seconds or 0.0 for each in core.metadata.limits.values()), default=0.0)
        if not self._samples or now - self._samples[-1][0] > longest / (SAMPLES_MAX // 2):
            self._samples.append((now, core.next_lsn))
        grown, self._settled = durable != self._settled, durable
        for number, limits in list(core.metadata.limits.items()):
            name = core.metadata.topics.names.get(number)
            if name is None or only not in (None, number) or not (grown or only or limits.seconds):
                continue
            target = await self._first_kept(number, limits, durable)
            target = min(target, self._reclaimer.needs.lowest_hold())
            if target > self._segments.first_of(number):
                await self._hider.truncate_before(name, target, why="limit of the topic")
        self._measured = {each: found for each, found in self._measured.items() if each in core.metadata.limits}

    async def _first_kept(self, number: int, limits: TopicLimits, limit: int) -> int:
        """LSN of the first record that stays; `limit`: none of those that are durable does."""
        while True:
            first = self._segments.first_of(number)
            try:
                records = 0
                if limits.records is not None:
                    records = await count_from(self._segments, first, number) - limits.records
                size = 0
                if limits.bytes is not None:
                    size = await self._measure(number, first, limit) - limits.bytes
                cursor, dropped = self._cursor(number, first), 0
                while found := await cursor.take(limit):
                    for record in found:
                        if records <= 0 and size <= 0 and not self._too_old(record, limits.seconds):
                            return self._dropping(number, record.lsn, dropped)
                        records, size, dropped = records - 1, size - record.length, dropped + record.length
                return self._dropping(number, limit, dropped)
            except Truncated:
                continue  # meanwhile

    async def _measure(self, number: int, first: int, limit: int) -> int:
        """Payload bytes of a topic's visible records from `first` up to `limit`."""
        known, purged = self._measured.get(number), self._purged(number, first)
        if known is None or known.first != first or known.following > limit or known.purged != purged:
            known = self._measured[number] = Measured(first, first, purged)
        cursor = self._cursor(number, known.following)
        while found := await cursor.take(limit):
            known.bytes += sum(record.length for record in found)
            known.following = cursor.next_lsn
        known.following = limit
        return known.bytes

    def _dropping(self, number: int, target: int, size: int) -> int:
        """A topic is about to lose its records below LSN `target`, which have so many bytes."""
        if (known := self._measured.get(number)) is not None:
            known.first, known.following, known.bytes = target, max(known.following, target), known.bytes - size
            known.purged = self._purged(number, target)
        return target

    def _purged(self, number: int, first: int) -> object:
        """Something else once anything of a topic from LSN `first` on was purged."""
        metadata = self._core.metadata
        ranges = metadata.hidden.at(number, first), metadata.hidden.records_from(number, first)
        return ranges, len(metadata.purges), sum(metadata.purges.values())

    def _cursor(self, number: int, lsn: int) -> LazyCursor:
        return LazyCursor(self._segments, lsn, Filter(number=number))

    def _too_old(self, record: LazyRecord, seconds: float | None) -> bool:
        if seconds is None:
            return False
        now, wall = self._core.health.loop.time(), self._core.tail.clock()
        opened, opened_ns, there = self._opened
        if record.lsn < there:
            age = now - opened + max(opened_ns - record.timestamp_ns, 0) / 1e9
        else:
            age = now - next((moment for moment, following in self._samples if following > record.lsn), now)
        if record.timestamp_ns <= wall:
            age = min(age, (wall - record.timestamp_ns) / 1e9)
        return age > seconds
