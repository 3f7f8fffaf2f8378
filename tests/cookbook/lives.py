"""The cookbook's programs as processes that are killed: `python -m tests.cookbook.lives NAME DIRECTORY`.

Each goes on where its log says it is, and prints a line for everything that somebody was told. `lives_of` kills it after so many
lines, by SIGKILL, and starts it again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import walsvc
from tests.forked import ROOT

sys.path += [str(ROOT / "examples"), str(ROOT / "examples" / "crash_tests")]


def lives_of(name: str, directory: Path, *, kills: int, seed: int) -> list[str]:
    """Run a program until it has been killed so often; returns the lines that it printed."""
    chance, said = random.Random(seed), list[str]()
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cookbook.lives", name, str(directory)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            said += list(itertools.islice(process.stdout, chance.randrange(1, 60)))
            process.kill()
            said += [line for line in process.stdout if line.endswith("\n")]  # they were told, too
        assert process.returncode == -9, "it has ended before it was killed"
    return [line.strip() for line in said]


def tell(line: object) -> None:
    print(line, flush=True)


async def orders(directory: str) -> None:
    """Event-sourced orders with snapshots: says each order that is stored."""
    from orders import Orders

    shop = await Orders.open(directory)
    for number in itertools.count(len(shop.books)):
        await shop.place({"id": str(number), "books": number})
        tell(number)
        if number % 20 == 19:
            await shop.snapshot()


async def edge(directory: str) -> None:
    """Edge forwarding: says each reading that the device has stored."""
    from forward import forward

    async with (
        walsvc.open(f"{directory}/local", reclaim="consumed", segment_bytes=65_536) as local,
        walsvc.open(f"{directory}/central") as central,
    ):
        forwarding = asyncio.create_task(forward("edge-7", local, central))
        while not forwarding.done():
            tell((await local.append(b"reading")).lsn)


async def outbox(directory: str) -> None:
    """A transactional outbox: says each order that is stored; the messages go to another log."""
    from outbox import Shop

    async with walsvc.open(f"{directory}/shop") as log, walsvc.open(f"{directory}/receiver") as receiver:
        shop = Shop(log)
        sending = asyncio.create_task(shop.send_all(lambda key, message: receiver.append(message, dedupe=key)))
        while not sending.done():
            tell(await shop.place("an order", {"books": 3}))


async def agent(directory: str) -> None:
    """An agent's checkpoints in LangGraph: says each step that is stored."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph_saver import LogSaver

    async with walsvc.open(directory) as log:
        saver = await LogSaver.on(log)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        last = await saver.aget_tuple(config)
        for step in itertools.count(0 if last is None else last.metadata["step"] + 1):
            checkpoint = {
                **empty_checkpoint(),
                "channel_values": {"state": step},
                "channel_versions": {"state": step + 1},
            }
            config = await saver.aput(config, checkpoint, {"source": "loop", "step": step}, {"state": step + 1})
            await saver.aput_writes(config, [("answer", f"of step {step}")], "task")
            tell(step)


def recorder(directory: str) -> None:
    """The library eventsourcing with its recorder: says each version of an aggregate that is stored."""
    from eventsourcing.persistence import StoredEvent
    from eventsourcing_recorder import LogRecorder

    events = LogRecorder(directory)
    for version in itertools.count(len(events.select_events("one"))):
        events.insert_events([StoredEvent("one", version, "made", b"x"), StoredEvent("other", version, "made", b"y")])
        tell(version)


PROGRAMS: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
    each.__name__: each for each in (orders, edge, outbox, agent)
}

if __name__ == "__main__":
    if sys.argv[1] == "recorder":
        recorder(sys.argv[2])
    else:
        asyncio.run(PROGRAMS[sys.argv[1]](sys.argv[2]))
