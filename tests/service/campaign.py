"""Many client connections from several processes, and a server that is killed with SIGKILL again and again.

    python -m tests.service.campaign --connections 1000 --processes 4 --kills 10

Every client appends records that are like no others, one by one and in batches, to topics and to none, and writes down which
LSN it was told. In the end the log must hold each acknowledged record once, at that LSN, each batch whole or not at all, and
nothing twice, whether it was acknowledged or not; and no client may hang.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import walsvc
from walsvc import OutcomeUnknown, Relaxed, WalError

READY = b"ready\n"
STOP_SECONDS = 90  # a client that takes longer after the end was announced hangs


# ---- the clients, in a process of their own


class Client:
    """One connection, and what it was told."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.rng = rng
        self.acked: list[tuple[str, int]] = []
        self.batches: list[list[str]] = []
        self.unknown = 0
        self.errors: Counter[str] = Counter()
        self.repeated = self.connections = 0

    async def run(self, url: str, tasks: int, stop: asyncio.Event, opened: asyncio.Semaphore) -> None:
        """Append from `tasks` tasks until `stop`."""
        async with opened:
            log = await walsvc.open(url, open_seconds=60.0, backoff_max_seconds=0.5, name=self.name)
        async with log:
            async with asyncio.TaskGroup() as group:
                for number in range(tasks):
                    group.create_task(self.append(log, number, stop))
            self.repeated = log._session.repeated
            self.connections = log._session.connections

    async def append(self, log: Any, task: int, stop: asyncio.Event) -> None:
        """One record or batch after the other."""
        number = 0
        while not stop.is_set():
            number += 1
            payload = f"{self.name}/{task}/{number}/" + "x" * self.rng.choice((0, 50, 200, 2000))
            kind = self.rng.random()
            try:
                if kind < 0.1:
                    batch = [f"{payload}.{part}" for part in range(self.rng.choice((2, 20)))]
                    self.batches.append(batch)
                    results = await log.append_batch([each.encode() for each in batch])
                    self.acked += [(each, result.lsn) for each, result in zip(batch, results, strict=True)]
                elif kind < 0.2:
                    await log.append(payload.encode(), mode=Relaxed)
                elif kind < 0.4:
                    result = await log.topic(f"topic {self.rng.randrange(5)}").append(payload.encode())
                    self.acked.append((payload, result.lsn))
                else:
                    result = await log.append(payload.encode())
                    self.acked.append((payload, result.lsn))
            except OutcomeUnknown:
                self.unknown += 1
            except WalError as error:
                self.errors[type(error).__name__] += 1


async def work(url: str, name: str, connections: int, tasks: int, report: Path) -> None:
    """Run clients until standard input ends, then write down what they were told."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients = [Client(f"{name}.{number}", random.Random(f"{name}{number}")) for number in range(connections)]
    opened = asyncio.Semaphore(50)
    running = [asyncio.create_task(client.run(url, tasks, stop, opened)) for client in clients]
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    ending = asyncio.create_task(reader.read())
    await asyncio.wait([ending, asyncio.gather(*running)], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.gather(*running)
    rows = [
        [client.acked, client.batches, client.unknown, client.errors, client.repeated, client.connections]
        for client in clients
    ]
    report.write_text(json.dumps(rows))  # noqa: ASYNC240  nothing else runs any more


# ---- the parent


@dataclass
class Outcome:
    """What became of it all."""

    acked: int = 0
    records: int = 0
    lost: int = 0
    misplaced: int = 0
    twice: int = 0
    torn_batches: int = 0
    unknown: int = 0
    repeated: int = 0
    reconnected: int = 0
    kills: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> int:
        """What must be zero."""
        return self.lost + self.misplaced + self.twice + self.torn_batches + sum(self.errors.values())

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.acked} acknowledged, {self.records} in the log, lost {self.lost}, at another LSN "
            f"{self.misplaced}, twice {self.twice}, torn batches {self.torn_batches}, outcome unknown {self.unknown}, requests "
            f"sent again {self.repeated}, connections made again {self.reconnected}, other errors {dict(self.errors)}, "
            f"{self.seconds:.0f} s"
        )


@contextlib.asynccontextmanager
async def process(*arguments: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that is killed when it is left running."""
    made = await asyncio.create_subprocess_exec(sys.executable, *arguments, **options)
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
        await made.wait()


async def start_server(data: Path, socket: Path) -> asyncio.subprocess.Process:
    """A server; it listens in a moment."""
    arguments = ("-m", "walsvc.cli", "serve", "--data", str(data), "--unix", str(socket))
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


async def campaign(connections: int, processes: int, kills: int, tasks: int, records_between: int) -> Outcome:
    """Run it once."""
    begun, outcome = time.monotonic(), Outcome()
    with tempfile.TemporaryDirectory(prefix="walsvc-") as name:
        place = Path(name)
        data, socket = place / "log", place / "socket"
        url = f"unix://{socket}"
        server = await start_server(data, socket)
        try:
            async with (
                walsvc.open(url, open_seconds=30.0, backoff_max_seconds=0.2) as log,
                contextlib.AsyncExitStack() as stack,
            ):
                workers, reports = [], []
                for number in range(processes):
                    reports.append(place / f"report {number}")
                    worker = await stack.enter_async_context(
                        process(
                            *("-m", "tests.service.campaign", "--worker", url, f"w{number}"),
                            *("--connections", str(connections // processes), "--tasks", str(tasks)),
                            *("--report", str(reports[-1])),
                            stdin=asyncio.subprocess.PIPE,
                            stdout=asyncio.subprocess.PIPE,
                        )
                    )
                    workers.append(worker)
                for worker in workers:
                    assert worker.stdout is not None
                    assert await worker.stdout.readline() == READY
                seen = 0
                async for _ in log.follow():
                    seen += 1
                    if seen % records_between == 0:
                        if outcome.kills == kills:
                            break
                        server.send_signal(signal.SIGKILL)
                        await server.wait()
                        outcome.kills += 1
                        server = await start_server(data, socket)
                for worker in workers:
                    assert worker.stdin is not None
                    worker.stdin.close()
                async with asyncio.timeout(STOP_SECONDS):
                    codes = [await worker.wait() for worker in workers]
                assert codes == [0] * processes, f"exit codes of the clients: {codes}"
            server.send_signal(signal.SIGTERM)
            assert await server.wait() == 0, "the server did not end in order"
            await compare(data, reports, outcome)
        finally:
            if server.returncode is None:
                server.kill()
                await server.wait()
    outcome.seconds = time.monotonic() - begun
    return outcome


async def compare(data: Path, reports: list[Path], outcome: Outcome) -> None:
    """What the clients were told against what the log holds."""
    async with walsvc.open(data, read_only=True) as log:
        records = [(record.lsn, record.payload.decode()) async for record in log.read()]
    count = Counter(payload for _, payload in records)
    at = {payload: lsn for lsn, payload in records}
    outcome.records = len(records)
    outcome.twice = sum(times - 1 for times in count.values())
    for report in reports:
        for acked, batches, unknown, errors, repeated, connected in json.loads(report.read_text()):
            outcome.acked += len(acked)
            outcome.lost += sum(payload not in at for payload, _ in acked)
            outcome.misplaced += sum(at.get(payload, lsn) != lsn for payload, lsn in acked)
            for batch in batches:
                there = [at[payload] for payload in batch if payload in at]
                whole = len(there) == len(batch) and there == list(range(there[0], there[0] + len(batch)))
                outcome.torn_batches += bool(there) and not whole
            outcome.unknown += unknown
            outcome.repeated += repeated
            outcome.reconnected += connected - 1
            outcome.errors.update(errors)


def main() -> int:
    """Command line; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=2, help="concurrent appends of one connection")
    parser.add_argument("--records", type=int, default=20_000, help="records between two kills")
    parser.add_argument("--worker", nargs=2, metavar=("URL", "NAME"), help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(*options.worker, options.connections, options.tasks, options.report))
        return 0
    outcome = asyncio.run(
        campaign(options.connections, options.processes, options.kills, options.tasks, options.records)
    )
    print(outcome)
    return 1 if outcome.bad else 0


if __name__ == "__main__":
    sys.exit(main())
