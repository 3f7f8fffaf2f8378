"""Hidden ranges: a topic's records from one LSN to another that nobody sees, whatever they hold. Pure.

A purge mark (walsvc.format.purge) hides what matches it. A range hides everything that its topic has there: what topic.truncate_before
dropped, and single records that were purged. Other topics' records lie between those of a topic, so a range reaches up to the
topic's next record, and ranges that meet grow together: records that are purged in order make one range.

A range says how many records the topic ever had below it and up to its end. So records are counted without a look at what is hidden.

    !hidden    bin    rows of 36 bytes, little-endian; a change adds its rows
        topic u32     number of the topic, 0: records of no topic
        first u64     the topic's records from here ...
        last u64      ... up to here are hidden
        below u64     records of the topic below `first`, ever; 0 for no topic
        upto u64      records of the topic up to `last`, ever; 0 for no topic. Less than `below`: nothing is hidden, the topic's ranges
                      up to `last` are forgotten
    !floors    map    "<topic number>" -> LSN below which truncate_before dropped the topic's records: a consumer that stands below it has
                      missed some; nil: forgotten

Ranges and floors that `truncated` passes go. An older version would show what is hidden, hence the required keys.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from walsvc.format.group import BadGroup

KEY = "!hidden"
FLOORS = "!floors"
ROW: struct.Struct = struct.Struct("<IQQQQ")
RANGES_MAX = 65_536  # of a log: every segment begins with a snapshot of 36 bytes for each, 2.25 MiB at the very most


class Range(NamedTuple):
    """Hidden records of a topic; see the head of this file."""

    first: int
    last: int
    below: int
    upto: int


def row_of(topic: int, hidden: Range) -> bytes:
    """The row that hides a range."""
    return ROW.pack(topic, *hidden)


def forgetting_row(topic: int, last: int = (1 << 64) - 1) -> bytes:
    """The row that forgets a topic's ranges up to LSN `last`."""
    return ROW.pack(topic, 0, last, 1, 0)


@dataclass(slots=True)
class Hidden:
    """The hidden ranges of one log.

    Attributes:
        topics: ranges by topic number, ascending; no two of a topic touch.
        count: of all ranges.
        highest: no record above this LSN is hidden.
    """

    topics: dict[int, list[Range]] = field(default_factory=dict)
    count: int = 0
    highest: int = 0

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def encoded_bytes(self) -> int:
        """Bytes of `encode`."""
        return self.count * ROW.size

    # ---- asking

    def at(self, topic: int, lsn: int) -> Range | None:
        """The range of a topic that holds an LSN."""
        ranges = self.topics.get(topic)
        if ranges is None:
            return None
        place = bisect_right(ranges, lsn, key=first_of) - 1
        return ranges[place] if place >= 0 and ranges[place].last >= lsn else None

    def covers(self, topic: int, lsn: int) -> bool:
        """True if a record of a topic is hidden."""
        return lsn <= self.highest and self.at(topic, lsn) is not None

    def records_from(self, topic: int, lsn: int) -> int:
        """Records of a topic in the ranges that begin at LSN `lsn` or behind it."""
        ranges = self.topics.get(topic, [])
        return sum(each.upto - each.below for each in ranges[bisect_left(ranges, lsn, key=first_of) :])

    def rows(self, first_lsn: int, records: int, topics: Sequence[int] | None) -> Iterator[int]:
        """Indices of a group's records that are hidden.

        Args:
            first_lsn, records: of the group.
            topics: its column of topic numbers; None: its records are of no topic.
        """
        if first_lsn > self.highest:
            return
        for topic in self.topics.keys() & (set(topics) if topics is not None else {0}):
            for each in self._overlapping(topic, first_lsn, first_lsn + records - 1):
                begin, end = max(each.first - first_lsn, 0), min(each.last - first_lsn + 1, records)
                for index in range(begin, end):
                    if topics is None or topics[index] == topic:
                        yield index

    def _overlapping(self, topic: int, first: int, last: int) -> list[Range]:
        ranges = self.topics[topic]
        return ranges[bisect_left(ranges, first, key=last_of) : bisect_right(ranges, last, key=first_of)]

    # ---- changing

    def apply(self, data: bytes) -> None:
        """Take note of encoded rows. Raises BadGroup if they are cut."""
        if len(data) % ROW.size:
            raise BadGroup("the rows of hidden ranges are cut")
        for topic, *cells in ROW.iter_unpack(data):
            new = Range(*cells)
            if new.upto < new.below:
                self._keep(topic, lambda each, last=new.last: each.last > last)  # type: ignore[misc]
            else:
                self.add(topic, new)

    def add(self, topic: int, new: Range) -> None:
        """Hide a range of a topic."""
        ranges = self.topics.setdefault(topic, [])
        begin, end = bisect_left(ranges, new.first - 1, key=last_of), bisect_right(ranges, new.last + 1, key=first_of)
        joined = [*ranges[begin:end], new]
        self.count += 1 - (end - begin)
        ranges[begin:end] = [
            Range(
                min(each.first for each in joined),
                max(each.last for each in joined),
                min(each.below for each in joined),
                max(each.upto for each in joined),
            )
        ]
        self.highest = max(self.highest, new.last)

    def pass_by(self, truncated: int) -> None:
        """Forget what lies below LSN `truncated`, which is dropped."""
        for topic in list(self.topics):
            self._keep(topic, lambda each: each.last >= truncated)

    def cut(self, lsn: int, count_of: Callable[[int], int]) -> None:
        """The log ends with record `lsn` now; `count_of` tells how many records a topic had by then."""
        for topic in list(self.topics):
            self._keep(topic, lambda each: each.first <= lsn)
            ranges = self.topics.get(topic)
            if ranges and ranges[-1].last > lsn:
                ranges[-1] = ranges[-1]._replace(last=lsn, upto=count_of(topic) if topic else 0)
        self.highest = min(self.highest, lsn)

    def _keep(self, topic: int, stays: Callable[[Range], bool]) -> None:
        ranges = self.topics.get(topic, [])
        left = [each for each in ranges if stays(each)]
        self.count -= len(ranges) - len(left)
        if left:
            self.topics[topic] = left
        else:
            self.topics.pop(topic, None)

    def copy(self) -> Hidden:
        """A copy that later changes of this one do not touch."""
        return Hidden({topic: ranges[:] for topic, ranges in self.topics.items()}, self.count, self.highest)

    def encode(self) -> bytes:
        """All rows, for a snapshot."""
        return b"".join(row_of(topic, each) for topic, ranges in self.topics.items() for each in ranges)


def first_of(each: Range) -> int:
    """The beginning of a range, for bisection."""
    return each.first


def last_of(each: Range) -> int:
    """The end of a range, for bisection."""
    return each.last


NOTHING_HIDDEN = Hidden()
