"""`python -m bench.asking ASKED`: one client process of a front, which has so many requests under way; see bench.fronts.

It asks for so many seconds, each connection again when it has its answer, and prints how many were answered.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any

from bench.environment import Argument, loop_factory

KEY = "s"
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Asked(Argument):
    """The work of one client process.

    Attributes:
        url: http://HOST:PORT/PATH, which is posted to; or unix://PATH of a server of Redis's protocol, to which redis-py adds.
        at_once: requests under way, each on a connection of its own.
        size: payload bytes of each.
        seconds: how long.
        loop: the event loop's module.
    """

    url: str
    at_once: int
    size: int
    seconds: float
    loop: str


class Poster(asyncio.Protocol):
    """One connection that posts, as cheaply as Python can, so that the server is measured and not its client."""

    def __init__(self, request: bytes, end: float, over: asyncio.Future[None]) -> None:
        self.answered = 0
        self._request = request
        self._end = end
        self.over: asyncio.Future[None] = over
        self._heard = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head = self._heard.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(self._heard)
        if length is None or not self._heard.startswith(b"HTTP/1.1 201 "):
            raise OSError(f"the server has answered {self._heard[:200]!r}")
        if len(self._heard) < head + 4 + int(length[1]):
            return
        self._heard = b""
        self.answered += 1
        if time.perf_counter() < self._end:
            self._transport.write(self._request)
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def over_http(asked: Asked) -> int:
    """Post on connections that are kept."""
    loop = asyncio.get_running_loop()
    host, _, path = asked.url.removeprefix("http://").partition("/")
    name, _, port = host.rpartition(":")
    request = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {asked.size}\r\n\r\n"
    posted, end = request.encode() + b"x" * asked.size, time.perf_counter() + asked.seconds
    posters = [Poster(posted, end, loop.create_future()) for _ in range(asked.at_once)]
    waiting = iter(posters)
    for _ in posters:
        await loop.create_connection(lambda: next(waiting), name, int(port))
    await asyncio.gather(*(each.over for each in posters))
    return sum(each.answered for each in posters)


async def with_redis_py(asked: Asked) -> int:
    """Add to a stream, with a task and a connection for each entry under way."""
    import redis.asyncio as redis

    clients = [redis.Redis.from_url(asked.url) for _ in range(asked.at_once)]
    await asyncio.gather(*(each.ping() for each in clients))
    end, fields = time.perf_counter() + asked.seconds, {"payload": b"x" * asked.size}

    async def add(client: Any) -> int:
        count = 0
        while time.perf_counter() < end:
            await client.xadd(KEY, fields)
            count += 1
        return count

    count = sum(await asyncio.gather(*map(add, clients)))
    await asyncio.gather(*(each.aclose() for each in clients))
    return count


if __name__ == "__main__":
    todo = Asked.given()
    with asyncio.Runner(loop_factory=loop_factory(todo.loop)) as runner:
        print(runner.run((over_http if todo.url.startswith("http:") else with_redis_py)(todo)))
