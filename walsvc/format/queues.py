"""The window of a consumer, which the log remembers besides its position: records done out of order, and deliveries tried before.

The position says: everything below is done. A shared consumer, and one that acknowledges single records, have done more than
that. What they have done above the position is kept as ranges of LSNs. Other topics' records lie between those of a topic, so a
range covers LSNs and not records: an acknowledgement says from which LSN on there is nothing but the record it is for, and
neighbours grow together. Once the lowest range reaches the position, the position moves up and the range goes.

    !queues   map     consumer, as in positions -> nil: nothing is remembered of it any more; or a map with
        options   map     how the shared consumer was opened last; absent: as before
        rows      bin     msgpack arrays, one behind the other; a change adds its rows
            [0, position]                          it was moved: it stands here, and all other rows before are void
            [1, first, last, records]              done from LSN `first` to `last`, which are so many records of its topic
            [2, lsn, attempts]                     the record was delivered so often, and given back
            [3, lsn, attempts, worker, time]       `worker` has the record, without a deadline, since Unix time in ms

A change's `positions` apply before its `!queues`. An older writer must not drop this state, hence the required key.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from walsvc.format.group import BadGroup

KEY = "!queues"
MOVED, DONE, TRIED, HELD = range(4)
WIDTHS = (2, 4, 3, 5)
DONE_BYTES = 1 + 1 + 9 + 9 + 9  # of a row, at most
TRIED_BYTES = 1 + 1 + 9 + 5
HELD_BYTES = 1 + 1 + 9 + 5 + 5 + 9  # and the worker's name
STATE_BYTES = 64  # of a consumer's map besides its rows, its options and its name


class Held(NamedTuple):
    """A record that a worker has without a deadline.

    Attributes:
        attempts: deliveries so far, this one included.
        worker: its name.
        since_ms: Unix time of the delivery, in milliseconds.
    """

    attempts: int
    worker: str
    since_ms: int


@dataclass(slots=True)
class ConsumerWindow:
    """One consumer's state above its position.

    Attributes:
        options: how the shared consumer was opened last.
        firsts, lasts, records: of the ranges that are done, ascending; no two touch.
        tried: deliveries of records that were given back, by LSN.
        held: records that workers have without a deadline, by LSN.
    """

    options: dict[str, Any] = field(default_factory=dict)
    firsts: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    tried: dict[int, int] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)
    _names_bytes: int = 0  # of the workers in `held`

    # ---- looking

    def covers(self, lsn: int) -> bool:
        """True if the record is done."""
        place = bisect_right(self.firsts, lsn) - 1
        return place >= 0 and self.lasts[place] >= lsn

    def spans(self, first: int, last: int) -> bool:
        """True if all LSNs from `first` to `last` are done."""
        place = bisect_right(self.firsts, first) - 1
        return place >= 0 and self.lasts[place] >= last

    @property
    def empty(self) -> bool:
        """True if there is nothing to remember."""
        return not (self.options or self.firsts or self.tried or self.held)

    @property
    def rows_bytes(self) -> int:
        """Bytes that `rows` gives at most."""
        held = len(self.held) * HELD_BYTES + self._names_bytes
        return len(self.firsts) * DONE_BYTES + len(self.tried) * TRIED_BYTES + held

    def rows(self) -> bytes:
        """All rows, for a snapshot."""
        return b"".join(self._rows())

    def _rows(self) -> Iterator[bytes]:
        for first, last, records in zip(self.firsts, self.lasts, self.records, strict=True):
            yield done_row(first, last, records)
        for lsn, attempts in self.tried.items():
            yield tried_row(lsn, attempts)
        for lsn, held in self.held.items():
            yield held_row(lsn, held)

    def copy(self) -> ConsumerWindow:
        """A copy that later changes of this one do not touch."""
        return ConsumerWindow(
            dict(self.options),
            self.firsts[:],
            self.lasts[:],
            self.records[:],
            dict(self.tried),
            dict(self.held),
            self._names_bytes,
        )

    # ---- changing

    def apply(self, rows: bytes, position: int) -> int:
        """Take note of encoded rows; returns the consumer's position behind them. Raises BadGroup if they are none."""
        unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(rows))
        unpacker.feed(rows)
        end = 0
        try:
            for row in unpacker:
                if type(row) is not list or not row or row[0] not in range(4) or len(row) != WIDTHS[row[0]]:
                    raise BadGroup(f"the row {row!r} of a consumer is none")
                position = self._apply(row, position)
                end = unpacker.tell()
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise BadGroup(f"a row of a consumer is none: {error}") from error
        if end != len(rows):
            raise BadGroup("the rows of a consumer are cut")
        return position

    def _apply(self, row: list[Any], position: int) -> int:
        kind, lsn = row[0], row[1]
        if kind == DONE:
            return self.done(lsn, row[2], row[3], position)
        if kind == MOVED:
            self._forget()
            return int(lsn)
        if lsn < position or self.covers(lsn):
            return position  # it is done
        self._release(lsn)
        if kind == TRIED:
            self.tried[lsn] = row[2]
        else:
            self.tried.pop(lsn, None)
            self.held[lsn] = Held(row[2], row[3], row[4])
            self._names_bytes += len(row[3].encode())
        return position

    def done(self, first: int, last: int, records: int, position: int) -> int:
        """Take note that the records from `first` to `last` are done, which are so many; returns the position behind that."""
        first = max(first, position)
        if last < first:
            return position
        low, high = bisect_left(self.lasts, first - 1), bisect_right(self.firsts, last + 1)
        if low < high:
            first, last = min(first, self.firsts[low]), max(last, self.lasts[high - 1])
            records += sum(self.records[low:high])
        self.firsts[low:high], self.lasts[low:high], self.records[low:high] = [first], [last], [records]
        self._take_away(first, last)
        return self.settle(position)

    def _take_away(self, first: int, last: int) -> None:
        if self.tried:
            for lsn in [each for each in self.tried if first <= each <= last]:
                del self.tried[lsn]
        if self.held:
            for lsn in [each for each in self.held if first <= each <= last]:
                self._release(lsn)

    def settle(self, position: int) -> int:
        """Take note that everything below `position` is done; returns the position behind that and the ranges that it reaches."""
        place = bisect_right(self.firsts, position)
        if place:
            position = max(position, self.lasts[place - 1] + 1)
            del self.firsts[:place], self.lasts[:place], self.records[:place]
        self._take_away(0, position - 1)
        return position

    def cut(self, lsn: int) -> None:
        """The log ends with record `lsn` now. How many records a range has that is cut is known as an upper bound."""
        place = bisect_right(self.firsts, lsn)
        del self.firsts[place:], self.lasts[place:], self.records[place:]
        if place and self.lasts[-1] > lsn:
            self.lasts[-1] = lsn
            self.records[-1] = min(self.records[-1], lsn - self.firsts[-1] + 1)
        self._take_away(lsn + 1, 1 << 64)

    def _release(self, lsn: int) -> None:
        if (held := self.held.pop(lsn, None)) is not None:
            self._names_bytes -= len(held.worker.encode())

    def _forget(self) -> None:
        for each in (self.firsts, self.lasts, self.records):
            each.clear()
        self.tried.clear()
        self.held.clear()
        self._names_bytes = 0


@dataclass(slots=True)
class Queues:
    """The windows of all consumers that have one.

    Attributes:
        windows: by the consumer's key in `positions`.
        encoded_bytes: what `encode` gives has at most, encoded.
    """

    windows: dict[str, ConsumerWindow] = field(default_factory=dict)
    encoded_bytes: int = 0

    def __contains__(self, key: str) -> bool:
        return key in self.windows

    def get(self, key: str) -> ConsumerWindow | None:
        """A consumer's window."""
        return self.windows.get(key)

    def copy(self) -> Queues:
        """A copy that later changes of this one do not touch."""
        return Queues({key: each.copy() for key, each in self.windows.items()}, self.encoded_bytes)

    def encode(self) -> dict[str, Any]:
        """The state for a snapshot; consumers that need none are left out."""
        return {
            key: {"options": window.options, "rows": window.rows()}
            for key, window in self.windows.items()
            if not window.empty
        }

    def apply(self, change: Any, positions: dict[str, int]) -> dict[str, int]:
        """Take note of a change; returns the positions that it moves. Raises BadGroup if it is none."""
        moved: dict[str, int] = {}
        if not isinstance(change, dict):
            raise BadGroup(f"the consumers' state is {type(change).__name__}, not a map")
        for key, said in change.items():
            before = self._bytes_of(key)
            if said is None:
                self.windows.pop(key, None)
            else:
                window = self.windows.setdefault(key, ConsumerWindow())
                window.options = said.get("options", window.options)
                position = window.apply(said.get("rows", b""), positions.get(key, 1))
                if positions.get(key) != position:
                    moved[key] = position
            self.encoded_bytes += self._bytes_of(key) - before
        return moved

    def settle(self, entries: dict[str, int | None]) -> dict[str, int]:
        """`positions` has got these entries; returns the positions that move further by that."""
        moved: dict[str, int] = {}
        for key in entries.keys() & self.windows.keys():
            before, position = self._bytes_of(key), entries[key]
            if position is None:
                del self.windows[key]
            elif (further := self.windows[key].settle(position)) != position:
                moved[key] = further
            self.encoded_bytes += self._bytes_of(key) - before
        return moved

    def cut(self, lsn: int) -> None:
        """The log ends with record `lsn` now."""
        for window in self.windows.values():
            window.cut(lsn)
        self.encoded_bytes = sum(map(self._bytes_of, self.windows))

    def _bytes_of(self, key: str) -> int:
        window = self.windows.get(key)
        if window is None:
            return 0
        return len(key.encode()) + STATE_BYTES + window.rows_bytes + options_bytes(window.options)


def options_bytes(options: dict[str, Any]) -> int:
    """Bytes of a consumer's options, encoded."""
    return len(msgpack.packb(options)) if options else 1


def merge_queues(into: dict[str, Any], change: dict[str, Any]) -> None:
    """Make one change of two: rows are added to rows, later options count, nil and what follows it begin anew."""
    for key, said in change.items():
        known = into.get(key)
        if known is None or said is None:
            into[key] = None if said is None else {**said, "rows": bytearray(said.get("rows", b""))}
            continue
        known["rows"] += said.get("rows", b"")
        if "options" in said:
            known["options"] = said["options"]


def queues_bytes_max(change: dict[str, Any], joined: dict[str, Any]) -> int:
    """Bytes that a change adds at most to a group's metadata that holds `joined`."""
    total = 0
    for key, said in change.items():
        total += len(key.encode()) + STATE_BYTES if joined.get(key) is None else 0
        if said is not None:
            total += len(said.get("rows", b"")) + (8 + options_bytes(said["options"]) if "options" in said else 0)
    return total


def moved_row(position: int) -> bytes:
    """The consumer stands at `position`, and nothing else is known of it."""
    return pack([MOVED, position])


def done_row(first: int, last: int, records: int) -> bytes:
    """All from `first` to `last` is done."""
    return pack([DONE, first, last, records])


def tried_row(lsn: int, attempts: int) -> bytes:
    """A record was given back."""
    return pack([TRIED, lsn, attempts])


def held_row(lsn: int, held: Held) -> bytes:
    """A worker has a record."""
    return pack([HELD, lsn, *held])


def pack(row: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(row)
    return packed
