"""A server for a long time, with everything that happens to one: clients that come, go, are cut and read slowly, SIGHUPs, a full disk.

    python -m tests.service.soak --minutes 20

The log is on a file system of its own, which is filled to the last byte each minute for a few seconds. In the end every acknowledged
record must be where its client was told, nobody may have got another error than NoSpace or a lost connection, and the server's resident
memory of the last quarter must be that of the second one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import walsvc
from tests.service.campaign import process
from tests.service.memory import resident_bytes
from tests.service.raw import Raw
from walsvc import NoSpace, OutcomeUnknown, Truncated, Unreachable, WalError
from walsvc.service.wire.frames import Credit, Open, Records, Result, Welcome

MIB = 1 << 20
TOKEN = "soak" * 8
KEPT_RECORDS = 20_000  # older ones are truncated
GROWTH = 1.1, 8 * MIB  # of resident memory: times, and besides


class Soak:
    """What happens, and what was seen of it."""

    def __init__(self, place: Path, server: asyncio.subprocess.Process) -> None:
        self.url = f"unix://{place / 'socket'}"
        self.place = place
        self.server = server
        self.counts: Counter[str] = Counter()
        self.acked: dict[int, bytes] = {}
        self.resident: list[int] = []

    async def raw(self) -> Raw:
        """A client of frames."""
        made = Raw(*await asyncio.open_unix_connection(self.url.removeprefix("unix://")))
        made.hello(TOKEN)
        await made.expect(Welcome)
        return made

    async def writer(self, number: int) -> None:
        """Appends, whatever happens."""
        async with walsvc.open(self.url, open_seconds=30.0, backoff_max_seconds=0.2) as log:
            for count in itertools.count():
                payload = b"%d/%d/" % (number, count) + b"x" * (count % 7 * 300)
                try:
                    if count % 10 == 0:
                        for result, each in zip(await log.append_batch([payload] * 3), [payload] * 3, strict=True):
                            self.acked[result.lsn] = each
                    else:
                        self.acked[(await log.topic(f"t{number % 5}").append(payload)).lsn] = payload
                    self.counts["acknowledged"] += 1
                except (NoSpace, OutcomeUnknown, Unreachable) as error:
                    self.counts[type(error).__name__] += 1
                await asyncio.sleep(0.05)

    async def visitor(self, number: int) -> None:
        """Comes, appends, consumes, and goes in order or not."""
        for count in itertools.count():
            with contextlib.suppress(NoSpace):
                async with walsvc.open(self.url, open_seconds=30.0) as log:
                    consumer = await log.topic("t1").consumer(
                        f"visitor {number}", start="next" if count == 0 else "first"
                    )
                    try:
                        async with asyncio.timeout(0.2):
                            await consumer.ack((await consumer.next()).lsn)
                    except TimeoutError:
                        pass
                    except Truncated:
                        self.counts["consumers overtaken"] += 1
                        await consumer.seek("first")
                    if count % 2:
                        log._session._connection._transport.abort()
            self.counts["visits"] += 1
            await asyncio.sleep(0.1)

    async def cutter(self) -> None:
        """Asks for much and hangs up in the middle."""
        while True:
            made = await self.raw()
            made.send(Open(1, "read", {}, 1 << 40), Open(2, "follow", {}, 1 << 40))
            for id in range(3, 100):
                made.append(id, b"cut", mode=1)
            await asyncio.sleep(0.01)
            made.writer.transport.abort()
            self.counts["cuts"] += 1
            await asyncio.sleep(0.1)

    async def slow_reader(self) -> None:
        """Takes some records in a second."""
        while True:
            made = await self.raw()
            made.send(Open(1, "follow", {}, 4096))
            try:
                await made.expect(Result, 1)
                for _ in range(20):
                    await made.expect(Records, 1)
                    made.send(Credit(1, 4096))
                    await asyncio.sleep(0.5)
            except (AssertionError, TimeoutError):  # truncation overtook it, and it said nothing for idle_seconds
                self.counts["readers ended"] += 1
            await made.close()

    async def disturb(self) -> None:
        """SIGHUPs, truncation, a full disk."""
        async with walsvc.open(self.url, open_seconds=30.0, backoff_max_seconds=0.2) as log:
            for second in itertools.count(1):
                await asyncio.sleep(1)
                if second % 7 == 0:
                    self.server.send_signal(signal.SIGHUP)
                    self.counts["SIGHUPs"] += 1
                if second % 10 == 0:
                    first = max(log.next_lsn - KEPT_RECORDS, log.first_lsn)
                    await log.truncate_before(first, force=True)
                    for lsn in [each for each in self.acked if each < first]:
                        del self.acked[lsn]
                if second % 60 == 30:
                    self.counts["full disks"] += 1
                    await asyncio.to_thread(fill, self.place / "mount" / "ballast")
                    await asyncio.sleep(5)
                    os.unlink(self.place / "mount" / "ballast")

    async def look(self) -> None:
        """Note the resident memory each second."""
        while True:
            self.resident.append(resident_bytes(self.server.pid))
            await asyncio.sleep(1)

    async def run(self, seconds: float) -> bool:
        """All of it; True where all is well."""
        began = time.monotonic()
        work = [self.disturb(), self.look(), *map(self.writer, range(20)), *map(self.visitor, range(5))]
        work += [each() for each in [self.cutter] * 5 + [self.slow_reader] * 10]
        tasks = [asyncio.create_task(each) for each in work]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            print("ended by itself:", repr(task.exception()), flush=True)
        lost = await self.compare()
        quarter = max(len(self.resident) // 4, 1)
        peaks = [max(self.resident[at : at + quarter]) for at in range(0, 4 * quarter, quarter)]
        flat = peaks[3] <= peaks[1] * GROWTH[0] + GROWTH[1]
        print(
            f"{time.monotonic() - began:.0f} s: {dict(self.counts)}; {len(self.acked)} acknowledged records looked for, {lost} not there; "
            f"resident memory at most {', '.join(f'{each / MIB:.1f}' for each in peaks)} MiB in the quarters",
            flush=True,
        )
        return flat and not lost and not done

    async def compare(self) -> int:
        """How many acknowledged records are not where their clients were told."""
        async with walsvc.open(self.url, open_seconds=30.0) as log:
            first = log.first_lsn
            found = {record.lsn: record.payload async for record in log.read()}
        self.acked = {lsn: payload for lsn, payload in self.acked.items() if lsn >= first}
        return sum(found.get(lsn) != payload for lsn, payload in self.acked.items())


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))


@contextlib.contextmanager
def small_file_system(path: Path) -> Iterator[None]:
    """256 MiB of memory as a file system; needs root."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def soak(minutes: float) -> bool:
    """Start a server, and let it all happen."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as directory, small_file_system(Path(directory) / "mount"):
        place = Path(directory)
        (place / "tokens").write_text(f'[[token]]\nname = "soak"\ntoken = "{TOKEN}"\n')
        (place / "tokens").chmod(0o600)
        options: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.DEVNULL)
        async with process(
            *("-m", "walsvc.cli", "serve", "--data", str(place / "mount" / "log"), "--unix", str(place / "socket")),
            *("--token-file", str(place / "tokens"), "--set", "segment_bytes=4194304", "--set", "idle_seconds=10"),
            **options,
        ) as server:
            os.environ["WALSVC_TOKEN"] = TOKEN  # of the clients; the server has its file
            async with walsvc.open(f"unix://{place / 'socket'}", open_seconds=30.0):
                pass  # it listens
            fine = await Soak(place, server).run(minutes * 60)
            server.send_signal(signal.SIGTERM)
            return await server.wait() == 0 and fine


def main() -> int:
    """Command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    logging.getLogger("walsvc.client").setLevel(logging.CRITICAL)  # connections are lost all the time
    try:
        return 0 if asyncio.run(soak(parser.parse_args().minutes)) else 1
    except WalError as error:
        print(error, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
