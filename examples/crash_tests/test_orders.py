"""Crash tests of orders.py: pytest test_orders.py. The fixture `power_cuts` comes with walsvc."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp.test_utils import TestClient, TestServer
from orders import SNAPSHOT, Orders, application

from walsvc.testing import Disk, PowerCuts


class Hasty(Orders):
    """Orders with a bug: an event that has its place in the log before the snapshot, but no answer yet, is not in the snapshot,
    and is forgotten as if it were."""

    async def snapshot(self) -> None:
        taken = await self.log.append(json.dumps([self.through, self.books]).encode(), type=SNAPSHOT)
        await self.log.truncate_before(taken.lsn)


def shop(kind: type[Orders]) -> Callable[[Disk], Awaitable[None]]:
    """A program: three customers and somebody who asks for a snapshot, all at the server at once."""

    async def program(disk: Disk) -> None:
        async with TestClient(TestServer(application(disk, kind))) as client:

            async def customer(name: str) -> None:
                for number in range(3):
                    order = {"id": f"{name}{number}", "books": number}
                    async with client.post("/orders", json=order) as answer:
                        if answer.status == 200:
                            disk.witness.append(
                                order["id"]
                            )  # the customer has read it: a power cut cannot take that back

            async def janitor() -> None:
                await asyncio.sleep(disk.random.random() / 1000)  # the disk takes a tenth of a millisecond for a write
                async with client.post("/snapshot"):
                    pass

            await asyncio.gather(customer("a"), customer("b"), customer("c"), janitor())

    return program


async def check(disk: Disk) -> None:
    """What the customers were told is there after the power cut."""
    orders = await Orders.open(disk)
    missing = set(disk.witness) - set(orders.books)
    await orders.log.close()
    assert not missing


def test_no_order_is_lost_that_a_customer_was_told_is_stored(power_cuts: PowerCuts) -> None:
    explored = power_cuts(shop(Orders), check, lives=2, faults=["submit.sync"])
    assert explored.checks > 50


@pytest.mark.xfail(strict=True, reason="the bug is planted: see Hasty")
def test_a_hasty_snapshot(power_cuts: PowerCuts) -> None:
    power_cuts(shop(Hasty), check)
