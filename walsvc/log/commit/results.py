"""Answers of append_batch: results that are made when they are looked at."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, overload

from walsvc.model import AppendResult


class Part(NamedTuple):
    """The place of some records of a batch, one behind the other in one group."""

    first_lsn: int
    segment_id: int
    offset: int
    lengths: array[int]


class Run(NamedTuple):
    """The place of some records, one behind the other: the first at `offset`."""

    first_lsn: int
    records: int
    segment_id: int
    offset: int


class BatchResult(Sequence[AppendResult]):
    """The results of an atomic batch: an AppendResult for each record, in order. No object for each until it is asked for."""

    __slots__ = ("_durable", "_parts", "_sync_us", "duplicate")

    def __init__(self, parts: list[Part], *, durable: bool, sync_us: int, duplicate: bool = False) -> None:
        self.duplicate: bool = duplicate  # of a single record: see AppendResult.duplicate
        self._parts = parts
        self._durable = durable
        self._sync_us = sync_us

    @property
    def places(self) -> list[Run]:
        """The places of the records, a row for each group."""
        return [Run(part.first_lsn, len(part.lengths), part.segment_id, part.offset) for part in self._parts]

    @property
    def durable(self) -> bool:
        """True if they are on stable storage."""
        return self._durable

    @property
    def sync_us(self) -> int:
        """Microseconds that the write and sync of their group took; 0 for Relaxed."""
        return self._sync_us

    def __len__(self) -> int:
        return sum(len(part.lengths) for part in self._parts)

    def __iter__(self) -> Iterator[AppendResult]:
        for lsn, segment_id, offset, lengths in self._parts:
            at = offset
            for index, length in enumerate(lengths):
                yield AppendResult(lsn + index, segment_id, at, length, self._durable, self._sync_us)
                at += length

    @overload
    def __getitem__(self, index: int) -> AppendResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[AppendResult]: ...
    def __getitem__(self, index: int | slice) -> AppendResult | list[AppendResult]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        lsn = self._parts[0].first_lsn + range(len(self))[index] if self._parts else range(0)[index]
        part = self._parts[bisect_right(self._parts, lsn, key=lambda each: each.first_lsn) - 1]
        position = lsn - part.first_lsn
        at = part.offset + sum(part.lengths[:position])
        return AppendResult(lsn, part.segment_id, at, part.lengths[position], self._durable, self._sync_us)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # a sequence of values, like a list

    def __repr__(self) -> str:
        if not self._parts:
            return "BatchResult()"
        first = self._parts[0].first_lsn
        return f"BatchResult(lsn={first}..{first + len(self) - 1}, durable={self._durable})"
