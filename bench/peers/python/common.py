"""What every Python peer shares: arguments, the load, the collector, the answer.

The load is the same for all: `tasks` tasks on one event loop, each appends `size` random bytes, waits until the append is
durable, and appends again, until `seconds` have passed. Only appends that were answered count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Append = Callable[[bytes], Awaitable[Any]]


@dataclass(frozen=True)
class Load:
    """One turn: where, how many at once, how large, how long."""

    dir: str
    tasks: int
    size: int
    seconds: float
    batched: bool


def arguments() -> Load:
    """The command line that all peers share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batched", action="store_true", help="put a Collector in front of the library")
    return Load(**vars(parser.parse_args()))


class Collector:
    """Group commit made by the user of a library: what arrives while a batch is written becomes the next batch.

    `commit` runs in one thread and must return only when the whole batch is durable.
    """

    def __init__(self, commit: Callable[[list[bytes]], Any]) -> None:
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1)
        self._payloads: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._busy = False

    def append(self, payload: bytes) -> asyncio.Future[None]:
        """A future that is done when `payload` is durable."""
        waiter = self._loop.create_future()
        self._payloads.append(payload)
        self._waiters.append(waiter)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next)
        return waiter

    def _next(self) -> None:
        payloads, self._payloads = self._payloads, []
        waiters, self._waiters = self._waiters, []
        done = self._loop.run_in_executor(self._executor, self._commit, payloads)
        done.add_done_callback(lambda answer: self._durable(answer, waiters))

    def _durable(self, answer: asyncio.Future[Any], waiters: list[asyncio.Future[None]]) -> None:
        answer.result()
        if self._payloads:
            self._next()
        else:
            self._busy = False
        for waiter in waiters:
            waiter.set_result(None)


async def drive(load: Load, append: Append) -> dict[str, object]:
    """Run the load and say what came out."""
    payload = os.urandom(load.size)
    clock = time.perf_counter_ns
    latencies: list[int] = []

    async def work(deadline: int) -> None:
        note = latencies.append
        began = clock()
        while began < deadline:
            await append(payload)
            ended = clock()
            note(ended - began)
            began = ended

    warm = clock()
    await asyncio.gather(*(work(warm + int(0.2e9)) for _ in range(load.tasks)))
    latencies.clear()
    began = clock()
    await asyncio.gather(*(work(began + int(load.seconds * 1e9)) for _ in range(load.tasks)))
    ended = clock()
    latencies.sort()
    return {
        "appends": len(latencies),
        "seconds": (ended - began) / 1e9,
        "p50_us": latencies[len(latencies) // 2] / 1e3,
        "p99_us": latencies[int(len(latencies) * 0.99)] / 1e3,
    }


def main(peer: Callable[[Load], Coroutine[Any, Any, dict[str, object]]]) -> None:
    """Run one peer on uvloop and print its answer as one line of JSON."""
    load = arguments()
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        print(json.dumps(runner.run(peer(load))), flush=True)


def in_threads(call: Callable[[bytes], Any], threads: int) -> Append:
    """`call` (blocking, durable when it returns) as an append, in a pool of `threads` threads."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(threads)
    return lambda payload: loop.run_in_executor(executor, call, payload)
