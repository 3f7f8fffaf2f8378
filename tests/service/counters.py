"""Many clients that increment one counter by conditional appends, and a server that is killed with SIGKILL again and again.

    python -m tests.service.counters --clients 16 --kills 20 --increments 200

A client reads the counter's last value, appends the next one with `expected=` the LSN that it read, and begins again where another
was faster. In the end the counter's value must be the number of successes, each value must be there once, and in order. An append whose
outcome is not known (OutcomeUnknown) is counted by itself: the client reads the last value and goes on, and the final value may be larger
than the number of successes by as many at most.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import walsvc
from tests.service.campaign import start_server
from walsvc import Conflict, OutcomeUnknown


@dataclass
class Outcome:
    """What a campaign found."""

    successes: int = 0
    conflicts: int = 0
    unknown: int = 0
    repeated: int = 0
    kills: int = 0
    values: tuple[int, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the counter is what the clients were told."""
        final = len(self.values)
        return self.values == tuple(range(1, final + 1)) and self.successes <= final <= self.successes + self.unknown


async def newest(topic: Any) -> tuple[int, int]:
    """LSN and value of the counter's last record; 0, 0 before the first."""
    last = await topic.last_lsn()
    if last is None:
        return 0, 0
    async for record in topic.read(start=last):
        return record.lsn, int(record.payload)
    raise AssertionError(f"record {last} is gone")


async def client(url: str, increments: int, outcome: Outcome) -> None:
    """Increment the counter so many times."""
    async with walsvc.open(url, open_seconds=60.0, backoff_max_seconds=0.2) as log:
        topic, done = log.topic("counter"), 0
        lsn, value = await newest(topic)
        while done < increments:
            try:
                lsn = (await topic.append(b"%d" % (value + 1), expected=lsn)).lsn
                value, done = value + 1, done + 1
            except Conflict:
                outcome.conflicts += 1
                lsn, value = await newest(topic)
            except OutcomeUnknown:
                outcome.unknown += 1
                lsn, value = await newest(topic)
        outcome.successes += done
        outcome.repeated += log._session.repeated


async def campaign(clients: int, increments: int, kills: int) -> Outcome:
    """Run it once: kills are spread over the increments."""
    outcome, total = Outcome(), clients * increments
    with tempfile.TemporaryDirectory(prefix="walsvc-") as name:
        data, socket = Path(name) / "log", Path(name) / "socket"
        url = f"unix://{socket}"
        server = await start_server(data, socket)
        try:
            async with (
                walsvc.open(url, open_seconds=60.0, backoff_max_seconds=0.2) as log,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(clients):
                    group.create_task(client(url, increments, outcome))
                async for record in log.topic("counter").follow():
                    if int(record.payload) >= total * (outcome.kills + 1) // (kills + 1):
                        if outcome.kills == kills:
                            break
                        server.send_signal(signal.SIGKILL)
                        await server.wait()
                        outcome.kills += 1
                        server = await start_server(data, socket)
        finally:
            if server.returncode is None:
                server.terminate()
            await server.wait()
        async with walsvc.open(data, read_only=True) as log:
            outcome.values = tuple([int(record.payload) async for record in log.topic("counter").read()])
    return outcome


def main() -> int:
    """Command line; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--increments", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    outcome = asyncio.run(campaign(options.clients, options.increments, options.kills))
    print(
        f"{outcome.kills} kills, {outcome.successes} successes, final value {max(outcome.values)}, {outcome.conflicts} conflicts, "
        f"{outcome.unknown} outcomes unknown, {outcome.repeated} requests sent again: {'right' if outcome.right else 'WRONG'}"
    )
    return 0 if outcome.right else 1


if __name__ == "__main__":
    sys.exit(main())
