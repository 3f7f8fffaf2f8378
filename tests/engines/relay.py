"""Relays: the network between a program and servers, to be cut and mended."""

from __future__ import annotations

import asyncio
import contextlib


class Relay:
    """Forwards connections on a port of its own to a server on loopback, as long as the network is whole.

    Attributes:
        port: where to connect instead.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._refusing = False
        self.port = 0

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut(refuse=True)
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):  # the end of the relay, which nobody else cancels
            if self._refusing:
                writer.transport.abort()
                return
            await self._whole.wait()
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, ours}
            try:
                await asyncio.gather(self._forward(reader, ours), self._forward(theirs, writer))
            finally:
                self._writers -= {writer, ours}
        writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def cut(self, *, refuse: bool) -> None:
        """Lose the network: every connection breaks and new ones are refused, or nothing arrives any more and nobody is told."""
        if refuse:
            self._refusing = True
            for writer in list(self._writers):
                writer.transport.abort()
        else:
            self._whole.clear()

    def mend(self) -> None:
        """Have the network back. What was held up arrives now."""
        self._refusing = False
        self._whole.set()
