"""Anything at all, sent to the HTTP front: it answers or ends the connection, holds nothing, and does nothing without a token.

python -m tests.service.fronts.fuzz 1000000 [SEED]
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from walsvc.config import WalConfig
from walsvc.service.fronts.http.routes import HttpFront
from walsvc.service.ops.doors import ServerAccess
from walsvc.service.ops.http import HttpSide
from walsvc.service.server import serve
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


def request_of(rng: random.Random, *, token: bool) -> bytes:
    """One request, more or less."""
    body = rng.choice(BODIES)
    lines = [
        f"{rng.choice(('GET', 'POST', 'POST', 'HEAD', 'PUT', 'OPTIONS'))} {rng.choice(PATHS)}{rng.choice(QUERIES)} HTTP/1.1".encode(
            "latin-1"
        )
    ]
    lines += [b"Host: 127.0.0.1"]
    if token:
        lines.append(b"Authorization: Bearer " + TOKEN.encode())
    lines += rng.sample(HEADERS, rng.choice((0, 0, 1, 2, 3)))
    if rng.random() < 0.8:
        lines.append(b"Content-Length: %d" % len(body))
    data = bytearray(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


async def send(port: int, data: bytes) -> None:
    """Send, take a first answer, and go away."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(data)
        async with asyncio.timeout(0.02):
            await reader.read(4096)
    writer.transport.abort()


async def campaign(count: int, seed: int, directory: Path) -> tuple[int, int]:
    """Send `count` requests, half of them without a token; returns the last LSN, and the bytes that are still held."""
    rng = random.Random(seed)
    tokens = Tokens([(TOKEN, Grant("all", RIGHTS))])
    limits = Limits(frame_bytes=128 * 1024, idle_seconds=0.5)
    async with serve(
        directory / "log", unix=directory / "s", tokens=tokens, limits=limits, config=WalConfig(segment_bytes=1 << 20)
    ) as server:
        front = HttpFront(ServerAccess(server), limits)
        async with HttpSide(server, port=0, front=front, permits=lambda _: False, connections=1000) as side:
            for _ in range(0, count, 50):
                before = server.logs[""].next_lsn
                await asyncio.gather(*(send(side.port, request_of(rng, token=False)) for _ in range(25)))
                assert server.logs[""].next_lsn == before, f"seed {seed}: something was appended without a token"
                await asyncio.gather(*(send(side.port, request_of(rng, token=True)) for _ in range(25)))
            reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
            writer.write(
                b"POST /v1/records HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 1\r\n\r\nx"
                % TOKEN.encode()
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 201"), f"seed {seed}: it does not work any more"
            writer.close()
            await front.stop(10)
            return server.logs[""].next_lsn - 1, front.held_bytes


if __name__ == "__main__":
    began, inputs, first = time.monotonic(), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as where:
        print(*asyncio.run(campaign(inputs, first, Path(where))), f"{time.monotonic() - began:.0f} s")
