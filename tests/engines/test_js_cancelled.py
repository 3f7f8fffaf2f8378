"""Whoever cancels a wait for nats-py is heard, though nats-py makes an answer or an error of the cancellation: on CPython 3.11
asyncio.wait_for does that where both come in one turn, and a closed connection does it always. The client of these tests does it each
time."""

from __future__ import annotations

import asyncio
import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from nats.errors import ConnectionClosedError

from tests.waiting import until
from walsvc import PathError, WalTimeout
from walsvc.engines.jetstream import checks
from walsvc.engines.jetstream.connect import server_name
from walsvc.engines.jetstream.message import Kind, Message, encode_message
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url
from walsvc.engines.jetstream.publish import Publisher
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import claim, take_over

ADDRESS = parse_url("nats://h:4222/log")
DATA, _ = encode_message(Message(Kind.REMOVE, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, b""))
ANSWER = {
    "message": {"data": base64.b64encode(DATA).decode()},
    "state": {"first_seq": 1, "last_seq": 1},
    "server": {"name": "n1"},
}


class Deaf:
    """Answers when it is cancelled, and not before; after a few times it hears, so that no test hangs."""

    max_payload = 1 << 20

    def __init__(self) -> None:
        self.asked = 0

    async def _cancelled(self) -> None:
        self.asked += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.asked > 8:
                raise

    async def request(self, *_: Any, **__: Any) -> Any:
        await self._cancelled()
        return SimpleNamespace(data=json.dumps(ANSWER).encode(), headers=None)

    async def subscribe(self, *_: Any, **__: Any) -> Any:
        async def nothing() -> None:
            return

        return SimpleNamespace(next_msg=self._next, unsubscribe=nothing)

    async def _next(self, **_: Any) -> Any:
        await self._cancelled()
        raise ConnectionClosedError

    async def publish(self, *_: Any, **__: Any) -> None:
        return

    async def close(self) -> None:
        return

    def new_inbox(self) -> str:
        return "_INBOX.x"


async def settle(client: Any, stream: Stream) -> None:
    """A message whose acknowledgement does not come."""
    publisher = Publisher(stream, stream_id=1, epoch=1, base=1, last=0, last_crc=0)
    publisher.put(Message(Kind.REMOVE, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, b""), lambda _: None)
    publisher._in_flight.append(publisher._queue.popleft())
    await publisher._settle()


async def scan(client: Any, stream: Stream) -> None:
    async for _ in stream.scan(1, 2):
        pass


async def claim_places(client: Any, stream: Stream) -> None:
    stream.stream_id = 1
    await claim(stream, 3)


async def ended(task: asyncio.Task[Any]) -> None:
    """Let it end by itself; it must not go on behind the test in any case."""
    await asyncio.wait([task], timeout=20)
    by_itself = task.done()
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.01)
    assert by_itself


WAITS = {
    "a request": lambda client, stream: stream.extent(),
    "a message": lambda client, stream: stream.message(1),
    "a batch of messages": scan,
    "claims": claim_places,
    "what became of a message": settle,
    "a server's name": lambda client, stream: server_name(client),
    "what servers say of themselves": lambda client, stream: checks.ask_system(
        ADDRESS, JetStreamOptions(system_user="sys", system_password="sys")
    ),
}


@pytest.mark.parametrize("wait", WAITS)
async def test_cancelled_wait_for_the_servers_ends_though_the_client_swallows_it(wait, monkeypatch):
    client: Any = Deaf()

    async def connected(*_: Any, **__: Any) -> Any:
        return client

    monkeypatch.setattr(checks, "connect", connected)
    stream = Stream(client, ADDRESS, JetStreamOptions(timeout=30))
    waiting = asyncio.ensure_future(WAITS[wait](client, stream))
    await until(lambda: client.asked, 0)
    waiting.cancel()
    await ended(waiting)
    assert waiting.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing of it goes on"


async def test_taking_a_stream_over_ends_in_time_though_each_cancellation_is_swallowed():
    client: Any = Deaf()
    stream = Stream(client, ADDRESS, JetStreamOptions(timeout=30))
    stream.timeout = 0.05
    taking = asyncio.ensure_future(take_over(stream))
    await ended(taking)
    assert isinstance(taking.exception(), (WalTimeout, PathError))
    assert client.asked
