"""Shared consumers under power cuts, beside rotation, reclaiming, purging, compaction and a cut of the log's end.

Workers acknowledge alone and together, give back, and let leases run out; poison becomes dead letters. At each operation of the
disk the power is cut, and what is left is compared with what the workers had been told: what was acknowledged is done, what is
done was acknowledged, is a dead letter or was purged, and everything else comes again.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from tests.crash.model import require
from tests.crash.moments import moments
from tests.crash.plan import Plan, reproducible
from tests.crash.program import Program
from walsvc.api import Log
from walsvc.disk.sim import SimDevice, SimLoop
from walsvc.errors import LeaseLost
from walsvc.opening import open_on
from walsvc.topics.dead import LSN as DEAD_LSN
from walsvc.topics.hub import Shared
from walsvc.topics.shared import Delivery, SharedConsumer

KEYS = ("a", "b", "c", None)
OPTIONS: dict[str, Any] = {"lease": 0.02, "max_deliveries": 2, "dead_letter": "dead", "ordered_by": "key"}
STATES = 2  # crash images at each operation


@dataclass
class Told:
    """What the workers know.

    Attributes:
        appended: payload of every LSN that was answered.
        delivered: how often each LSN was delivered.
        asked, done: LSNs whose acknowledgement was asked for, and has returned.
        plain: those of them that were asked for without a transaction.
        purged: the key whose records are being purged, or are.
        opened: the consumer was opened.
        cut: LSN behind which the log was, or is being, cut; None: it was not.
    """

    appended: dict[int, bytes] = field(default_factory=dict)
    delivered: dict[int, int] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    plain: set[int] = field(default_factory=set)
    purged: set[bytes] = field(default_factory=set)
    opened: bool = False
    cut: int | None = None

    def freeze(self) -> Told:
        """A copy that stays as it is."""
        copy = replace(self, appended=dict(self.appended), delivered=dict(self.delivered), asked=set(self.asked))
        return replace(copy, done=set(self.done), purged=set(self.purged), plain=set(self.plain))


class QueueWorkload(Program[Told]):
    """One program: producers, workers, somebody who purges and compacts, in the end a cut."""

    kind = "queues"

    async def run(self) -> None:
        """Open, let everybody work for a while, cut, go on, close."""
        self.log = await open_on(self.plan.disk(self.device), self.plan.config)
        working = [asyncio.ensure_future(self.work()) for _ in range(3)]
        await asyncio.gather(*(self.produce() for _ in range(3)), self.clean())
        await self.drained()
        if self.rng.random() < 0.5:
            await self.end_is_cut()
            await self.produce()
            await self.drained()
        for task in working:
            task.cancel()
        for outcome in await asyncio.gather(*working, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await self.log.close()

    async def drained(self) -> None:
        """Wait until the workers are done, on the simulation's clock."""
        while [each.lag for each in await self.log.topic("orders").consumers()] != [0]:
            await asyncio.sleep(5e-3)
            if self.told.purged and not self.left():
                return  # purged records count in the lag, and nobody gets them

    def left(self) -> bool:
        place = self.log.writer.core.changes.places.get(f"{self.log.writer.segments.topic_number('orders')}/workers")
        return isinstance(place, Shared) and place.hub is not None and bool(place.hub.leases.jobs)

    async def produce(self) -> None:
        for _ in range(self.steps):
            self.number += 1
            key = self.rng.choice(KEYS)
            kind = self.rng.choice(("good", "good", "good", "poison"))
            payload = f"{self.number} {kind} {key} ".encode() + bytes(self.rng.choice((0, 300, 1500)))
            attributes = {"kind": kind} if key is None else {"kind": kind, "key": key}
            topic = self.log.topic("orders" if self.rng.random() < 0.8 else "noise")
            lsn = (await topic.append(payload, attributes=attributes)).lsn
            if topic.name == "orders":
                self.told.appended[lsn] = payload

    async def work(self) -> None:
        consumer = await self.log.topic("orders").consumer("workers", shared=True, **OPTIONS)
        self.told.opened = True
        while True:
            batch = await consumer.read_batch(max_records=self.rng.randint(1, 3))
            for delivery in batch:
                lsn = delivery.record.lsn
                require(lsn not in self.told.done, f"LSN {lsn} was acknowledged and comes again")
                self.told.delivered[lsn] = max(delivery.attempt, self.told.delivered.get(lsn, 0))
            good = [each for each in batch if each.record.attributes["kind"] == "good"]
            for delivery in batch:
                if delivery not in good and self.rng.random() < 0.7:
                    try:
                        await delivery.nak(self.rng.choice((0.0, 0.001)))
                    except LeaseLost:
                        continue  # else it runs out
            if good and self.rng.random() < 0.9:
                lsns = {each.record.lsn for each in good}
                self.told.asked |= lsns
                try:
                    await self.acknowledge(consumer, good)
                except LeaseLost:
                    continue
                cut = self.told.cut
                self.told.done |= {lsn for lsn in lsns if cut is None or lsn <= cut}

    async def acknowledge(self, consumer: SharedConsumer, good: list[Delivery]) -> None:
        """Acknowledge jobs: alone, or in a transaction with a result of each."""
        if self.rng.random() < 0.5:
            self.told.plain |= {each.record.lsn for each in good}
            await consumer.ack(good)
            return
        async with self.log.transaction() as transaction:
            for each in good:
                transaction.ack(each)
                transaction.append(b"result", topic="results", attributes={"job": each.record.lsn})

    async def clean(self) -> None:
        await asyncio.sleep(2e-3)
        self.told.purged.add(b" a ")
        await self.log.topic("orders").purge("a")
        await self.log.compact()

    async def end_is_cut(self) -> None:
        lsn = max(self.log.next_lsn - 1 - self.rng.randint(0, 12), self.log.first_lsn - 1)
        self.told.cut = lsn
        for state in (self.told.asked, self.told.done):
            state -= {each for each in state if each > lsn}
        for known in (self.told.appended, self.told.delivered):
            for each in [each for each in known if each > lsn]:
                known.pop(each)
        await self.log.truncate_after(lsn)


async def recover_and_check(plan: Plan, device: SimDevice, told: Told) -> str:
    """Open what a crash left and compare; returns what was seen in a few words."""
    log = await open_on(plan.disk(device, calm=True), replace(plan.config, reclaim="manual"))
    core = log.writer.core
    number = log.writer.segments.topic_number("orders")
    key = f"{number}/workers"
    require(not told.opened or key in core.metadata.positions, "the consumer is gone")
    position, window = core.metadata.positions.get(key, 1), core.metadata.queues.get(key)
    require(window is None or window.rows_bytes < 4096, "the window has grown")
    known = {record.lsn: record async for record in log.topic("orders").read()}
    results = Counter([record.attributes["job"] async for record in log.topic("results").read()])
    letters = Counter([record.attributes[DEAD_LSN] async for record in log.topic("dead").read()])
    cut = told.cut

    def done(lsn: int) -> bool:
        return lsn < position or (window is not None and window.covers(lsn))

    for lsn in told.done:
        require(done(lsn), f"LSN {lsn} was acknowledged and is not done")
    for lsn, record in known.items():
        stands = lsn in told.asked or lsn in letters
        if cut is None:  # a cut may have taken the dead letter, or be under way
            require(not done(lsn) or stands, f"LSN {lsn} is done, and was neither acknowledged nor is a dead letter")
        if not done(lsn) and told.appended.get(lsn) == record.payload:
            tried = 0 if window is None else window.tried.get(lsn, 0)
            require(tried >= told.delivered.get(lsn, 0) - 1, f"deliveries of LSN {lsn} are not counted")
    for lsn, count in results.items():
        require(count == 1 or cut is not None, f"LSN {lsn} has {count} results")
        require(done(lsn) or (cut is not None and lsn > cut), f"LSN {lsn} has a result and is not done")
    for lsn in known if cut is None else ():
        by_transaction = done(lsn) and lsn in told.asked - told.plain and lsn not in letters
        require(not by_transaction or lsn in results, f"LSN {lsn} was done in a transaction, and its result is lost")
    for lsn, count in letters.items():
        require(count == 1 or cut is not None, f"LSN {lsn} has {count} dead letters")
        require(done(lsn) or (cut is not None and lsn > cut), f"LSN {lsn} is a dead letter and not done")
    for lsn, payload in told.appended.items():
        gone = lsn < log.first_lsn or any(each in payload for each in told.purged)
        if cut is None and not done(lsn) and not gone:
            require(lsn in known and known[lsn].payload == payload, f"LSN {lsn} is not done and lost")
    if number is not None:
        await check_rest(log, {lsn for lsn in known if not done(lsn)})
    seen = f"{position} {window and window.rows()!r}"
    await log.close()
    return seen


async def check_rest(log: Log, rest: set[int]) -> None:
    """What is not done comes, all of it and nothing else."""
    consumer = await log.topic("orders").consumer("workers", shared=True, **{**OPTIONS, "lease": 600.0})
    seen: set[int] = set()
    while seen != rest:
        for delivery in await consumer.read_batch():
            require(delivery.record.lsn in rest - seen, f"LSN {delivery.record.lsn} comes, though it is done")
            seen.add(delivery.record.lsn)
            await delivery.ack()
    require(await consumer.lag() == 0 or bool(log.writer.segments.marks), "something is left")


def explore_queues(seed: int, steps: int = 12) -> Counter[str]:
    """Cut the power at every operation of a workload; returns how often each outcome was seen. Raises Violation."""
    plan = Plan.draw(seed).with_options(reclaim="consumed", relaxed_interval=0.002)
    device, told = plan.device(), Told()
    with reproducible(seed):
        points = moments(seed, device, told, QueueWorkload(plan, device, told, steps).run)
        outcomes: Counter[str] = Counter()
        looks: dict[tuple[str, str], str] = {}  # an image of which the same is known is looked at once
        loop = SimLoop()
        for where, fork, known in points:
            for index, image in enumerate(fork.crash_states(STATES)):
                try:
                    if (key := (image.fingerprint(), repr(known))) not in looks:
                        looks[key] = loop.run_until_complete(recover_and_check(plan, image, known))
                    outcomes[looks[key]] += 1
                except Exception as error:
                    error.add_note(f"seed {seed}, operation {where}, image {index}")
                    raise
        loop.close()
    return outcomes


def main() -> None:
    """Explore many seeds: python -m tests.crash.queues FIRST COUNT"""
    first, count = map(int, sys.argv[1:3])
    images = 0
    for seed in range(first, first + count):
        outcomes = explore_queues(seed)
        images += sum(outcomes.values())
        print(f"up to seed {seed}: {images} crash images, {len(outcomes)} outcomes of this one", flush=True)


if __name__ == "__main__":
    main()
