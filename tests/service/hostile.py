"""Clients that go wrong in every way that the service has to bear, beside good ones: what these wait for an append.

    python -m tests.service.hostile --connections 1000 --hostile 100 --seconds 3 --turns 3

For each way there are pairs of turns on one server: the good clients by themselves, once it has ended what hostile ones had left, then with
hostile ones beside them. Good clients append a record now and then; the 99th percentile of what they wait must stay within FACTOR of what it
is without hostile ones, over all turns together, so that other work on the machine meets both sides.
Hostile clients are in a process of their own, with less of the processor than the others, since they stand for other machines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import walsvc
from tests.service.campaign import READY, process
from tests.service.raw import Raw
from walsvc.service.wire.frames import Append, Batch, Call, Error, Frame, Open, Ping, Result, Welcome
from walsvc.service.wire.protocol import encode

MIB = 1 << 20
FACTOR = 2.0
GOOD, READER, STRANGER = "good" * 8, "read" * 8, "none" * 8
TOKENS = f"""
[[token]]
name = "good"
token = "{GOOD}"
rights = ["append", "read", "consume", "admin"]
[[token]]
name = "reader"
token = "{READER}"
rights = ["read"]
"""
PERIOD_SECONDS = 1.0  # between two appends of a good client
Way = Callable[[str, int], Awaitable[None]]


# ---- hostile clients: each of these is one client, which is begun again when it has ended


async def raw(socket: str, *, token: str = GOOD, namespace: str | None = None, reads: bool = True) -> Raw:
    """A client that is welcome."""
    made = Raw(*await asyncio.open_unix_connection(socket))
    made.hello(token, namespace)
    await made.expect(Welcome)
    if not reads:
        made.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return made


async def stay(made: Raw) -> None:
    """Take whatever comes until the server ends the connection."""
    while await made.next() is not None:
        pass


async def wait_for_end(made: Raw) -> None:
    """Read nothing, and say a word now and then, until the server ends the connection."""
    while not made.writer.transport.is_closing():
        await asyncio.sleep(0.2)
        made.send(Ping(0))


async def lengths(socket: str, number: int) -> None:
    """Announces 64 MiB and sends nothing of it (1)."""
    made = await raw(socket)
    made.writer.write(struct.pack("<I", 64 * MIB))
    await stay(made)


async def calls(socket: str, number: int) -> None:
    """1,000 CALLs of topics, never read (2)."""
    made = await raw(socket, reads=False)
    made.writer.write(CALLS)
    await wait_for_end(made)


async def streams(socket: str, number: int) -> None:
    """250 reads with a byte of credit each on large records (2)."""
    made = await raw(socket)
    made.writer.write(STREAMS)
    await stay(made)


async def unread(socket: str, number: int) -> None:
    """A read of everything and a follower with credit without end, never read (2)."""
    made = await raw(socket, reads=False)
    made.send(Open(1, "read", {}, 1 << 40), Open(2, "follow", {}, 1 << 40))
    await wait_for_end(made)


async def pings(socket: str, number: int) -> None:
    """60,000 PINGs whose PONGs nobody reads (2)."""
    made = await raw(socket, reads=False)
    made.writer.write(PINGS)
    await wait_for_end(made)


async def parts(socket: str, number: int) -> None:
    """Parts of a batch of 8,192 empty payloads each, without end (3)."""
    made = await raw(socket)
    for part in itertools.count():
        made.send(Batch(1, 0, 0, 0, 0, None, part, False, [b""] * 8192))
        await made.writer.drain()


async def empties(socket: str, number: int) -> None:
    """Appends of one empty record each, as fast as they can, with as many under way as the server lets it have (3)."""
    made = await raw(socket)
    while True:
        made.writer.write(EMPTIES)
        await made.expect(Frame, 512)  # type: ignore[arg-type]  # any frame


async def cuts(socket: str, number: int) -> None:
    """A batch in parts and an append behind it, and hangs up in the middle (4)."""
    made = await raw(socket)
    made.send(*(Batch(1, 0, 0, 0, 0, None, part, False, [bytes(10_000)]) for part in range(3)))
    made.append(2, b"behind it")
    made.writer.transport.abort()


async def hangups(socket: str, number: int) -> None:
    """Is welcomed and hangs up, again and again (5)."""
    made = await raw(socket)
    made.writer.transport.abort()


async def silent(socket: str, number: int) -> None:
    """Connects and never says HELLO (6)."""
    await stay(Raw(*await asyncio.open_unix_connection(socket)))


async def denied(socket: str, number: int) -> None:
    """With the right to read it asks for holds, releases, and namespaces that there are not (7)."""
    made = await raw(socket, token=READER)
    for id in itertools.count(1, 3):
        made.send(
            Call(id, "hold", {"name": f"{number}.{id}", "lsn": 1}),
            Call(id + 1, "release", {"name": "archive"}),
            Open(id + 2, "consumer", {"name": f"{number}.{id}"}, 1),
        )
        await made.expect(Error, id + 2)
        other = Raw(*await asyncio.open_unix_connection(socket))
        other.hello(READER, f"none-{number}")
        await other.ended()
        await other.close()


async def consumers(socket: str, number: int) -> None:
    """300 consumers in one write, again and again (8)."""
    made = await raw(socket)
    for round in itertools.count():
        first = 1 + 300 * round
        made.send(
            *(
                Open(id, "consumer", {"name": f"{number}.{id % 300}", "start": "next"}, 1)
                for id in range(first, first + 300)
            )
        )
        while not isinstance(answer := await made.next(), Error | Result) or answer.id != first + 299:
            assert answer is not None
        await asyncio.sleep(0.5)


async def namespaces(socket: str, number: int) -> None:
    """Opens one of three namespaces after the other (9)."""
    for turn in itertools.count(number):
        made = await raw(socket, namespace=f"n{turn % 3}-{number % 10}")
        made.append(1, b"there")
        await made.expect(Frame, 1)  # type: ignore[arg-type]
        await made.close()


async def strangers(socket: str, number: int) -> None:
    """A token that nobody knows, again and again (11)."""
    made = Raw(*await asyncio.open_unix_connection(socket))
    made.hello(STRANGER)
    await made.ended()
    await made.close()


async def oversized(socket: str, number: int) -> None:
    """A frame over the limit, and more requests than may be unanswered (13)."""
    made = await raw(socket)
    made.writer.write(struct.pack("<I", (1 << 30) - 1) + bytes(1000))
    await made.ended()
    await made.close()
    made = await raw(socket)
    made.writer.write(APPENDS)
    await made.ended()
    await made.close()


# made once: a hostile client costs this machine little, as if it were another one
CALLS = b"".join(encode(Call(id, "topics", {})) for id in range(1, 1001))
STREAMS = b"".join(encode(Open(id, "read", {}, 1)) for id in range(1, 251))
EMPTIES = b"".join(encode(Append(id, 0, 0, 0, 1, None, 0, b"", [b""])) for id in range(1, 513))
APPENDS = b"".join(encode(Append(id, 0, 0, 0, 0, None, 0, b"", [b""])) for id in range(1, 1200))
PINGS = b"".join(encode(Ping(1)) for _ in range(60_000))
WAYS: dict[str, Way] = {
    each.__name__: each
    for each in (
        *(lengths, calls, streams, unread, pings, parts, empties, cuts, hangups, silent, denied, consumers),
        *(namespaces, strangers, oversized),
    )
}


async def go_wrong(way: Way, socket: str, number: int) -> None:
    """Be one hostile client, for good."""
    while True:
        with contextlib.suppress(OSError, TimeoutError, AssertionError, EOFError):
            await way(socket, number)
        await asyncio.sleep(0.01)


async def hostile(name: str, socket: str, count: int) -> None:
    """Run them until standard input ends."""
    os.nice(5)
    tasks = [asyncio.create_task(go_wrong(WAYS[name], socket, number)) for number in range(count)]
    await asyncio.sleep(0.5)
    say_ready()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    os._exit(0)  # without a word: the server has to bear that, too


# ---- good clients


def say_ready() -> None:
    """For the parent."""
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()


async def wait(log: Any, first: float, seconds: float) -> list[int]:
    """Append now and then, from `first` on; returns the microseconds that each took."""
    loop, waited = asyncio.get_running_loop(), []
    end = loop.time() + seconds
    await asyncio.sleep(first)
    while (began := loop.time()) < end:
        await log.append(b"good")
        waited.append(round((loop.time() - began) * 1e6))
        await asyncio.sleep(PERIOD_SECONDS)
    return waited


async def good(socket: str, count: int) -> None:
    """Run good clients; each line of standard input is a number of seconds, which is answered with what they waited, in us."""
    os.environ["WALSVC_TOKEN"] = GOOD
    loop = asyncio.get_running_loop()
    logs: list[Any] = []
    for _ in range(count):
        logs.append(await walsvc.open(f"unix://{socket}", open_seconds=30.0))
    say_ready()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        turns = (wait(log, PERIOD_SECONDS * number / count, float(line)) for number, log in enumerate(logs))
        print(json.dumps(sorted(itertools.chain(*await asyncio.gather(*turns)))), flush=True)


# ---- the parent


@contextlib.asynccontextmanager
async def served(place: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server over a log with some records of 4 MiB and 2,000 topics."""
    async with walsvc.open(place / "log") as log:
        for _ in range(6):
            await log.append(bytes(4 * MIB))
        await asyncio.gather(*(log.topic(f"{number:0200}").append(b"") for number in range(2000)))
    (place / "tokens").write_text(TOKENS)
    (place / "tokens").chmod(0o600)
    arguments = ("-m", "walsvc.cli", "serve", "--data", str(place / "log"), "--unix", str(place / "socket"))
    devnull = asyncio.subprocess.DEVNULL
    async with process(
        *arguments,
        "--token-file",
        str(place / "tokens"),
        "--namespaces",
        "--set",
        "max_batch_bytes=4194304",
        stdin=devnull,
        stdout=devnull,
        stderr=devnull,
    ) as server:
        yield server


@contextlib.asynccontextmanager
async def clients(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of clients that are there."""
    pipe = asyncio.subprocess.PIPE
    async with process("-m", "tests.service.hostile", *arguments, stdin=pipe, stdout=pipe, limit=1 << 26) as made:
        assert made.stdout is not None
        assert await made.stdout.readline() == READY
        yield made


async def measured(made: asyncio.subprocess.Process, seconds: float) -> list[int]:
    """What the good clients wait, in us, sorted."""
    assert made.stdin is not None
    assert made.stdout is not None
    made.stdin.write(f"{seconds}\n".encode())
    found: list[int] = json.loads(await made.stdout.readline())
    return found


def row(waited: list[int]) -> str:
    """For people."""
    p50, p99 = (waited[int(len(waited) * part)] / 1000 for part in (0.5, 0.99))
    return f"{p50:6.1f} {p99:7.1f} {waited[-1] / 1000:7.1f} ms of {len(waited)}"


def spent(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def quiet(pid: int) -> None:
    """Wait until the server has ended all that the hostile clients of the last turn have left; they are gone."""
    before = -1.0
    for _ in range(100):
        if (now := spent(pid)) - before < 0.02:
            return
        before = now
        await asyncio.sleep(0.25)


async def campaign(ways: list[str], connections: int, bad: int, *, seconds: float, turns: int) -> bool:
    """All of it; True where every bound holds."""
    fine = True
    with tempfile.TemporaryDirectory(prefix="walsvc-") as directory:
        socket = str(Path(directory) / "socket")
        async with (
            served(Path(directory)) as server,
            clients("--good", socket, str(connections - bad)) as waiting,
        ):
            for name in ways:
                alone, beside = list[int](), list[int]()
                for _ in range(turns):
                    await quiet(server.pid)
                    alone += await measured(waiting, seconds)
                    async with clients("--bad", name, socket, str(bad)):
                        beside += await measured(waiting, seconds)
                alone.sort()
                beside.sort()
                ratio = beside[int(len(beside) * 0.99)] / alone[int(len(alone) * 0.99)]
                fine &= ratio <= FACTOR
                print(f"{name:10} alone {row(alone)}, beside {row(beside)}: p99 {ratio:.2f} x", flush=True)
    return fine


def main() -> int:
    """Command line; 1 where a bound is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--hostile", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3, help="of each kind")
    parser.add_argument("--good", nargs=2, metavar=("SOCKET", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--bad", nargs=3, metavar=("WAY", "SOCKET", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("ways", nargs="*", default=list(WAYS))
    options = parser.parse_args()
    if options.good:
        asyncio.run(good(options.good[0], int(options.good[1])))
        return 0
    if options.bad:
        asyncio.run(hostile(options.bad[0], options.bad[1], int(options.bad[2])))
        return 0
    fine = campaign(options.ways, options.connections, options.hostile, seconds=options.seconds, turns=options.turns)
    return 0 if asyncio.run(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
