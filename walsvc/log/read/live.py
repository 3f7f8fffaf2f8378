"""The segments of a log that this process appends to: readable up to the last durable record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from walsvc.disk.base import Disk
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import Metadata
from walsvc.format.segment import segment_name
from walsvc.keyring import KeyRing
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.segments import Segments
from walsvc.log.read.summaries import Summaries

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.commit.ending import Ending


class LiveSegments(Segments):
    """Answers from the writer's own state, so that readers in its loop see every record as soon as it is durable."""

    def __init__(self, core: Core, ending: Ending) -> None:
        self.disk: Disk = core.disk
        self._core = core
        self._ending = ending

    @property
    def metadata(self) -> Metadata:
        return self._core.metadata

    @property
    def next_lsn(self) -> int:
        return self._core.next_lsn

    @property
    def durable_lsn(self) -> int:
        return self._core.catalog.durable_lsn

    @property
    def epoch(self) -> int:
        return self._core.catalog.rewinds

    @property
    def cuts(self) -> Cuts:
        return self._core.catalog.cuts

    @property
    def generation(self) -> int:
        return self._core.catalog.generation

    def ids(self) -> list[int]:
        return list(self._core.catalog.view.ids)

    def file(self, first_lsn: int) -> tuple[str, int]:
        return segment_name(first_lsn), self._core.catalog.view.sizes[first_lsn]

    def index_of(self, segment: int) -> SegmentIndex | None:
        active = self._core.tail.segment
        return active.index if active.id == segment else None

    @property
    def summaries(self) -> Summaries:
        return self._core.tail.summaries

    @property
    def keys(self) -> KeyRing | None:
        return self._core.tail.keys

    @property
    def released(self) -> bool:
        return self._core.health.released

    def check_open(self) -> None:
        self._core.health.check_open()

    async def look_again(self) -> bool:
        """See Segments: the writer knows all its files, but tells of a truncate_after only at its end."""
        cutting = self._core.catalog.cutting
        if cutting is None:
            return False
        await asyncio.wait([cutting])
        self._core.health.raise_failure()
        return True

    async def reach(self, stop: int | None = None) -> int:
        self.check_open()
        limit, cuts = self.next_lsn if stop is None else min(stop, self.next_lsn), self.cuts.count
        if limit > self.first_lsn:
            await self._core.durable(limit - 1)
        return min(limit, self.cuts.since(cuts))

    async def more(self, topic: str | None) -> bool:
        core = self._core
        if core.health.over and core.health.failure is None:  # no record comes but those that were accepted
            if self.durable_lsn + 1 == self.next_lsn:
                return False
            await core.durable(self.next_lsn - 1)
        elif topic is None:
            await core.durable_above(self.durable_lsn)
        else:
            await core.topic_record(topic, self.durable_lsn + 1)
        return True

    def follower_reads(self, change: int) -> None:
        self._ending.follower_reads(change)

    async def topic_sums(self, number: int) -> tuple[int, int]:
        return self._core.topic_sums(number)
