"""The records of a batch: payloads and entries as callers give them, and what a group holds of them.

A record without labels is its payload, bytes of our own. Any other one is Packed. So a batch of plain bytes is looked at by its
lengths only. The index of a record that is refused is that of the caller's iterable, from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from walsvc.config import between
from walsvc.errors import RecordTooLarge, WalError
from walsvc.format.group import INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.log.commit.encoding import measure
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import PayloadBound, pack_attributes
from walsvc.model import Entry


class Packed(NamedTuple):
    """A record with labels: its attributes, encoded, and behind them its payload. The topic is not among these labels."""

    piece: bytes
    labels: Labels


Item = bytes | Packed


def item_bytes(item: Item) -> int:
    """Bytes of a record with its attributes."""
    return len(item.piece) if isinstance(item, Packed) else len(item)


class Pieces:
    """Records as a group holds them.

    Attributes:
        payloads: with the attributes in front.
        labels: of those that have some, by index.
    """

    __slots__ = ("labels", "payloads")

    def __init__(self, payloads: list[bytes] | None = None) -> None:
        self.payloads: list[bytes] = [] if payloads is None else payloads
        self.labels: dict[int, Labels] = {}

    def __len__(self) -> int:
        return len(self.payloads)

    def add(self, item: Item) -> None:
        """Append a record."""
        if isinstance(item, Packed):
            self.labels[len(self.payloads)] = item.labels
            self.payloads.append(item.piece)
        else:
            self.payloads.append(item)

    def extend(self, items: Iterable[Item]) -> None:
        """Append records."""
        for item in items:
            self.add(item)

    @property
    def size(self) -> int:
        """Bytes of payloads and attributes."""
        return sum(map(len, self.payloads))

    @property
    def longest(self) -> int:
        """Bytes of the longest payload, without its attributes."""
        if not self.labels:
            return max(map(len, self.payloads), default=0)
        own = self.labels
        return max(
            len(each) - own[at].attributes_bytes if at in own else len(each) for at, each in enumerate(self.payloads)
        )

    @property
    def index_bytes(self) -> int:
        """Bytes that each record takes in its group's index, at most."""
        return INDEX_BYTES_MAX if self.labels else LENGTH_BYTES

    def items(self) -> Iterator[Item]:
        """The records one by one."""
        for index, payload in enumerate(self.payloads):
            labels = self.labels.get(index)
            yield payload if labels is None else Packed(payload, labels)


def packed(bounds: PayloadBound, given: Any, index: int) -> Item:
    """A record as a group holds it. BadPayload, BadOption and RecordTooLarge name its index."""
    try:
        if isinstance(given, Packed):
            bounds.check_length(len(given.piece) - given.labels.attributes_bytes)
            return given
        if not isinstance(given, Entry):
            return bounds.checked(given)
        payload = bounds.checked(given.payload)
        between("type", given.type, 0, 0xFFFF)
        attributes = pack_attributes(given.attributes)
    except WalError as error:
        error.message = f"payloads[{index}]: {error.message}"
        error.args = (error.message,)
        raise
    if not given.type and not attributes:
        return payload
    return Packed(attributes + payload, Labels(given.type, 0, len(attributes)))


def gathered(bounds: PayloadBound, payloads: Iterable[Any]) -> tuple[Pieces, int]:
    """Records that are all in memory, and their bytes: plain bytes are checked without a line of Python for each."""
    given = list(payloads)
    try:
        _, size, longest = measure(given)
        bounds.check_length(longest)
    except (TypeError, RecordTooLarge):  # they are looked at one by one, and a bad one is named
        pieces = Pieces()
        for index, each in enumerate(given):
            pieces.add(packed(bounds, each, index))
        return pieces, pieces.size
    return Pieces(given), size
