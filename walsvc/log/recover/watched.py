"""The segments of a log that another process may be writing, as far as they were seen. Nothing is changed.

A group is seen once it is valid on disk and this process has synced the file: from then on no crash can take it back, so
what a reader saw is never unseen. The writer's word is not needed for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, WalError, closed_log, read_failed
from walsvc.format.chain import UnfinishedBatch
from walsvc.format.group import BadGroup
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import Metadata
from walsvc.format.segment import parse_name, segment_name
from walsvc.keyring import Keys
from walsvc.log.read.counting import count_before
from walsvc.log.read.cuts import FAR, Cuts
from walsvc.log.read.reader import cursor_at
from walsvc.log.read.segments import Segments
from walsvc.log.read.stream import load_header, unsupported
from walsvc.log.read.summaries import Summaries
from walsvc.log.recover.absorb import absorb
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.looking import find
from walsvc.log.recover.overlay import Overlay
from walsvc.log.recover.recovery import Recovered, examine
from walsvc.model import RecoveryReport
from walsvc.tasks import TaskLock

POLL_SECONDS = 0.05


class WatchedSegments(Segments):
    """Looks at the directory when it is asked to.

    Attributes:
        report: what the first look found.
    """

    def __init__(self, disk: Disk, found: Recovered, keys: Keys) -> None:
        self.disk: Disk = cast("Disk", Overlay(disk, found.images))  # a damaged end is mended only by a writer
        self._keys = keys
        self._closed = False
        self._lock = TaskLock()
        self._tail: Examined = found.active
        self._unsynced: Examined | None = None  # the tail, as long as groups of it were taken that are not synced
        self._names = found.names
        self._sizes = found.sizes
        self._epoch = 0
        self._cuts = Cuts()
        self._summaries = Summaries(self.disk, keys)
        self._batch: UnfinishedBatch | None = None
        self._next_lsn = self._end_of(found.active)
        self._gone = found.active.metadata.topics.gone
        self.report: RecoveryReport = RecoveryReport(
            clean=found.clean,
            created=False,
            first_lsn=self.first_lsn,
            next_lsn=self._next_lsn,
            segments=len(found.names),
            bytes_read=found.bytes_read,
            findings=tuple(found.findings),
        )

    # ---- what was seen

    @property
    def _overlay(self) -> Overlay:
        return cast("Overlay", self.disk)

    @property
    def metadata(self) -> Metadata:
        return self._tail.metadata

    @property
    def next_lsn(self) -> int:
        return self._next_lsn

    @property
    def durable_lsn(self) -> int:
        """See Segments: all that was seen is durable."""
        return self._next_lsn - 1

    @property
    def tail(self) -> Examined:
        """The newest segment, up to its last group that was seen."""
        return self._tail

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def cuts(self) -> Cuts:
        return self._cuts

    @property
    def generation(self) -> int:
        return self._tail.chain.generation

    def ids(self) -> list[int]:
        return sorted(self._names)

    def file(self, first_lsn: int) -> tuple[str, int]:
        name = self._names[first_lsn]
        return name, self._sizes[name]

    @property
    def sizes(self) -> dict[int, int]:
        """Lengths of all segments' files, by first LSN."""
        return {first: self._sizes.get(name, 0) for first, name in self._names.items()}

    @property
    def spares(self) -> int:
        """How many spares are in the directory."""
        return sum(parse_name(name, ".spare") is not None for name in self._sizes)

    def index_of(self, segment: int) -> SegmentIndex | None:
        return self._tail.index if self._tail.header.first_lsn == segment else None

    @property
    def summaries(self) -> Summaries:
        return self._summaries

    @property
    def keys(self) -> Keys:
        return self._keys

    @property
    def released(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            raise closed_log(self.disk.path)

    async def close(self) -> None:
        """Release the directory. Idempotent."""
        self._closed = True
        await self.disk.close()

    # ---- waiting

    async def look_again(self) -> bool:
        """See Segments: the writer has renamed, replaced or removed a file meanwhile. False when nothing moves."""
        before = self._found
        async with self._looking():
            await self._start_over()
        return before != self._found

    @property
    def _found(self) -> tuple[object, ...]:
        """The state that a look at the directory may change."""
        return dict(self._names), self.first_lsn, self._next_lsn, self.generation, self._overlay.images

    async def reach(self, stop: int | None = None) -> int:
        self.check_open()
        await self.refresh()
        return self._next_lsn if stop is None else min(stop, self._next_lsn)

    async def more(self, topic: str | None) -> bool:
        seen = self._next_lsn, self._cuts.count
        await self.refresh()
        if seen == (self._next_lsn, self._cuts.count):
            if self.sealed:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    def follower_reads(self, change: int) -> None:
        """See Segments: closing waits for no follower here."""

    async def topic_sums(self, number: int) -> tuple[int, int]:
        limit = self._next_lsn
        total = await count_before(self, limit, number)
        last = self.metadata.topics.last_of(number)
        if last >= limit:  # in a batch that is not complete, or to be cut
            cursor, last = cursor_at(self, self.first_lsn, number), 0
            while records := await cursor.take(limit):
                last = records[-1].lsn
        return total, last

    # ---- looking

    async def refresh(self) -> int:
        """Look for what the writer has added, and dropped; returns next_lsn."""
        async with self._looking():
            try:
                while await self._read_on() or await self._next_segment():
                    pass
                if self._batch is not None:
                    await self._start_over()  # perhaps it was given up, and the log goes on where it began
            except (FileNotFoundError, Corruption):
                await self._start_over()  # which raises it again unless the writer has moved something meanwhile
        return self._next_lsn

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[None]:
        """One look at the directory at a time. Raises Closed where the log was closed meanwhile, and PathError."""
        async with self._lock:
            self.check_open()
            try:
                yield
            except OSError as error:
                self.check_open()
                if isinstance(error, WalError):
                    raise
                raise read_failed(self.disk.path, error, lsn=self._next_lsn) from error

    async def _read_on(self) -> bool:
        """Take the valid groups behind the known end, sync them, and only then show them."""
        tail = self._tail
        while True:
            try:
                raw = await tail.stream.next()
                absorb(tail.metadata, raw)
                tail.index.note(raw.header)
                self._unsynced = tail  # and shown by a later look, where this one is given up or fails
            except BadGroup as error:
                if error.newer:
                    raise unsupported(tail.stream, error) from None
                break
        if self._unsynced is not tail:
            return False
        await self.disk.sync(tail.name)
        self._show(tail)
        return True

    def _show(self, tail: Examined) -> None:
        """Let readers have everything up to the end of `tail`, which is durable."""
        self._tail, self._unsynced = tail, None
        self._batch = tail.unfinished_batch(self._batch)
        end = self._end_of(tail)
        self._note_cut(end)
        self._note_gone(tail)
        self._next_lsn = end

    def _end_of(self, tail: Examined) -> int:
        """The end of the visible records: a batch is hidden until its end is there, and what truncate_after is about to drop
        from when it says so."""
        end = tail.chain.next_lsn if self._batch is None else self._batch.lsn
        return end if tail.metadata.cut is None else min(end, tail.metadata.cut + 1)

    def _note_cut(self, end: int) -> None:
        """Tell readers if records that they have seen, from LSN `end` on, were dropped."""
        if end < self._next_lsn:
            self._cuts.note(end)
            self._epoch += 1

    def _note_gone(self, tail: Examined) -> None:
        """Tell readers if topics have gone since they looked."""
        gone = tail.metadata.topics.gone
        if gone != self._gone:
            self._gone = gone
            self._cuts.turns += 1

    async def _next_segment(self) -> bool:
        """Move on when the segment after the known end has appeared."""
        sizes = await self.disk.list()
        ids = sorted(first for name in sizes if (first := parse_name(name, ".wal")) is not None)
        tail = self._tail
        if tail.name not in sizes or await self._exchanged(tail):
            await self._start_over()
            return False
        self._sizes = sizes
        self._names = {first: segment_name(first) for first in ids if first < tail.header.first_lsn}
        self._names[tail.header.first_lsn] = tail.name
        following = tail.chain.next_lsn
        if following not in ids or following <= tail.header.first_lsn:
            if ids and ids[-1] > tail.header.first_lsn:
                await self._start_over()  # the end that was known is in a sealed segment now, which was compacted
            return False
        examined = await examine(self.disk, segment_name(following), following, sizes, self.keys)
        await self.disk.sync(examined.name)
        self._names[following] = examined.name
        self._show(examined)
        return True

    async def _exchanged(self, known: Examined) -> bool:
        """True if another file has taken the place of a segment."""
        header, _ = await load_header(self.disk, known.name, None)
        return header != known.header

    async def _start_over(self) -> None:
        """The known end was truncated or recycled meanwhile: find the log afresh."""
        while True:
            found = await find(self._overlay.plain, self.keys)
            with suppress(FileNotFoundError):  # the writer has dropped it meanwhile
                end = await self._cut_since(found)
                break
        self._overlay.images = found.images
        self._note_gone(found.active)
        self._tail = found.active
        self._names, self._sizes = found.names, found.sizes
        self._epoch += 1
        self._summaries.forget()
        self._batch = None
        self._note_cut(end)
        self._next_lsn = max(min(self._next_lsn, end), self._end_of(found.active))

    async def _cut_since(self, found: Recovered) -> int:
        """The lowest LSN at which truncate_after has cut the log since it was found last; FAR: no cut was seen.

        It adds one to the generation, and begins a segment behind the cut: so a segment of a higher generation than any that
        was known, with an LSN that was, began by that, or comes after one that did and has been dropped.
        """
        cut, end = found.active.metadata.cut, FAR
        for first in sorted(found.names, reverse=True):
            if first >= self._next_lsn:
                continue
            header, _ = await load_header(self.disk, found.names[first], None)
            if header.generation <= self.generation:
                break
            end = first if header.previous_end == 0 else first - 1  # which was dropped, too
        return end if cut is None else min(end, cut + 1)


async def watch(disk: Disk, keys: Keys) -> WatchedSegments:
    """Find the log on a disk that was opened without the lock. PathError where there is none; Corruption."""
    return WatchedSegments(disk, await find(disk, keys), keys)
