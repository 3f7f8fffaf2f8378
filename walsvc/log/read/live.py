"""Live: what can be read of a log that this process appends to, up to the last durable record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from walsvc.disk.base import Disk
from walsvc.format.index import SegmentIndex
from walsvc.format.purge import Marks
from walsvc.keyring import KeyRing
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.reading import Reading
from walsvc.log.read.summaries import Summaries

if TYPE_CHECKING:
    from walsvc.log.writer import WalWriter


class Live(Reading):
    """Answers from the writer's own state, so that readers in its loop see every record as soon as it is durable."""

    writer: WalWriter

    def __init__(self, disk: Disk, writer: WalWriter) -> None:
        self._disk = disk
        self.path = disk.path
        self.writer = writer

    # ---- range

    @property
    def first_lsn(self) -> int:
        """LSN of the first visible record; next_lsn when there is none."""
        return self.writer.core.metadata.truncated

    @property
    def next_lsn(self) -> int:
        """LSN that the next accepted record gets."""
        return self.writer.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""
        return self.writer.durable_lsn

    @property
    def sealed(self) -> bool:
        """Whether the log was sealed for good: it takes nothing more, no hold either."""
        return self.writer.core.metadata.sealed

    @property
    def keys(self) -> KeyRing | None:
        """The keys that are in use; None: the log is not encrypted."""
        return self.writer.core.tail.keys

    @property
    def epoch(self) -> int:
        """For readers: changes when a batch was given up, or truncate_after came, and its place is written anew."""
        return self.writer.core.catalog.rewinds

    @property
    def cuts(self) -> Cuts:
        """For readers: where truncate_after has taken the log's end back."""
        return self.writer.core.catalog.cuts

    @property
    def generation(self) -> int:
        """For readers: the highest of any segment."""
        return self.writer.core.catalog.generation

    @property
    def released(self) -> bool:
        """For readers: the log is closed, and its files cannot be read any more."""
        return self.writer.core.health.released

    async def look_again(self) -> bool:
        """For readers: the writer knows all its files, but tells of a truncate_after only at its end."""
        cutting = self.writer.core.catalog.cutting
        if cutting is None:
            return False
        await asyncio.wait([cutting])
        self.writer.core.health.raise_failure()
        return True

    @property
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers; number 0 is none."""
        return self.writer.core.metadata.names

    @property
    def marks(self) -> Marks:
        """For readers: which records are purged."""
        return self.writer.core.metadata.marks

    @property
    def summaries(self) -> Summaries:
        """For readers: which topics sealed segments hold."""
        return self.writer.core.tail.summaries

    def segment_ids(self) -> list[int]:
        """First LSNs of the segments, ascending."""
        return list(self.writer.core.catalog.view.ids)

    def index_of(self, segment: int) -> SegmentIndex | None:
        """For readers: the index of the active segment; None for any other."""
        active = self.writer.core.tail.segment
        return active.index if active.id == segment else None

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """File name and length of a segment."""
        return f"{first_lsn:016x}.wal", self.writer.core.catalog.view.sizes[first_lsn]

    # ---- reading

    def _check_open(self) -> None:
        self.writer.core.health.check_open()

    async def _reach(self, stop: int | None) -> int:
        self._check_open()
        limit, cuts = self.next_lsn if stop is None else min(stop, self.next_lsn), self.cuts.count
        if limit > self.first_lsn:
            await self.writer.core.durable(limit - 1)
        return min(limit, self.cuts.since(cuts))

    def _follower_reads(self, change: int) -> None:
        self.writer.ending.follower_reads += change

    async def _more(self, topic: str | None) -> bool:
        writer = self.writer
        if writer.core.health.over and writer.core.health.failure is None:  # what was accepted is all that ever comes
            if self.durable_lsn + 1 == self.next_lsn:
                return False
            await writer.core.durable(self.next_lsn - 1)
        elif topic is None:
            await writer.core.durable_above(self.durable_lsn)
        else:
            await writer.core.topic_record(topic, self.durable_lsn + 1)
        return True

    # ---- for topics and their consumers

    async def settle(self) -> int:
        """Make durable what was accepted; returns the LSN behind it."""
        self.writer.core.health.check_open()
        limit = self.next_lsn
        await self.writer.core.durable(limit - 1)
        return limit

    async def topic_sums(self, number: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one (0: none)."""
        return self.writer.core.topic_sums(number)
