"""Live: what can be read of a log that this process appends to, up to the last durable record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Unpack

from walsvc.disk.base import Disk
from walsvc.errors import Closed
from walsvc.format.index import SegmentIndex
from walsvc.format.purge import Marks
from walsvc.keyring import KeyRing
from walsvc.log.filter import Wanted
from walsvc.log.reading import Reading, check_start, chosen_of
from walsvc.log.summaries import Summaries
from walsvc.log.writer import WalWriter
from walsvc.model import ReadStats, Record


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
        return self.writer._metadata.truncated

    @property
    def next_lsn(self) -> int:
        """LSN that the next accepted record gets."""
        return self.writer.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""
        return self.writer.durable_lsn

    @property
    def keys(self) -> KeyRing | None:
        """The keys that are in use; None: the log is not encrypted."""
        return self.writer._keys

    @property
    def epoch(self) -> int:
        """For readers: changes when a batch was given up, and its place is written anew."""
        return self.writer._rewinds

    async def look_again(self) -> bool:
        """For readers: the writer itself knows all its files."""
        return False

    @property
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers; number 0 is none."""
        return self.writer._metadata.names

    @property
    def marks(self) -> Marks:
        """For readers: which records are purged."""
        return self.writer._metadata.marks

    @property
    def summaries(self) -> Summaries:
        """For readers: which topics sealed segments hold."""
        return self.writer._summaries

    def segment_ids(self) -> list[int]:
        """First LSNs of the segments, ascending."""
        return self.writer._segment_ids

    def index_of(self, segment: int) -> SegmentIndex | None:
        """For readers: the index of the active segment; None for any other."""
        active = self.writer._segment
        return active.index if active.id == segment else None

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """File name and length of a segment."""
        return f"{first_lsn:016x}.wal", self.writer._segment_bytes[first_lsn]

    # ---- reading

    async def follow(
        self, start: int | None = None, *, stats: ReadStats | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncIterator[Record]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones, without polling.

        Takes what `read` takes to say which records are wanted, but for `until`. With `topic` it may be over none yet: other
        topics' appends wake nobody then. Ends when the log is closed; raises DurabilityLost when it fails, and what `read`
        raises.
        """
        chosen, topic = chosen_of(wanted, endless=True), wanted.get("topic")
        self.writer._check_open()
        first = check_start(start, self.first_lsn)
        cursor = self._cursor(first, topic, chosen, stats)
        while True:
            cursor = cursor or self._cursor(first, topic, chosen, stats)
            for record in [] if cursor is None else await cursor.take(self.durable_lsn + 1):
                yield record
            if cursor is not None and cursor.next_lsn <= self.durable_lsn:
                continue
            try:
                if topic is None:
                    await self.writer._durable_above(self.durable_lsn)
                else:
                    await self.writer._topic_record(topic, self.durable_lsn + 1)
            except Closed:
                return

    async def _reach(self, stop: int | None) -> int:
        self.writer._check_open()
        limit = self.next_lsn if stop is None else min(stop, self.next_lsn)
        if limit > self.first_lsn:
            await self.writer._durable(limit - 1)
        return limit
