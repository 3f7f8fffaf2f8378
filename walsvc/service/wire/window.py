"""Credit: how much one side may send before the other has taken it. Pure.

Whoever sends and whoever receives has a Window for each stream, and for the appends of a connection. As in h2's window manager
the receiver gives credit back in halves of the window: a frame for each record would cost more than the record.
"""

from __future__ import annotations


class Window:
    """The credit of one direction.

    Args:
        size: credit at the beginning, in bytes as they are counted there.

    Attributes:
        size: as given; may change while it is used.
        used: of it, by what was sent and is not taken.
        owed: what was taken, and of which the sender has not been told.
    """

    __slots__ = ("owed", "size", "used")

    def __init__(self, size: int = 0) -> None:
        self.size: int = size
        self.used: int = 0
        self.owed: int = 0

    @property
    def left(self) -> int:
        """Bytes that may be sent; 0 or less: none."""
        return self.size - self.used

    def fits(self, cost: int) -> bool:
        """True if this may be sent whole. Where nothing is under way anything may, or what is larger would never be sent."""
        return not self.used or self.used + cost <= self.size

    def take(self, cost: int) -> None:
        """So much is under way; below 0: so much less."""
        self.used += cost

    def give(self, cost: int) -> None:
        """So much was taken at the other end, or is void."""
        self.used -= cost

    def taken(self, cost: int) -> int:
        """The reader has taken so much; returns the credit that the sender is to be told of at once, 0 for none yet."""
        self.used -= cost
        self.owed += cost
        if self.owed * 2 < self.size:
            return 0
        granted, self.owed = self.owed, 0
        return granted

    def renewed(self) -> int:
        """The credit of a stream that begins in place of this one, whose reader has not taken all."""
        self.owed = 0
        return max(self.left, 1)
