"""A log in JetStream under fire: servers killed under load, alone and all at once, and writers that fight for the stream.

    python -m tests.engines.campaign [--rounds 50] [--takeovers 50] [--flips 12] [--workers 64] [--seed 1]

Each round kills one server with SIGKILL while records are appended (every fourth round all three), goes on appending, and
starts what was killed. Then everything is read: each acknowledged record must be there, at its LSN, once. The takeovers open
the stream anew again and again while the former writer appends; it must get Fenced, and nothing else. Then bits are flipped
in what the servers have stored: reading may find everything, or say Corruption, but never anything that was not appended.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import walsvc
from tests.engines.cluster import NODES, Cluster
from walsvc import Corruption, DurabilityLost, Fenced, Log, PathError, WalError

PROGRESS_SECONDS = 60.0
KILL_ALL_EVERY = 4


@dataclass
class Outcome:
    """What a campaign has seen. From `lost` to `other_errors` everything must be 0."""

    rounds: int = 0
    takeovers: int = 0
    acknowledged: int = 0
    reopened: int = 0
    flipped: int = 0
    corruptions: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    gaps: int = 0
    not_fenced: int = 0
    other_errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """How much went wrong."""
        return self.lost + self.doubled + self.changed + self.gaps + self.not_fenced + len(self.other_errors)


class Load:
    """Workers that append unique records for ever, and remember what was acknowledged."""

    def __init__(self, workers: int) -> None:
        self.acknowledged: dict[int, bytes] = {}
        self.doubled = 0
        self._workers = workers
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, log: Log) -> None:
        """Append to `log` until it fails or `stop` is called."""
        self._tasks = [asyncio.ensure_future(self._append(log)) for _ in range(self._workers)]

    async def _append(self, log: Log) -> None:
        while True:
            number = next(self._numbers)
            payload = b"%d " % number * (1 + number % 90)
            result = await log.append(payload)
            self.doubled += result.lsn in self.acknowledged
            self.acknowledged[result.lsn] = payload

    async def progress(self, records: int) -> None:
        """Wait until so many more are acknowledged, or the log has failed."""
        target, deadline = len(self.acknowledged) + records, time.monotonic() + PROGRESS_SECONDS
        while len(self.acknowledged) < target and not self.failed:
            assert time.monotonic() < deadline, "nothing is acknowledged any more, and nothing fails"
            await asyncio.sleep(0.005)

    @property
    def failed(self) -> bool:
        """Some worker has ended."""
        return any(task.done() for task in self._tasks)

    async def stop(self) -> list[BaseException]:
        """End all workers; returns what they had failed with."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        return [each for each in ended if isinstance(each, Exception)]


async def compare(cluster: Cluster, stream: str, load: Load, outcome: Outcome) -> None:
    """Everything that was acknowledged against everything that the stream has, read by somebody who wrote none of it."""
    found, seen = {}, set()
    async with await opened(cluster, stream, read_only=True) as log:
        expected = log.first_lsn
        async for record in log.read():
            outcome.gaps += record.lsn != expected
            expected = record.lsn + 1
            outcome.doubled += record.payload in seen
            seen.add(record.payload)
            found[record.lsn] = record.payload
    for lsn, payload in load.acknowledged.items():
        outcome.lost += lsn not in found
        outcome.changed += found.get(lsn, payload) != payload
    outcome.doubled += load.doubled
    outcome.acknowledged += len(load.acknowledged)
    load.doubled = 0


async def opened(cluster: Cluster, stream: str, **options: Any) -> Any:
    """The log, as soon as the cluster lets it be opened."""
    deadline = time.monotonic() + PROGRESS_SECONDS
    while True:
        try:
            shape = {"segment_bytes": 1 << 20, "timeout": 20.0, "monitor": cluster.monitor}
            return await walsvc.open(cluster.url(stream), **shape, **options)
        except PathError:
            if time.monotonic() > deadline:
                raise


def plan_of(rounds: int) -> list[list[int]]:
    """Which servers to kill in each round: one after the other, and every fourth time all of them."""
    everybody = list(range(NODES))
    return [
        everybody if number % KILL_ALL_EVERY == KILL_ALL_EVERY - 1 else [number % NODES] for number in range(rounds)
    ]


async def kill_rounds(
    cluster: Cluster, plan: list[list[int]], workers: int, chance: random.Random, outcome: Outcome
) -> None:
    """Kill and restart servers under load."""
    stream = cluster.new_stream()
    log, load = await opened(cluster, stream), Load(workers)
    for number, victims in enumerate(plan):
        load.start(log)
        await load.progress(chance.randint(1, 400))
        for victim in victims:
            cluster.kill(victim)
        if len(victims) < NODES:
            await load.progress(chance.randint(1, 400))  # a majority is left
        for victim in victims:
            cluster.launch(victim)
        await asyncio.to_thread(cluster.wait_ready)
        await load.progress(50)
        errors = await load.stop()
        for error in errors:
            if not isinstance(error, DurabilityLost):
                outcome.other_errors.append(repr(error))
        if errors or chance.random() < 0.3:
            outcome.reopened += 1
            try:
                await log.close()
            except WalError as error:
                print(json.dumps({"closing": str(error)}), flush=True)
            log = await opened(cluster, stream)
        await compare(cluster, stream, load, outcome)
        outcome.rounds += 1
        print(json.dumps({"round": number, "acknowledged": len(load.acknowledged), "bad": outcome.bad}), flush=True)
        await log.truncate_before(log.next_lsn)
        load.acknowledged.clear()
    await log.close()


async def takeovers(cluster: Cluster, count: int, workers: int, chance: random.Random, outcome: Outcome) -> None:
    """Open the stream anew while its writer appends."""
    stream = cluster.new_stream()
    log, everything = await opened(cluster, stream), Load(workers)
    for number in range(count):
        load = Load(workers)
        load._numbers = itertools.count(number << 32)
        load.start(log)
        await load.progress(chance.randint(1, 300))
        later = await opened(cluster, stream)
        deadline = time.monotonic() + PROGRESS_SECONDS
        while not load.failed and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        errors = await load.stop()
        outcome.not_fenced += not errors or any(not isinstance(each, Fenced) for each in errors)
        outcome.doubled += len(everything.acknowledged.keys() & load.acknowledged.keys())
        everything.acknowledged |= load.acknowledged
        await log.close()
        log = later
        outcome.takeovers += 1
    await compare(cluster, stream, everything, outcome)
    await log.close()


async def bit_flips(cluster: Cluster, count: int, chance: random.Random, outcome: Outcome) -> None:
    """Flip bits in the stores of one server (every third time the same in all) while it is down. Reading may then find everything,
    or say Corruption; never anything else than what was appended."""
    for number in range(count):
        stream = cluster.new_stream()
        payloads = [b"%d " % each * 200 for each in range(300)]
        log = await opened(cluster, stream)
        for payload in payloads:
            await log.append(payload)
        await log.close()
        victims = list(range(NODES)) if number % 3 == 2 else [number % NODES]
        seed = chance.random()
        for victim in victims:
            cluster.kill(victim)
        for victim in victims:
            outcome.flipped += flip(cluster, victim, stream, random.Random(seed))  # in all of them the same bits
            cluster.launch(victim)
        await asyncio.to_thread(cluster.wait_ready)
        try:
            async with await opened(cluster, stream, read_only=True) as reader:
                async for record in reader.read():
                    outcome.changed += record.payload != payloads[record.lsn - 1]
            outcome.lost += reader.next_lsn != len(payloads) + 1
        except Corruption as error:
            outcome.corruptions += 1
            print(json.dumps({"flip": number, "victims": victims, "corruption": str(error)}), flush=True)


def flip(cluster: Cluster, node: int, stream: str, chance: random.Random) -> int:
    """Flip three bits in the blocks of a stream in one server's store; returns how many were flipped."""
    blocks = sorted(cluster.directory.glob(f"n{node + 1}/jetstream/*/streams/{stream}/msgs/*.blk"))
    flipped = 0
    for _ in range(3):
        block = chance.choice(blocks)
        data = bytearray(block.read_bytes())
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            block.write_bytes(data)
            flipped += 1
    return flipped


async def campaign(cluster: Cluster, options: Any) -> Outcome:
    """All of it."""
    chance, outcome, began = random.Random(options.seed), Outcome(), time.monotonic()
    await kill_rounds(cluster, plan_of(options.rounds), options.workers, chance, outcome)
    await takeovers(cluster, options.takeovers, options.workers, chance, outcome)
    await bit_flips(cluster, options.flips, chance, outcome)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def main() -> None:
    """Run it on a cluster of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--takeovers", type=int, default=50)
    parser.add_argument("--flips", type=int, default=12)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cluster = Cluster()
    try:
        outcome = asyncio.run(campaign(cluster.start(), options))
        print(json.dumps({"seed": options.seed, **asdict(outcome)}))
        raise SystemExit(outcome.bad > 0)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
