"""Servers of the benchmarks: processes that end with a block, and the CPU that they use."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from bench.environment import TOP

START_SECONDS = 60.0  # more than any server needs to listen
CPU_CLOCK = 2  # CPUCLOCK_SCHED of Linux's posix-timers.h: counted by the scheduler, in nanoseconds
QUIET = asyncio.subprocess.DEVNULL


class Server(NamedTuple):
    """A server that runs: its address, and its process."""

    url: str
    pid: int


@asynccontextmanager
async def process(*command: str, quiet: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that ends with the block."""
    pipe = QUIET if quiet else asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=TOP)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


@asynccontextmanager
async def redis_server(place: str, *options: str) -> AsyncIterator[Server]:
    """Redis on a Unix socket, which syncs what it has been told before it answers.

    Args:
        place: a directory for its data.
        options: of redis-server, besides.

    Raises:
        FileNotFoundError: it is not installed. TimeoutError: it does not listen after START_SECONDS.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError(2, "not on PATH", "redis-server")
    with tempfile.TemporaryDirectory(prefix="walsvc-") as short:  # a socket's path has at most 107 bytes
        path = os.path.join(short, "redis.socket")
        command = [found, "--port", "0", "--unixsocket", path, "--dir", place, "--save", "", "--daemonize", "no"]
        command += ["--appendonly", "yes", "--appendfsync", "always", *options]
        async with process(*command, quiet=True) as child:
            yield await started(f"unix://{path}", child.pid)


async def started(url: str, pid: int) -> Server:
    """The server at this address, once it listens. Raises TimeoutError."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            with socket.socket(socket.AF_UNIX if url.startswith("unix:") else socket.AF_INET) as probe:
                try:
                    probe.connect(
                        url.removeprefix("unix://")
                        if url.startswith("unix:")
                        else ("127.0.0.1", int(url.split(":")[2].partition("/")[0]))
                    )
                    return Server(url, pid)
                except OSError:
                    await asyncio.sleep(0.05)


def cpu_us(pids: list[int]) -> float:
    """CPU that these processes have used, all threads of each, in microseconds; by the clock that Linux has for each process."""
    return sum(time.clock_gettime(~pid << 3 | CPU_CLOCK) for pid in pids) * 1e6
