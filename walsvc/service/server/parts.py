"""A batch whose parts are arriving."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from walsvc.config import between
from walsvc.errors import RecordTooLarge, WalTimeout
from walsvc.log.commit.entries import Item, Packed, item_bytes
from walsvc.log.commit.payload import check_packed
from walsvc.log.commit.replicated import Replicated
from walsvc.service.server.limits import Limits
from walsvc.service.server.progress import BYTES_PER_SECOND
from walsvc.service.wire.columns import items_of
from walsvc.service.wire.frames import APPEND_COST, RECORD_COST, Batch


class Parts:
    """The part of a batch that has come and was not taken by the log.

    Attributes:
        first: its first part, which says whose and where it is.
        following: number of the next part.
        items, bytes, records: what is here.
        last: nothing more comes.
        replicated: the replica that it waits for after the log; None: none.
        future: the log's answer, once the batch was given to it.
    """

    def __init__(self, first: Batch, replicated: Replicated | None) -> None:
        self.first = first
        self.replicated = replicated
        self.following: int = 0
        self.items: deque[Item] = deque()
        self.bytes: int = 0
        self.records: int = 0
        self.last: bool = False
        self.future: asyncio.Future[Any] | None = None
        self._cost = 0  # of all that has come
        self._count = 0  # of records that have come
        self._arrived: asyncio.Future[None] | None = None

    def add(self, frame: Batch, size: int) -> None:
        """One more part, with records of `size` bytes in all."""
        self.following += 1
        self.last = frame.last
        self.items.extend(items_of(frame))
        self.bytes += size
        self.records += len(frame.payloads)
        self._count += len(frame.payloads)
        self._cost += size + RECORD_COST * len(frame.payloads)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def source(
        self, limits: Limits, records_max: int, consumed: Callable[[int, int], None]
    ) -> AsyncIterator[Item]:
        """The records as they arrive. `consumed` hears how many bytes and records were taken, often enough for the client to go on.

        Raises WalTimeout where the next part does not come, or parts come so slowly that they only hold up the log: all others
        wait for them. RecordTooLarge for more than `records_max`: empty records have no end of their own. BadOption, RecordTooLarge: bad
        labels.
        """
        loop, waited = asyncio.get_running_loop(), 0.0
        while True:
            taken = records = 0
            while self.items:
                if self._count > records_max:
                    raise RecordTooLarge(
                        f"the batch has more than {records_max} records",
                        hint="nothing of it was kept; split it, or start the server with a larger max_batch_bytes",
                    )
                item = self.items.popleft()
                taken += item_bytes(item)
                records += 1
                check_labels(item)
                yield item
                if not self.items or taken + APPEND_COST * records >= limits.pending_bytes // 4:
                    consumed(taken, records)
                    taken = records = 0
            if self.last:
                return
            self._arrived, began = loop.create_future(), loop.time()
            left = limits.idle_seconds + self._cost / BYTES_PER_SECOND - waited
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


def check_labels(item: Item) -> None:
    """Raise BadOption or RecordTooLarge unless a record's labels are such as `append_batch` makes."""
    if isinstance(item, Packed):
        between("type", item.labels.type, 0, 0xFFFF)
        if length := item.labels.attributes_bytes:
            check_packed(item.piece[:length])
