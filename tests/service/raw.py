"""A client of frames and nothing else, which may say what no good client says."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from walsvc.service.server.server import Server
from walsvc.service.wire.frames import FROM_SERVER, MAGIC, VERSION, Append, Frame, Hello, Welcome
from walsvc.service.wire.protocol import FrameReader, encode

F = TypeVar("F")
WAIT_SECONDS = 60


class Raw:
    """A connection; everything that comes is kept until it is asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._frames = FrameReader(FROM_SERVER)
        self._seen: list[Frame] = []

    @classmethod
    async def to(cls, server: Server, **options: Any) -> Raw:
        """Connect, without HELLO."""
        url = server.addresses[0]
        if url.startswith("unix://"):
            return cls(*await asyncio.open_unix_connection(url.removeprefix("unix://"), **options))
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, **options))

    @classmethod
    async def welcomed(
        cls, server: Server, token: str | None = None, namespace: str | None = None, producer: int = 0
    ) -> Raw:
        """Connect and be welcomed."""
        raw = await cls.to(server)
        raw.hello(token, namespace, producer)
        await raw.expect(Welcome)
        return raw

    def hello(self, token: str | None = None, namespace: str | None = None, producer: int = 0) -> None:
        """Send a good HELLO."""
        self.send(Hello(0, MAGIC, VERSION, VERSION, token, namespace, "raw", producer, {}))

    def send(self, *frames: Frame) -> None:
        """Send frames in one write."""
        self.writer.write(b"".join(map(encode, frames)))

    def append(self, id: int, *payloads: bytes, **fields: Any) -> None:
        """Send an APPEND."""
        plain = Append(id, 0, 0, 0, 0, None, 0, b"", list(payloads))
        self.send(plain._replace(**fields))

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (frame := self._frames.next_frame()) is None:
                try:
                    data = await self._reader.read(1 << 16)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._frames.receive(data)
        return frame

    async def expect(self, kind: type[F], id: int | None = None) -> F:
        """The next frame of a kind (and id); what comes before it is thrown away."""
        while True:
            frame = await self.next()
            assert frame is not None, f"the connection has ended before a {kind.__name__}"
            if isinstance(frame, kind) and id in (None, frame.id):
                return frame

    async def ended(self) -> bool:
        """Whether the server closes the connection; frames before that are thrown away."""
        while await self.next() is not None:
            pass
        return True

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
