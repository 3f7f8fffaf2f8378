"""Shown: the LSNs of records that were delivered and are not acknowledged. Pure.

Kept as ranges of LSNs that follow each other, 16 bytes each: a consumer of the whole log, or of a topic that has most of it, that never
acknowledges costs the same however much it reads.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

COMPACTED = 1024  # ranges at the head that are over are removed together


class Shown:
    """LSNs in ascending order."""

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._lasts = array("Q")
        self._head = 0  # ranges before this one are over

    def __bool__(self) -> bool:
        return self._head < len(self._firsts)

    def __contains__(self, lsn: int) -> bool:
        place = bisect_right(self._firsts, lsn, self._head) - 1
        return place >= self._head and lsn <= self._lasts[place]

    @property
    def first(self) -> int:
        """The lowest; there is one."""
        return self._firsts[self._head]

    @property
    def last(self) -> int:
        """The highest; there is one."""
        return self._lasts[-1]

    @property
    def second(self) -> int | None:
        """The lowest but one; None: there is none."""
        first = self._firsts[self._head]
        if first < self._lasts[self._head]:
            return first + 1
        return self._firsts[self._head + 1] if self._head + 1 < len(self._firsts) else None

    def up_to(self, lsn: int) -> int:
        """How many there are up to this LSN."""
        count = 0
        for place in range(self._head, bisect_right(self._firsts, lsn, self._head)):
            count += min(self._lasts[place], lsn) - self._firsts[place] + 1
        return count

    def show(self, lsn: int) -> None:
        """Add one, unless it is there, or below one that is."""
        if not self:
            self.clear()
        elif lsn <= self._lasts[-1]:
            return
        elif lsn == self._lasts[-1] + 1:
            self._lasts[-1] = lsn
            return
        self._firsts.append(lsn)
        self._lasts.append(lsn)

    def remove(self, lsn: int) -> None:
        """Take one away that is there."""
        place = bisect_right(self._firsts, lsn, self._head) - 1
        first, last = self._firsts[place], self._lasts[place]
        if first == last:
            del self._firsts[place], self._lasts[place]
        elif lsn == first:
            self._firsts[place] = lsn + 1
        else:
            self._lasts[place] = lsn - 1
            if lsn < last:
                self._firsts.insert(place + 1, lsn + 1)
                self._lasts.insert(place + 1, last)

    def drop_below(self, lsn: int) -> None:
        """Take all away below an LSN."""
        self._head = bisect_left(self._lasts, lsn, self._head)
        if self and self.first < lsn:
            self._firsts[self._head] = lsn
        if self._head >= COMPACTED and self._head * 2 >= len(self._firsts):
            del self._firsts[: self._head], self._lasts[: self._head]
            self._head = 0

    def drop_above(self, lsn: int) -> None:
        """Take all away above an LSN."""
        end = bisect_right(self._firsts, lsn, self._head)
        del self._firsts[end:], self._lasts[end:]
        if self and self.last > lsn:
            self._lasts[-1] = lsn

    def clear(self) -> None:
        """Take all away."""
        del self._firsts[:], self._lasts[:]
        self._head = 0
