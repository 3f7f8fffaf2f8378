"""Metadata: what the log must remember besides records, kept in the log itself as msgpack maps inside groups.

A group flagged SNAPSHOT carries the whole state; every segment begins with one. Any other group may carry changes, which
apply before the group's own records. Keys are short strings. A reader ignores a key it does not know, except when the
key begins with "!": then the log needs a newer walsvc.

    truncated   int         first LSN that is still visible: everything below was dropped by truncate_before
    cut         int         truncate_after in progress: everything above this LSN is to go (never in a snapshot)
    successor   int         in a SEAL group: first LSN of the next segment
    sealed      bool        the log takes no more appends, ever
    topics, counts, lasts, !topics, numbers, given, gone, !gone: the topics, see walsvc.format.topics
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
    !hidden     bin         rows of hidden ranges of records, see walsvc.format.hidden; a change adds its rows
    !floors     map         "<topic number>" -> LSN below which the topic was truncated, see walsvc.format.hidden; nil: forgotten
    !limits     bin         rows of limits of topics, see walsvc.format.limits; a change adds its rows

A change names only what it changes in `topics`, `positions`, `holds`, `purges` and `!floors`. Topic number 0 in `positions` is the whole log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import msgpack

from walsvc.format import limits
from walsvc.format.dedupe import KEY as DEDUPE
from walsvc.format.dedupe import Keys
from walsvc.format.group import BadGroup
from walsvc.format.hidden import FLOORS, Hidden, forgetting_row
from walsvc.format.hidden import KEY as HIDDEN
from walsvc.format.named import NamedLsns, Positions, entry_bytes_max, topic_of
from walsvc.format.producers import Producers
from walsvc.format.purge import NO_MARKS, Marks
from walsvc.format.queues import KEY as QUEUES
from walsvc.format.queues import Queues, merge_queues, queues_bytes_max
from walsvc.format.topics import GONE, SPARSE, Topics, gone_change, gone_in

KNOWN = frozenset(
    {"truncated", "cut", "successor", "sealed", "topics", "counts", "lasts", "positions", "holds", "purges", "summary"}
    | {"index", "newest", "labels", "producers", "forgotten", QUEUES, DEDUPE, HIDDEN, FLOORS, limits.KEY}
    | {"numbers", "given", "gone", SPARSE, GONE}
)
NAME_BYTES_MAX = 255  # of topics, consumers and holders: fits a file name, should one ever be wanted
FRAME_BYTES = 128  # the outer map with its keys, and the heads of the inner ones


@dataclass(slots=True)
class Metadata:
    """The state after applying a snapshot and the changes and records since.

    Attributes:
        truncated, cut, successor, sealed: as on disk.
        topics: the topics, and how many records they have.
        positions, holds, purges: as on disk, without what was deleted, and marks that truncation has passed.
        producers: the requests that are remembered.
        queues: what consumers have done above their positions.
        keys: callers' keys that are remembered.
        hidden: ranges of records that nobody sees.
        floors: as on disk, without those that truncation has passed.
        limits: of topics that have some, by number.
    """

    truncated: int = 1
    cut: int | None = None
    successor: int | None = None
    sealed: bool = False
    topics: Topics = field(default_factory=Topics)
    positions: Positions = field(default_factory=Positions)
    holds: NamedLsns = field(default_factory=NamedLsns)
    purges: NamedLsns = field(default_factory=NamedLsns)
    producers: Producers = field(default_factory=Producers)
    queues: Queues = field(default_factory=Queues)
    keys: Keys = field(default_factory=Keys)
    hidden: Hidden = field(default_factory=Hidden)
    floors: NamedLsns = field(default_factory=NamedLsns)
    limits: dict[int, limits.TopicLimits] = field(default_factory=dict)
    _marks: Marks | None = field(default=None, compare=False)  # of `purges`, arranged when it is asked for

    def apply(self, change: dict[str, Any], *, snapshot: bool = False) -> None:
        """Apply one group's map. Raises BadGroup for one that cannot be (newer: for an unknown key that must not be
        ignored)."""
        for key in change:
            if key not in KNOWN and key.startswith("!"):
                raise BadGroup(f"metadata key {key!r} is unknown", newer=True)
        if snapshot:
            self.truncated, self.cut, self.successor, self.sealed = 1, None, None, False
            self.topics = Topics.of(change)
            self.positions, self.holds, self.purges, self._marks = Positions(), NamedLsns(), NamedLsns(), None
            self.producers, self.queues = Producers(forgotten=change.get("forgotten", 0)), Queues()
            self.keys, self.hidden, self.floors, self.limits = Keys(), Hidden(), NamedLsns(), {}
        self.truncated = change.get("truncated", self.truncated)
        self.cut = change.get("cut", self.cut)
        self.successor = change.get("successor", self.successor)
        self.sealed = change.get("sealed", self.sealed)
        gone = gone_in(change)
        if not snapshot and (gone or "topics" in change):
            self.topics.change(change.get("topics", {}), gone)
        if "producers" in change:
            self.producers.apply(change["producers"])
        if DEDUPE in change:
            self.keys.apply(change[DEDUPE])
        for number in gone if len(self.keys) else ():  # also what the group has noted before it went
            self.keys.forget(number)
        if HIDDEN in change:
            self.hidden.apply(change[HIDDEN])
        if limits.KEY in change:
            limits.apply(self.limits, change[limits.KEY])
        named = {"positions": self.positions, "holds": self.holds, "purges": self.purges, FLOORS: self.floors}
        for key in change.keys() & named.keys():
            named[key].enter(change[key])
        if "positions" in change:
            self.positions.enter(self.queues.settle(change["positions"]))
        if QUEUES in change:
            self.positions.enter(self.queues.apply(change[QUEUES], self.positions))
        if not change.keys().isdisjoint(HIDING):
            self._hide_less()
            self._marks = None
        if gone or "truncated" in change:
            self.topics.truncated(self.truncated)

    def _hide_less(self) -> None:
        """Forget what hides nothing any more, since truncation has passed it."""
        for state in (self.purges, self.floors):
            state.enter(dict.fromkeys(passed_marks(state, self.truncated)))
        if self.hidden:
            self.hidden.pass_by(self.truncated)

    def hide_none_above(self, lsn: int, count_of: Callable[[int], int]) -> None:
        """The log ends with record `lsn` now: whatever comes behind it is visible. `count_of` tells how many records a topic had."""
        self.hidden.cut(lsn, count_of)
        for state in (self.purges, self.floors):
            state.update({name: lsn + 1 for name, before in state.items() if before > lsn + 1})
        self._marks = None

    def floor_of(self, number: int) -> int:
        """LSN below which a topic (0: none) was truncated by itself; 0: nowhere."""
        return self.floors.get(str(number), 0) if self.floors else 0

    @property
    def marks(self) -> Marks:
        """The marks that hide records, as they are now; another object once they have changed."""
        if self._marks is None:
            self._marks = Marks(self.purges, self.hidden) if self.purges or self.hidden else NO_MARKS
        return self._marks

    def copy(self) -> Metadata:
        """A copy that later changes of this one do not touch."""
        return Metadata(
            self.truncated,
            self.cut,
            self.successor,
            self.sealed,
            self.topics.copy(),
            self.positions.copy(),
            self.holds.copy(),
            self.purges.copy(),
            self.producers.copy(),
            self.queues.copy(),
            self.keys.copy(),
            self.hidden.copy(),
            self.floors.copy(),
            dict(self.limits),
        )

    # ---- snapshot

    @property
    def snapshot_bytes_max(self) -> int:
        """Bytes of `snapshot` at most, without making one."""
        return (
            FRAME_BYTES
            + self.topics.encoded_bytes_max
            + sum(each.encoded_bytes for each in (self.positions, self.holds, self.purges, self.floors))
            + self.producers.encoded_bytes
            + self.queues.encoded_bytes
            + self.keys.encoded_bytes
            + self.hidden.encoded_bytes
            + len(self.limits) * limits.ROW.size
        )

    def snapshot(self) -> bytes:
        """The whole state as a snapshot group's metadata; `topics.fold` comes first."""
        assert not self.topics.tally, "a snapshot stands before a segment's records"
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
        if self.hidden:
            state[HIDDEN] = self.hidden.encode()
        if self.floors:
            state[FLOORS] = self.floors
        if self.limits:
            state[limits.KEY] = limits.encode(self.limits)
        state |= self.topics.columns()
        named = self.topics.named()
        packer = msgpack.Packer(use_bin_type=True)
        pieces = [packer.pack_map_header(len(state) + len(named) // 2), *named]
        for key, value in state.items():
            pieces += [packer.pack(key), packer.pack(value)]
        return b"".join(pieces)


HIDING = frozenset({"purges", "truncated", HIDDEN, FLOORS})  # keys of changes after which something else is hidden


def passed_marks(purges: dict[str, int], truncated: int) -> list[str]:
    """Names of the marks that hide nothing any more: all below them is truncated."""
    return [name for name, before in purges.items() if before <= truncated]


def departure(metadata: Metadata, numbers: Collection[int]) -> dict[str, Any]:
    """The change by which topics go, with what was remembered for them: consumers, purge marks, ranges."""
    change, gone = gone_change(numbers), frozenset(numbers)
    keys = [key for number in numbers for key in metadata.positions.of_topic(number)]
    queues = [key for key in keys if key in metadata.queues]
    marks = [mark for mark in metadata.purges if topic_of(mark) in gone]
    floors = [str(number) for number in numbers if str(number) in metadata.floors]
    for name, entries in (("positions", keys), (QUEUES, queues), ("purges", marks), (FLOORS, floors)):
        if entries:
            change[name] = dict.fromkeys(entries)
    if rows := b"".join(forgetting_row(number) for number in numbers if number in metadata.hidden.topics):
        change[HIDDEN] = rows
    if rows := b"".join(limits.row_of(number, limits.NO_LIMITS) for number in numbers if number in metadata.limits):
        change[limits.KEY] = rows
    return change


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
            total += sum(entry_bytes_max(name) for name in value if name not in known)
        elif isinstance(value, bytes):
            total += len(value)
    return total


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
