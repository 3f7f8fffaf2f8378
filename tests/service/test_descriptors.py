"""File descriptors: clients in a TLS handshake count, the log keeps some for itself, and a shortage ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.service.certificates import certificates
from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.service.test_serve_cli import appended, running
from tests.waiting import line_with, until
from walsvc.service.ops import few
from walsvc.service.ops.http import HttpSide
from walsvc.service.server import descriptors
from walsvc.service.server.entrance import AGAIN_SECONDS, SHORTAGES, Acceptor
from walsvc.service.server.limits import Limits
from walsvc.service.server.listeners import tls_context
from walsvc.service.server.roster import ENTERING_SPARE
from walsvc.service.wire.frames import Ack, Goodbye, Welcome

FILES = certificates()
TRUSTING = ssl.create_default_context(cafile=FILES.ca)


@contextlib.asynccontextmanager
async def silent_clients(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Clients that connect and say nothing."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield [reader for reader, _ in streams]
    finally:
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


async def hung_up(readers: list[asyncio.StreamReader], count: int) -> None:
    """Wait until so many have been hung up on; more must not be."""
    gone = [asyncio.ensure_future(reader.read(1)) for reader in readers]
    try:
        await until(lambda: sum(each.done() for each in gone) >= count)
        assert sum(each.done() for each in gone) == count
    finally:
        for each in gone:
            each.cancel()
        await asyncio.gather(*gone, return_exceptions=True)


async def test_silent_tls_clients_count_and_the_oldest_make_room(tmp_path) -> None:
    options = {"host": "127.0.0.1", "port": 0, "tls": tls_context(FILES.server_cert, FILES.server_key)}
    async with serving(tmp_path, limits=Limits(connections=10), **options) as server:
        async with silent_clients(server.port, 150) as readers:
            await hung_up(readers, 140)
            assert server.status().connections == 10
            async with await Raw.to(server, ssl=TRUSTING) as raw:
                raw.hello()
                await raw.expect(Welcome)
                raw.append(1, b"x")
                await raw.expect(Ack, 1)
            assert server.status().rejected["tls"] >= 141
        await until(lambda: server.status().connections == 0)


async def test_tls_client_of_a_full_server_is_told_so(tmp_path) -> None:
    options = {"host": "127.0.0.1", "port": 0, "tls": tls_context(FILES.server_cert, FILES.server_key)}
    async with (
        serving(tmp_path, limits=Limits(connections=1), **options) as server,
        await Raw.to(server, ssl=TRUSTING) as raw,
    ):
        raw.hello()
        await raw.expect(Welcome)
        async with await Raw.to(server, ssl=TRUSTING) as late:
            assert (await late.expect(Goodbye)).code == "Backpressure"
        async with silent_clients(server.port, ENTERING_SPARE + 5) as readers:
            await hung_up(readers, 5)
        raw.append(1, b"x")
        await raw.expect(Ack, 1)


async def test_silent_tls_clients_of_the_http_side_count(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(few, "CONNECTIONS_MAX", 4)
    tls = tls_context(FILES.server_cert, FILES.server_key)
    async with serving(tmp_path) as server, HttpSide(server, port=0, tls=tls, insecure=True) as side:
        async with silent_clients(side.port, 10) as readers:
            await hung_up(readers, 6)
        async with aiohttp.ClientSession(side.url) as session:

            async def answered() -> bool:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get("/livez", ssl=TRUSTING) as answer:
                        return answer.status == 200
                return False

            await until(answered)


class Short:
    """A listening socket that is short of something, once."""

    def __init__(self, number: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self._number: int | None = number
        self.port = self._listening.getsockname()[1]
        self.close = self._listening.close
        self.fileno = self._listening.fileno

    def accept(self) -> tuple[socket.socket, object]:
        number, self._number = self._number, None
        if number is not None:
            raise OSError(number, os.strerror(number))
        return self._listening.accept()


class Hello(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")  # type: ignore[attr-defined]
        transport.close()


@pytest.mark.parametrize("number", [*sorted(SHORTAGES), errno.ECONNABORTED, errno.EBADF])
async def test_accept_goes_on_after_a_shortage_and_says_what_has_ended_it(monkeypatch, number) -> None:
    monkeypatch.setattr("walsvc.service.server.entrance.AGAIN_SECONDS", 0.01)
    short = Short(number)
    acceptor = Acceptor(short, Hello, None, None, 1.0)  # type: ignore[arg-type]
    reader, writer = await asyncio.open_connection("127.0.0.1", short.port)
    if number == errno.EBADF:
        await until(lambda: acceptor.broken is not None)
    else:
        assert await reader.read() == b"hello"
        assert acceptor.broken is None
    writer.close()
    acceptor.close()
    acceptor.close()
    await until(lambda: not acceptor._tasks)


def test_soft_limit_is_raised_as_far_as_the_hard_one_allows(monkeypatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert descriptors.raise_limit(2000) == 2000
    assert descriptors.raise_limit(10_000) == 4096
    assert descriptors.raise_limit(100) == 4096, "never lower"
    assert limits[1:] == [(2000, 4096), (4096, 4096)]
    assert descriptors.for_clients(1) == 4096 - 192 - 16
    limits.append((128, 128))
    assert descriptors.for_clients(1) == 64
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.raise_limit(100) == 100
    assert descriptors.for_clients(1) > 1_000_000


@contextlib.contextmanager
def sockets(path: Path, count: int) -> Iterator[list[socket.socket]]:
    """Silent clients of a Unix socket."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
        for each in found:
            each.settimeout(60)
            each.connect(str(path))
        yield found


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_log_goes_on_while_silent_clients_want_all_descriptors(tmp_path, loop) -> None:
    path = tmp_path / "s"
    arguments = ("--data", str(tmp_path / "d"), "--unix", str(path), "--loop", loop, "--set", "segment_bytes=65536")
    with running(*arguments) as (process, _):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, 256))
        with sockets(path, 400):
            for number in range(1, 9):
                assert appended(path, bytes(30_000)) == number  # a segment for each two of them
            assert len(os.listdir(f"/proc/{process.pid}/fd")) < 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_server_without_a_free_descriptor_accepts_again_when_there_is_one(tmp_path, loop) -> None:
    path = tmp_path / "s"
    with running("--data", str(tmp_path / "d"), "--unix", str(path), "--loop", loop) as (process, _):
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{process.pid}/fd")), before[1]))
        with sockets(path, 16) as waiting:  # some are let in where a file is closed meanwhile
            line_with("no client is accepted", process.stderr)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            waiting[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"not HTTP" in waiting[0].recv(1000)
        assert appended(path, b"x") == 1
        assert AGAIN_SECONDS <= 1.0


def test_serve_raises_its_soft_limit(tmp_path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    try:
        with running("--data", str(tmp_path / "d"), "--unix", str(tmp_path / "s")) as (process, _):
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == min(
                descriptors.wanted(Limits().connections, Limits().open_namespaces), hard
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
