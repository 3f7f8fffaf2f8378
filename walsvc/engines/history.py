"""Which of the segments that were stored make up the log: truncate_after leaves some behind, and stored ones are not changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar


class StoredSegment(Protocol):
    """A segment that was stored."""

    @property
    def first_lsn(self) -> int: ...


StoredT = TypeVar("StoredT", bound=StoredSegment)


class KeptSegment(NamedTuple, Generic[StoredT]):
    """A segment that is part of the log: its records below `until` (None: all)."""

    segment: StoredT
    until: int | None


def history(segments: Iterable[StoredT]) -> tuple[list[KeptSegment[StoredT]], list[StoredT]]:
    """The segments that make up the log, ascending, and those whose place another one has taken.

    A segment that was begun later, at the LSN of an earlier one or below, takes its place: truncate_after came in between.

    Args:
        segments: in the order in which they were begun.
    """
    kept: list[KeptSegment[StoredT]] = []
    gone: list[StoredT] = []
    for segment in segments:
        while kept and kept[-1].segment.first_lsn >= segment.first_lsn:
            gone.append(kept.pop().segment)
        if kept:
            kept[-1] = KeptSegment(kept[-1].segment, segment.first_lsn)
        kept.append(KeptSegment(segment, None))
    return kept, gone
