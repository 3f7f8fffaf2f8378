"""Guides a reader past what it does not want: over segments by their seals, over stretches of a segment by its index."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from walsvc.format.index import SegmentIndex
from walsvc.format.summary import Summary
from walsvc.log.read.cuts import FAR
from walsvc.log.read.filter import Filter
from walsvc.log.read.segments import Segments
from walsvc.log.read.summaries import Seal
from walsvc.model import ReadStats


class Guide:
    """Knows the way for one reader. What seals and indexes do not tell, it does not know: then the way is on, step by step."""

    def __init__(self, segments: Segments, wanted: Filter | None, stats: ReadStats) -> None:
        self._segments = segments
        self._wanted = wanted
        self._stats = stats
        self._sought = wanted is None or not wanted.since_ns  # the first segment that matters was looked for

    async def skip(self, lsn: int) -> int | None:
        """The LSN before which nothing is wanted from `lsn` on; None: look into the segment."""
        wanted, segments = self._wanted, self._segments
        if wanted is None or not (wanted.number or wanted.timed) or lsn < segments.first_lsn:
            return None  # opening a dropped segment raises Truncated
        if wanted.number and (hidden := segments.marks.ranges.at(wanted.number, lsn)) is not None:
            return hidden.last + 1
        ids = segments.ids()  # may change whenever something is waited for
        if not self._sought:
            self._sought = True
            if (later := await self._first_since(ids[max(bisect_right(ids, lsn) - 1, 0) :], wanted.since_ns)) > lsn:
                return later
            ids = segments.ids()
        place = bisect_right(ids, lsn) - 1
        if place < 0:
            return None
        segment, end = ids[place], FAR if place + 1 == len(ids) else ids[place + 1]
        seal = await self._seal(segment, end)
        summary = None if seal is None else seal.summary
        if wanted.number and summary is not None and last_in(summary, wanted.number) < lsn:
            self._stats.segments_passed += 1
            return end
        index = segments.index_of(segment) if seal is None else seal.index
        if not wanted.timed or index is None:
            return None
        found = index.wanted(lsn, wanted.since_ns, wanted.until_ns)
        if found is None:
            self._stats.segments_passed += 1
            return end
        return found if found > lsn else None

    async def _first_since(self, ids: list[int], since_ns: int) -> int:
        """The last one of some successive segments of which seals prove that no record before it is of `since_ns` or later.
        Each seal says how far time had come, and that never falls, so bisection finds it however the clock jumped."""
        low, high = 0, len(ids) - 1
        while low < high:
            middle = (low + high + 1) // 2
            seal = await self._seal(ids[middle - 1], ids[middle])
            if seal is not None and seal.newest is not None and seal.newest < since_ns:
                low = middle
            else:
                high = middle - 1
        return ids[low]

    async def index(self, segment: int, end: int | None, lsn: int) -> SegmentIndex | None:
        """The index of a segment, if it is known, and of use to who wants to read from `lsn` on.

        `end` is the first LSN of the next one, if there is one.
        """
        timed = self._wanted is not None and self._wanted.timed
        if lsn == segment and not timed:
            return None
        seal = await self._seal(segment, FAR if end is None else end)
        return self._segments.index_of(segment) if seal is None else seal.index

    def can_jump_ahead(self, index: SegmentIndex | None, lsn: int) -> bool:
        """True if the index of the segment at hand knows a place behind `lsn` that is the next where a record may be in time."""
        wanted = self._wanted
        if wanted is None or not wanted.timed or index is None or not index.begins(lsn):
            return False
        return index.wanted(lsn, wanted.since_ns, wanted.until_ns) != lsn

    async def _seal(self, segment: int, successor: int) -> Seal | None:
        """The seal of a segment, if it has one that can be read."""
        if successor == FAR:
            return None
        summaries = self._segments.summaries
        before = summaries.bytes_read
        seal = await summaries.seal(segment, successor)
        self._stats.bytes_read += summaries.bytes_read - before
        return seal


def last_in(summary: Summary, number: int) -> int:
    """LSN of a topic's last record in a segment, 0 if there is none."""
    place = bisect_left(summary.numbers, number)
    there = place < len(summary.numbers) and summary.numbers[place] == number
    return summary.lasts[place] if there else 0
