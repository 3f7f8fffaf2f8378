"""A wire between client and server that can lose what it carries, and break."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.service.simulated import SMALL, Devices
from walsvc.config import WalConfig
from walsvc.service.server.server import Server, serve

QUICK: dict[str, Any] = {"backoff_seconds": 0.001, "backoff_max_seconds": 0.01}  # a client that tries again at once


async def payloads(log: Any) -> list[bytes]:
    return [record.payload async for record in log.read()]


class Wire:
    """Forwards both ways between a Unix socket of its own and that of the server, as long as it is told to.

    Attributes:
        url: what a client opens.
        deaf: answers of the server do not arrive.
        mute: what the client says does not arrive.
        refusing: new connections are ended at once.
        limits: bytes to the server and to the client after which a connection breaks, once; None: never.
        carried: bytes to the server and to the client so far.
        connections: how many there were.
    """

    def __init__(self, place: Path) -> None:
        self.url = f"unix://{place / 'wire'}"
        self.deaf = self.mute = self.refusing = False
        self.connections = 0
        self.limits: list[int | None] = [None, None]
        self.carried = [0, 0]
        self._target = str(place / "server")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.refusing:
                raise ConnectionRefusedError
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for way, (source, sink) in enumerate(((reader, back), (there, writer))):
            task = asyncio.ensure_future(self._carry(source, sink, way))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: int) -> None:
        try:
            while data := await source.read(1 << 16):
                if self.mute if way == 0 else self.deaf:
                    continue
                limit = self.limits[way]
                if limit is not None and self.carried[way] + len(data) >= limit:
                    self.limits[way] = None
                    sink.write(data[: limit - self.carried[way]])
                    await sink.drain()
                    self.cut()
                    break
                self.carried[way] += len(data)
                sink.write(data)
        except OSError:
            pass
        sink.close()

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.close()  # what was passed on before still arrives
        self._writers.clear()

    async def close(self) -> None:
        """Break all connections and wait until nothing runs."""
        self.cut()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


class Place:
    """A log on a simulated device, a server that can be ended and begun again, and a wire to it."""

    def __init__(self, wire: Wire, directory: Path, config: WalConfig, options: dict[str, Any]) -> None:
        self.wire = wire
        self.devices = Devices()
        self._directory = directory
        self._config = config
        self._options = options
        self._context: Any = None
        self.server: Server

    @property
    def log(self) -> Any:
        """The server's log."""
        return self.server.logs[""]

    async def start(self, **options: Any) -> None:
        """Begin to serve."""
        self._context = serve(
            self._directory,
            unix=self._directory / "server",
            config=self._config,
            opener=self.devices.open,
            **{**self._options, **options},
        )
        self.server = await self._context.__aenter__()

    async def stop(self) -> None:
        """End in order."""
        context, self._context = self._context, None
        if context is not None:
            await context.__aexit__(None, None, None)

    async def crash(self) -> None:
        """What a kill and a power cut leave: the device as it is on stable storage, and clients that hear nothing more."""
        self.wire.deaf = True
        device = self.devices[""].fork().crash()
        self.wire.cut()
        await self.stop()
        self.devices.devices[""] = device
        self.wire.deaf = False


@asynccontextmanager
async def placed(config: WalConfig = SMALL, **options: Any) -> AsyncIterator[Place]:
    """A Place whose server runs; what is left running is ended."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as name:
        wire = Wire(Path(name))
        listener = await asyncio.start_unix_server(wire._accept, wire.url.removeprefix("unix://"))
        place = Place(wire, Path(name), config, options)
        await place.start()
        try:
            yield place
        finally:
            listener.close()
            await wire.close()
            await place.stop()
            await listener.wait_closed()
