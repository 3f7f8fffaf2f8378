"""Coverage-guided fuzzing of the protocol with atheris: `python -m tests.service.fuzz reader|before|after [--runs N]`.

reader   any bytes into a FrameReader: frames or ProtocolError, nothing else, and no list over the limit.
before   any bytes into a server's connection that has not said HELLO: at worst GOODBYE, and no effect on the log.
after    the same after HELLO: whatever happens ends with the connection, and what it held is given back.

An input's first byte chooses whether what follows is taken as it is or put into frames with right lengths, so that mutations
reach what is behind the length. A failure is an exception; libFuzzer then writes the input to a file, which is an argument
that replays it. Needs `pip install atheris`.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["walsvc.service", "walsvc.log.commit.producers", "walsvc.format.producers"]):
    from walsvc.config import WalConfig
    from walsvc.disk.sim import SimDevice, SimDisk
    from walsvc.errors import ProtocolError
    from walsvc.opening import open_on
    from walsvc.service.server.connection import Connection
    from walsvc.service.server.limits import Limits
    from walsvc.service.server.server import Server
    from walsvc.service.wire.frames import FIRST, FROM_CLIENT, FROM_SERVER, MAGIC, Hello
    from walsvc.service.wire.protocol import FrameReader, encode

from .test_protocol import EXAMPLES

GROWTH_BYTES_MAX = 512 << 20  # of resident memory over a whole run
LIMITS = Limits(frame_bytes=98304, pending_bytes=65536, streams=8)
HELLO = encode(Hello(0, MAGIC, 1, 1, None, None, "fuzz", 7, {}))


def stream_of(data: bytes) -> bytes:
    """The bytes that an input stands for."""
    if not data or data[0] < 128:
        return data[1:]
    pieces, rest = [], data[1:]
    while rest:  # a length in one byte or two, and as much of a body
        length = rest[0] if rest[0] < 250 else 256 + rest[0] * 16
        body, rest = rest[1 : 1 + length], rest[1 + length :]
        pieces.append(struct.pack("<I", len(body)) + body)
    return b"".join(pieces)


def read(data: bytes) -> None:
    """One input for a FrameReader."""
    stream = stream_of(data)
    for table in (FIRST, FROM_CLIENT, FROM_SERVER):
        reader = FrameReader(table, 65536)
        try:
            for at in range(0, len(stream), 50):
                reader.receive(stream[at : at + 50])
                while (frame := reader.next_frame()) is not None:
                    encode(frame)
        except ProtocolError:
            pass


class Nowhere(asyncio.Transport):
    """Takes what is written and never sends."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    close = abort

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Served:
    """A server without sockets over a simulated disk, whose connections are fed by hand."""

    def __init__(self, *, welcomed: bool) -> None:
        self._welcomed = welcomed
        self._loop = asyncio.new_event_loop()
        self._trouble: list[str] = []
        self._loop.set_exception_handler(lambda _, context: self._trouble.append(str(context)))
        self.server = self._loop.run_until_complete(self._start())
        self._inputs = 0

    async def _start(self) -> Server:
        async def opened(config: WalConfig) -> Any:
            return await open_on(SimDisk(SimDevice(1)), config)

        config = WalConfig(segment_bytes=65536, max_group_bytes=16384, retain_bytes=65536)
        with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
            server = Server(place, unix=f"{place}/s", config=config, limits=LIMITS, opener=opened)
            await server.start()
        return server

    def feed(self, data: bytes) -> None:
        """One input for a connection."""
        self._inputs += 1
        if self._inputs % 2000 == 0:  # a log that was sealed or cut says little to what follows
            self._loop.run_until_complete(self.server.stop())
            self.server = self._loop.run_until_complete(self._start())
        self._loop.run_until_complete(self._feed(stream_of(data)))
        if self._trouble or self.server.status().rejected.get("internal"):
            raise AssertionError(self._trouble or "an unexpected error in a request")

    async def _feed(self, stream: bytes) -> None:
        server = self.server
        before = server.logs[""].next_lsn
        connection = Connection(server.shared)
        connection.connection_made(Nowhere())
        if self._welcomed:
            connection.data_received(HELLO)
        for at in range(0, len(stream), 200):
            connection.data_received(stream[at : at + 200])
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        if not self._welcomed and connection.log is None:
            assert server.logs[""].next_lsn == before, "an effect before HELLO"
        connection.connection_lost(None)
        await server.shared.closing.done()
        for _ in range(200):
            if not server.status().pending_bytes:
                break
            await asyncio.sleep(0.001)
        assert server.status().pending_bytes == 0, "bytes are charged to nobody"
        assert server.status().connections == 0
        assert all(each.users == 1 for each in server.logs_by_name._opened.values())


def main() -> None:
    """Run libFuzzer; what is behind `--` goes to it."""
    logging.getLogger("walsvc.service").setLevel(logging.CRITICAL)
    what, runs = sys.argv[1], 1_000_000
    rest = sys.argv[2:]
    if rest[:1] == ["--runs"]:
        runs, rest = int(rest[1]), rest[2:]
    target = read if what == "reader" else Served(welcomed=what == "after").feed
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        target(data)
        if count == runs:
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
            print(f"{what}: {count} inputs, {grown / 2**20:.0f} MiB more memory")
            assert grown < GROWTH_BYTES_MAX

    with tempfile.TemporaryDirectory(prefix="walsvc-corpus-") as corpus:
        for name, frame in EXAMPLES.items():
            body = encode(frame)[4:]
            Path(corpus, name).write_bytes(b"\x00" + encode(frame))
            Path(corpus, f"{name}-body").write_bytes(b"\xff" + bytes([min(len(body), 249)]) + body)
        atheris.Setup([sys.argv[0], f"-runs={runs}", "-max_len=2048", "-rss_limit_mb=2048", corpus, *rest], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
