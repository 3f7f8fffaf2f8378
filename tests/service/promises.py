"""The promises of the service, measured at its socket: a server process with default limits, and clients that go wrong beside good ones.

    python -m tests.service.promises             all of them, in about three minutes
    python -m tests.service.promises 3 6         some of them

Each prints a line: what was asked, and what the server gives. The suite has a test for each; this shows the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import socket as sockets
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import walsvc
from tests.service import promises_of_clients as of_clients
from tests.service.certificates import certificates
from tests.service.memory import MIB, Peak, cost, resident_bytes
from tests.service.promises_of_clients import free_port, raw, server
from tests.service.raw import Raw
from walsvc.service.wire.frames import Ack, Append, Batch, Call, Error, Open, Ping, Pong, Result, Welcome
from walsvc.service.wire.protocol import encode

READ_TOKEN = "r" * 16
TOKENS = f'[[token]]\nname = "r"\ntoken = "{READ_TOKEN}"\nrights = ["read"]\n'


async def welcomed(path: Path, token: str | None = None) -> Raw:
    """A client that is welcome."""
    made = await raw(path, token)
    await made.expect(Welcome)
    return made


class Waits:
    """The longest that another client waits for an answer to PING: it is behind every step of the server's loop."""

    def __init__(self) -> None:
        self.longest = 0.0

    @contextlib.asynccontextmanager
    async def beside(self, path: Path) -> AsyncIterator[None]:
        """Ask again and again while the block runs."""
        asking = await welcomed(path)

        async def ask() -> None:
            while True:
                began = time.monotonic()
                asking.send(Ping(1))
                await asking.expect(Pong)
                self.longest = max(self.longest, time.monotonic() - began)
                await asyncio.sleep(0.002)

        task = asyncio.create_task(ask())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await asking.close()


async def appends(path: Path, count: int) -> float:
    """The longest of some appends of a client, in seconds."""
    longest = 0.0
    async with walsvc.open(f"unix://{path}", open_seconds=30.0) as log:
        for _ in range(count):
            began = time.monotonic()
            await log.append(b"good")
            longest = max(longest, time.monotonic() - began)
    return longest


async def announced(place: Path) -> str:
    """1. Seven connections send a length of 64 MiB and nothing else: an append of another client took 100 s."""
    async with server(place) as (_, path):
        made = [await welcomed(path) for _ in range(7)]
        for each in made:
            each.writer.write(struct.pack("<I", 64 * MIB))
        longest = await appends(path, 20)
        for each in made:
            await each.close()
    return f"the longest of 20 appends takes {longest * 1000:.0f} ms"


async def unread(place: Path) -> str:
    """2. 1,000 CALLs of topics in 15 kB, never read: +1.0 GB; 250 streams with 1 byte of credit on 4 MiB: +2.6 GB."""
    calls, _ = await cost("calls", 1)
    streams, _ = await cost("streams", 1)
    return f"+{calls / MIB:.0f} MiB, and +{streams / MIB:.0f} MiB for twice 250 streams"


async def empties(place: Path) -> str:
    """3. Batch parts of 8,192 empty payloads, without end: 24.6 M were held; 17 MB of empty appends blocked the loop for 601 ms."""
    waits, held, appended = Waits(), Peak(), Waits()
    async with server(place) as (pid, path):
        before = resident_bytes(pid)
        watching = asyncio.create_task(held.watch(pid))
        async with waits.beside(path):
            client, sent, answer = await welcomed(path), 0, None
            part = encode(Batch(1, 0, 0, 0, 0, None, 1, False, [b""] * 8192))
            for number in range(3000):
                client.send(Batch(1, 0, 0, 0, 0, None, number, False, [b""] * 8192))
                sent += len(part)
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(0.001):
                        while not isinstance(answer := await client.next(), Error) and answer is not None:
                            pass
                        break
            await client.close()
        watching.cancel()
        said = answer.code if isinstance(answer, Error) else "the end of the connection"
        async with appended.beside(path):
            client, total = await welcomed(path), 0
            frames = [Append(id, 0, 0, 0, 0, None, 0, b"", [b""] * 8192) for id in range(1, 1041)]
            for first in range(0, len(frames), 8):
                client.send(*frames[first : first + 8])
                total += sum(len(encode(each)) for each in frames[first : first + 8])
                for _ in range(8):
                    await client.expect(Ack)
            await client.close()
    return (
        f"{said} after {sent / 1e6:.1f} MB, +{(held.bytes - before) / MIB:.0f} MiB, others wait {waits.longest * 1000:.0f} ms at most; "
        f"beside {total / 1e6:.0f} MB of empty appends {appended.longest * 1000:.0f} ms"
    )


def silent(count: int, connect: Callable[[sockets.socket], None], family: int) -> list[sockets.socket]:
    """Clients that say nothing; those that the server does not let in are left waiting."""
    made = []
    for _ in range(count):
        client = sockets.socket(family)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connect(client)
        made.append(client)
    return made


async def descriptors(place: Path) -> str:
    """6. 1,020 connections without HELLO under ulimit -n 1024 ended the log; 300 silent TLS clients were held by connections=10."""
    files = certificates()
    port = free_port()
    (place / "few").mkdir()
    async with server(place) as (pid, path):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 1024))
        clients = silent(1020, lambda client: client.connect(str(path)), sockets.AF_UNIX)
        await asyncio.sleep(1.0)
        longest = await appends(path, 20)
        count = len(await asyncio.to_thread(os.listdir, f"/proc/{pid}/fd"))
        for each in clients:
            each.close()
    tls = ("--listen", f"127.0.0.1:{port}", "--tls-cert", files.server_cert, "--tls-key", files.server_key)
    async with server(place / "few", *tls, "--set", "connections=10") as (pid, path):
        idle = len(await asyncio.to_thread(os.listdir, f"/proc/{pid}/fd"))
        clients = silent(300, lambda client: client.connect(("127.0.0.1", port)), sockets.AF_INET)
        await asyncio.sleep(2.0)
        held = len(await asyncio.to_thread(os.listdir, f"/proc/{pid}/fd")) - idle
        async with walsvc.open(f"wals://127.0.0.1:{port}", ca=files.ca, open_seconds=30.0) as log:
            lsn = (await log.append(b"good")).lsn
        for each in clients:
            each.close()
    return (
        f"{count} descriptors are open, the longest of 20 appends takes {longest * 1000:.0f} ms; {held} of 300 TLS clients are held, "
        f"and a good one gets LSN {lsn}"
    )


def disk_bytes(place: Path) -> int:
    """Of all files that are there, as they are."""
    return sum(each.stat().st_size for each in place.rglob("*") if each.is_file())


async def rights(place: Path) -> str:
    """7. A read token released the archive's hold, made 10,000 holds (161 MiB written), and namespaces on disk."""
    (place / "tokens").write_text(TOKENS)
    (place / "tokens").chmod(0o600)
    (place / "log").mkdir()
    async with walsvc.open(place / "log" / "a") as log:
        await log.append(b"x")
        await log.hold("archive", 1)
    async with server(place, "--token-file", str(place / "tokens"), "--namespaces") as (_, path):
        client = await raw(path, READ_TOKEN, "a")
        await client.expect(Welcome)
        before = disk_bytes(place / "log")
        refused = 0
        for id in range(1, 10_001, 500):
            client.send(*(Call(id + each, "hold", {"name": f"h{id + each}", "lsn": 1}) for each in range(500)))
            refused += [(await client.expect(Error)).code for _ in range(500)].count("Denied")
        client.send(Call(20_000, "release", {"name": "archive"}), Open(20_001, "consumer", {"name": "c"}, 1))
        others = [(await client.expect(Error)).code for _ in range(2)]
        await client.close()
        stranger = await raw(path, READ_TOKEN, "new")
        await stranger.ended()
        made = (place / "log" / "new").exists()
        written = disk_bytes(place / "log") - before
    return f"{refused} of 10,000 holds are Denied, release and consumer {others}, {written} bytes written, namespace made: {made}"


async def opened_at_once(place: Path) -> str:
    """8. streams=2 admitted 50 consumers sent in one write."""
    async with server(place, "--set", "streams=2") as (_, path):
        client = await welcomed(path)
        client.send(*(Open(id, "consumer", {"name": str(id)}, 1) for id in range(1, 51)))
        answers: list[Any] = []
        while len(answers) < 50:
            if isinstance(frame := await client.next(), Error | Result):
                answers.append(frame)
        await client.close()
    admitted = sum(isinstance(each, Result) for each in answers)
    return f"{admitted} are admitted, {sum(isinstance(each, Error) and each.code == 'Backpressure' for each in answers)} get Backpressure"


PROMISES: dict[int, Callable[[Path], Awaitable[str]]] = {
    1: announced,
    2: unread,
    3: empties,
    4: of_clients.order,
    5: of_clients.hangups,
    6: descriptors,
    7: rights,
    8: opened_at_once,
    9: of_clients.handshake,
    10: of_clients.manifest,
    11: of_clients.reloaded,
    12: of_clients.told,
    13: of_clients.over_limit,
}


async def promise(number: int) -> None:
    """Measure one, and print its line."""
    measure = PROMISES[number]
    with tempfile.TemporaryDirectory(prefix="walsvc-") as directory:
        found = await measure(Path(directory))
    print(f"{(measure.__doc__ or '').split(chr(10))[0]}\n    -> {found}", flush=True)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, default=sorted(PROMISES), metavar="NUMBER")
    logging.getLogger("walsvc").setLevel(logging.CRITICAL)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    for number in parser.parse_args().numbers:
        asyncio.run(promise(number))
    return 0


if __name__ == "__main__":
    sys.exit(main())
