"""Backward: reads from an LSN down to another, newest record first.

Groups are chained forwards, so a stretch of a segment is read forwards and given out backwards: from one row of the segment's
index to the next, which is about a MiB. Where a stretch has more than fits in memory, or no index is known, the newest records of
it are kept, and the rest is read once more. Called by an Iteration; owns where it stands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from walsvc.errors import UnsupportedFormat
from walsvc.log.read.cuts import Cuts, NumberedT
from walsvc.log.read.filter import Filter
from walsvc.log.read.guide import Guide
from walsvc.log.read.reader import Cursor
from walsvc.log.read.segments import Segments
from walsvc.log.read.sources import Nothing
from walsvc.model import ReadStats, Record

KEPT_BYTES_MAX = 4 << 20  # of payloads of one stretch


class Backward(Nothing):
    """The source of a reading from its end down to its beginning.

    Args:
        segments: of the log that is read.
        start: the lowest LSN; None: first_lsn, wherever that is when reading comes there.
        stop: LSN to begin below; None: next_lsn at the first call.
        topic: by name; None: every record.
        wanted: which records, but for the topic.
        stats: counts what it costs.
    """

    def __init__(
        self,
        segments: Segments,
        start: int | None,
        stop: int | None,
        topic: str | None,
        *,
        wanted: Filter,
        stats: ReadStats | None,
    ) -> None:
        self._segments = segments
        self._start = start
        self._stop = stop
        self._topic = topic
        self._wanted = wanted
        self._stats = stats or ReadStats()
        self._end: int | None = None  # everything from here on was read; None: it has not begun
        self._cuts = 0
        self._refusal: UnsupportedFormat | None = None  # the record below `_end` must not be passed over

    async def take(self) -> Iterator[Record] | None:
        """See Source."""
        segments = self._segments
        if self._end is None:
            end = await segments.reach(self._stop)
            self._cuts = segments.cuts.count
            self._end = end if self._stop is None else min(end, self._stop)
        number = 0 if self._topic is None else segments.topic_number(self._topic)
        if number is None:
            return None
        wanted = self._wanted._replace(number=number)
        while True:
            self._end = end = min(self._end, segments.cuts.since(self._cuts))
            first = segments.first_lsn
            if end <= (first if self._start is None else self._start):
                return None
            if self._refusal is not None:
                raise self._refusal
            if self._start is not None and self._start < first:
                await self._cursor(self._start, wanted).take(end)  # raises Truncated
            records, self._end, self._refusal = await self._stretch(end, wanted)
            if records:
                return standing_backwards(segments.cuts, records, self._again)

    def _again(self, lsn: int) -> None:
        """Read the record once more, and what is before it."""
        self._end, self._refusal = lsn + 1, None

    async def _stretch(self, end: int, wanted: Filter) -> tuple[Sequence[Record], int, UnsupportedFormat | None]:
        """The wanted records of the stretch below `end`, ascending; where it begins; and the error of the record below."""
        begin = await self._beginning(end, wanted)
        kept, size, refusal = deque[Record](), 0, None
        cursor = self._cursor(begin, wanted)
        while begin < end:
            try:
                records = await cursor.take(end)
            except UnsupportedFormat as error:
                if not cursor.refuses:
                    raise
                begin, refusal = cursor.next_lsn + 1, error
                kept, size, cursor = deque[Record](), 0, self._cursor(begin, wanted)
                continue
            if not records:
                break
            kept += records
            size += sum(len(each.payload) for each in records)
            while size > KEPT_BYTES_MAX and len(kept) > 1:
                size -= len(kept.popleft().payload)
                begin, refusal = kept[0].lsn, None
        cut = self._segments.cuts.since(self._cuts)
        return [each for each in kept if each.lsn < cut], begin, refusal

    async def _beginning(self, end: int, wanted: Filter) -> int:
        """The beginning of the stretch below `end`: a row of the index, or the beginning of a segment in which nothing is wanted."""
        segments = self._segments
        ids = segments.ids()
        place = bisect_right(ids, end - 1) - 1
        floor = segments.first_lsn if self._start is None else self._start
        if place < 0:
            return floor
        segment, successor = ids[place], ids[place + 1] if place + 1 < len(ids) else None
        guide = Guide(segments, wanted, self._stats)
        skip = await guide.skip(segment)
        if skip is not None and skip >= end:
            return max(segment, floor)  # the cursor passes it over
        index = await guide.index(segment, successor, end - 1)
        row = None if index is None else index.at(end - 1)
        begin = segment if index is None or row is None else index.lsns[row]
        return max(begin, floor)

    def _cursor(self, lsn: int, wanted: Filter) -> Cursor:
        return Cursor(self._segments, lsn, None if wanted.everything else wanted, self._stats)


def standing_backwards(cuts: Cuts, records: Sequence[NumberedT], again: Callable[[int], None]) -> Iterator[NumberedT]:
    """Records from the last to the first, those that still stand; see Cuts.standing."""
    turns = cuts.turns
    for record in reversed(records):
        if cuts.turns != turns:
            again(record.lsn)
            return
        yield record
