"""Orders over HTTP, kept as events in a log, with a snapshot now and then so that the log stays short.

    python orders.py data 8080       then: curl -d '{"id": "4711", "books": 3}' localhost:8080/orders

test_orders.py shows by power cuts that no order is lost which a client was told is stored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

from aiohttp import web

import walsvc

ORDER, SNAPSHOT = 0, 1


class Orders:
    """What was ordered, by the orders' ids. Its events and snapshots are in a log."""

    def __init__(self, log: walsvc.Log) -> None:
        self.log = log
        self.books: dict[str, int] = {}
        self.through = 0  # LSN of the last event that is in `books`

    @classmethod
    async def open(cls, target: Any) -> Self:
        """Take the newest snapshot, and the events that it does not contain."""
        orders = cls(await walsvc.open(target))
        records = [record async for record in orders.log.read()]
        for record in records:
            if record.type == SNAPSHOT:
                orders.through, orders.books = json.loads(record.payload)
        for record in records:
            if record.type == ORDER and record.lsn > orders.through:
                orders.apply(record.lsn, json.loads(record.payload))
        return orders

    def apply(self, lsn: int, order: dict[str, Any]) -> None:
        self.books[order["id"]] = order["books"]
        self.through = lsn

    async def place(self, order: dict[str, Any]) -> int:
        """Keep one order; it is stored when this returns."""
        stored = await self.log.append(json.dumps(order).encode(), type=ORDER)
        self.apply(stored.lsn, order)
        return stored.lsn

    async def snapshot(self) -> None:
        """Write down the state, and forget the events that are in it: not those that are under way."""
        through = self.through
        await self.log.append(json.dumps([through, self.books]).encode(), type=SNAPSHOT)
        await self.log.truncate_before(through + 1)


ORDERS = web.AppKey("orders", Orders)


def application(target: Any, kind: type[Orders] = Orders) -> web.Application:
    """The HTTP side. `target` is what walsvc.open takes: a directory, a URL, or the disk of a test."""

    async def opened(app: web.Application) -> AsyncIterator[None]:
        app[ORDERS] = await kind.open(target)
        yield
        await app[ORDERS].log.close()

    async def place(request: web.Request) -> web.Response:
        try:
            lsn = await request.app[ORDERS].place(await request.json())
        except walsvc.WalError as error:
            return web.json_response({"error": f"not stored: {error}"}, status=503)
        return web.json_response({"lsn": lsn})

    async def snapshot(request: web.Request) -> web.Response:
        await request.app[ORDERS].snapshot()
        return web.json_response({})

    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.add_routes([web.post("/orders", place), web.post("/snapshot", snapshot)])
    return app


if __name__ == "__main__":
    web.run_app(application(sys.argv[1]), port=int(sys.argv[2]))
