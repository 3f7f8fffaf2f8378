"""Filter: what a reader wants, checked once; how a group and its records are held against it. Pure.

Each question is asked as early as its answer is at hand: of a header, of the index and the metadata behind the payloads, of
the records themselves. A no is certain; a yes may turn into a no later.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from walsvc.errors import BadOption
from walsvc.format.group import Bytes, Columns, Flag, GroupHeader, decode_columns, decode_meta, record_ends
from walsvc.format.labels import may_have, unpack_attributes
from walsvc.format.meta import decode_map
from walsvc.model import ReadStats, is_lsn

REQUIRED = 1 << 15  # bit of a record's type: who does not know it must stop
FOREVER = 1 << 64  # behind every timestamp
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Chosen(TypedDict, total=False):
    """The keyword arguments of every reading call: which records are wanted, see Filter.of; and what counts the cost."""

    types: Collection[int] | None
    where: Mapping[str, Any] | None
    since: datetime.datetime | None
    until: datetime.datetime | None
    stats: ReadStats | None


class Wanted(Chosen, total=False):
    """The keyword arguments of a reading call that may be about a topic."""

    topic: str | None


class Filter(NamedTuple):
    """Which records are wanted: those that pass all of it.

    Attributes:
        number: their topic's number; 0: any, and none.
        types: record types that the reader understands; None: all.
        where: for each label the values of which a record must have one.
        since_ns, until_ns: bounds of the timestamp in Unix nanoseconds, the first one included.
    """

    number: int = 0
    types: frozenset[int] | None = None
    where: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    since_ns: int = 0
    until_ns: int = FOREVER

    @classmethod
    def of(
        cls,
        types: Collection[int] | None = None,
        where: Mapping[str, Any] | None = None,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
    ) -> Filter:
        """Check what a caller wants.

        Args:
            types: record types that the caller understands, 0 to 65535. Other optional ones are skipped; one with bit 15
                set that is not among them ends the reading with UnsupportedFormat.
            where: label to value, or to a list, tuple or set of values of which one is enough. All labels must fit. Values
                are equal as Python has it, so 1, 1.0 and True are one value.
            since, until: aware datetimes; `since` is included, `until` is not. A record has the time at which its group was
                closed.

        Raises:
            BadOption: with what is allowed.
        """
        return cls(
            types=None if types is None else check_types(types),
            where=() if where is None else check_where(where),
            since_ns=0 if since is None else timestamp_of("since", since),
            until_ns=FOREVER if until is None else timestamp_of("until", until),
        )

    @property
    def timed(self) -> bool:
        """True if times matter."""
        return self.since_ns > 0 or self.until_ns < FOREVER

    @property
    def everything(self) -> bool:
        """True if all records pass."""
        return not (self.number or self.where or self.timed) and self.types is None

    # ---- from outside to inside

    def in_time(self, header: GroupHeader) -> bool:
        """True if the group's records were written in time."""
        return self.since_ns <= header.timestamp_ns < self.until_ns

    def in_header(self, header: GroupHeader) -> bool:
        """True if a record of the group may be wanted, by its header."""
        flags = header.flags
        if not header.records or not self.in_time(header):
            return False
        if (self.number and not flags & Flag.TOPICS) or (self.where and not flags & Flag.ATTRIBUTES):
            return False
        return self.types is None or bool(flags & Flag.TYPES) or 0 in self.types

    def in_index(self, header: GroupHeader, data: Bytes, at: int) -> bool:
        """True if a record of the group may be wanted, by its index and its metadata. `data` need not hold the payloads:
        with `at` before its beginning, it may begin with the index."""
        columns = decode_columns(header, data, at)
        if self.number and (columns.topics is None or self.number not in columns.topics):
            return False
        if self.types is not None and not any(map(self._type_matters, set(columns.types or (0,)))):
            return False
        if self.where and header.meta_bytes:
            labels = decode_map(decode_meta(header, data, at)).get("labels")
            return all(may_have(labels, label, values) for label, values in self.where)
        return True

    def rows(self, header: GroupHeader, data: Bytes, at: int, rows: Sequence[int]) -> Sequence[int]:
        """Which of a group's records at the places `rows` are wanted, or of a required type, which is to be looked at: if it
        is not among `types` and visible, reading stops there. Payloads are looked at only for labels."""
        if not self.in_time(header):
            return ()
        columns = decode_columns(header, data, at)
        if self.number:
            topics = columns.topics
            rows = () if topics is None else [row for row in rows if topics[row] == self.number]
        if self.types is not None:
            types = columns.types
            if types is not None:
                rows = [row for row in rows if self._type_matters(types[row])]
            elif 0 not in self.types:
                rows = ()
        return self._labelled(columns, data, at, rows) if self.where else rows

    def _type_matters(self, type: int) -> bool:
        return type >= REQUIRED or self.types is None or type in self.types

    def _labelled(self, columns: Columns, data: Bytes, at: int, rows: Sequence[int]) -> Sequence[int]:
        lengths = columns.attributes
        if lengths is None:
            return ()
        starts = record_ends(columns, at)
        fitting = []
        for row in rows:
            if lengths[row]:
                start = starts[row]
                if self._fits(unpack_attributes(data[start : start + lengths[row]])):
                    fitting.append(row)
        return fitting

    def _fits(self, attributes: Mapping[str, Any]) -> bool:
        return all(label in attributes and attributes[label] in values for label, values in self.where)


def check_types(types: Collection[int]) -> frozenset[int]:
    """The set of types; BadOption unless it is a collection of 0 to 65535."""
    wrong = isinstance(types, (str, bytes)) or not isinstance(types, Collection)
    if wrong or not all(is_lsn(each) and 0 <= each <= 0xFFFF for each in types):
        raise BadOption(f"types={types!r} is no collection of types", hint="for example types={1, 7}; 0 to 65535")
    return frozenset(types)


def check_where(where: Mapping[str, Any]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Labels with the tuple of their values; BadOption unless it is a map with text as keys."""
    if not isinstance(where, Mapping) or not all(isinstance(label, str) for label in where):
        raise BadOption(
            f"where={where!r} is no map of labels", hint='for example where={"tenant": 7, "shard": ["a", "b"]}'
        )
    return tuple(
        (label, tuple(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else (wanted,))
        for label, wanted in where.items()
    )


def timestamp_of(name: str, moment: datetime.datetime) -> int:
    """Unix nanoseconds of an aware datetime, 0 for one before 1970; BadOption for any other value."""
    if not isinstance(moment, datetime.datetime) or moment.utcoffset() is None:
        raise BadOption(f"{name}={moment!r} is no datetime with a time zone", hint="datetime.now(timezone.utc), say")
    passed = moment - EPOCH
    return max(0, ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1000)
