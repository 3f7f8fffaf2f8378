"""Power cuts and kills at every operation of a log with conditional appends and callers' keys, mixed with truncation, compaction and
rotation: a key's record is there once, the next append with the key finds it, and a counter has no gap."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.crash.model import require
from tests.crash.moments import moments
from tests.crash.plan import Plan, reproducible
from tests.crash.sampling import of_campaign
from walsvc import Conflict, Log
from walsvc.disk.sim import SimDevice, SimLoop
from walsvc.opening import open_on

STATES = 2  # crash images at each operation


@dataclass
class Told:
    """What the program knows.

    Attributes:
        keys: LSN of each key that was answered.
        count: the counter's value that was answered last.
        cut: the lowest LSN that truncate_after was called with, since when nothing above it is certain; None: never.
    """

    keys: dict[str, int] = field(default_factory=dict)
    count: int = 0
    cut: int | None = None

    def freeze(self) -> Told:
        """A copy that stays as it is."""
        return Told(dict(self.keys), self.count, self.cut)


class Workload:
    """One program: keys that come again, increments of a counter by several tasks, a purge and a compaction, both truncations."""

    def __init__(self, plan: Plan, device: SimDevice, told: Told) -> None:
        self.plan, self.device, self.told = plan, device, told
        self.rng = random.Random(f"{plan.seed} conditions")
        self.log: Log

    async def run(self) -> None:
        self.log = await open_on(self.plan.disk(self.device), self.plan.config)
        for turn in range(4):
            await asyncio.gather(*(self.key() for _ in range(6)), *(self.increment() for _ in range(4)))
            if turn == 1:
                await asyncio.gather(self.purge(), *(self.key() for _ in range(3)))
        await self.log.truncate_before(self.log.next_lsn // 4)
        await self.key()
        cut = self.log.next_lsn - 3
        self.told.cut = cut
        await self.log.truncate_after(cut)
        self.told.keys = {key: lsn for key, lsn in self.told.keys.items() if lsn <= cut}
        self.told.count, self.told.cut = 0, None
        await asyncio.gather(*(self.key() for _ in range(4)))
        await self.log.close()

    async def purge(self) -> None:
        await self.log.purge("old")
        await self.log.compact()

    async def key(self) -> None:
        key = f"k{self.rng.randint(1, 24)}"
        payload = key.encode() * self.rng.randint(1, 2500)
        where = self.log.topic("orders") if self.rng.random() < 0.8 else self.log
        key = key if where is not self.log else f"log {key}"
        result = await where.append(payload, dedupe=key, attributes={"key": self.rng.choice(("old", "new"))})
        require(self.told.keys.setdefault(key, result.lsn) == result.lsn, f"{key} is at {result.lsn} and another LSN")

    async def increment(self) -> None:
        topic = self.log.topic("counter")
        while True:
            last, value = await newest(topic)
            try:
                await topic.append(b"%d" % (value + 1), expected=last)
            except Conflict:
                continue
            self.told.count = max(self.told.count, value + 1)
            return


async def newest(topic: Any) -> tuple[int, int]:
    """LSN and value of the counter's last durable record."""
    last, value = 0, 0
    async for record in topic.read():
        last, value = record.lsn, int(record.payload)
    return last, value


async def recover_and_check(plan: Plan, device: SimDevice, told: Told) -> str:
    """Open what a crash left, compare, and go on; returns what was seen in a few words."""
    log = await open_on(plan.disk(device, calm=True), plan.config)
    values = [int(record.payload) async for record in log.topic("counter").read()]
    require(values == list(range(values[0], values[-1] + 1)) if values else True, f"the counter has a gap: {values}")
    if told.cut is None:
        require(not told.count or (values and values[-1] >= told.count), f"{told.count} was answered: {values}")
    places = [log if key.startswith("log ") else log.topic("orders") for key in told.keys]
    repeated = [where.append(b"again", dedupe=key) for key, where in zip(told.keys, places, strict=True)]
    for (key, lsn), again in zip(told.keys.items(), await asyncio.gather(*repeated), strict=True):
        if told.cut is None or lsn <= told.cut:
            require((again.lsn, again.duplicate) == (lsn, True), f"{key} of LSN {lsn} is appended once more: {again}")
    seen = f"{log.next_lsn} {values[-1:]}"
    await log.close()
    return seen


def explore(seed: int, states: int = STATES) -> tuple[set[str], int]:
    """Cut the power, or kill, at every operation; returns the outcomes, and how many images were looked at."""
    plan = Plan.draw(seed).with_options(relaxed_interval=None)
    device, told = plan.device(), Told()
    loop, outcomes, images = SimLoop(), set[str](), 0
    seen: set[tuple[str, str]] = set()  # an image of which the same is known is looked at once
    with reproducible(seed):
        points = moments(seed, device, told, Workload(plan, device, told).run)
        for where, fork, known in points:
            killed = fork.fork()
            killed.kill()
            for index, image in enumerate([*fork.crash_states(states), killed]):
                images += 1
                same = image.fingerprint(), repr(known)
                if image is not killed and same in seen:
                    continue
                seen.add(same)
                try:
                    outcomes.add(loop.run_until_complete(recover_and_check(plan, image, known)))
                except Exception as error:
                    error.add_note(f"seed {seed}, operation {where}, image {index}; {plan}")
                    raise
    loop.close()
    return outcomes, images


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", of_campaign([1, 2], 1))
def test_power_cuts_and_kills_keep_keys_and_conditions(seed: int) -> None:
    outcomes, images = explore(seed)
    assert len(outcomes) > 10
    assert images > 200


def campaign(seeds: Any) -> None:
    """Many seeds, for a longer look: python -c "from tests.crash.test_conditions import campaign; campaign(range(100))"."""
    total = 0
    for seed in seeds:
        outcomes, images = explore(seed)
        total += images
        print(f"up to seed {seed}: {total} crash images, {len(outcomes)} outcomes of this one", flush=True)
