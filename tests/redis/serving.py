"""A Redis side over simulated disks, and clients that speak to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.service.simulated import Devices, serving
from walsvc.service.fronts.redis.listening import listen
from walsvc.service.fronts.redis.replies import encode
from walsvc.service.server.server import Server

GONE = b"gone"


class Talk:
    """One connection, which says commands and returns answers as they are on the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, *words: str | bytes | int) -> None:
        """Send a command."""
        self.send(encode([str(word) if isinstance(word, int) else word for word in words], 2))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    async def hear(self) -> Any:
        """The next answer as a value: errors as text that begins with `-`; GONE: there is none."""
        line = await self._reader.readline()
        if not line:
            return GONE
        kind, rest = line[:1], line[1:-2]
        if kind in (b"+", b"-"):
            return (line[:-2] if kind == b"-" else rest).decode()
        if kind == b":":
            return int(rest)
        if kind == b"_" or rest == b"-1":
            return None
        if kind in (b"$", b"="):
            return (await self._reader.readexactly(int(rest) + 2))[:-2]
        assert kind in (b"*", b"%"), line
        if kind == b"%":
            return {await self.hear(): await self.hear() for _ in range(int(rest))}
        return [await self.hear() for _ in range(int(rest))]

    async def __call__(self, *words: str | bytes | int) -> Any:
        self.say(*words)
        return await self.hear()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@asynccontextmanager
async def side(place: Path, devices: Devices | None = None, **options: Any) -> AsyncIterator[Server]:
    """A server whose logs are on simulated devices, which answers Redis's clients on a Unix socket."""
    async with serving(place, devices, **options) as server:
        await listen(server, str(place / "r"))
        yield server


@asynccontextmanager
async def talking(place: Path, socket: str = "r") -> AsyncIterator[Talk]:
    """A connection to that side, or to another socket in the directory."""
    talk = Talk(*await asyncio.open_unix_connection(place / socket))
    try:
        yield talk
    finally:
        talk.close()


async def turns(count: int = 20) -> None:
    """Let others run."""
    for _ in range(count):
        await asyncio.sleep(0)
