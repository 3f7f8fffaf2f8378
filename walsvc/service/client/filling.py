"""The frame that is being filled with appends of the same labels."""

from __future__ import annotations

from typing import Any

from walsvc.service.client.labels import PLAIN, FrameLabels, Unsent
from walsvc.service.client.limits import Limits


class Filling:
    """Its records. The fast path of an append adds to it by itself.

    Attributes:
        payloads, waiters: of its records, and who is told of each; not for changing by others but the fast path.
        labels: of all its records; PLAIN while it has none.
        size: bytes of its payloads and their attributes, with APPEND_COST for each record.
    """

    __slots__ = ("_limits", "labels", "payloads", "size", "waiters")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.empty()

    def empty(self) -> None:
        """Begin the next frame."""
        self.payloads: list[bytes] = []
        self.waiters: list[Any] = []
        self.labels: FrameLabels = PLAIN
        self.size: int = 0

    @property
    def full(self) -> bool:
        """True if it takes no record more."""
        return len(self.payloads) >= self._limits.items_max

    def joins(self, entry: Unsent) -> bool:
        """True if an append can be in it, behind what it has."""
        return (
            bool(self.payloads)
            and not self.full
            and self.size + entry.size <= self._limits.append_bytes_max
            and (entry.labels is self.labels or entry.labels == self.labels)
            and not entry.labels.alone
        )

    def add(self, entry: Unsent) -> None:
        """Take an append: the first one, or one that joins."""
        assert entry.payload is not None
        if not self.payloads:
            self.labels = entry.labels
        self.payloads.append(entry.payload)
        self.waiters.append(entry.future)
        self.size += entry.size
