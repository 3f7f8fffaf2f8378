"""A work queue behind a server: workers and server are killed with SIGKILL again and again.

    python -m tests.service.jobs --jobs 20000 --workers 8 --kills 20

Workers share a consumer; every other one has deliveries come with its acknowledgements. Of each job they make a result: of the even ones in a transaction with the acknowledgement, of the odd
ones by an append with a key, which is acknowledged afterwards. Some jobs are poison, and are given back each time. What a worker sees it
writes down at once. In the end each job has one result, each poison job one dead letter, no job went out after its acknowledgement
was answered, of jobs with one key none went out before the one in front of it was done, and a job that went out once more was with a
worker, or with a server, that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import walsvc
from tests.service.campaign import READY, STOP_SECONDS, process, start_server
from walsvc import LeaseLost, OutcomeUnknown

POISON_EVERY = 97
KEYS = 200
TASKS = 4  # of each worker
DELIVERIES_MAX = 6
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a busy disk must not date what a worker writes down late
OPTIONS: dict[str, Any] = {"lease": 30.0, "max_deliveries": DELIVERIES_MAX, "dead_letter": "dead", "ordered_by": "key"}


def poison(job: int) -> bool:
    """Whether a job can never be done."""
    return job % POISON_EVERY == 0


# ---- the workers, each in a process of its own


async def work(url: str, journal: Path) -> None:
    """Do jobs until standard input ends."""
    loop, lines = asyncio.get_running_loop(), os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def note(what: str, job: int) -> None:
        os.write(lines, f"{time.monotonic_ns()} {what} {job}\n".encode())

    async with walsvc.open(url, open_seconds=60.0, timeout=60.0, backoff_max_seconds=0.2) as log:
        consumer = await log.topic("jobs").consumer("workers", shared=True, prefetch=os.getpid() % 2 * TASKS, **OPTIONS)
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()

        async def jobs() -> None:
            async for delivery in consumer:
                job = int(delivery.record.payload)
                note("out", job)
                try:
                    if poison(job):
                        await delivery.nak()
                        continue
                    if job % 2 == 0:
                        async with log.transaction() as transaction:
                            transaction.append(b"%d" % job, topic="results")
                            transaction.ack(delivery)
                    else:
                        await log.topic("results").append(b"%d" % job, dedupe=f"job {job}")
                        await delivery.ack()
                except (LeaseLost, OutcomeUnknown) as error:
                    note(type(error).__name__, job)
                else:
                    note("done", job)

        working = [asyncio.create_task(jobs()) for _ in range(TASKS)]
        await reader.read()
        await consumer.close()
        await asyncio.gather(*working)


# ---- the parent


@dataclass
class Outcome:
    """What became of it all."""

    jobs: int = 0
    kills: int = 0
    repeats: int = 0
    unexplained: int = 0
    lost: int = 0
    results_twice: int = 0
    dead_wrong: int = 0
    after_done: int = 0
    disordered: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)  # how workers saw jobs that are wrong

    @property
    def bad(self) -> int:
        """What must be zero."""
        return self.lost + self.results_twice + self.dead_wrong + self.after_done + self.disordered + self.unexplained

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.jobs} jobs, went out once more {self.repeats} ({self.unexplained} without a kill of who had "
            f"them), without result {self.lost}, with two {self.results_twice}, wrong dead letters {self.dead_wrong}, out after they "
            f"were done {self.after_done}, out of order {self.disordered}, {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Kill:
    """When somebody was killed, and until when that may show.

    Attributes:
        journal: of the worker; None: the server, which is everybody's.
        first, last: nanoseconds.
    """

    journal: Path | None
    first: int
    last: int


class Worker(NamedTuple):
    """A process, and the file in which it notes its deliveries."""

    process: asyncio.subprocess.Process
    journal: Path


class Crew:
    """The worker processes."""

    def __init__(self, url: str, place: Path, stack: contextlib.AsyncExitStack) -> None:
        self._url = url
        self._place = place
        self._stack = stack
        self.workers: list[Worker] = []
        self.journals: list[Path] = []  # also of workers that are gone
        self.kills: list[Kill] = []

    async def hire(self) -> None:
        """One more."""
        journal = self._place / f"journal {len(self.journals)}"
        self.journals.append(journal)
        arguments = ("-m", "tests.service.jobs", "--worker", self._url, str(journal))
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        made = await self._stack.enter_async_context(process(*arguments, **pipes))
        self.workers.append(Worker(made, journal))
        assert made.stdout is not None
        assert await made.stdout.readline() == READY

    async def replace(self, place: int) -> None:
        """One is killed, and another one comes."""
        gone, first = self.workers.pop(place), time.monotonic_ns()
        gone.process.kill()
        await gone.process.wait()
        self.kills.append(Kill(gone.journal, first, time.monotonic_ns()))
        await self.hire()

    async def end(self) -> None:
        """All finish what they have."""
        for worker in self.workers:
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        async with asyncio.timeout(STOP_SECONDS):
            codes = [await worker.process.wait() for worker in self.workers]
        assert codes == [0] * len(codes), f"exit codes of the workers: {codes}"


async def campaign(jobs: int, workers: int, kills: int, seed: int = 1) -> Outcome:
    """Run it once: every other kill is the server's."""
    begun, outcome, rng = time.monotonic(), Outcome(jobs), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="walsvc-") as name, tempfile.TemporaryDirectory(dir=MEMORY) as journals:
        place = Path(name)
        data, socket = place / "log", place / "socket"
        url = f"unix://{socket}"
        server = await start_server(data, socket)
        try:
            async with (
                walsvc.open(url, open_seconds=30.0, backoff_max_seconds=0.2) as log,
                contextlib.AsyncExitStack() as stack,
            ):
                crew = Crew(url, Path(journals), stack)
                for _ in range(workers):
                    await crew.hire()
                adding = asyncio.create_task(add(log, jobs))
                seen, between = 0, max(jobs // (kills + 1), 1)
                async for record in log.follow():
                    if record.topic == "jobs":
                        continue
                    seen += 1
                    if seen % between == 0 and outcome.kills < kills:
                        outcome.kills += 1
                        if outcome.kills % 2:
                            await crew.replace(rng.randrange(workers))
                        else:
                            first = time.monotonic_ns()
                            server.send_signal(signal.SIGKILL)
                            await server.wait()
                            server = await start_server(data, socket)
                            await log.refresh()  # it answers again: nothing went out meanwhile
                            crew.kills.append(Kill(None, first, time.monotonic_ns()))
                    if seen == jobs:
                        break
                await adding
                await crew.end()
                compare_journals(crew, outcome)
            server.send_signal(signal.SIGTERM)
            assert await server.wait() == 0, "the server did not end in order"
            await compare_log(data, outcome)
        finally:
            if server.returncode is None:
                server.kill()
                await server.wait()
    outcome.seconds = time.monotonic() - begun
    return outcome


async def add(log: Any, jobs: int) -> None:
    """Append all jobs."""
    topic = log.topic("jobs")
    for first in range(1, jobs + 1, 500):
        some = range(first, min(first + 500, jobs + 1))
        await asyncio.gather(*(topic.append(b"%d" % job, attributes={"key": job % KEYS}) for job in some))


def compare_journals(crew: Crew, outcome: Outcome) -> None:
    """What the workers saw, on the clock that all of them have in common."""
    out: defaultdict[int, list[tuple[int, Path]]] = defaultdict(list)
    done: dict[int, int] = {}
    for journal in crew.journals:
        for line in journal.read_text().splitlines():
            at, what, job = line.split()
            if what == "out":
                out[int(job)].append((int(at), journal))
            elif what == "done":
                done[int(job)] = min(int(at), done.get(int(job), 1 << 63))
    for job, deliveries in out.items():
        deliveries.sort()
        for (before, journal), (after, _) in itertools.pairwise(() if poison(job) else deliveries):
            outcome.repeats += 1
            mine = [kill for kill in crew.kills if kill.journal in (None, journal)]
            if not any(before <= kill.last and kill.first <= after for kill in mine):
                outcome.unexplained += 1
                outcome.examples.append(
                    f"job {job}: {journal.name} had it at {before}, the next one at {after}; {mine}"
                )
    outcome.after_done = sum(any(at > done[job] for at, _ in out[job]) for job in done)
    for key in range(KEYS):
        of_key = [out[job] for job in sorted(out) if job % KEYS == key]
        outcome.disordered += sum(later[0] < earlier[-1] for earlier, later in itertools.pairwise(of_key))


async def compare_log(data: Path, outcome: Outcome) -> None:
    """What became of the jobs."""
    async with walsvc.open(data, read_only=True) as log:
        results = Counter([int(record.payload) async for record in log.topic("results").read()])
        dead = Counter([int(record.payload) async for record in log.topic("dead").read()])
    good = {job for job in range(1, outcome.jobs + 1) if not poison(job)}
    outcome.lost = len(good - results.keys())
    outcome.results_twice = sum(count - 1 for count in results.values())
    outcome.dead_wrong = sum(dead[job] != int(poison(job)) for job in range(1, outcome.jobs + 1))


def main() -> int:
    """Command line; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", nargs=2, metavar=("URL", "JOURNAL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker[0], Path(options.worker[1])))
        return 0
    outcome = asyncio.run(campaign(options.jobs, options.workers, options.kills, options.seed))
    print(outcome, *outcome.examples, sep="\n")
    return 1 if outcome.bad else 0


if __name__ == "__main__":
    sys.exit(main())
