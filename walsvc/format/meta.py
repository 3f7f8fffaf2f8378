"""Metadata: what the log must remember besides records, kept in the log itself as msgpack maps inside groups.

A group flagged SNAPSHOT carries the whole state; every segment begins with one. Any other group may carry changes, which
apply before the group's own records. Keys are short strings. A reader ignores a key it does not know, except when the
key begins with "!": then the log needs a newer walsvc.

    truncated   int         first LSN that is still visible: everything below was dropped by truncate_before
    cut         int         truncate_after in progress: everything above this LSN is to go (never in a snapshot)
    successor   int         in a SEAL group: first LSN of the next segment
    sealed      bool        the log takes no more appends, ever
    topics      map         name -> number of each topic; numbers are dense from 1 and never given twice
    counts      bin         in a snapshot: u64 for each topic number, records of the topic before this segment, ever
    lasts       bin         in a snapshot: u64 for each topic number, LSN of its last record before this segment, 0: none
    positions   map         "<topic number>/<consumer>" -> next LSN to deliver; nil: the consumer was deleted
    holds       map         holder -> lowest LSN that it needs; nil: released
    purges      map         name of a purge mark -> LSN below which what matches is hidden; nil: the mark is gone; see purge.py
    producers   bin         rows of requests of idempotent producers, see walsvc.format.producers; a change adds its rows
    forgotten   int         in a snapshot: LSN of the last request of the producers that were forgotten
    summary     bin         in a SEAL group: the topics that have records in the segment, see walsvc.format.summary
    index       bin         in a SEAL group: places in the segment where a reader may begin, see walsvc.format.index
    newest      int         in a SEAL group: the highest timestamp of any record up to here, or higher
    labels      map         label -> the values that it has in the group, nil: too many or too long to name; see walsvc.format.labels
    !dedupe     bin         rows of callers' keys, see walsvc.format.dedupe; a change adds its rows
    !queues     map         what consumers have done above their positions, see walsvc.format.queues; a change adds its rows

A change names only what it changes in `topics`, `positions`, `holds` and `purges`. Topic number 0 in `positions` is the whole log.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from walsvc.format.columns import decode_column, encode_column
from walsvc.format.dedupe import KEY as DEDUPE
from walsvc.format.dedupe import Keys
from walsvc.format.group import BadGroup
from walsvc.format.producers import Producers
from walsvc.format.purge import NO_MARKS, Marks
from walsvc.format.queues import KEY as QUEUES
from walsvc.format.queues import Queues, merge_queues, queues_bytes_max
from walsvc.format.summary import Tally

KNOWN = frozenset(
    {"truncated", "cut", "successor", "sealed", "topics", "counts", "lasts", "positions", "holds", "purges", "summary"}
    | {"index", "newest", "labels", "producers", "forgotten", QUEUES, DEDUPE}
)
NAME_BYTES_MAX = 255  # of topics, consumers and holders: fits a file name, should one ever be wanted
ENTRY_OVERHEAD = 5 + 9  # msgpack bytes of a map entry besides its name, at most
TOPIC_OVERHEAD = ENTRY_OVERHEAD + 16  # and its cells in counts and lasts
FRAME_BYTES = 128  # the outer map with its keys, and the heads of the inner ones


@dataclass(slots=True)
class Metadata:
    """The state after applying a snapshot and the changes and records since.

    Attributes:
        truncated, cut, successor, sealed: as on disk.
        topics: number of each topic.
        names: name of topic number n at index n; index 0 is None.
        counts, lasts: by topic number - 1, as of the snapshot.
        tally: what the groups since the snapshot add to them: the segment's own records by topic.
        positions, holds, purges: as on disk, without what was deleted, and marks that truncation has passed.
        producers: the requests that are remembered.
        queues: what consumers have done above their positions.
        keys: callers' keys that are remembered.
    """

    truncated: int = 1
    cut: int | None = None
    successor: int | None = None
    sealed: bool = False
    topics: dict[str, int] = field(default_factory=dict)
    names: list[str | None] = field(default_factory=lambda: [None])
    counts: array[int] = field(default_factory=lambda: array("Q"))
    lasts: array[int] = field(default_factory=lambda: array("Q"))
    tally: dict[int, Tally] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    purges: dict[str, int] = field(default_factory=dict)
    producers: Producers = field(default_factory=Producers)
    queues: Queues = field(default_factory=Queues)
    keys: Keys = field(default_factory=Keys)
    _packed_topics: bytes | None = field(
        default=None, compare=False
    )  # of `topics`: packing 100,000 names takes longer than a loop should be held up
    _topic_bytes: int = field(default=0, compare=False)  # bounds of the encoded maps
    _entry_bytes: int = field(default=0, compare=False)
    _marks: Marks | None = field(default=None, compare=False)  # of `purges`, arranged when it is asked for

    def apply(self, change: dict[str, Any], *, snapshot: bool = False) -> None:
        """Apply one group's map. Raises BadGroup for one that cannot be (newer: for an unknown key that must not be
        ignored)."""
        for key in change:
            if key not in KNOWN and key.startswith("!"):
                raise BadGroup(f"metadata key {key!r} is unknown", newer=True)
        if snapshot:
            self.truncated, self.cut, self.successor, self.sealed = 1, None, None, False
            self.topics, self.names, self._packed_topics = {}, [None], None
            self.tally, self.positions, self.holds, self.purges, self._marks = {}, {}, {}, {}, None
            self._topic_bytes = self._entry_bytes = 0
            self.producers, self.queues = Producers(forgotten=change.get("forgotten", 0)), Queues()
            self.keys = Keys()
            self.counts, self.lasts = column_of(change, "counts"), column_of(change, "lasts")
        self.truncated = change.get("truncated", self.truncated)
        self.cut = change.get("cut", self.cut)
        self.successor = change.get("successor", self.successor)
        self.sealed = change.get("sealed", self.sealed)
        if "topics" in change:
            self._name(change["topics"])
        if "producers" in change:
            self.producers.apply(change["producers"])
        if DEDUPE in change:
            self.keys.apply(change[DEDUPE])
        for key, state in (("positions", self.positions), ("holds", self.holds), ("purges", self.purges)):
            if key in change:
                self._enter(state, change[key])
        if "positions" in change:
            self._enter(self.positions, self.queues.settle(change["positions"]))
        if QUEUES in change:
            self._enter(self.positions, self.queues.apply(change[QUEUES], self.positions))
        if self.purges and ("truncated" in change or "purges" in change):
            self._enter(self.purges, dict.fromkeys(passed_marks(self.purges, self.truncated)))
        if "purges" in change or "truncated" in change:
            self._marks = None

    def _enter(self, state: dict[str, int], entries: Mapping[str, int | None]) -> None:
        for name, lsn in entries.items():
            if lsn is None:
                if state.pop(name, None) is not None:
                    self._entry_bytes -= len(name.encode()) + ENTRY_OVERHEAD
                continue
            if name not in state:
                self._entry_bytes += len(name.encode()) + ENTRY_OVERHEAD
            state[name] = lsn

    @property
    def marks(self) -> Marks:
        """The purge marks as they are now."""
        if self._marks is None:
            self._marks = Marks(self.purges) if self.purges else NO_MARKS
        return self._marks

    def _name(self, topics: dict[str, int]) -> None:
        for name, number in topics.items():
            if name in self.topics:
                continue
            if number != len(self.names):
                raise BadGroup(f"topic {name!r} has number {number}, expected {len(self.names)}")
            self.topics[name] = number
            self.names.append(name)
            self._topic_bytes += len(name.encode()) + TOPIC_OVERHEAD
        self._packed_topics = None
        missing = len(self.topics) - len(self.counts)
        self.counts.extend([0] * missing)
        self.lasts.extend([0] * missing)

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
            if number >= len(self.names):
                raise BadGroup(f"a record is of topic number {number}, which has no name")
            before, count = self.tally.get(number), occurrences[number]
            if before is not None:
                self.tally[number] = Tally(count + before.records, before.first_lsn, last)
            elif number:
                self.tally[number] = Tally(count, firsts[number], last)

    def count_of(self, number: int) -> int:
        """Records of a topic ever, dropped ones included."""
        tally = self.tally.get(number)
        return self.counts[number - 1] + (tally.records if tally is not None else 0)

    def last_of(self, number: int) -> int:
        """LSN of a topic's last record, 0 when it never had one."""
        tally = self.tally.get(number)
        return tally.last_lsn if tally is not None else self.lasts[number - 1]

    def fold(self) -> dict[int, Tally]:
        """A new segment begins: what was tallied goes into the sums. Returns what the old segment holds."""
        tally, self.tally = self.tally, {}
        if tally:
            self.counts, self.lasts = self.counts[:], self.lasts[:]  # copies may share the old ones
        for number, (count, _, last) in tally.items():
            self.counts[number - 1] += count
            self.lasts[number - 1] = last
        return tally

    def mark(self) -> tuple[array[int], array[int], dict[int, Tally]]:
        """The sums by topic as they are, for `restore`; to be used as long as no topic is added."""
        return self.counts, self.lasts, dict(self.tally)

    def restore(self, mark: tuple[array[int], array[int], dict[int, Tally]]) -> None:
        """Make the records that came since unseen."""
        self.counts, self.lasts, self.tally = mark

    def copy(self) -> Metadata:
        """A copy that later changes of this one do not touch."""
        return Metadata(
            self.truncated,
            self.cut,
            self.successor,
            self.sealed,
            dict(self.topics),
            list(self.names),
            self.counts[:],
            self.lasts[:],
            dict(self.tally),
            dict(self.positions),
            dict(self.holds),
            dict(self.purges),
            self.producers.copy(),
            self.queues.copy(),
            self.keys.copy(),
            self._packed_topics,
            self._topic_bytes,
            self._entry_bytes,
            self._marks,
        )

    # ---- snapshot

    @property
    def snapshot_bytes_max(self) -> int:
        """What `snapshot` has at most, without making one."""
        return (
            FRAME_BYTES
            + self._topic_bytes
            + self._entry_bytes
            + self.producers.encoded_bytes
            + self.queues.encoded_bytes
            + self.keys.encoded_bytes
        )

    def snapshot(self) -> bytes:
        """The whole state as a snapshot group's metadata; `fold` comes first."""
        assert not self.tally, "a snapshot stands before a segment's records"
        state: dict[str, Any] = {"truncated": self.truncated, "sealed": self.sealed}
        if self.positions:
            state["positions"] = self.positions
        if self.holds:
            state["holds"] = self.holds
        if self.purges:
            state["purges"] = self.purges
        if self.producers.windows or self.producers.forgotten:
            state["producers"], state["forgotten"] = self.producers.encode(), self.producers.forgotten
        if queues := self.queues.encode():
            state[QUEUES] = queues
        if len(self.keys):
            state[DEDUPE] = self.keys.encode()
        if not self.topics:
            return encode_map(state)
        state["counts"], state["lasts"] = encode_column(self.counts), encode_column(self.lasts)
        if self._packed_topics is None:
            self._packed_topics = encode_map(self.topics)
        packer = msgpack.Packer(use_bin_type=True)
        pieces = [packer.pack_map_header(len(state) + 1), packer.pack("topics"), self._packed_topics]
        for key, value in state.items():
            pieces += [packer.pack(key), packer.pack(value)]
        return b"".join(pieces)


def passed_marks(purges: dict[str, int], truncated: int) -> list[str]:
    """Names of the marks that hide nothing any more: all below them is truncated."""
    return [name for name, before in purges.items() if before <= truncated]


def merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    """Make one change of two: maps are joined, the later entry counts; rows are added to rows."""
    for key, value in change.items():
        if key == QUEUES:
            merge_queues(into.setdefault(key, {}), value)
        elif isinstance(value, dict):
            into.setdefault(key, {}).update(value)
        elif isinstance(value, bytes):
            rows = into.setdefault(key, bytearray())
            rows += value
        else:
            into[key] = value


def change_bytes_max(change: dict[str, Any], joined: dict[str, Any]) -> int:
    """Bytes that a change adds at most to a group's metadata that holds `joined`."""
    total = 0
    for key, value in change.items():
        if key not in joined:
            total += 32
        if key == QUEUES:
            total += queues_bytes_max(value, joined.get(key, {}))
        elif isinstance(value, dict):
            known = joined.get(key, {})
            total += sum(len(name.encode()) + ENTRY_OVERHEAD for name in value if name not in known)
    return total


def column_of(state: dict[str, Any], key: str) -> array[int]:
    """The column of numbers under a key of a snapshot; empty where it is not there. Raises BadGroup if it is cut."""
    try:
        return decode_column(state.get(key, b""))
    except ValueError as error:
        raise BadGroup(f"the column {key!r} of the metadata is cut") from error


def encode_map(change: dict[str, Any]) -> bytes:
    """msgpack bytes of a map."""
    packed: bytes = msgpack.packb(change, use_bin_type=True)
    return packed


def decode_map(data: bytes) -> dict[str, Any]:
    """The map in `data`; empty bytes are an empty map. Raises BadGroup if it is not a map with string keys."""
    if not data:
        return {}
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadGroup(f"the metadata is not msgpack: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadGroup("the metadata is not a map with string keys")
    return value
