"""The client's account of what is not answered: what was accepted, and what was sent on this connection."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from walsvc.service.client.account import Account


class Plain(Account):
    """An account of requests that nobody waits for."""

    def _set_room(self) -> None: ...
    def _settled(self) -> None: ...
    def _expire(self) -> None: ...


async def test_what_the_server_gives_no_credit_for_waits() -> None:
    limits = {"record_bytes": 100, "append_bytes": 100, "items": 8, "requests": 2}
    session: Any = SimpleNamespace(
        loop=asyncio.get_running_loop(),
        order=SimpleNamespace(send_on=lambda: None),
        limits=limits,
        address=SimpleNamespace(url=""),
    )
    account = Plain(session)
    account.credit.size = account.accepted.size = 100
    large, small, third = (SimpleNamespace(seq=0, size=size, counted=False) for size in (90, 20, 1))
    for request in (large, small, third):
        request.seq = account.new_seq(request)
    assert account.has_credit(large)
    account.count(large)
    assert not account.has_credit(small), "110 of 100 bytes"
    account.answered(large)
    account.count(small)
    account.count(third)
    assert not account.has_credit(SimpleNamespace(size=1, counted=False)), "three of two requests"
