"""`python -m bench jobs`: worker processes at a queue of walsvc's server, and at a group of a Redis stream, in turns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple

import walsvc
from bench.environment import Results, Spread
from bench.servers import START_SECONDS, Server, cpu_us, process, redis_server
from bench.working import EMPTY, GROUP, QUEUE, Asked

FILL_RECORDS = 1_000  # jobs of one batch, as the queue is filled
UNIX = "walsvc.socket"


class Turn(NamedTuple):
    """The outcome of one turn: jobs per second, and microseconds of CPU for each job, of the server and of all workers."""

    per_s: float
    server_us: float
    workers_us: float


class Way(NamedTuple):
    """How a worker has several jobs: as tasks with one each, or in batches."""

    name: str
    batched: bool


TASKS, BATCHES = Way("tasks", batched=False), Way("batches", batched=True)
WAYS = (TASKS, BATCHES)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the measurement.

    Attributes:
        workers: processes at the queue.
        at_once: jobs that a worker has at a time, for each measurement.
        size: payload bytes of a job.
        jobs: in the queue before the workers begin; where it runs empty the turn is made again with twice as many.
        seconds, rounds: length and number of the turns.
        loop: the event loop's module.
    """

    workers: int = 8
    at_once: tuple[int, ...] = (1, 16, 100)
    size: int = 256
    jobs: int = 100_000
    seconds: float = 2.0
    rounds: int = 5
    loop: str = "uvloop"


@dataclass(frozen=True, slots=True)
class Beside:
    """walsvc's turns, and Redis's beside them.

    Attributes:
        at_once: jobs that each worker had at a time.
        way: how walsvc's workers had them.
        ours, theirs: of each round.
    """

    at_once: int
    way: str
    ours: list[Turn]
    theirs: list[Turn]

    @property
    def ratio(self) -> Spread:
        """walsvc's jobs per second over Redis's, turn by turn."""
        return Spread.over((each.per_s for each in self.ours), (each.per_s for each in self.theirs))

    @property
    def cpu_ratio(self) -> Spread:
        """Redis's CPU for a job, of server and workers, over walsvc's: other work on the machine touches it least."""
        return Spread.over((sum(each[1:]) for each in self.theirs), (sum(each[1:]) for each in self.ours))


async def run(place: str, plan: Plan, *, results: Results, tick: Callable[[str], None]) -> list[Beside]:
    """Measure everything below `place`: each turn of walsvc's is followed by one of Redis's."""
    measured = []
    for at_once in plan.at_once:
        for way in WAYS if at_once > 1 else (TASKS,):
            beside = Beside(at_once, way.name, [], [])
            for number in range(plan.rounds):
                tick(f"{at_once} at a time, {way.name}, round {number + 1} of {plan.rounds}")
                for queue, turns in ((walsvc_queue, beside.ours), (redis_queue, beside.theirs)):
                    while (done := await turn(place, queue, plan, at_once, way)) is None:
                        plan = replace(plan, jobs=2 * plan.jobs)
                        tick(f"the queue ran empty: {plan.jobs:,} jobs from now on")
                    turns.append(done)
            measured.append(beside)
            results.add(
                workers=plan.workers,
                at_once=at_once,
                way=way.name,
                size=plan.size,
                seconds=plan.seconds,
                walsvc=[each._asdict() for each in beside.ours],
                redis=[each._asdict() for each in beside.theirs],
                ratio=beside.ratio._asdict(),
                cpu_ratio=beside.cpu_ratio._asdict(),
            )
    return measured


Queue = Callable[[str, Plan], contextlib.AbstractAsyncContextManager[Server]]


async def turn(place: str, queue: Queue, plan: Plan, at_once: int, way: Way) -> Turn | None:
    """Let all workers work together at a new queue. None: it ran empty, and the rate would be too low."""
    path = os.path.join(place, "turn")
    os.mkdir(path)
    try:
        async with queue(path, plan) as (url, server), AsyncExitStack() as stack:
            crew = []
            for number in range(plan.workers):
                asked = Asked(url, f"worker {number}", at_once, way.batched, plan.seconds, plan.loop)
                command = (sys.executable, "-m", "bench.working", asked.as_argument())
                crew.append(await stack.enter_async_context(process(*command)))
            for worker in crew:
                await said(worker)
            pids = [worker.pid for worker in crew]
            before = [cpu_us([server]), cpu_us(pids)]
            for worker in crew:
                assert worker.stdin is not None
                worker.stdin.write(b"begin\n")
            counts = [await said(worker) for worker in crew]
            after = [cpu_us([server]), cpu_us(pids)]
            for worker in crew:
                assert worker.stdin is not None
                worker.stdin.write(b"end\n")
            if EMPTY in counts:
                return None
            done = sum(map(int, counts))
            return Turn(done / plan.seconds, *((b - a) / done for a, b in zip(before, after, strict=True)))
    finally:
        await asyncio.to_thread(shutil.rmtree, path)


async def said(worker: asyncio.subprocess.Process) -> str:
    """The next line of a worker. Raises OSError where it has none."""
    assert worker.stdout is not None
    if not (line := await worker.stdout.readline()):
        raise OSError(f"a worker ended with {await worker.wait()}; what it says is above")
    return line.decode().strip()


@contextlib.asynccontextmanager
async def walsvc_queue(path: str, plan: Plan) -> AsyncIterator[Server]:
    """`walsvc serve` with a topic full of jobs."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as short:  # a socket's path has at most 107 bytes
        socket = os.path.join(short, UNIX)
        command = (sys.executable, "-m", "walsvc.cli", "serve", "--data", os.path.join(path, "log"), "--unix", socket)
        async with process(*command, quiet=True) as server:
            url = f"unix://{socket}"
            async with walsvc.open(url, open_seconds=START_SECONDS) as log:
                topic = log.topic(QUEUE)
                for _ in range(0, plan.jobs, FILL_RECORDS):
                    await topic.append_batch([os.urandom(plan.size) for _ in range(FILL_RECORDS)])
            yield Server(url, server.pid)


@contextlib.asynccontextmanager
async def redis_queue(path: str, plan: Plan) -> AsyncIterator[Server]:
    """Redis with appendfsync always and a stream full of jobs. Raises FileNotFoundError where it is not installed."""
    import redis.asyncio as redis

    async with redis_server(path) as server:
        async with redis.Redis.from_url(server.url, socket_timeout=START_SECONDS) as client:
            await client.xgroup_create(QUEUE, GROUP, id="0", mkstream=True)
            for _ in range(0, plan.jobs, FILL_RECORDS):
                pipeline = client.pipeline(transaction=False)
                for _ in range(FILL_RECORDS):
                    pipeline.xadd(QUEUE, {"p": os.urandom(plan.size)})
                await pipeline.execute()
        yield Server(f"redis+{server.url}", server.pid)
