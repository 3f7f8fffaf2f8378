"""Power cuts and kills at every operation of a purge and a compaction: the old segment or the new one, never none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.crash.model import require
from tests.crash.moments import moments
from tests.crash.plan import Plan, reproducible
from tests.crash.program import Program
from tests.crash.sampling import of_campaign
from walsvc import Log, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, SimLoop
from walsvc.format.segment import segment_name
from walsvc.log.offline.inspect import walk
from walsvc.log.read.stream import load_header
from walsvc.opening import open_on

KEYS = ("a", "b", "c", "d")
TOPIC_KEY = KEYS[0]  # records with it are of the topic t, all others of none
CONFIG = WalConfig(segment_bytes=65536)
STATES = 4  # crash images at each operation


@dataclass
class Told:
    """What the program knows.

    Attributes:
        called: key of every payload that was handed over.
        acked: payload of every LSN that was answered as durable.
        purged: LSN below which a key is hidden, by key, as far as `purge` has returned.
        asked: the same, as far as it was called.
        truncated: what truncate_before was called with.
        floor, asked_floor: LSN below which the topic is hidden, as far as a call has returned, and as far as one was made.
        singles, asked_singles: LSNs that were purged one by one, in the same way.
    """

    called: dict[bytes, str] = field(default_factory=dict)
    acked: dict[int, bytes] = field(default_factory=dict)
    purged: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    truncated: int = 1
    floor: int = 0
    asked_floor: int = 0
    singles: frozenset[int] = frozenset()
    asked_singles: frozenset[int] = frozenset()

    def freeze(self) -> Told:
        """A copy that stays as it is."""
        copies = {name: dict(getattr(self, name)) for name in ("called", "acked", "purged", "asked")}
        return replace(self, **copies)


class PurgeWorkload(Program[Told]):
    """One program that appends, purges, hides and compacts."""

    kind = "purge"

    async def run(self) -> None:
        """Write some segments, then purge and compact beside further appends; close."""
        self.log = await open_on(self.plan.disk(self.device), self.plan.config)
        for _ in range(self.steps):
            await self.append(self.rng.randint(1, 12))
            if self.rng.random() < 0.3:
                await self.purge()
            if self.rng.random() < 0.5:
                await self.hide()
        await asyncio.gather(self.log.compact(), self.append(3), self.purge(), self.hide())
        self.told.truncated = self.rng.randint(1, self.log.next_lsn // 2)
        await asyncio.gather(self.log.truncate_before(self.told.truncated), self.append(9))
        await self.purge()
        await self.log.compact()
        await self.log.close()

    async def append(self, count: int) -> None:
        rows = []
        for _ in range(count):
            self.number += 1
            key = self.rng.choice(KEYS)
            payload = (b"%d %s " % (self.number, key.encode())) * self.rng.randint(1, 300)
            self.told.called[payload] = key
            rows.append((payload, key))
        places = {key: self.log.topic("t") if key == TOPIC_KEY else self.log for key in KEYS}
        results = await asyncio.gather(*(places[key].append(payload, attributes={"key": key}) for payload, key in rows))
        for result, (payload, _) in zip(results, rows, strict=True):
            self.told.acked[result.lsn] = payload

    async def purge(self) -> None:
        key = self.rng.choice(KEYS)
        before = self.rng.choice((self.log.next_lsn, self.rng.randint(1, self.log.next_lsn)))
        self.told.asked[key] = max(before, self.told.asked.get(key, 0))
        await self.log.purge(key, before=before)
        self.told.purged[key] = max(before, self.told.purged.get(key, 0))

    async def hide(self) -> None:
        """Truncate the topic, or purge single records of any, or all but some of the topic."""
        told, topic, before = self.told, self.log.topic("t"), self.rng.randint(1, self.log.next_lsn)
        match self.rng.randrange(3):
            case 0:
                told.asked_floor = max(told.asked_floor, before)
                await topic.truncate_before(before)
                told.floor = max(told.floor, before)
            case 1:
                lsns = frozenset(self.rng.choices(range(1, self.log.next_lsn), k=4)) if before > 1 else frozenset()
                told.asked_singles |= lsns
                await self.log.purge(lsns=lsns)
                told.singles |= lsns
            case _:
                told.asked_floor = max(told.asked_floor, before)
                await topic.purge(before=before)
                told.floor = max(told.floor, before)


async def recover(plan: Plan, device: SimDevice, *, compact: bool) -> tuple[dict[int, bytes], str]:
    """Open what a crash left, and compact again, which changes nothing that is visible; what is, and the outcome in a few words."""
    log = await open_on(plan.disk(device, calm=True), plan.config)
    require(not any(finding.fatal for finding in log.report.findings), f"a fatal finding: {log.report}")
    left = [name for name in device.directory.names if name.endswith(".rewrite")]
    require(not left, f"unfinished files are still there: {left}")
    seen, count = await visible(log), await log.topic("t").count()
    if compact:
        await log.compact()
        require(await visible(log) == seen, "compaction changed what is visible")
        require(await log.topic("t").count() == count, "compaction changed how many records the topic has")
        await log.close()
        log = await open_on(plan.disk(device, calm=True), plan.config)
        require(await visible(log) == seen, "reopening changed what is visible")
        require(await log.topic("t").count() == count, "reopening changed how many records the topic has")
    await log.close()
    return seen, f"{log.next_lsn} {sorted(seen.items())} {sum(log.writer.core.catalog.view.sizes.values())}"


async def visible(log: Log) -> dict[int, bytes]:
    return {record.lsn: record.payload async for record in log.read()}


def check(seen: dict[int, bytes], told: Told) -> None:
    """What is visible is what it must be: all that was acknowledged but what was purged, and nothing that was purged."""
    for lsn, payload in seen.items():
        key = told.called.get(payload)
        require(key is not None, f"LSN {lsn} was never appended")
        assert key is not None
        require(lsn >= told.purged.get(key, 0), f"LSN {lsn} of {key} was purged and is back")
        require(lsn not in told.singles, f"LSN {lsn} was purged by itself and is back")
        require(key != TOPIC_KEY or lsn >= told.floor, f"LSN {lsn} was truncated with its topic and is back")
        require(lsn not in told.acked or told.acked[lsn] == payload, f"LSN {lsn} is another record")
    for lsn, payload in told.acked.items():
        key = told.called[payload]
        hidden = lsn < told.asked.get(key, 0) or lsn < told.truncated or lsn in told.asked_singles
        hidden |= key == TOPIC_KEY and lsn < told.asked_floor
        require(hidden or lsn in seen, f"LSN {lsn} was acknowledged and is lost")


def explore(seed: int, steps: int = 8, states: int = STATES) -> tuple[set[str], int]:
    """Cut the power, or kill, at every operation; returns the outcomes, and how many images were looked at."""
    plan = Plan.draw(seed).with_options(relaxed_interval=None)
    device, told = plan.device(), Told()
    loop, outcomes, images = SimLoop(), set[str](), 0
    looks: dict[object, tuple[dict[int, bytes], str]] = {}  # of power cuts: equal images are recovered once

    def look(image: SimDevice, known: Told, where: str, *, compact: bool, key: object) -> None:
        try:
            if key not in looks:
                looks[key] = loop.run_until_complete(recover(plan, image, compact=compact))
            seen, outcome = looks[key]
            check(seen, known)
            outcomes.add(outcome)
        except Exception as error:
            error.add_note(f"seed {seed}, operation {where}; {plan}")
            raise

    with reproducible(seed):
        points = moments(seed, device, told, PurgeWorkload(plan, device, told, steps).run)
        for number, (where, fork, known) in enumerate(points):
            for index, image in enumerate(fork.crash_states(states)):
                images += 1
                compact = index == number % states
                key = image.fingerprint(), compact
                look(image, known, f"{where}, image {index}", compact=compact, key=key)
            killed = fork.fork()
            killed.kill()
            images += 1
            look(killed, known, f"{where}, killed", compact=False, key=number)  # its page cache is there, too
    loop.close()
    return outcomes, images


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", of_campaign([0, 3], 1))
def test_power_cuts_and_kills_during_compaction_lose_nothing_and_bring_nothing_back(seed: int) -> None:
    outcomes, images = explore(seed)
    assert len(outcomes) > 10
    assert images > 300


async def with_torn_seal(device: SimDevice) -> int:
    """A log whose last segment but one has a seal that a crash has torn behind its header; returns that one's first LSN."""
    log = await open_on(SimDisk(device, latency=0.0), CONFIG)
    while len(log.writer.segments.ids()) < 4:
        await log.append(bytes(3000), attributes={"key": "a"})
    await log.close()
    ids = log.writer.segments.ids()
    disk = SimDisk(device, latency=0.0)
    header, _ = await load_header(disk, segment_name(ids[-1]), ids[-1])
    device.flip(segment_name(ids[-2]), header.previous_end + 4095, 0)
    await disk.close()
    return ids[-2]


async def test_seal_torn_behind_its_header_is_written_again() -> None:
    device = SimDevice(1)
    torn = await with_torn_seal(device)
    log = await open_on(SimDisk(device, latency=0.0), CONFIG)
    await log.close()
    disk = SimDisk(device, latency=0.0)
    walked = await walk(disk, segment_name(torn), torn, CONFIG.segment_bytes)
    assert walked is not None
    assert walked.sealed
    await disk.close()


async def test_compaction_gives_a_segment_with_a_damaged_seal_a_new_one() -> None:
    device = SimDevice(2)
    torn = await with_torn_seal(device)
    log = await open_on(SimDisk(device, latency=0.0), CONFIG)
    header, _ = await load_header(
        log.writer.segments.disk, segment_name(log.writer.segments.ids()[-1]), log.writer.segments.ids()[-1]
    )
    device.flip(segment_name(torn), header.previous_end + 4095, 0)
    records = [record async for record in log.read()]
    await log.purge("a", before=torn + 2)
    await log.compact()
    assert [record async for record in log.read()] == [record for record in records if record.lsn >= torn + 2]
    await log.close()
    disk = SimDisk(device, latency=0.0)
    walked = await walk(disk, segment_name(torn), torn, device.file(segment_name(torn)).visible_size)
    assert walked is not None
    assert walked.sealed
    await disk.close()
    log = await open_on(SimDisk(device, latency=0.0), CONFIG)
    assert [record async for record in log.read()] == [record for record in records if record.lsn >= torn + 2]
    await log.close()


async def test_marks_go_only_when_the_compacted_files_are_durable() -> None:
    device = SimDevice(3, loose=True)
    log = await open_on(SimDisk(device, latency=0.0), CONFIG)
    while len(log.writer.segments.ids()) < 3:
        await log.append(bytes(3000), attributes={"key": "a"})
    await log.purge("a", before=log.writer.segments.ids()[1])
    await log.compact()
    assert log.writer.core.metadata.purges == {}
    images = [image.fork() for image in device.crash_states(20)]
    first = log.writer.segments.ids()[1]
    await log.close()
    for image in images:
        log = await open_on(SimDisk(image, latency=0.0), CONFIG)
        assert min([record.lsn async for record in log.read()]) == first
        await log.close()


def campaign(seeds: Any) -> None:
    """Many seeds, for a longer look: python -c "from tests.crash.test_compaction import campaign; campaign(range(100))"."""
    total, distinct = 0, set[str]()
    for seed in seeds:
        outcomes, images = explore(seed)
        total += images
        distinct |= {f"{seed} {each}" for each in outcomes}
        print(f"up to seed {seed}: {total} crash images, {len(distinct)} distinct outcomes", flush=True)
    print(f"{len(list(seeds))} seeds, {total} crash images, {len(distinct)} distinct outcomes, nothing lost")
