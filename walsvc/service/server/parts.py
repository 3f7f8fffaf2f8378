"""A batch whose parts are arriving."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from walsvc.config import between
from walsvc.errors import WalTimeout
from walsvc.log.commit.entries import Item, Packed, item_bytes
from walsvc.log.commit.payload import check_packed
from walsvc.log.commit.replicated import Replicated
from walsvc.service.server.limits import Limits
from walsvc.service.wire.columns import items_of
from walsvc.service.wire.frames import APPEND_COST, Batch


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
        self._arrived: asyncio.Future[None] | None = None

    def add(self, frame: Batch, size: int) -> None:
        """One more part, with records of `size` bytes in all."""
        self.following += 1
        self.last = frame.last
        self.items.extend(items_of(frame))
        self.bytes += size
        self.records += len(frame.payloads)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def source(self, limits: Limits, consumed: Callable[[int, int], None]) -> AsyncIterator[Item]:
        """The records as they arrive. `consumed` hears how many bytes and records were taken, often enough for the client to go on.

        Raises WalTimeout where the next part does not come: everybody waits for it. BadOption, RecordTooLarge: bad labels.
        """
        while True:
            taken = records = 0
            while self.items:
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
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    await self._arrived
            except TimeoutError:
                raise WalTimeout(
                    f"no part of the batch came for {limits.idle_seconds:g} s; nothing of it was kept",
                    hint="others wait while a batch is written: send its parts without a pause",
                ) from None


def check_labels(item: Item) -> None:
    """Raise BadOption or RecordTooLarge unless a record's labels are such as `append_batch` makes."""
    if isinstance(item, Packed):
        between("type", item.labels.type, 0, 0xFFFF)
        if length := item.labels.attributes_bytes:
            check_packed(item.piece[:length])
