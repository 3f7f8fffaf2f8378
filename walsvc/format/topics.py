"""Topics: the table of a log's topics by name and number, and how many records each of them has. Pure.

A topic gets its number when it is made, one more than the highest that was ever given, and no number is given twice. A topic that
goes leaves its number behind: records of a number that has no name any more are hidden. A topic that is made again under the same name
has another number, and begins empty.

As long as no topic has gone, a snapshot names them as every version does; from then on it has what lives under keys of its own,
which a version that takes numbers as dense refuses:

    topics      map     name -> number; numbers are 1, 2, 3, ...
    counts      bin     u64 for each topic in order of numbers: its records before this segment, ever
    lasts       bin     u64 for each: LSN of its last record before this segment, 0: none

    !topics     array   instead of `topics`: the names, in order of their numbers
    numbers     bin     u32 for each of them
    given       int     the highest number that was ever given
    gone        int     LSN of the last record of any topic that has gone; 0: none is left

A change names new topics in `topics`; `!gone` (bin, u32 for each) has the numbers of those that go with it. A topic that is made and goes
in one group may be in `!gone` only: its number counts as given.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import compress
from operator import itemgetter
from typing import Any, ClassVar, overload

import msgpack

from walsvc.format.columns import encode_column
from walsvc.format.group import BadGroup
from walsvc.format.summary import Sums, Tally, column_of, row_of

SPARSE, GONE = "!topics", "!gone"
TOPIC_OVERHEAD = 5 + 9 + 16  # msgpack bytes of a name with its number, and its cells in counts and lasts, at most
SPARSE_BYTES = 64  # keys and heads that only a table has in which topics have gone


class Topics:
    """The topics of one log. Asked by name it is like a mapping to their numbers, in the order in which they were made.

    Attributes:
        names: of the topics, by number.
        given: the highest number that was ever given.
        gone_last: no record above this LSN is of a topic that has gone; 0: none is.
        tally: the records since the last snapshot, by number.
    """

    __slots__ = (
        "_by_name",
        "_counts",
        "_lasts",
        "_name_bytes",
        "_numbers",
        "_packed",
        "given",
        "gone_last",
        "names",
        "tally",
    )

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.given: int = 0
        self.gone_last: int = 0
        self.tally: dict[int, Tally] = {}
        self._by_name: dict[str, int] = {}
        self._numbers: array[int] = array("I")  # a row for each topic, ascending, and for those that went since `fold`
        self._counts: array[int] = array("Q")
        self._lasts: array[int] = array("Q")
        self._packed: bytes | None = None  # the names: packing 100,000 takes longer than a loop should be held up
        self._name_bytes = 0

    @classmethod
    def of(cls, snapshot: Mapping[str, Any]) -> Topics:
        """The topics of a snapshot. Raises BadGroup for what cannot be."""
        made = cls()
        if SPARSE in snapshot:
            made._numbers = column_of(snapshot, "numbers", "I")
            made.given, made.gone_last = snapshot.get("given", 0), snapshot.get("gone", 0)
            rising = [0, *made._numbers, made.given + 1]
            if len(snapshot[SPARSE]) != len(made._numbers) or any(map(int.__ge__, rising, rising[1:])):
                raise BadGroup("the numbers of the topics do not fit their names")
            for name, number in zip(snapshot[SPARSE], made._numbers, strict=True):
                made._enter(name, number)
        elif "topics" in snapshot:
            made.change(snapshot["topics"], ())
        rows = len(made._numbers)
        made._counts, made._lasts = (column_of(snapshot, key) for key in ("counts", "lasts"))
        if max(len(made._counts), len(made._lasts)) > rows:
            raise BadGroup("the sums of the topics do not fit their names")
        for column in (made._counts, made._lasts):  # a snapshot of topics that are just made may have none
            column.extend([0] * (rows - len(column)))
        return made

    # ---- asking

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @overload
    def get(self, name: str) -> int | None: ...
    @overload
    def get(self, name: str, default: int) -> int: ...
    def get(self, name: str, default: int | None = None) -> int | None:
        """Number of a topic."""
        return self._by_name.get(name, default)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topics):
            return NotImplemented
        mine, others = self._living(), other._living()
        same = self._by_name == other._by_name and self.tally == other.tally and mine == others
        return same and (self.given, self.gone_last) == (other.given, other.gone_last)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    @property
    def gone(self) -> int:
        """How many topics have gone, ever."""
        return self.given - len(self.names)

    def gone_of(self, numbers: Iterable[int]) -> set[int]:
        """Which of some records' topic numbers are of topics that have gone; 0 is of none."""
        gone = set(numbers).difference(self.names)  # looks up the few in the many
        gone.discard(0)
        return gone

    # ---- changing

    def change(self, made: Mapping[str, int], gone: Collection[int]) -> None:
        """Apply a group's changes: topics that are made, and those that go with it. Raises BadGroup for numbers that cannot be."""
        going = frozenset(gone)
        for number in going:
            self._forget(number)
        given, begun = self.given, len(self._numbers)
        for name, number in sorted(made.items(), key=itemgetter(1)):
            if number in going or self._by_name.get(name) == number:
                continue
            while given + 1 in going:
                given += 1
            if number != given + 1 or name in self._by_name:
                raise BadGroup(f"topic {name!r} has number {number}, expected {given + 1}")
            given = number
            self._enter(name, number)
            self._numbers.append(number)
        while given + 1 in going:
            given += 1
        if going and max(going) > given:
            raise BadGroup("a topic has gone whose number was never given")
        self.given = given
        zeros = [0] * (len(self._numbers) - begun)
        self._counts.extend(zeros)
        self._lasts.extend(zeros)

    def _enter(self, name: str, number: int) -> None:
        self._by_name[name] = number
        self.names[number] = name
        self._name_bytes += len(name.encode()) + TOPIC_OVERHEAD
        self._packed = None

    def _forget(self, number: int) -> None:
        name = self.names.pop(number, None)
        if name is None:
            return
        del self._by_name[name]
        self._name_bytes -= len(name.encode()) + TOPIC_OVERHEAD
        self._packed = None
        self.gone_last = max(self.gone_last, self.last_of(number))
        self.tally.pop(number, None)  # in place: whoever appends asks it whether a topic has a row

    def truncated(self, lsn: int) -> None:
        """Forget the records below `lsn`, which were dropped."""
        if self.gone_last < lsn:
            self.gone_last = 0

    # ---- records by topic

    def count(self, first_lsn: int, topics: array[int]) -> None:
        """Take note of a group's records; `topics` is its column of topic numbers, one or more."""
        lsns, occurrences = range(first_lsn, first_lsn + len(topics)), Counter(topics)
        if len(occurrences) == 1:
            firsts, lasts = {topics[0]: lsns[0]}, {topics[0]: lsns[-1]}
        else:
            firsts = dict(zip(reversed(topics), reversed(lsns), strict=True))
            lasts = dict(zip(topics, lsns, strict=True))
        for number, last in lasts.items():
            if number not in self.names:
                if number > self.given:
                    raise BadGroup(f"a record is of topic number {number}, which has no name")
                if number:
                    self.gone_last = max(self.gone_last, last)
                continue
            before, count = self.tally.get(number), occurrences[number]
            if before is not None:
                self.tally[number] = Tally(count + before.records, before.first_lsn, last)
            else:
                self.tally[number] = Tally(count, firsts[number], last)

    def sums_of(self, number: int, sums: Sums | None = None) -> tuple[int, int]:
        """Records of a topic ever, dropped ones included, and the LSN of its last one, 0 when it never had one; at the moment of
        `sums`, None: now. A topic that has gone has none."""
        numbers, counts, lasts, tally = sums or self._sums
        row = row_of(numbers, number)
        if row is None or number not in self.names:
            return 0, 0
        since = tally.get(number)
        return (counts[row], lasts[row]) if since is None else (counts[row] + since.records, since.last_lsn)

    def last_of(self, number: int) -> int:
        """LSN of a topic's last record, 0 when it never had one, or has gone."""
        tally = self.tally.get(number)
        if tally is not None:
            return tally.last_lsn
        row = row_of(self._numbers, number)
        return 0 if row is None else self._lasts[row]

    def fold(self) -> dict[int, Tally]:
        """A new segment begins: what was tallied goes into the sums. Returns what the old segment holds."""
        tally, self.tally = self.tally, {}
        if tally or len(self._numbers) != len(self.names):
            self._numbers, self._counts, self._lasts = self._living()  # copies may share the old ones
        for number, (count, _, last) in tally.items():
            row = row_of(self._numbers, number)
            assert row is not None, "what has gone is not in the tally"
            self._counts[row] += count
            self._lasts[row] = last
        return tally

    def _living(self) -> tuple[array[int], array[int], array[int]]:
        """The columns of what lives."""
        columns = self._numbers, self._counts, self._lasts
        if len(self._numbers) == len(self.names):
            return columns[0][:], columns[1][:], columns[2][:]
        lives = [number in self.names for number in self._numbers]
        numbers, counts, lasts = (array(each.typecode, compress(each, lives)) for each in columns)
        return numbers, counts, lasts

    @property
    def _sums(self) -> Sums:
        return Sums(self._numbers, self._counts, self._lasts, self.tally)

    def mark(self) -> Sums:
        """The sums as they are, for `restore`; to be used as long as no topic is made or goes."""
        return self._sums._replace(tally=dict(self.tally))

    def restore(self, mark: Sums) -> None:
        """Make the records that came since unseen."""
        self._numbers, self._counts, self._lasts, self.tally = mark

    def rewind(self, then: Topics) -> None:
        """The log ends earlier now, where the topics were as `then` says: what lives has the records that it had."""
        sums = [then.sums_of(number) for number in self.names]
        self._numbers = array("I", self.names)
        self._counts = array("Q", [count for count, _ in sums])
        self._lasts = array("Q", [last for _, last in sums])
        self.tally = {}

    def copy(self) -> Topics:
        """A copy that later changes of this one do not touch."""
        copy = Topics()
        copy.names, copy._by_name, copy.tally = dict(self.names), dict(self._by_name), dict(self.tally)
        copy._numbers, copy._counts, copy._lasts = self._numbers[:], self._counts[:], self._lasts[:]
        copy.given, copy.gone_last = self.given, self.gone_last
        copy._packed, copy._name_bytes = self._packed, self._name_bytes
        return copy

    # ---- snapshot

    @property
    def encoded_bytes_max(self) -> int:
        """Bytes that a snapshot has of them at most, without making one."""
        return self._name_bytes + (SPARSE_BYTES if self.gone else 0)

    def named(self) -> list[bytes]:
        """The key that names the topics and its value, both packed; nothing where there never was one."""
        if not self.given:
            return []
        if self._packed is None:
            names: Any = list(self._by_name) if self.gone else self._by_name
            self._packed = msgpack.packb(names, use_bin_type=True)
        return [msgpack.packb(SPARSE if self.gone else "topics"), self._packed]

    def columns(self) -> dict[str, Any]:
        """The other part of a snapshot about them; `fold` comes first."""
        if not self.given:
            return {}
        numbers, counts, lasts = self._living()
        columns: dict[str, Any] = {"counts": encode_column(counts), "lasts": encode_column(lasts)}
        if self.gone:
            columns |= {"numbers": encode_column(numbers), "given": self.given, "gone": self.gone_last}
        return columns


def count_in(snapshot: Mapping[str, Any], number: int) -> int:
    """Records of a topic before the segment that begins with a snapshot. Raises BadGroup if it is cut."""
    counts = column_of(snapshot, "counts")
    row: int | None = number - 1
    if SPARSE in snapshot:
        row = row_of(column_of(snapshot, "numbers", "I"), number)
    return 0 if row is None or row >= len(counts) else counts[row]


def gone_in(change: Mapping[str, Any]) -> array[int]:
    """Numbers of the topics that go with a change. Raises BadGroup if they are cut."""
    return column_of(change, GONE, "I")


def gone_change(numbers: Iterable[int]) -> dict[str, Any]:
    """The change by which topics go."""
    return {GONE: encode_column(array("I", numbers))}
