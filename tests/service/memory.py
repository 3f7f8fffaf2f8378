"""What clients that ask for much and read little cost a server process, in resident memory.

    python -m tests.service.memory --clients 200

Each attack has a server of its own, over a log with large records and many topics, and is measured from before its first byte until
the server has stood still for a moment. A bound is what the limits allow, and what a process may grow by besides.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import walsvc
from tests.service.campaign import start_server
from tests.service.raw import Raw
from walsvc.service.wire.frames import Call, Frame, Open, Ping, Records, Welcome

MIB = 1 << 20
BOUND_BYTES = (
    4 * 256 * MIB
)  # pending_total_bytes in, as much out, of which each byte may be there twice, and the rest of a process
QUIET_SECONDS = 1.5


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process is gone")


class Peak:
    """The highest resident memory of a process."""

    def __init__(self) -> None:
        self.bytes = 0

    async def watch(self, pid: int) -> None:
        """Look often, until it is cancelled."""
        while True:
            self.bytes = max(self.bytes, resident_bytes(pid))
            await asyncio.sleep(0.02)


async def settled(pid: int) -> None:
    """Wait until resident memory has not grown for QUIET_SECONDS."""
    most, since = resident_bytes(pid), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(0.05)
        if (now := resident_bytes(pid)) > most:
            most, since = now, time.monotonic()


async def raw(socket: Path, *frames: Frame, reads: bool) -> Raw:
    """A client that says this, and reads or does not."""
    made = Raw(*await asyncio.open_unix_connection(str(socket)))
    made.hello()
    await made.expect(Welcome)
    if not reads:
        made.writer.transport.pause_reading()  # type: ignore[attr-defined]
    made.send(*frames)
    return made


async def calls(socket: Path, clients: int) -> list[Raw]:
    """1,000 CALLs of topics in 15 kB, never read."""
    return [await raw(socket, *(Call(id, "topics", {}) for id in range(1, 1001)), reads=False)]


async def pings(socket: Path, clients: int) -> list[Raw]:
    """PINGs whose PONGs nobody reads, of each client."""
    return [await raw(socket, *(Ping(1) for _ in range(60_000)), reads=False) for _ in range(clients)]


async def streams(socket: Path, clients: int) -> list[Raw]:
    """250 reads with a byte of credit each on records of 4 MiB, by clients that take everything."""
    made = [await raw(socket, *(Open(id, "read", {}, 1) for id in range(1, 251)), reads=True) for _ in range(2)]
    for each in made:
        for _ in range(250):
            await each.expect(Records)
    return made


async def unread(socket: Path, clients: int) -> list[Raw]:
    """One read of records of 4 MiB with credit without end of each client, never read."""
    return [await raw(socket, Open(1, "read", {}, 1 << 40), reads=False) for _ in range(clients)]


async def followers(socket: Path, clients: int) -> list[Raw]:
    """Followers that read nothing, while 100 MiB are appended."""
    made = [await raw(socket, Open(1, "follow", {"start": 13}, 1 << 40), reads=False) for _ in range(clients)]
    async with walsvc.open(f"unix://{socket}") as log:
        for _ in range(100):
            await log.append_batch([bytes(10_000)] * 104)
    return made


ATTACKS: dict[str, Callable[[Path, int], Awaitable[list[Raw]]]] = {
    each.__name__: each for each in (calls, pings, streams, unread, followers)
}


@asynccontextmanager
async def served(place: Path) -> AsyncIterator[tuple[int, Path]]:
    """A server over a log with 12 records of 4 MiB and 2,000 topics."""
    async with walsvc.open(place / "log") as log:
        for _ in range(12):
            await log.append(bytes(4 * MIB))
        await asyncio.gather(*(log.topic(f"{number:0200}").append(b"") for number in range(2000)))
    server = await start_server(place / "log", place / "socket")
    try:
        async with walsvc.open(f"unix://{place / 'socket'}", open_seconds=30.0):
            pass
        yield server.pid, place / "socket"
    finally:
        server.kill()
        await server.wait()


async def cost(name: str, clients: int) -> tuple[int, float]:
    """Run one; bytes by which the server has grown, and seconds that a good client waited for an append behind it."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as directory:
        async with served(Path(directory)) as (pid, socket):
            before = resident_bytes(pid)
            memory = Peak()
            watching = asyncio.create_task(memory.watch(pid))
            made = await ATTACKS[name](socket, clients)
            await settled(pid)
            began = time.monotonic()
            async with walsvc.open(f"unix://{socket}") as log:
                await log.append(b"good")
            waited = time.monotonic() - began
            watching.cancel()
            most = memory.bytes
            for each in made:
                each.writer.transport.abort()
    return most - before, waited


async def attack(name: str, clients: int) -> bool:
    """Run one; prints its row."""
    grown, waited = await cost(name, clients)
    print(f"{name:10} {grown / MIB:7.0f} MiB more, a good append then took {waited * 1000:.0f} ms", flush=True)
    return grown <= BOUND_BYTES


def main() -> int:
    """Command line; 1 where a bound is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("attacks", nargs="*", default=list(ATTACKS))
    options = parser.parse_args()
    fine = [asyncio.run(attack(name, options.clients)) for name in options.attacks]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
