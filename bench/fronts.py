"""`python -m bench fronts`: the fronts of walsvc's server beside Redis and beside bare aiohttp handlers, in turns."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bench import asking, bare
from bench.asking import KEY
from bench.environment import Results, Spread, in_own_process
from bench.servers import Server, cpu_us, process, redis_server, started

RATE = re.compile(r"([\d.]+) requests per second")
WALSVC, REDIS, BARE, APPENDING = "walsvc", "Redis", "aiohttp", "aiohttp and an embedded append"
PROGRAM = "redis-benchmark"
NO_REWRITES = ("--auto-aof-rewrite-percentage", "0")  # Redis would rewrite its file in the middle of some turn
FIRST_COUNT = 20_000  # entries of redis-benchmark's warm-up, which says how many a turn takes


class Turn(NamedTuple):
    """The outcome of one turn: requests per second, and microseconds of the server's CPU for each."""

    per_s: float
    server_us: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the measurement.

    Attributes:
        at_once: connections, each with a request (or a pipeline of them) under way.
        pipelines: entries that redis-benchmark has under way on each connection, for each measurement.
        size: payload bytes.
        seconds, rounds: length and number of the turns.
        loop: the event loop's module.
    """

    at_once: int = 64
    pipelines: tuple[int, ...] = (1, 16)
    size: int = 256
    seconds: float = 1.5
    rounds: int = 5
    loop: str = "uvloop"


@dataclass(frozen=True, slots=True)
class Beside:
    """The front's turns, and another server's beside them.

    Attributes:
        client: that asked.
        other: the other server.
        ours, theirs: turns of each round.
    """

    client: str
    other: str
    ours: list[Turn]
    theirs: list[Turn]

    @property
    def ratio(self) -> Spread:
        """The front's requests per second over the other's, turn by turn."""
        return Spread.over((each.per_s for each in self.ours), (each.per_s for each in self.theirs))

    @property
    def cpu_ratio(self) -> Spread:
        """The other server's CPU for a request over the front's: other work on the machine touches it least."""
        return Spread.over((each.server_us for each in self.theirs), (each.server_us for each in self.ours))


class Client(Protocol):
    """A client program, which asks one server at a time."""

    @property
    def name(self) -> str:
        """The name in the results."""
        ...

    async def ask(self, server: Server) -> tuple[int, float]:
        """Ask for the length of a turn; returns how many requests were answered, and how many a second."""
        ...


async def run(place: str, plan: Plan, *, results: Results, tick: Callable[[str], None]) -> list[Beside]:
    """Measure everything below `place`: in each round every server has its turn behind the other's."""
    measured = []
    async with AsyncExitStack() as stack:
        servers = {WALSVC: await stack.enter_async_context(walsvc_server(place))}
        servers[REDIS] = await stack.enter_async_context(redis_server(tempfile.mkdtemp(dir=place), *NO_REWRITES))
        clients: list[Client] = [Benchmark(plan, each) for each in plan.pipelines]
        for client in (*clients, Asking("redis-py", plan)):
            turns = await in_turns(client, servers, plan.rounds, tick)
            measured.append(Beside(client.name, REDIS, turns[WALSVC], turns[REDIS]))
    async with AsyncExitStack() as stack:
        servers = {WALSVC: await stack.enter_async_context(walsvc_server(place, http=True))}
        servers[BARE] = await stack.enter_async_context(bare_server(plan, None))
        servers[APPENDING] = await stack.enter_async_context(bare_server(plan, os.path.join(place, "embedded")))
        poster = Asking("HTTP POST", plan)
        turns = await in_turns(poster, servers, plan.rounds, tick)
        measured += [Beside(poster.name, other, turns[WALSVC], turns[other]) for other in (BARE, APPENDING)]
    for each in measured:
        results.add(
            client=each.client,
            other=each.other,
            at_once=plan.at_once,
            size=plan.size,
            seconds=plan.seconds,
            walsvc=[turn._asdict() for turn in each.ours],
            beside=[turn._asdict() for turn in each.theirs],
            ratio=each.ratio._asdict(),
            cpu_ratio=each.cpu_ratio._asdict(),
        )
    return measured


async def in_turns(
    client: Client, servers: Mapping[str, Server], rounds: int, tick: Callable[[str], None]
) -> dict[str, list[Turn]]:
    """Let a client ask each server, round by round."""
    turns: dict[str, list[Turn]] = {name: [] for name in servers}
    for number in range(rounds):
        for name, server in servers.items():
            tick(f"{client.name}, {name}, round {number + 1} of {rounds}")
            before = cpu_us([server.pid])
            count, per_s = await client.ask(server)
            turns[name].append(Turn(per_s, (cpu_us([server.pid]) - before) / count))
    return turns


# ---- clients


class Benchmark:
    """redis-benchmark, which is written in C."""

    def __init__(self, plan: Plan, pipeline: int) -> None:
        self.name: str = f"redis-benchmark, pipelines of {pipeline}"
        self._plan = plan
        self._pipeline = pipeline
        self._counts: dict[str, int] = {}  # entries of a turn, by the server's URL

    async def ask(self, server: Server) -> tuple[int, float]:
        """See Client."""
        if server.url not in self._counts:  # it takes a number of entries, not a time
            self._counts[server.url] = int(await self._added(server, FIRST_COUNT) * self._plan.seconds) + 1
        count = self._counts[server.url]
        return count, await self._added(server, count)

    async def _added(self, server: Server, count: int) -> float:
        """Add so many entries; returns how many a second."""
        command = [PROGRAM, "-s", server.url.removeprefix("unix://"), "-c", str(self._plan.at_once), "-n", str(count)]
        command += ["-P", str(self._pipeline), "-q", "XADD", KEY, "*", "payload", "x" * self._plan.size]
        try:
            child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=DEVNULL)
        except FileNotFoundError:
            raise FileNotFoundError(2, "not on PATH", PROGRAM) from None
        said, _ = await child.communicate()
        rates = RATE.findall(said.decode())
        if not rates:
            raise OSError(f"{PROGRAM} has said {said[-200:]!r}")
        return float(rates[-1])


class Asking:
    """A process of bench.asking, which does what the server's URL says."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name: str = name
        self._plan = plan

    async def ask(self, server: Server) -> tuple[int, float]:
        """See Client."""
        plan = self._plan
        asked = asking.Asked(server.url, plan.at_once, plan.size, plan.seconds, plan.loop)
        count = int(await in_own_process("bench.asking", asked.as_argument()))
        return count, count / plan.seconds


# ---- servers


@asynccontextmanager
async def walsvc_server(place: str, *, http: bool = False) -> AsyncIterator[Server]:
    """`walsvc serve` with one front: of Redis's protocol on a Unix socket, or of HTTP on loopback."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as short:  # a socket's path has at most 107 bytes
        data, path, port = tempfile.mkdtemp(dir=place), os.path.join(short, "redis.socket"), free_port()
        command = [sys.executable, "-m", "walsvc.cli", "serve", "--data", data, "--unix", os.path.join(short, "s")]
        command += ["--http", f"127.0.0.1:{port}", "--http-api"] if http else ["--http", "off", "--redis", path]
        async with process(*command, quiet=True) as child:
            yield await started(http_url(port) if http else f"unix://{path}", child.pid)


@asynccontextmanager
async def bare_server(plan: Plan, log: str | None) -> AsyncIterator[Server]:
    """An aiohttp handler in a process of its own, which may append to an embedded log."""
    port = free_port()
    asked = bare.Asked(port, log, plan.loop)
    async with process(sys.executable, "-m", "bench.bare", asked.as_argument(), quiet=True) as child:
        yield await started(http_url(port), child.pid)


def http_url(port: int) -> str:
    """Where records are posted."""
    return f"http://127.0.0.1:{port}/v1/topics/{KEY}"


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
