"""A log opened with read_only=True: reads beside a live writer in another process, and changes nothing.

It sees a group once it is valid on disk and this process has synced the file: from then on no crash can take it back, so
what a reader saw is never unseen. It does not need the writer's word for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn, cast

from walsvc.config import WalConfig, check_timeout
from walsvc.disk.base import Disk
from walsvc.errors import Closed, Corruption, WalError, closed_log
from walsvc.format.chain import Batch
from walsvc.format.group import BadGroup
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import Metadata
from walsvc.format.purge import Marks
from walsvc.format.segment import parse_name, segment_name
from walsvc.keyring import KeyRing
from walsvc.log.extent.pins import PINS_SHOWN, pins_of
from walsvc.log.read.counting import count_before
from walsvc.log.read.cuts import FAR, Cuts
from walsvc.log.read.reader import read_failed
from walsvc.log.read.reading import Reading
from walsvc.log.read.stream import load_header, unsupported
from walsvc.log.read.summaries import Summaries
from walsvc.log.recover.absorb import absorb
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.looking import find
from walsvc.log.recover.overlay import Overlay
from walsvc.log.recover.recovery import Recovered, examine
from walsvc.model import RecoveryReport, Stats
from walsvc.scope import Scoped

POLL_SECONDS = 0.05


def refuse(log: ReadOnlyLog, *_: Any, **__: Any) -> NoReturn:
    """As a method: what would write raises Closed."""
    raise Closed("the log was opened with read_only=True", path=log.path, hint="open it without read_only")


async def refuse_later(log: ReadOnlyLog, *_: Any, **__: Any) -> NoReturn:
    """As a method that is awaited: what would write raises Closed."""
    refuse(log)


class ReadOnlyLog(Reading, Scoped):
    """The reading half of a log's interface; everything that would write raises Closed."""

    def __init__(self, disk: Disk, config: WalConfig, found: Recovered) -> None:
        self._plain = disk
        self._overlay = Overlay(disk, found.images)  # a damaged end is mended only by a writer
        self._disk = cast("Disk", self._overlay)
        self.path = disk.path
        self.config = config
        self._closed = False
        self._lock = asyncio.Lock()
        self._metadata: Metadata = found.active.metadata
        self._tail: Examined = found.active
        self._unsynced: Examined | None = None  # the tail, as long as groups of it were taken that are not synced
        self._names = found.names
        self._sizes = found.sizes
        self._epoch = 0
        self._cuts = Cuts()
        self._summaries = Summaries(self._disk, config.keys)
        self._batch: Batch | None = None
        self._next_lsn = self._end_of(found.active)
        self.report = RecoveryReport(
            clean=found.clean,
            created=False,
            first_lsn=self._metadata.truncated,
            next_lsn=self._next_lsn,
            segments=len(found.names),
            bytes_read=found.bytes_read,
            findings=tuple(found.findings),
        )

    @property
    def first_lsn(self) -> int:
        """LSN of the first visible record."""
        return self._metadata.truncated

    @property
    def next_lsn(self) -> int:
        """LSN after the last record seen so far."""
        return self._next_lsn

    @property
    def sealed(self) -> bool:
        """Whether the log was sealed for good, as far as it was seen."""
        return self._metadata.sealed

    @property
    def place(self) -> tuple[int, int]:
        """For engines: segment and offset of the end, as far as it was seen."""
        return self._tail.header.first_lsn, self._tail.chain.offset

    @property
    def keys(self) -> KeyRing | None:
        """For readers: the keys that the log was opened with."""
        return self.config.keys

    @property
    def epoch(self) -> int:
        """For readers: changes when the log was found afresh."""
        return self._epoch

    @property
    def cuts(self) -> Cuts:
        """For readers: where the log's end was found to be taken back."""
        return self._cuts

    @property
    def generation(self) -> int:
        """For readers: the highest of any segment, as the log was found."""
        return self._tail.chain.generation

    @property
    def released(self) -> bool:
        """For readers: the log is closed, and its files cannot be read any more."""
        return self._closed

    @property
    def durable_lsn(self) -> int:
        """All that a read-only log shows is durable."""
        return self._next_lsn - 1

    async def look_again(self) -> bool:
        """For readers: the writer has renamed, replaced or removed a file meanwhile. Gives up when nothing moves."""
        before = self._found
        async with self._looking():
            await self._start_over()
        return before != self._found

    @property
    def _found(self) -> tuple[object, ...]:
        """What a look at the directory may change."""
        return dict(self._names), self.first_lsn, self._next_lsn, self.generation, self._overlay.images

    @property
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers; number 0 is none."""
        return self._metadata.names

    @property
    def marks(self) -> Marks:
        """For readers: which records are purged."""
        return self._metadata.marks

    @property
    def summaries(self) -> Summaries:
        """For readers: which topics sealed segments hold."""
        return self._summaries

    def topic_number(self, name: str) -> int | None:
        """Number of a topic; None: there is none of that name."""
        return self._metadata.topics.get(name)

    def segment_ids(self) -> list[int]:
        """First LSNs of the segments, ascending."""
        return sorted(self._names)

    def index_of(self, segment: int) -> SegmentIndex | None:
        """For readers: the index of the newest segment; None for any other."""
        return self._tail.index if self._tail.header.first_lsn == segment else None

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """File name and length of a segment."""
        name = self._names[first_lsn]
        return name, self._sizes[name]

    def stats(self) -> Stats:
        """The range and the backend; the counters of a reader are zero."""
        return Stats(
            disk=self._disk.kind,
            disk_reason=self._disk.reason,
            direct=self._disk.direct,
            block_bytes=self._disk.block_bytes,
            sync_method=self._disk.sync_method,
            reading=self._disk.reading,
            first_lsn=self.first_lsn,
            next_lsn=self.next_lsn,
            durable_lsn=self.durable_lsn,
            records=0,
            payload_bytes=0,
            groups=0,
            syncs=0,
            written_bytes=0,
            pending_bytes=0,
            waiting=0,
            rotations=0,
            segments=len(self._names),
            spares=sum(parse_name(name, ".spare") is not None for name in self._sizes),
            segment_id=self._tail.header.first_lsn,
            group_records_max=0,
            sync_us_last=0,
            sync_us_total=0,
            failed=None,
            topics=len(self._metadata.topics),
            pins=pins_of(self._metadata, self.next_lsn, self._lengths(), PINS_SHOWN),
            layout="pack" if self._tail.chain.align < self._tail.header.block_bytes else "pad",
            double_write=self.config.double_write,
            key_id=self._tail.header.key_id.decode() or None,
        )

    def _lengths(self) -> dict[int, int]:
        return {first: self._sizes.get(name, 0) for first, name in self._names.items()}

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
            self._check_open()
            try:
                yield
            except OSError as error:
                self._check_open()
                if isinstance(error, WalError):
                    raise
                raise read_failed(self._disk, error, lsn=self._next_lsn) from error

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
        await self._disk.sync(tail.name)
        self._show(tail)
        return True

    def _show(self, tail: Examined) -> None:
        """What stands up to the end of `tail` is durable: let readers have it."""
        self._tail, self._metadata, self._unsynced = tail, tail.metadata, None
        self._batch = tail.unfinished_batch(self._batch)
        end = self._end_of(tail)
        self._note_cut(end)
        self._next_lsn = end

    def _end_of(self, tail: Examined) -> int:
        """Where the visible records end: a batch is hidden until its end is there, and what truncate_after is about to drop
        from when it says so."""
        end = tail.chain.next_lsn if self._batch is None else self._batch.lsn
        return end if tail.metadata.cut is None else min(end, tail.metadata.cut + 1)

    def _note_cut(self, end: int) -> None:
        """What was seen from LSN `end` on does not stand any more."""
        if end < self._next_lsn:
            self._cuts.note(end)
            self._epoch += 1

    async def _next_segment(self) -> bool:
        """Move on when the segment after the known end has appeared."""
        sizes = await self._disk.list()
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
        examined = await examine(self._disk, segment_name(following), following, sizes, self.keys)
        await self._disk.sync(examined.name)
        self._names[following] = examined.name
        self._show(examined)
        return True

    async def _exchanged(self, known: Examined) -> bool:
        """Whether another file has taken the place of a segment."""
        header, _ = await load_header(self._disk, known.name, None)
        return header != known.header

    async def _start_over(self) -> None:
        """The known end was truncated or recycled meanwhile: find the log afresh."""
        while True:
            found = await find(self._plain, self.keys)
            with suppress(FileNotFoundError):  # the writer has dropped it meanwhile
                end = await self._cut_since(found)
                break
        self._overlay.images = found.images
        self._tail, self._metadata = found.active, found.active.metadata
        self._names, self._sizes = found.names, found.sizes
        self._epoch += 1
        self._summaries.forget()
        self._batch = None
        self._note_cut(end)
        self._next_lsn = max(min(self._next_lsn, end), self._end_of(found.active))

    async def _cut_since(self, found: Recovered) -> int:
        """Where truncate_after has cut the log since it was found last; FAR: nowhere that was seen.

        It adds one to the generation, and begins a segment behind the cut: so a segment of a higher generation than any that
        was known, with an LSN that was, began by that, or comes after one that did and has been dropped.
        """
        cut, end = found.active.metadata.cut, FAR
        for first in sorted(found.names, reverse=True):
            if first >= self._next_lsn:
                continue
            header, _ = await load_header(self._disk, found.names[first], None)
            if header.generation <= self.generation:
                break
            end = first if header.previous_end == 0 else first - 1  # which was dropped, too
        return end if cut is None else min(end, cut + 1)

    async def _more(self, topic: str | None) -> bool:
        seen = self._next_lsn, self._cuts.count
        await self.refresh()
        if seen == (self._next_lsn, self._cuts.count):
            if self.sealed:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _reach(self, stop: int | None) -> int:
        self._check_open()
        await self.refresh()
        return self._next_lsn if stop is None else min(stop, self._next_lsn)

    async def settle(self) -> int:
        """Look for what the writer has added; returns the LSN behind it."""
        self._check_open()
        return await self.refresh()

    async def topic_sums(self, number: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one (0: none), up to next_lsn."""
        limit = self._next_lsn
        total = await count_before(self._disk, self, limit, number)
        last = self._metadata.last_of(number)
        if last >= limit:  # in a batch that is not complete, or to be cut
            cursor, last = self.cursor_at(self.first_lsn, number), 0
            while records := await cursor.take(limit):
                last = records[-1].lsn
        return total, last

    def _check_open(self) -> None:
        if self._closed:
            raise closed_log(self.path)

    append = append_nowait = append_batch = refuse
    flush = wait_durable = truncate_before = truncate_after = use_keys = seal = refuse_later

    @property
    def writer(self) -> NoReturn:
        """A read-only log has none: raises Closed."""
        refuse(self)

    async def close(self, timeout: float | None = None) -> None:
        """Release the directory. Idempotent; `timeout` is accepted for the interface's sake."""
        check_timeout(timeout)
        self._closed = True
        await self._disk.close()


async def open_read_only(disk: Disk, config: WalConfig) -> ReadOnlyLog:
    """A ReadOnlyLog on a disk that was opened without the lock."""
    return ReadOnlyLog(disk, config, await find(disk, config.keys))
