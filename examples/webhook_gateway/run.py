"""The demonstration: a webhook gateway under load is killed in the middle, and nothing that it answered is lost.

    python run.py [--clients 1000] [--seconds 12] [--directory demo-data]

server.py (the gateway) and load.py (the senders) run as processes of their own. Half-way the gateway gets SIGKILL and is
started again while the senders keep trying; at the end it gets SIGKILL again, under full load. Then the log is opened here
and compared with what every sender was told. Exit code 0: every answered event is there. 1: it is not, or a part failed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
from load import Outcome
from report import Run, show
from rich.console import Console
from verdict import compare

import walsvc

HERE = Path(__file__).resolve().parent
FILES_SPARE = 200  # file descriptors that a process with N connections needs besides them
START_SECONDS = 30.0
STATS_SECONDS = 0.2
PORTS = range(
    18080, 18180
)  # below Linux's ephemeral ports: a client's own port must not take the gateway's while it is down


class DemoFailed(Exception):
    """A part of the demonstration did not work; the message is for the reader."""


@dataclasses.dataclass
class Life:
    """The gateway from one start to its end. Times are CLOCK_MONOTONIC nanoseconds."""

    process: asyncio.subprocess.Process
    recovery: dict[str, Any]
    stats: dict[str, Any]
    ready_ns: int
    killed_ns: int = 0


async def start_gateway(directory: Path, port: int) -> Life:
    """Start the gateway and wait until it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, HERE / "server.py", directory, "--port", str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        hello = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
    except TimeoutError:
        process.kill()
        raise DemoFailed(f"the gateway did not open its log within {START_SECONDS:.0f} s") from None
    if not hello:
        raise DemoFailed(f"the gateway ended at its start with exit code {await process.wait()}")
    told = json.loads(hello)
    return Life(process, told["recovery"], told["stats"], time.monotonic_ns())


async def watch(life: Life, port: int, seconds: float) -> None:
    """Let the gateway work for `seconds`, and keep its latest counters: SIGKILL leaves no time to ask for them."""
    url = f"http://127.0.0.1:{port}/stats"
    until = time.monotonic() + seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while time.monotonic() < until:
            await asyncio.sleep(STATS_SECONDS)
            if life.process.returncode is not None:
                raise DemoFailed(f"the gateway ended by itself with exit code {life.process.returncode}")
            async with session.get(url) as response:
                life.stats = await response.json()


async def kill(life: Life) -> None:
    life.process.send_signal(signal.SIGKILL)
    life.killed_ns = time.monotonic_ns()
    await life.process.wait()


async def follow_progress(process: asyncio.subprocess.Process, latest: dict[str, Any], first: asyncio.Event) -> None:
    """Keep the senders' latest progress line; `first` is set when an event was answered."""
    assert process.stdout is not None
    async for line in process.stdout:
        latest.update(json.loads(line))
        if latest["answered"]:
            first.set()


async def drive(directory: Path, clients: int, seconds: float, console: Console) -> tuple[list[Life], dict[str, Any]]:
    """Load, kill, restart, load, kill. Returns the gateway's two lives and the senders' last progress."""
    port = free_port()
    log_directory = directory / "log"
    processes: list[asyncio.subprocess.Process] = []
    latest: dict[str, Any] = {"answered": 0}
    first = asyncio.Event()
    try:
        life = await start_gateway(log_directory, port)
        processes.append(life.process)
        console.print(f"gateway listens on port {port}; {clients:,} clients start to post", highlight=False)
        command = (HERE / "load.py", "--port", str(port), "--clients", str(clients))
        senders = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            "--outcome",
            directory / "outcome.msgpack",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        processes.append(senders)
        progress = asyncio.create_task(follow_progress(senders, latest, first))
        await asyncio.wait_for(first.wait(), START_SECONDS)
        await watch(life, port, seconds / 2)
        lives = [life]
        await kill(life)
        console.print(f"SIGKILL after {latest['answered']:,} answers; the clients go on trying", highlight=False)
        life = await start_gateway(log_directory, port)
        processes.append(life.process)
        lives.append(life)
        pause = (life.ready_ns - lives[0].killed_ns) / 1e9
        console.print(f"gateway is back {pause:.2f} s after the kill; the load goes on", highlight=False)
        await watch(life, port, seconds / 2)
        await kill(life)
        console.print(f"SIGKILL again after {latest['answered']:,} answers, under load", highlight=False)
        assert senders.stdin is not None
        senders.stdin.close()
        if await asyncio.wait_for(senders.wait(), START_SECONDS) != 0:
            raise DemoFailed("the senders failed")
        await progress
        return lives, latest
    except TimeoutError:
        raise DemoFailed(f"the senders got no answer within {START_SECONDS:.0f} s") from None
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoFailed(f"no free port in {PORTS.start} to {PORTS.stop - 1}")


def raise_file_limit(clients: int) -> int:
    """Raise RLIMIT_NOFILE, which the processes inherit, for `clients` connections; returns how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = clients + FILES_SPARE
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(clients, allowed - FILES_SPARE)


def fresh_directory(parent: Path) -> tuple[Path, str]:
    """Make a new directory in `parent`; returns it with the type of its file system, such as "ext4"."""
    directory = parent / time.strftime("%Y%m%d-%H%M%S")
    directory.mkdir(parents=True)
    best, kind = "", "an unknown file system"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, each, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, each
    return directory, kind


async def read_log(directory: Path) -> tuple[walsvc.RecoveryReport, list[tuple[int, bytes]]]:
    """Open the log as its next owner would, and read all of it."""
    async with walsvc.open(directory) as wal:
        return wal.report, [(record.lsn, record.payload) async for record in wal.read()]


def read_outcomes(path: Path) -> list[Outcome]:
    with path.open("rb") as file:
        return [Outcome(*values) for values in msgpack.Unpacker(file, max_buffer_size=1 << 30)]


async def demonstrate(arguments: argparse.Namespace, console: Console) -> bool:
    """The whole demonstration; True when every answered event was found."""
    began = time.monotonic()
    directory, kind = fresh_directory(arguments.directory)
    console.print(f"log in {directory}/log on {kind}", highlight=False)
    if kind == "tmpfs":
        console.print("tmpfs is memory: the log survives a kill there, but no power cut", style="yellow")
    clients = raise_file_limit(arguments.clients)
    if clients < arguments.clients:
        console.print(f"the limit of open files (ulimit -Hn) allows {clients} clients only", style="yellow")
    if clients < 1:
        raise DemoFailed("the limit of open files is too low for any client")
    lives, progress = await drive(directory, clients, arguments.seconds, console)
    report, records = await read_log(directory / "log")
    outcomes = read_outcomes(directory / "outcome.msgpack")
    run = Run(
        clients=clients,
        recoveries=[*(life.recovery for life in lives), dataclasses.asdict(report)],
        stats=[life.stats for life in lives],
        restarted_ns=lives[1].ready_ns,
        outcomes=outcomes,
        refused=progress["refused"],
        rejected=progress["rejected"],
        seconds=time.monotonic() - began,
    )
    return show(run, compare(outcomes, records), console)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="a webhook gateway is killed under load: is every answered event there?"
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=12.0, help="length of the load, both halves together")
    parser.add_argument("--directory", type=Path, default=Path("demo-data"), help="where a fresh directory is made")
    parsed = parser.parse_args(arguments)
    console = Console()
    try:
        return 0 if asyncio.run(demonstrate(parsed, console)) else 1
    except (DemoFailed, walsvc.WalError) as error:
        console.print(f"FAILED: {error}", style="bold red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
