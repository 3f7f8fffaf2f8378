"""The promises of the service to its clients, measured: the half of tests.service.promises that needs a wire which breaks, or a peer that lies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import signal
import socket as sockets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import walsvc
from tests.service.campaign import process
from tests.service.certificates import certificates
from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.service.test_reload import Identity, trusting, welcomed
from tests.service.wire import Wire
from walsvc.engines.archive import Archive
from walsvc.service.server import server as of_server
from walsvc.service.server.limits import Limits
from walsvc.service.wire.frames import Ack, Goodbye, Welcome
from walsvc.service.wire.protocol import encode

ONE, OTHER = certificates(), certificates("another authority")
PART = bytes(30_000)  # nine of them are more than one part of a batch


@contextlib.asynccontextmanager
async def server(place: Path, *arguments: str, unix: str = "server") -> AsyncIterator[tuple[int, Path]]:
    """A server process that listens: its number and its socket."""
    devnull, path = asyncio.subprocess.DEVNULL, place / unix
    started = ("-m", "walsvc.cli", "serve", "--data", str(place / "log"), "--unix", str(path), *arguments)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WALSVC_")}
    async with process(*started, stdin=devnull, stdout=devnull, stderr=devnull, env=environment) as made:
        while made.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()
                break
            await asyncio.sleep(0.02)
        yield made.pid, path


async def raw(path: Path, token: str | None = None, namespace: str | None = None) -> Raw:
    """A client that has said HELLO."""
    made = Raw(*await asyncio.open_unix_connection(str(path)))
    made.hello(token, namespace)
    return made


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with sockets.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class HangingUp(Wire):
    """A wire that may answer by itself.

    Attributes:
        welcome: what a new connection gets before it is ended; None: it is carried to the server.
    """

    welcome: bytes | None = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.welcome is None:
            await super()._accept(reader, writer)
            return
        self.connections += 1
        await reader.read(1000)
        writer.write(self.welcome)
        writer.close()


@contextlib.asynccontextmanager
async def wired(place: Path) -> AsyncIterator[HangingUp]:
    """A wire to the server whose socket is `server`."""
    wire = HangingUp(place)
    listener = await asyncio.start_unix_server(wire._accept, wire.url.removeprefix("unix://"))
    try:
        yield wire
    finally:
        listener.close()
        await wire.close()


async def order(place: Path) -> str:
    """4. A batch in parts, an append behind it, a cut before it arrived: the append got the lower LSN in 3 of 3 runs."""
    wrong, runs = 0, 20
    draw = random.Random(4)
    async with server(place), wired(place) as wire, walsvc.open(wire.url, backoff_seconds=0.01) as log:
        for _ in range(runs):
            wire.limits[0] = wire.carried[0] + draw.randrange(600_000)
            batch = log.append_batch([PART] * 20)
            behind = log.append(b"behind")
            results = await batch
            wrong += (await behind).lsn < results[-1].lsn
    return f"in {wrong} of {runs} runs, each cut at another byte"


async def hangups(place: Path) -> str:
    """5. A peer that welcomes and hangs up: 200 to 392 connections a second, 80 % of a core, no error with reconnect_seconds=20."""
    said = "no error"
    async with server(place) as (_, path), wired(place) as wire:
        client = await raw(path)
        welcome = encode(await client.expect(Welcome))
        await client.close()
        async with walsvc.open(wire.url, reconnect_seconds=20) as log:
            began, used, count = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF), wire.connections
            wire.welcome = welcome
            wire.cut()
            try:
                async with asyncio.timeout(60):
                    await log.append(b"never answered")
            except (walsvc.WalError, TimeoutError) as error:
                said = type(error).__name__
            seconds, spent = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
            wire.welcome = None
    cpu = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
    rate, share = (wire.connections - count) / seconds, 100 * cpu / seconds
    return f"{rate:.1f} connections a second, {share:.1f} % of a core, {said} after {seconds:.0f} s"


async def handshake(place: Path) -> str:
    """9. One slow close of a namespace delayed every timeout: a handshake limit of 0.4 s cut after 5.8 s."""
    limits = Limits(handshake_seconds=0.4, namespace_seconds=0.0)
    of_server.LOOK_SECONDS = 0.1
    async with serving(place, namespaces=True, limits=limits) as server:
        async with await Raw.welcomed(server, namespace="a"):
            closing, log = asyncio.Event(), server.logs["a"]
            close = log.close

            async def slow(timeout: float | None = None) -> None:
                closing.set()
                await asyncio.sleep(5.8) if timeout is None else await close(timeout)

            log.close = slow
        await closing.wait()
        began = time.monotonic()
        async with await Raw.to(server) as silent:
            await silent.expect(Goodbye)
        return f"{time.monotonic() - began:.2f} s, beside a close that takes 5.8 s"


async def manifest(place: Path) -> str:
    """10. A damaged manifest made `archive verify` crash with OverflowError or RecursionError."""
    async with walsvc.open(place / "log", segment_bytes=65536) as log:
        for _ in range(8):
            await log.append(bytes(30_000))
        await log.seal()
        await Archive.at(f"file://{place / 'archive'}").push(log)
    entry = min((place / "archive").glob("*/manifest/*"))
    good, found = entry.read_bytes(), []
    for bad in (b"[" * 100_000, good.replace(b'"generation": 1', b'"generation": 1e999'), good[:-20], b"\xff"):
        entry.write_bytes(bad)
        pipe = asyncio.subprocess.PIPE
        command = ("-m", "walsvc.cli", "archive", "verify", f"file://{place / 'archive'}")
        async with process(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe) as verify:
            out, errors = await verify.communicate()
        found.append((verify.returncode, b"Traceback" in out + errors))
    return f"exit codes {[code for code, _ in found]}, tracebacks {sum(crashed for _, crashed in found)}"


async def reloaded(place: Path) -> str:
    """11. Certificates and tokens needed a restart, and a client whose token was rotated a moment too late ended for good."""
    identity = Identity(place)
    port = free_port()
    files = ("--tls-cert", identity.cert, "--tls-key", identity.key, "--tls-client-ca", identity.ca)
    os.environ["WALSVC_TOKEN"] = "old-token-old-token"
    try:
        async with (
            server(place, "--listen", f"127.0.0.1:{port}", *files, "--token-file", identity.tokens) as (pid, _),
            wired(place) as wire,
            walsvc.open(wire.url, backoff_seconds=0.01, backoff_max_seconds=0.1) as log,
        ):
            old = Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting(ONE)))
            old.hello("old-token-old-token")
            await old.expect(Welcome)
            identity.put(OTHER, "new-token-new-token")
            os.kill(pid, signal.SIGHUP)
            began = time.monotonic()
            while not await welcomed(port, OTHER, "new-token-new-token"):
                await asyncio.sleep(0.02)
            taken = time.monotonic() - began
            before = (
                await welcomed(port, OTHER, "old-token-old-token"),
                await welcomed(port, ONE, "new-token-new-token"),
            )
            old.append(1, b"an old connection goes on")
            lsn = (await old.expect(Ack, 1)).parts[0][0]
            count = wire.connections
            wire.cut()
            late = asyncio.ensure_future(log.append(b"late"))
            while wire.connections < count + 3:
                await asyncio.sleep(0.02)
            os.environ["WALSVC_TOKEN"] = "new-token-new-token"
            got = (await late).lsn
            await old.close()
    finally:
        del os.environ["WALSVC_TOKEN"]
    return (
        f"both are in effect {taken:.2f} s after SIGHUP, old token or certificate then: {before}, an old connection goes on (LSN {lsn}), "
        f"a client with the old token tries again and appends LSN {got}"
    )


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def told(place: Path) -> str:
    """12. A client that lost its server waited in silence."""
    lines, calls, logger = Lines(), list[Any](), logging.getLogger("walsvc.client")
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        async with server(place), wired(place) as wire, walsvc.open(wire.url, backoff_seconds=0.01) as log:
            log.on_connection(calls.append)
            states = [log.connected]
            wire.refusing = True
            wire.cut()
            while log.connected or wire.connections < 4:
                await asyncio.sleep(0.01)
            states.append(log.connected)
            wire.refusing = False
            await log.append(b"x")
            states.append(log.connected)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)
    heard = [None if each is None else type(each).__name__ for each in calls]
    words = [line.split(": ", 1)[1].split(",")[0] for line in lines.lines]
    return f"log.connected {states}, callbacks {heard}, lines {words}"


async def over_limit(place: Path) -> str:
    """13. One over-limit frame after a restart closed the whole client with OutcomeUnknown."""
    less = ("--set", "frame_bytes=150000", "--set", "max_record_bytes=8192")
    async with wired(place) as wire, contextlib.AsyncExitStack() as stack:
        async with server(place) as (_, _):
            log = await walsvc.open(wire.url, backoff_seconds=0.01, backoff_max_seconds=0.1)
            stack.push_async_callback(log.close)
            wire.mute = True
            large = log.append(bytes(200_000))
            await asyncio.sleep(0)  # the appends of one turn of the loop share a frame
            small = log.append(b"small")
            await asyncio.sleep(0.1)
        wire.mute = False
        (place / "server").unlink(missing_ok=True)
        async with server(place, *less):
            wire.cut()
            found = await asyncio.gather(large, small, return_exceptions=True)
            after = await log.append(b"after")
            await log.close()
    said = [type(each).__name__ if isinstance(each, BaseException) else f"LSN {each.lsn}" for each in found]
    return f"the large append: {said[0]}, the one behind it: {said[1]}, a later one: LSN {after.lsn}"
