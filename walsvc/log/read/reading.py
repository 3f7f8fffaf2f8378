"""Reading: the calls that read a log, whether it is open for writing or only for reading."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Unpack

from walsvc.config import one_of
from walsvc.errors import BadOption, not_given_out
from walsvc.keywords import meant
from walsvc.log.read.backward import Backward
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.filter import Filter, Wanted, timestamp_of
from walsvc.log.read.iteration import Iteration
from walsvc.log.read.lazy import LazyCursor, LazyRecord
from walsvc.log.read.reader import Cursor
from walsvc.log.read.segments import Segments
from walsvc.log.read.sources import Bounded, Endless
from walsvc.model import ReadStats, Record, is_lsn
from walsvc.options import check_type


class Reading:
    """The range of a log, and the calls that read it.

    Attributes:
        path: the log's directory.
    """

    def __init__(self, segments: Segments) -> None:
        self.path: str = segments.disk.path
        self._segments = segments

    @property
    def first_lsn(self) -> int:
        """LSN of the first visible record; next_lsn when there is none."""
        return self._segments.first_lsn

    @property
    def next_lsn(self) -> int:
        """LSN that the next accepted record gets; of a log that is only read, the one after the last record seen so far."""
        return self._segments.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""
        return self._segments.durable_lsn

    # ---- reading

    def read(
        self, start: int | None = None, stop: int | None = None, *, reverse: bool = False, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[Record, None]:
        """Iterate over records in LSN order, or from the newest to the oldest.

        Everything accepted before the call is made durable first, so a reader sees its own appends and never a record
        that a crash could take back. What holds no wanted record is passed over without reading its payloads, as far as
        seals, headers and indexes tell.

        Where truncate_after cuts the log meanwhile, reading ends at the cut: from its return on nothing that it dropped is
        yielded any more, nor what is written in its place.

        Args:
            start: first LSN; None: first_lsn.
            stop: LSN to stop before; None: next_lsn as it is now.
            reverse: from the record before `stop` down to `start`. Without `start` it ends where the log begins by then; what
                truncate_after cuts meanwhile is left out.
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
        one_of("reverse", reverse, (True, False))
        if reverse:
            chosen = chosen_of(wanted)
            check_range(start, stop)
            stats = wanted.get("stats")
            return Iteration(Backward(self._segments, start, stop, wanted.get("topic"), wanted=chosen, stats=stats))
        return Iteration(Bounded(self._segments, stop, self._beginning(start, stop, wanted), Cuts.standing))

    def read_batches(
        self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists, a group at a time: several times faster for small records."""
        begin = self._beginning(start, stop, wanted)
        return Iteration(Bounded(self._segments, stop, begin, whole_groups))

    def read_lazy(
        self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, but payloads are fetched when they are asked for: `await record.payload()`.

        Of a large group only header, index and metadata are read, and checked by their CRCs; of an encrypted log whole
        groups. A payload is checked when it is fetched.
        """

        chosen = chosen_of(wanted)
        check_range(start, stop)

        def begin() -> LazyCursor | None:
            number = number_of(self._segments, wanted.get("topic"))
            first = self.first_lsn if start is None else start
            return (
                None
                if number is None
                else LazyCursor(self._segments, first, chosen._replace(number=number), wanted.get("stats"))
            )

        return Iteration(Bounded(self._segments, stop, begin, Cuts.standing))

    def follow(self, start: int | None = None, **wanted: Unpack[Wanted]) -> AsyncGenerator[Record, None]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones: without polling, but for a
        read-only log, which looks every 50 ms.

        Takes what `read` takes to say which records are wanted, but for `until`. With `topic` it may be over none yet: other
        topics' appends wake nobody then. Ends when the log is closed, and after the last record of a sealed one; raises
        DurabilityLost when it fails, and what `read` raises.

        Where truncate_after cuts the log, nothing that it dropped is yielded after its return, and following goes on with
        what is written in its place, as consumers do: after record 10 and truncate_after(5) with the new record 6. So LSNs
        ascend but for that. In a read-only log all this holds from when it has noticed.
        """
        chosen = chosen_of(wanted, endless=True)
        check_range(start)
        cursor_at = partial(cursor_of, self._segments, wanted, chosen)
        return Iteration(Endless(self._segments, start, wanted.get("topic"), cursor_at, show=Cuts.standing))

    async def get(self, lsn: int) -> Record | None:
        """Return the record with this LSN, or None where it was purged. Its segment's index leads to the stretch of about 1 MiB in
        which it is; it is made durable first, as by `read`.

        Raises:
            BadOption: `lsn` is no LSN, or was not given out yet. Truncated: it was dropped. What `read` raises.
        """
        check_lsn(lsn)
        limit = await self._segments.reach(lsn + 1)
        if lsn >= limit:
            raise not_given_out(lsn, self.next_lsn, self.path)
        records = await LazyCursor(self._segments, lsn).take(lsn + 1)
        return await records[0].record() if records else None

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
        limit = await self._segments.reach()
        records = await LazyCursor(self._segments, self.first_lsn, wanted, stats).take(limit)
        return records[0].lsn if records else limit

    def _beginning(self, start: int | None, stop: int | None, wanted: Wanted) -> Callable[[], Cursor | None]:
        """A function that makes the cursor of a reading call, once its records are durable. BadOption for a wrong argument at once."""
        chosen = chosen_of(wanted)
        check_range(start, stop)
        return lambda: cursor_of(self._segments, wanted, chosen, self.first_lsn if start is None else start)


def number_of(segments: Segments, topic: str | None) -> int | None:
    """A topic's number, 0 for all; None: there is no such topic yet."""
    return 0 if topic is None else segments.topic_number(topic)


def cursor_of(segments: Segments, wanted: Wanted, chosen: Filter, start: int) -> Cursor | None:
    """A cursor over the log or over a topic; None: there is no such topic yet."""
    number = number_of(segments, wanted.get("topic"))
    if number is None:
        return None
    chosen = chosen._replace(number=number)
    return Cursor(segments, start, None if chosen.everything else chosen, wanted.get("stats"))


def follow_groups(
    segments: Segments, turn: Callable[[], AbstractAsyncContextManager[Any]], start: int, **wanted: Unpack[Wanted]
) -> AsyncGenerator[list[Record], None]:
    """Like Reading.follow, for the service: yields lists, a group at a time.

    Args:
        segments: of the log.
        turn: makes what lasts while the log is read, and not while records are waited for.
        start, wanted: see Reading.follow.
    """
    cursor_at = partial(cursor_of, segments, wanted, chosen_of(wanted, endless=True))
    source = Endless(segments, start, wanted.get("topic"), cursor_at, show=whole_groups, turn=turn)
    return Iteration(source)


def whole_groups(_: Cuts, records: list[Record], __: Callable[[int], None]) -> Iterator[list[Record]]:
    """Show a group's records together."""
    return iter((records,))


def chosen_of(wanted: Wanted, *, endless: bool = False) -> Filter:
    """The filter that a caller's arguments make, but for the topic.

    Args:
        wanted: the arguments.
        endless: the call waits for more, so `until` makes no sense.

    Raises:
        BadOption: see Filter.of. TypeError: an argument that there is not; a filter that is not heard of would hide nothing.
    """
    if unknown := wanted.keys() - Wanted.__optional_keys__:
        name, known = min(unknown), {"start", "stop", "reverse", *Wanted.__optional_keys__}
        known -= {name, "stop", "reverse", "until"} if endless else {name}
        raise TypeError(f"reading takes no argument {name!r} here; {meant(name, sorted(known))}")
    if endless and wanted.get("until") is not None:
        raise BadOption("follow takes no until", hint="stop iterating when a record is late enough, or use read")
    check_type("topic", wanted.get("topic"), str)
    return Filter.of(wanted.get("types"), wanted.get("where"), wanted.get("since"), wanted.get("until"))


def check_lsn(lsn: int) -> None:
    """BadOption unless it is one."""
    if not (is_lsn(lsn) and lsn >= 1):
        raise BadOption(f"{lsn!r} is no LSN", hint="LSNs are integers and begin with 1")


def check_range(start: int | None, stop: int | None = None) -> None:
    """BadOption unless `start` is None or an LSN, and `stop` None or a number."""
    if start is not None:
        check_lsn(start)
    if stop is not None and not is_lsn(stop):
        raise BadOption(f"stop={stop!r} is no LSN", hint="an integer: the LSN to stop before")
