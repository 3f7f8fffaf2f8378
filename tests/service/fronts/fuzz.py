"""Anything at all, sent to the HTTP front: it answers or ends the connection, holds nothing, and does nothing without a token.

python -m tests.service.fronts.fuzz 1000000 [SEED]
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.service.memory import resident_bytes
from tests.service.simulated import serving
from walsvc.service.fronts.http.routes import HttpFront
from walsvc.service.ops.doors import ServerAccess
from walsvc.service.ops.http import HttpSide
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.limits import Limits
from walsvc.service.wire.methods import RIGHTS

TOKEN = "t" * 16
PATHS = (
    *(
        "/v1/topics",
        "/v1/topics/t",
        "/v1/topics/t/1",
        "/v1/records",
        "/v1/records/2",
        "/v1/openapi.json",
        "/v1/consumers/c/lease",
    ),
    *(
        "/v1/topics/t/consumers/c/lease",
        "/v1/topics/t/consumers/c/ack",
        "/v1/topics/t/consumers/c/nak",
        "/v1/namespaces/n/topics/t",
    ),
    *(
        "/v1/topics/t/consumers/c/extend",
        "/v1/%ff",
        "/v1//",
        "/v1/topics/%2F%00",
        "/",
        "/metrics",
        "/status",
        "/v1/topics/" + "x" * 300,
    ),
)
QUERIES = (
    "",
    "?start=1",
    "?limit=3",
    "?start=-1",
    "?label.a=1&label.a=2",
    "?type=70000",
    "?since=x",
    "?mode=relaxed",
    "?mode=quorum",
    "?%00=1",
    "?not_before=2100-01-01",
    "?before=3",
    "?keep=-1",
    "?force=true",
    "?lsn=",
)
HEADERS = (
    *(
        b'If-Match: "1"',
        b"If-None-Match: *",
        b"Idempotency-Key: k",
        b"Idempotency-Key: " + b"k" * 2000,
        b'Walsvc-Labels: {"a": 1}',
        b"Walsvc-Labels: [",
        b"Accept: text/event-stream",
    ),
    *(
        b"Last-Event-ID: 1",
        b"Last-Event-ID: \xff",
        b"Content-Type: application/x-ndjson",
        b"Expect: 100-continue",
        b"Origin: http://evil",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
    ),
    *(
        b"Authorization: Basic xx",
        b"Authorization: Bearer wrong",
        b"Content-Length: 99999999999",
        b"Content-Length: -1",
        b"X: " + b"y" * 9000,
    ),
)
BODIES = (
    b"",
    b"x",
    b"{}",
    b"[",
    b'{"deliveries": ["1-1-x"]}',
    b'{"max_records": 1e99}',
    b"1\n2\n",
    b"\n\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"\x00" * 5000,
    b'{"wait": 0, "lease": 0.001}',
)


GOOD: tuple[tuple[str, str, bytes, bytes], ...] = (  # method, path, headers, body
    ("POST", "/v1/topics/t", b"", b"x"),
    ("POST", "/v1/topics/t?label.a=1&type=7", b"Idempotency-Key: k\r\n", b"{}"),
    ("POST", "/v1/topics/t?mode=relaxed", b'Walsvc-Labels: {"a": 1}\r\n', b"y" * 3000),
    ("POST", "/v1/records", b"Content-Type: application/x-ndjson\r\n", b"1\n2\n"),
    ("POST", "/v1/topics/g", b"Content-Encoding: gzip\r\n", gzip.compress(b"x" * 500)),
    ("POST", "/v1/topics/t", b'If-Match: "3"\r\n', b"x"),
    ("GET", "/v1/topics/t?start=1&limit=3", b"", b""),
    ("GET", "/v1/topics/t/1", b"", b""),
    ("GET", "/v1/topics/t?start=1", b"Accept: text/event-stream\r\n", b""),
    ("HEAD", "/v1/records", b"", b""),
    ("GET", "/v1/topics", b"", b""),
    ("POST", "/v1/topics/t/consumers/c/lease", b"", b'{"wait": 0, "lease": 0.01, "max_records": 2}'),
    ("POST", "/v1/topics/t/consumers/c/ack", b"", b'{"deliveries": ["1-1-x"]}'),
    ("POST", "/v1/consumers/d/lease", b"", b"{}"),
    ("GET", "/v1/openapi.json", b"", b""),
    ("POST", "/v1/topics/t/consumers/c/seek", b"", b'{"to": "first"}'),
    ("POST", "/v1/topics/t", b"Walsvc-Labels: " + b"[" * 5000 + b"\r\n", b"x"),
    ("DELETE", "/v1/topics/t/1", b"", b""),
    ("DELETE", "/v1/records/2", b'If-Match: "2"\r\n', b""),
    ("DELETE", "/v1/topics/g", b"", b""),
    ("DELETE", "/v1/topics/t?lsn=1&lsn=3", b"", b""),
    ("DELETE", "/v1/records?label.a=1", b"", b""),
    ("DELETE", "/v1/topics/t?keep=100", b"", b""),
    ("DELETE", "/v1/records?before=5&force=true", b"", b""),
    ("GET", "/metrics", b"", b""),
)


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and closes when it is told to."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.heard = bytearray()
        self._protocol = protocol
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: Any) -> None:
        self.heard += data

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


def request_of(rng: random.Random, *, token: bool) -> bytes:
    """One request, good or nearly, or with several things wrong, or damaged."""
    method, path, headers, body = rng.choice(GOOD)
    lines = [b"Host: 127.0.0.1"]
    if token:
        lines.append(b"Authorization: Bearer " + TOKEN.encode())
    if rng.random() < 0.5:
        if rng.random() < 0.3:
            method = rng.choice(("GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH"))
        if rng.random() < 0.4:
            path = rng.choice(PATHS) + rng.choice(QUERIES)
        lines += rng.sample(HEADERS, rng.choice((0, 1, 1, 2, 3)))
        body = rng.choice((body, body, rng.choice(BODIES)))
    if rng.random() < 0.9:
        lines.append(b"Content-Length: %d" % len(body))
    head = f"{method} {path} HTTP/1.1\r\n".encode("latin-1") + b"\r\n".join(lines) + b"\r\n" + headers + b"\r\n"
    data = bytearray(head + body)
    if rng.random() < 0.2:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


async def send(side: HttpSide, requests: list[bytes], rng: random.Random, *, patience: int = 40) -> tuple[bytes, int]:
    """One connection, on which these requests are sent in pieces; returns what was answered until it was hung up, `patience` turns of the loop
    behind the last piece of each, and how many could be sent."""
    assert side._server is not None
    protocol: Any = side._server()
    wire = Wire(protocol)
    protocol.connection_made(wire)
    sent = 0
    for request in requests:
        if wire.is_closing():
            break  # nobody reads them
        sent, data = sent + 1, request
        while data and not wire.is_closing():
            length = rng.choice((7, 100, len(data), len(data)))
            protocol.data_received(data[:length])
            data = data[length:]
            await asyncio.sleep(0)
        before = len(wire.heard)
        for _ in range(patience):
            if len(wire.heard) > before or wire.is_closing():
                break
            await asyncio.sleep(0)
    wire.close()
    await asyncio.sleep(0)
    return bytes(wire.heard), sent


def state_of(log: Any) -> tuple[object, ...]:
    """The state of a log, as far as a request may change it."""
    metadata = log.writer.core.metadata
    return log.first_lsn, log.next_lsn, log.topics(), metadata.hidden.count, dict(metadata.purges)


async def campaign(count: int, seed: int, directory: Path) -> dict[str, int]:
    """Send `count` requests, half of them without a token, to a server of their own; returns how many were answered by status, the records
    there are, the bytes that are still held, and by how many MiB the process grew behind the first tenth."""
    rng, statuses = random.Random(seed), dict[str, int]()
    unexpected: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    async with fronted(directory / "closed") as closed, fronted(directory / "open") as open:
        await closed.log.topic("t").append_batch([b"1", b"2", b"3"])
        before, grown, done = state_of(closed.log), 0, 0
        resident = list[int]()
        while done < count:
            for token, target in ((False, closed), (True, open)):
                heard = b""
                for _ in range(10):
                    requests = [request_of(rng, token=token) for _ in range(3)]
                    said, sent = await send(target.side, requests, rng)
                    heard += said
                    done += sent
                for status in re.findall(rb"HTTP/1.[01] (\d{3}) ", heard):
                    statuses[status.decode()] = statuses.get(status.decode(), 0) + 1
            assert state_of(closed.log) == before, f"seed {seed}: something was done without a token"
            if open.log.next_lsn - open.log.first_lsn > 500:  # a simulated disk holds its files in memory, too
                await open.log.truncate_before(open.log.next_lsn, force=True)
            assert not unexpected, f"seed {seed}: {unexpected}"
            if not grown and done >= count // 10:
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if done >= count * (len(resident) + 1) // 4:
                resident.append(resident_bytes(os.getpid()) >> 20)
                print("resident MiB by quarters", resident, flush=True)
        head = f"POST /v1/records HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1"
        heard, _ = await send(open.side, [f"{head}\r\n\r\nx".encode()], rng, patience=100_000)
        assert heard.startswith(b"HTTP/1.1 201"), f"seed {seed}: it does not work any more: {heard!r}"
        for each in (closed, open):
            await each.front.stop(10)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown
        return {
            "sent": done,
            **statuses,
            "records": open.log.next_lsn - 1,
            "held": closed.front.held_bytes + open.front.held_bytes,
            "grown": grown >> 10,
        }


class Target(NamedTuple):
    """A log, and the HTTP side and the front in front of it."""

    log: Any
    side: HttpSide
    front: HttpFront


@asynccontextmanager
async def fronted(directory: Path) -> AsyncIterator[Target]:
    """A server that asks for a token."""
    directory.mkdir()  # noqa: ASYNC240
    limits = Limits(frame_bytes=128 * 1024, idle_seconds=0.5)
    async with serving(directory, tokens=Tokens([(TOKEN, Grant("all", RIGHTS))]), limits=limits) as server:
        server.shared.denials.delay = lambda: 0.0  # type: ignore[method-assign]  # thousands of inputs have no token
        front = HttpFront(ServerAccess(server), limits)
        async with HttpSide(server, port=0, front=front, permits=lambda _: False, connections=1000) as side:
            yield Target(server.logs[""], side, front)


if __name__ == "__main__":
    began, inputs, first = time.monotonic(), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as where:
        print(asyncio.run(campaign(inputs, first, Path(where))), f"{time.monotonic() - began:.0f} s")
