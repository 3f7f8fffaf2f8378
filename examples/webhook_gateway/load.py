"""The senders: many clients that post real events, each over its own connection, and note what was answered.

    python load.py --port 8080 --clients 1000 --outcome outcome.msgpack

Runs until its standard input is closed. A client posts its next event only after the last one had an outcome:
answered (200), or unknown (the connection broke before the answer came: the event may be stored or not). It never sends
an unknown event again under the same id, so an id that is stored twice would be the gateway's fault. A refused connection
is no outcome, because nothing was sent: the client tries again with the same event.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgpack

LINE_BYTES_MAX = 16 << 10
LINES_MAX = 200_000  # bounds memory; the lines are used again in turn
RETRY_SECONDS = 0.05
PROGRESS_SECONDS = 0.25


class Outcome(NamedTuple):
    """What one client knows about one event. `lsn` is 0 where no answer came; times are CLOCK_MONOTONIC."""

    client: int
    seq: int
    body: bytes
    lsn: int
    answered_ns: int
    latency_us: int
    append_us: int


def sources() -> Iterator[tuple[str, bytes]]:
    """Names and contents of real text on this machine: the package manager's logs and this repository's history."""
    for path in (Path("/var/log/dpkg.log"), Path("/var/log/apt/history.log"), Path("/var/log/apt/term.log")):
        try:
            yield str(path), path.read_bytes()
        except OSError:
            continue
    here = Path(__file__).resolve().parents[2]
    try:
        history = subprocess.run(["git", "-C", here, "log", "-p"], capture_output=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        history = b""
    yield "git log -p", history
    yield from ((str(path), path.read_bytes()) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("a*.py")))


def lines() -> list[tuple[str, str]]:
    """The lines of all sources, taken from each in turn, with where each comes from."""
    texts = [
        [
            (f"{name}:{number}", line.decode(errors="replace"))
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and len(line) <= LINE_BYTES_MAX
        ]
        for name, text in sources()
    ]
    mixed = (each for row in itertools.zip_longest(*texts) for each in row if each is not None)
    return list(itertools.islice(mixed, LINES_MAX))


class Senders:
    """All clients of one run and what they saw."""

    def __init__(self, url: str, clients: int) -> None:
        self.url = url
        self.clients = clients
        self.outcomes: list[Outcome] = []
        self.answered = 0
        self.refused = 0
        self.rejected: list[str] = []
        self.stopping = False
        self.events = itertools.cycle(lines())

    async def send(self, session: aiohttp.ClientSession, client: int) -> None:
        """One client: event after event, in order, until told to stop."""
        for seq in itertools.count(1):
            if self.stopping:
                return
            source, line = next(self.events)
            event = {"id": f"{client}-{seq}", "client": client, "seq": seq, "source": source, "event": line}
            outcome = await self.post(session, client, seq, json.dumps(event, ensure_ascii=False).encode())
            if outcome is not None:
                self.outcomes.append(outcome)

    async def post(self, session: aiohttp.ClientSession, client: int, seq: int, body: bytes) -> Outcome | None:
        """Post one event until it has an outcome. None: told to stop before it was sent."""
        while not self.stopping:
            began = time.monotonic_ns()
            try:
                async with session.post(self.url, data=body) as response:
                    answer = await response.read()
            except aiohttp.ClientConnectorError:
                self.refused += 1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except (aiohttp.ClientError, OSError):
                return Outcome(client, seq, body, 0, 0, 0, 0)
            ended = time.monotonic_ns()
            if response.status != 200:
                self.rejected.append(f"{response.status} {answer[:200]!r}")
                return Outcome(client, seq, body, 0, 0, 0, 0)
            told = json.loads(answer)
            self.answered += 1
            return Outcome(client, seq, body, told["lsn"], ended, (ended - began) // 1000, told["append_us"])
        return None

    def progress(self) -> dict[str, object]:
        return {
            "answered": self.answered,
            "unknown": len(self.outcomes) - self.answered,
            "refused": self.refused,
            "rejected": self.rejected[:3],
        }

    async def run(self) -> None:
        """All clients until standard input ends."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [asyncio.create_task(self.send(session, client)) for client in range(1, self.clients + 1)]
            told = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
            while not told.done():
                await asyncio.wait((told, *tasks), timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
                for task in tasks:
                    if task.done():
                        task.result()
                print(json.dumps(self.progress()), flush=True)
            self.stopping = True
            await asyncio.gather(*tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description="post real events from many clients until standard input is closed")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--outcome", type=Path, required=True, help="file for what every client saw (msgpack stream)")
    arguments = parser.parse_args()
    senders = Senders(f"http://{arguments.host}:{arguments.port}/events", arguments.clients)
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(senders.run())
    with arguments.outcome.open("wb") as file:
        for outcome in senders.outcomes:
            file.write(msgpack.packb(outcome))


if __name__ == "__main__":
    main()
