"""How many records a topic has before a place, without reading all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from walsvc.errors import Truncated
from walsvc.format.group import decode_columns, decode_meta
from walsvc.format.hidden import Range
from walsvc.format.meta import decode_map
from walsvc.format.topics import count_in
from walsvc.log.read.filter import Filter
from walsvc.log.read.filtered import FilteredStream
from walsvc.log.read.reader import Cursor, LookAgain
from walsvc.log.read.segments import Segments
from walsvc.log.read.stream import RawGroup, open_stream


async def count_before(segments: Segments, lsn: int, number: int) -> int:
    """How many records topic `number` ever had below `lsn`, dropped and hidden ones included.

    Reads the opening snapshot of the segment that holds `lsn`, and of the segment what lies below it.
    """
    return await Counter(segments, lsn, Filter(number=number)).count()


async def count_from(segments: Segments, lsn: int, number: int) -> int:
    """How many records of a topic there are from `lsn` on, those that a purge by labels hides included.

    Reads a part of the log to count them, unless `lsn` is in a hidden range, which knows.
    """
    while True:
        place = await place_of(segments, lsn, number)
        total, _ = await segments.topic_sums(number)
        if place.covering == segments.metadata.hidden.at(number, lsn):
            return total - place.below - segments.metadata.hidden.records_from(number, place.lsn)


class NextRecords(NamedTuple):
    """The next records of a topic from some LSN on.

    Attributes:
        covering: the hidden range that holds that LSN.
        lsn: behind that range; without one the LSN itself.
        below: records that the topic ever had below `lsn`.
    """

    covering: Range | None
    lsn: int
    below: int


async def place_of(segments: Segments, lsn: int, number: int) -> NextRecords:
    """The next records of topic `number` from `lsn` on."""
    covering = segments.metadata.hidden.at(number, lsn)
    if covering is not None:
        return NextRecords(covering, covering.last + 1, covering.upto)
    return NextRecords(None, lsn, await count_before(segments, lsn, number))


async def count_behind(segments: Segments, stands: Callable[[], int], number: int) -> int | None:
    """How many records of a topic there are from where a consumer stands; None: what it stands at was dropped, or truncated.

    Args:
        segments: of the log.
        stands: gives the LSN. It is asked again where retention has gone beyond what was being counted, since the consumer may
            have moved on before.
        number: of the topic.
    """
    while (lsn := stands()) >= segments.first_of(number):
        try:
            return await count_from(segments, lsn, number)
        except Truncated:
            continue
    return None


class Counter(Cursor):
    """A position that counts instead of moving."""

    async def count(self) -> int:
        """See count_before."""
        while True:
            self._look(self.next_lsn)
            ids = self._segments.ids()
            segment = ids[max(bisect_right(ids, self.next_lsn) - 1, 0)]
            try:
                return await self._guarded(partial(self._count_in, segment))
            except LookAgain:
                self._leave()

    async def _count_in(self, segment: int) -> int:
        assert self._wanted is not None
        number = self._wanted.number
        name, file_bytes = self._segments.file(segment)
        _, whole = await open_stream(self._disk, name, segment, file_bytes, self._segments.keys)
        self._stream = whole
        raw = await whole.next()
        count = count_in(decode_map(decode_meta(*raw)), number)
        stream = FilteredStream(self._disk, name, whole.chain, cipher=whole.cipher)
        self._stream = stream
        while stream.chain.next_lsn < self.next_lsn:
            first = stream.chain.next_lsn
            found = await stream.step(self._wanted)
            if isinstance(found, RawGroup):
                topics = decode_columns(*found).topics
                assert topics is not None, "step() gives only groups with the topic"
                count += topics[: self.next_lsn - first].count(number)
        self._leave()
        return count
