"""The reading calls of a log, which one that is open for writing and one that is only read have in common."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Unpack

from walsvc.disk.base import Disk
from walsvc.errors import BadOption
from walsvc.format.index import SegmentIndex
from walsvc.format.purge import Marks
from walsvc.keyring import KeyRing
from walsvc.log.read.counting import count_before
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.filter import Filter, Wanted, timestamp_of
from walsvc.log.read.iteration import Iteration
from walsvc.log.read.lazy import LazyCursor, LazyRecord
from walsvc.log.read.reader import Cursor
from walsvc.log.read.sources import Bounded, Endless, Waits
from walsvc.log.read.summaries import Summaries
from walsvc.model import ReadStats, Record, is_lsn


class Reading(ABC):
    """What can be read of a log, and what readers must know of it (walsvc.log.read.records.Segments)."""

    _disk: Disk

    # ---- for engines, which copy files

    @property
    def disk(self) -> Disk:
        """For engines: where the log's files are."""
        return self._disk

    @property
    @abstractmethod
    def sealed(self) -> bool:
        """Whether the log was sealed for good: it takes nothing more, no hold either."""

    # ---- for readers

    @property
    @abstractmethod
    def first_lsn(self) -> int:
        """LSN of the first visible record; next_lsn when there is none."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """For readers: changes when what they have read ahead may have become void."""

    @property
    @abstractmethod
    def cuts(self) -> Cuts:
        """For readers: where the log's end was taken back."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """For readers: the highest of any segment."""

    @property
    @abstractmethod
    def released(self) -> bool:
        """For readers: the log is closed, and its files cannot be read any more."""

    @abstractmethod
    async def look_again(self) -> bool:
        """For readers: a file was not where it should be, or not as it should be. True if that may be different now."""

    @abstractmethod
    def segment_ids(self) -> list[int]:
        """First LSNs of the segments, ascending."""

    @abstractmethod
    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """File name and length of a segment."""

    @abstractmethod
    def index_of(self, segment: int) -> SegmentIndex | None:
        """For readers: the index of the newest segment; None for any other."""

    @property
    @abstractmethod
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers; number 0 is none."""

    @abstractmethod
    def topic_number(self, name: str) -> int | None:
        """Number of a topic in the log; None: there is none of that name."""

    @property
    @abstractmethod
    def marks(self) -> Marks:
        """For readers: which records are purged."""

    @property
    @abstractmethod
    def summaries(self) -> Summaries:
        """For readers: what the seals of segments say."""

    @property
    @abstractmethod
    def keys(self) -> KeyRing | None:
        """The keys that are in use; None: the log is not encrypted."""

    @abstractmethod
    def _check_open(self) -> None:
        """What makes reading vain: Closed, WrongLoop."""

    @abstractmethod
    async def _reach(self, stop: int | None) -> int:
        """See to it that all that is there below `stop` can be read; returns the LSN behind it. Closed, WrongLoop."""

    def _follower_reads(self, change: int) -> None:
        """A follower begins to read (1), or has read (-1). A read-only log waits for no follower when it is closed."""
        return

    @property
    @abstractmethod
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""

    @abstractmethod
    async def _more(self, topic: str | None) -> bool:
        """Wait until there may be more durable records, of a topic or of any, than up to durable_lsn as it is now. False:
        none ever comes. Closed, DurabilityLost."""

    # ---- for topics and their consumers

    @abstractmethod
    async def settle(self) -> int:
        """Make durable what was accepted, or look for what the writer has added; returns the LSN behind it. Closed, WrongLoop."""

    @abstractmethod
    async def topic_sums(self, number: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one (0: none), as far as they are visible."""

    async def count_from(self, lsn: int, number: int) -> int:
        """How many records of a topic there are from `lsn` on, purged ones included. Reads a part of the log to count them."""
        total, _ = await self.topic_sums(number)
        return total - await count_before(self._disk, self, lsn, number)

    def cursor_at(self, lsn: int, number: int) -> Cursor:
        """A cursor over a topic's records; `number` 0: over all."""
        return Cursor(self._disk, self, lsn, Filter(number=number) if number else None)

    # ---- reading

    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[Record, None]:
        """Iterate over records in LSN order.

        Everything accepted before the call is made durable first, so a reader sees its own appends and never a record
        that a crash could take back. What holds no wanted record is passed over without reading its payloads, as far as
        seals, headers and indexes tell.

        Where truncate_after cuts the log meanwhile, reading ends at the cut: from its return on nothing that it dropped is
        yielded any more, nor what is written in its place.

        Args:
            start: first LSN; None: first_lsn.
            stop: LSN to stop before; None: next_lsn as it is now.
            stats: counts what reading costs, while it goes on.
            topic: only records of this topic.
            types: record types that the caller understands. Other optional ones are skipped; a record that passes everything
                else, whose type has bit 15 set and is not among them, ends the reading.
            where: label to value, or to a list, tuple or set of values of which one is enough; only records that have all of
                these labels. Values are equal as Python has it: 1, 1.0 and True are one.
            since, until: aware datetimes; only records from `since` on and before `until`, by their timestamp_ns.

        Raises:
            Truncated: `start` was dropped. Closed: the log was closed, perhaps meanwhile. Corruption: acknowledged data is
            damaged. BadOption: `start` below 1, or another argument is not as it must be. UnsupportedFormat: a required
            type, see `types`; everything before that record was yielded.
        """
        return Iteration(Bounded(self, self._reach, stop, self._beginning(start, stop, stats, wanted), Cuts.standing))

    def read_batches(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists, a group at a time: several times faster for small records."""
        begin = self._beginning(start, stop, stats, wanted)
        return Iteration(Bounded(self, self._reach, stop, begin, lambda _, records: iter((records,))))

    def read_lazy(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, but payloads are fetched when they are asked for: `await record.payload()`.

        Of a large group only header, index and metadata are read, and checked by their CRCs; of an encrypted log whole
        groups. A payload is checked when it is fetched.
        """

        chosen = chosen_of(wanted)
        check_range(start, stop)

        def begin() -> LazyCursor | None:
            number = self._topic(wanted.get("topic"))
            first = self.first_lsn if start is None else start
            return (
                None if number is None else LazyCursor(self._disk, self, first, replace(chosen, number=number), stats)
            )

        return Iteration(Bounded(self, self._reach, stop, begin, Cuts.standing))

    def follow(
        self, start: int | None = None, *, stats: ReadStats | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[Record, None]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones: without polling, but for a
        read-only log, which looks every 50 ms.

        Takes what `read` takes to say which records are wanted, but for `until`. With `topic` it may be over none yet: other
        topics' appends wake nobody then. Ends when the log is closed, and after the last record of a sealed one; raises
        DurabilityLost when it fails, and what `read` raises.

        Where truncate_after cuts the log, nothing that it dropped is yielded after its return, and following goes on with
        what is written in its place, as consumers do: after record 10 and truncate_after(5) with the new record 6. So LSNs
        ascend but for that. In a read-only log all this holds from when it has noticed.
        """
        chosen, topic = chosen_of(wanted, endless=True), wanted.get("topic")
        check_range(start)
        waits = Waits(self._check_open, self._follower_reads, partial(self._more, topic))
        return Iteration(Endless(self, start, lambda lsn: self._cursor(lsn, topic, chosen, stats), waits))

    async def seek_time(self, moment: datetime.datetime, *, stats: ReadStats | None = None) -> int:
        """The LSN of the first visible record with a timestamp of `moment` or later; next_lsn when there is none.

        Nothing is assumed of the clock: where it was set back, later records may again have earlier timestamps. Seals say how
        far time had come, so a bisection over them finds the segment, its index the stretch, and headers the group.

        Args:
            moment: an aware datetime.
            stats: counts what it costs.

        Raises:
            BadOption: `moment` has no time zone. What `read` raises.
        """
        wanted = Filter(since_ns=timestamp_of("moment", moment))
        limit = await self._reach(None)
        records = await LazyCursor(self._disk, self, self.first_lsn, wanted, stats).take(limit)
        return records[0].lsn if records else limit

    def _topic(self, name: str | None) -> int | None:
        """A topic's number, 0 for all; None: there is no such topic yet."""
        return 0 if name is None else self.topic_number(name)

    def _beginning(
        self, start: int | None, stop: int | None, stats: ReadStats | None, wanted: Wanted
    ) -> Callable[[], Cursor | None]:
        """What makes the cursor of a reading call, once what it reads is durable. BadOption for a wrong argument at once."""
        chosen = chosen_of(wanted)
        check_range(start, stop)
        return lambda: self._cursor(self.first_lsn if start is None else start, wanted.get("topic"), chosen, stats)

    def _cursor(
        self, start: int, topic: str | None, chosen: Filter | None = None, stats: ReadStats | None = None
    ) -> Cursor | None:
        """A cursor over the log or over a topic; None: there is no such topic yet."""
        number = self._topic(topic)
        if number is None:
            return None
        wanted = replace(chosen or Filter(), number=number)
        return Cursor(self._disk, self, start, None if wanted.everything else wanted, stats)


def chosen_of(wanted: Wanted, *, endless: bool = False) -> Filter:
    """The filter that a caller's arguments make, but for the topic.

    Args:
        wanted: the arguments.
        endless: the call waits for more, so `until` makes no sense.

    Raises:
        BadOption: see Filter.of. TypeError: an argument that there is not; a filter that is not heard of would hide nothing.
    """
    if unknown := wanted.keys() - Wanted.__optional_keys__:
        raise TypeError(f"reading takes no argument {', '.join(sorted(unknown))}")
    if endless and wanted.get("until") is not None:
        raise BadOption("follow takes no until", hint="stop iterating when a record is late enough, or use read")
    return Filter.of(wanted.get("types"), wanted.get("where"), wanted.get("since"), wanted.get("until"))


def check_range(start: int | None, stop: int | None = None) -> None:
    """BadOption unless `start` is None or an LSN, and `stop` None or a number."""
    if start is not None and not (is_lsn(start) and start >= 1):
        raise BadOption(f"start={start!r} is no LSN", hint="LSNs are integers and begin with 1")
    if stop is not None and not is_lsn(stop):
        raise BadOption(f"stop={stop!r} is no LSN", hint="an integer: the LSN to stop before")
