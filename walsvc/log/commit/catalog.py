"""Catalog: which segments there are, up to where they are durable, and how often something was taken back.

The pipeline moves the durable end, a rotation adds a segment, retention drops some, truncate_after cuts. Everybody else
(readers, service, engines) gets a `View`, which never changes: who holds one knows what was true at one moment, and compares
it with a later one. Loop thread only.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from walsvc.log.read.cuts import Cuts


class Mark(NamedTuple):
    """A place in the log as it grows: of two marks the greater one was written later. truncate_after ends their order.

    Attributes:
        replacements: as in a View, when it was written.
        segment, offset: where it is.
    """

    replacements: int
    segment: int
    offset: int


BEGINNING = Mark(0, 0, 0)
EVERYTHING = Mark(1 << 64, 0, 0)
"""Above every mark."""


class View(NamedTuple):
    """The catalog at one moment.

    Attributes:
        ids: first LSNs of the segments, ascending; the active one last.
        sizes: bytes of their files, by first LSN.
        durable_lsn: every record up to it is on stable storage.
        place: the segment, and the offset in it, up to which groups are durable.
        generation: the highest of any segment.
        rewinds: batches given up, segments rewritten, cuts: what was read ahead before is void when it changes.
        replacements: segments without records that gave way to a new file of the same name.
    """

    ids: tuple[int, ...]
    sizes: Mapping[int, int]
    durable_lsn: int
    place: tuple[int, int]
    generation: int
    rewinds: int
    replacements: int

    @property
    def bytes(self) -> int:
        """Length of all files together."""
        return sum(self.sizes.values())

    def holder(self, lsn: int) -> int | None:
        """The segment that holds `lsn`, or would; None: it is below the first one."""
        place = bisect_right(self.ids, lsn)
        return self.ids[place - 1] if place else None


class Catalog:
    """The state behind the views.

    Attributes:
        durable_lsn, place, generation, rewinds, replacements: as in a View.
        changed: end of the last durable group that changes metadata, or of one behind it.
        cuts: where truncate_after has taken the log's end back.
        cutting: done once a truncate_after that is changing files has ended, or waits for room to go on; None: there is none. It stays
            after one that failed in the middle.
    """

    def __init__(self, sizes: Mapping[int, int], *, durable_lsn: int, place: tuple[int, int], generation: int) -> None:
        self._ids = sorted(sizes)
        self._sizes = dict(sizes)
        self._view: View | None = None
        self.durable_lsn: int = durable_lsn
        self.place: tuple[int, int] = place
        self.generation: int = generation
        self.rewinds: int = 0
        self.replacements: int = 0
        self.changed: Mark = self.mark
        self.cuts: Cuts = Cuts()
        self.cutting: asyncio.Future[Any] | None = None
        self._moved: Callable[[], None] | None = None
        self._begun: Callable[[], None] | None = None

    @property
    def view(self) -> View:
        """Return an immutable picture of the present state."""
        if self._view is None:
            ids, sizes = tuple(self._ids), MappingProxyType(dict(self._sizes))
            self._view = View(
                ids, sizes, self.durable_lsn, self.place, self.generation, self.rewinds, self.replacements
            )
        now = (self.durable_lsn, self.place, self.generation, self.rewinds, self.replacements)
        if self._view[2:] != now:
            self._view = View(self._view.ids, self._view.sizes, *now)
        return self._view

    @property
    def mark(self) -> Mark:
        """Up to where groups are durable."""
        return Mark(self.replacements, *self.place)

    @property
    def count(self) -> int:
        """How many segments there are."""
        return len(self._ids)

    # ---- telling

    def when_durable(self, moved: Callable[[], None] | None) -> None:
        """Call `moved()` whenever the durable end has moved; None: not any more."""
        self._moved = moved

    def when_begun(self, begun: Callable[[], None]) -> None:
        """Call `begun()` whenever a new segment has begun and its predecessor is sealed."""
        self._begun = begun

    def sealed(self) -> None:
        """A rotation is through."""
        if self._begun is not None:
            self._begun()

    # ---- the durable end

    def advance(self, durable_lsn: int) -> None:
        """Every record up to `durable_lsn` is on stable storage."""
        self.durable_lsn = durable_lsn

    def arrive(self, segment: int, offset: int, *, changed: bool = False) -> None:
        """Groups are durable up to `offset` of `segment`, among them one that changes metadata, or not."""
        self.place = segment, offset
        if changed:
            self.changed = self.mark
        if self._moved is not None:
            self._moved()

    # ---- segments

    def begin(self, first: int, file_bytes: int) -> None:
        """A segment got its name, or gave way to another file of that name."""
        if first in self._sizes:
            self.replacements += 1
        else:
            insort(self._ids, first)
        self.resize(first, file_bytes)

    def resize(self, first: int, file_bytes: int) -> None:
        """The file of a segment has `file_bytes`."""
        self._sizes[first] = file_bytes
        self._view = None

    def drop(self, first: int) -> None:
        """A segment is gone."""
        self._ids.remove(first)
        del self._sizes[first]
        self._view = None

    # ---- taking back

    def begin_cutting(self, cutting: asyncio.Future[Any]) -> None:
        """A truncate_after begins to change files."""
        self.cutting = cutting

    def end_cutting(self) -> None:
        """The truncate_after has ended, and not in the middle."""
        self.cutting = None

    def rewind(self) -> None:
        """Tell readers that what they have read ahead is void."""
        self.rewinds += 1

    def next_generation(self) -> int:
        """Begin a new generation, which tells new groups from what stood there before."""
        self.generation += 1
        return self.generation

    def give_up(self) -> None:
        """A batch was given up: its place is written anew."""
        self.next_generation()
        self.rewind()

    def cut(self, lsn: int, file_bytes: int, place: tuple[int, int]) -> None:
        """The log ends with record `lsn`; behind it stands one new segment, durable up to `place`."""
        for first in [each for each in self._ids if each > lsn]:
            self.drop(first)
        self.begin(lsn + 1, file_bytes)
        self.durable_lsn, self.place = lsn, place
        self.changed = self.mark
        self.rewind()
        self.cuts.note(lsn + 1)
