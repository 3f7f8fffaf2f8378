"""A transactional outbox: an order and the message about it are stored together, or not at all, and the message is sent once.

    async with walsvc.open("shop/") as log:
        shop = Shop(log)
        await shop.place("4711", {"books": 3})

The usual outbox is a table beside the data, and a program that polls it. Here the order goes to one topic and its message to another
one in one transaction, which is one group of the log; the sender is a consumer, which wakes when there is something. It may send a
message again after a crash, so each has a key: the receiver drops what it has seen (`dedupe=`, an Idempotency-Key, a primary key).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import walsvc

Send = Callable[[str, bytes], Awaitable[object]]  # called with a message's key and its content


class Shop:
    """Takes orders, and tells others of them."""

    def __init__(self, log: walsvc.Log) -> None:
        self.log = log

    async def place(self, order: str, content: dict[str, Any]) -> int:
        """Store an order with its message; returns the order's LSN."""
        data = json.dumps({"id": order, **content}).encode()
        async with self.log.transaction() as both:
            both.append(data, topic="orders")
            both.append(b"ordered: " + data, topic="outbox")
        return both.results[0].lsn

    async def send_all(self, send: Send) -> None:
        """Send the messages, and go on with those that come. A message is done when `send` has returned."""
        async with await self.log.topic("outbox").consumer("sender") as outbox:
            async for message in outbox:  # asking for the next one acknowledges the one before
                await send(f"message-{message.lsn}", message.payload)
