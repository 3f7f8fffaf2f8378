"""A batch whose parts are arriving."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeGuard

from walsvc.config import between
from walsvc.errors import RecordTooLarge, WalError, WalTimeout
from walsvc.log.commit.batch_source import Cutter
from walsvc.log.commit.encoding import measure
from walsvc.log.commit.entries import Item, Packed, Pieces, packed
from walsvc.log.commit.payload import Bounds, check_packed
from walsvc.log.commit.replicated import Replicated
from walsvc.service.server.limits import Limits
from walsvc.service.server.progress import BYTES_PER_SECOND
from walsvc.service.wire.columns import items_of
from walsvc.service.wire.frames import RECORD_COST, Batch


class Parts:
    """The part of a batch that has come and was not taken by the log.

    Args:
        first: see below.
        replicated: see below.
        bounds: of the log.
        records_max: of a batch.

    Attributes:
        first: its first part, which says whose and where it is.
        following: number of the next part.
        items: what is here, by part, with its bytes.
        bytes, records: the same in all.
        last: nothing more comes.
        error: what is wrong with what has come; None: nothing.
        replicated: the replica that it waits for after the log; None: none.
        future: the log's answer, once the batch was given to it.
    """

    def __init__(self, first: Batch, replicated: Replicated | None, bounds: Bounds, records_max: int) -> None:
        self.first = first
        self.replicated = replicated
        self.following: int = 0
        self.items: deque[tuple[Sequence[Item], int]] = deque()
        self.bytes: int = 0
        self.records: int = 0
        self.last: bool = False
        self.error: WalError | None = None
        self.future: asyncio.Future[Any] | None = None
        self._bounds = bounds
        self._records_max = records_max
        self._size = 0  # of all that has come
        self._count = 0  # of records that have come
        self._arrived: asyncio.Future[None] | None = None

    @property
    def cost(self) -> int:
        """Bytes that are held for it."""
        return self.bytes + RECORD_COST * self.records

    def add(self, frame: Batch, size: int) -> None:
        """One more part, with records of `size` bytes in all."""
        self.following += 1
        self.last = frame.last
        items, count = items_of(frame), len(frame.payloads)
        if self.error is None:
            try:
                self._check(items, size)
            except WalError as error:
                self.error = error
        self.items.append((items, size))
        self.bytes += size
        self.records += count
        self._size += size
        self._count += count
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _check(self, items: Sequence[Item], size: int) -> None:
        """Raise what is wrong with one more part. RecordTooLarge for more records than `records_max`: empty records have no end of
        their own. BadOption, RecordTooLarge: bad labels."""
        bounds, most = self._bounds, self._records_max
        bounds.check_batch(self._size + size)
        if self._count + len(items) > most:
            raise RecordTooLarge(
                f"the batch has more than {most} records",
                hint="nothing of it was kept; split it, or start the server with a larger max_batch_bytes",
            )
        if plain(items):
            _, _, longest = measure(items)
            if longest <= bounds.record_bytes_max:
                return
        for index, item in enumerate(items, self._count):
            check_labels(packed(bounds, item, index))

    async def source(self, limits: Limits, consumed: Callable[[int, int], None]) -> AsyncIterator[Pieces]:
        """The records as they arrive, in pieces of a group each: those of one part in each turn of the loop. `consumed` hears how many
        bytes and records were taken, often enough for the client to go on.

        Raises WalTimeout where the next part does not come, or parts come so slowly that they only hold up the log: all others
        wait for them. What is wrong with the batch.
        """
        loop, waited, cut = asyncio.get_running_loop(), 0.0, Cutter(self._bounds, Pieces())
        while True:
            while self.items and self.error is None:
                items, size = self.items.popleft()
                for full in extended(cut, items, size):
                    yield full
                consumed(size, len(items))
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            if self.last:
                break
            self._arrived, began = loop.create_future(), loop.time()
            cost = self._size + RECORD_COST * self._count
            left = limits.idle_seconds + cost / BYTES_PER_SECOND - waited
            try:
                async with asyncio.timeout(min(limits.idle_seconds, left)):
                    await self._arrived
            except TimeoutError:
                waited += loop.time() - began
                raise WalTimeout(
                    f"the next part of the batch did not come, for which others have waited {waited:.1f} s; nothing of it was kept",
                    hint="others wait while a batch is written: send its parts without a pause",
                ) from None
            waited += loop.time() - began
        if len(cut.open):
            yield cut.open

    def whole(self) -> Pieces:
        """All that is here."""
        pieces = Pieces()
        for items, _ in self.items:
            pieces.extend(items)
        return pieces


def plain(items: Sequence[Item]) -> TypeGuard[list[bytes]]:
    """True if no record has labels."""
    return isinstance(items, list) and set(map(type, items)) <= {bytes}


def extended(cut: Cutter, items: Sequence[Item], size: int) -> Iterator[Pieces]:
    """Add the records of a part; the pieces that are complete."""
    if plain(items):
        yield from cut.extend(items, size)
        return
    for item in items:
        if (full := cut.add(item)) is not None:
            yield full


def check_labels(item: Item) -> None:
    """Raise BadOption or RecordTooLarge unless a record's labels are such as `append_batch` makes."""
    if isinstance(item, Packed):
        between("type", item.labels.type, 0, 0xFFFF)
        if length := item.labels.attributes_bytes:
            check_packed(item.piece[:length])
