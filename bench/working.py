"""`python -m bench.working ASKED`: one worker of a queue, in a process of its own; see bench.jobs.

It says "ready" when it is connected, waits for a line, works until the time is up, says how many jobs were acknowledged, or "empty"
where the queue had none left, and ends after another line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any

import walsvc
from bench.environment import Argument, loop_factory

QUEUE, GROUP = "jobs", "workers"
EMPTY = "empty"  # said instead of a count
EMPTY_SECONDS = 10.0  # behind the end: a worker that waits for a job so long stands at an empty queue


@dataclass(frozen=True, slots=True)
class Asked(Argument):
    """The work of one worker.

    Attributes:
        url: of the queue's server: unix://, or redis+unix://.
        name: of the worker.
        at_once: jobs that it has at a time.
        batched: it takes them and acknowledges them together; otherwise each of `at_once` tasks has one.
        seconds: how long.
        loop: the event loop's module.
    """

    url: str
    name: str
    at_once: int
    batched: bool
    seconds: float
    loop: str


def told_to_begin(asked: Asked) -> float:
    """Say that the worker is connected, wait for the line, and return when to end."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.perf_counter() + asked.seconds


def told_the_count(count: int | str) -> None:
    """Say how many jobs were acknowledged, or EMPTY, and wait for the line to end."""
    print(count, flush=True)
    sys.stdin.readline()


async def with_walsvc(asked: Asked) -> None:
    """Work at a shared consumer."""
    async with walsvc.open(asked.url, open_seconds=60.0) as log:
        consumer = await log.topic(QUEUE).consumer(GROUP, shared=True, prefetch=asked.at_once)
        end = told_to_begin(asked)

        async def one_by_one() -> int:
            count = 0
            async for delivery in consumer:
                await delivery.ack()
                count += 1
                if time.perf_counter() > end:
                    break
            return count

        async def in_batches() -> int:
            count = 0
            while time.perf_counter() < end:
                deliveries = await consumer.read_batch(max_records=asked.at_once)
                await consumer.ack(deliveries)
                count += len(deliveries)
            return count

        count: int | str
        try:
            async with asyncio.timeout(asked.seconds + EMPTY_SECONDS):
                if asked.batched:
                    count = await in_batches()
                else:
                    count = sum(await asyncio.gather(*(one_by_one() for _ in range(asked.at_once))))
        except TimeoutError:
            count = EMPTY
        told_the_count(count)


def with_redis(asked: Asked) -> None:
    """Work at a group of a stream, with the client that blocks, on one connection."""
    import redis

    client = redis.Redis.from_url(asked.url.removeprefix("redis+"), socket_timeout=60.0)
    client.ping()
    end, count = told_to_begin(asked), 0
    while time.perf_counter() < end:
        answer: Any = client.xreadgroup(GROUP, asked.name, {QUEUE: ">"}, count=asked.at_once)
        if not answer:
            told_the_count(EMPTY)
            return
        ((_, entries),) = answer
        acknowledged: Any = client.xack(QUEUE, GROUP, *(id for id, _ in entries))
        count += acknowledged
    told_the_count(count)


if __name__ == "__main__":
    todo = Asked.given()
    if todo.url.startswith("redis+"):
        with_redis(todo)
    else:
        with asyncio.Runner(loop_factory=loop_factory(todo.loop)) as runner:
            runner.run(with_walsvc(todo))
