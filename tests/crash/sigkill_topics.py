"""SIGKILL at random on the real disks, for acknowledgements: what was acknowledged must not come again.

    python -m tests.crash.sigkill_topics --rounds 200 --disk uring --disk threads

Each round lets a child open the log of the rounds before, append to topics, consume them under both deliveries with
segments reclaimed, and report each acknowledgement through a pipe after it returned; kills it; and opens the log again.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections import Counter
from pathlib import Path

import walsvc
from tests.crash.killing import main, reports_until_killed

REPORT = struct.Struct("<cBQ")  # kind, consumer, LSN
OPENED, ACKED, APPENDED = b"o", b"k", b"a"
PERSIST_EVERY = 20
DELIVERIES = (walsvc.StrictlyOnce(), walsvc.AtLeastOnce(persist_every=PERSIST_EVERY))


async def child(path: str, seed: int) -> None:
    """Append and consume until killed."""
    rng = random.Random(seed)

    def report(kind: bytes, who: int, lsn: int) -> None:
        os.write(1, REPORT.pack(kind, who, lsn))

    async with walsvc.open(path, segment_bytes=65536 * rng.choice((1, 4)), reclaim="consumed") as log:
        topic = log.topic("t")
        consumers = [await topic.consumer(f"c{number}", each) for number, each in enumerate(DELIVERIES)]
        report(OPENED, 0, log.next_lsn)

        async def produce() -> None:
            while True:
                result = await topic.append(rng.randbytes(rng.choice((10, 200, 5000))))
                report(APPENDED, 0, result.lsn)
                await log.topic("noise").append(b"noise")

        async def consume(who: int, consumer: walsvc.Consumer) -> None:
            while True:
                batch = await consumer.read_batch(max_records=rng.randint(1, 5))
                await consumer.ack(batch[-1].lsn)
                for record in batch:
                    report(ACKED, who, record.lsn)

        tasks = [consume(number, each) for number, each in enumerate(consumers)]
        await asyncio.gather(*tasks, *(produce() for _ in range(4)))


async def check(path: Path, disk: str, appended: set[int], acked: list[set[int]]) -> Counter[str]:
    """Open the log and compare."""
    found: Counter[str] = Counter()
    async with walsvc.open(path, disk=disk) as log:
        topic = log.topic("t")
        there = {record.lsn async for record in topic.read()}
        found["miscounted"] += await topic.count() != len(there)
        for who, delivery in enumerate(DELIVERIES):
            position = {each.name: each.position for each in await topic.consumers()}[f"c{who}"]
            repeated = sum(lsn >= position for lsn in acked[who])
            found["repeated too often"] += repeated >= delivery.persist_every
            found["repeated"] += repeated
            found["lost"] += sum(lsn >= position and lsn not in there for lsn in appended)
            found["acknowledged"] += len(acked[who])
    return found


def run_round(path: Path, disk: str, seed: int) -> Counter[str]:
    """One child, one kill, one check."""
    appended: set[int] = set()
    acked: list[set[int]] = [set() for _ in DELIVERIES]
    for kind, who, lsn in reports_until_killed("tests.crash.sigkill_topics", REPORT, path, disk, seed):
        if kind == ACKED:
            acked[who].add(lsn)
        elif kind == APPENDED:
            appended.add(lsn)
    return asyncio.run(check(path, disk, appended, acked))


def campaign(disk: str, rounds: int, seed: int, directory: Path) -> int:
    """`rounds` kills on one log; prints what it saw, returns how much of it was wrong."""
    total: Counter[str] = Counter()
    for number in range(rounds):
        total += run_round(directory / "log", disk, seed + number)
    print(f"{disk}: {rounds} kills from seed {seed}: {dict(total)}")
    return total["lost"] + total["repeated too often"] + total["miscounted"]


if __name__ == "__main__":
    main(__doc__, child, campaign, rounds=200)
