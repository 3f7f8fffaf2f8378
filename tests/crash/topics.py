"""Topics, acknowledgements and reclaiming under power cuts: a workload, what it was told, and what a crash may leave."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

from walsvc.disk.sim import SimDevice
from walsvc.model import Record
from walsvc.opening import open_on
from walsvc.topics.delivery import AtLeastOnce, Delivery, StrictlyOnce

from .model import require
from .moments import Explored, cut_at_each
from .plan import Plan
from .program import Program

TOPICS = ("orders", "events", "rare")
DELIVERIES: dict[str, Delivery] = {"strict": StrictlyOnce(), "loose": AtLeastOnce(persist_every=5)}
STATES = 3  # crash images at each operation


@dataclass
class Told:
    """What the program knows.

    Attributes:
        called: topic of every payload that was handed over.
        acked: payload of every LSN that was answered as durable.
        returned: acknowledged LSNs, by topic and consumer, whose `ack` has returned.
        asked: the highest LSN, by topic and consumer, that `ack` was called with.
        consumers: those whose opening has returned.
        holds: the hold that was last made, and the one that is being made.
    """

    called: dict[bytes, str] = field(default_factory=dict)
    acked: dict[int, bytes] = field(default_factory=dict)
    returned: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    consumers: set[tuple[str, str]] = field(default_factory=set)
    holds: tuple[int | None, int | None] = (None, None)

    def freeze(self) -> Told:
        """A copy that stays as it is."""
        return replace(
            self,
            called=dict(self.called),
            acked=dict(self.acked),
            returned={key: list(lsns) for key, lsns in self.returned.items()},
            asked=dict(self.asked),
            consumers=set(self.consumers),
        )


class TopicWorkload(Program[Told]):
    """One program: producers, consumers of both deliveries, a holder, reclaiming by itself."""

    kind = "topics"

    async def run(self) -> None:
        """Open, let everybody work for a while, close."""
        self.log = await open_on(self.plan.disk(self.device), self.plan.config)
        readers = [self.consume(topic, name) for topic in TOPICS for name in DELIVERIES]
        writers = [self.produce(topic) for topic in TOPICS for _ in range(2)]
        reading = [asyncio.ensure_future(each) for each in (*readers, self.hold())]
        await asyncio.gather(*writers)
        for task in reading:
            task.cancel()
        for outcome in await asyncio.gather(*reading, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await self.log.close()

    def payload(self, topic: str) -> bytes:
        self.number += 1
        made = b"%d %s " % (self.number, topic.encode()) + bytes(self.rng.choice((0, 200, 900, 3000)))
        self.told.called[made] = topic
        return made

    async def produce(self, topic: str) -> None:
        where = self.log.topic(topic)
        for _ in range(self.steps if topic != "rare" else 3):
            if self.rng.random() < 0.15:
                batch = [self.payload(topic) for _ in range(self.rng.randint(2, 12))]
                for result, payload in zip(await where.append_batch(batch), batch, strict=True):
                    self.told.acked[result.lsn] = payload
            else:
                payload = self.payload(topic)
                self.told.acked[(await where.append(payload)).lsn] = payload
            if self.rng.random() < 0.2:
                await asyncio.sleep(self.rng.random() * 1e-3)

    async def consume(self, topic: str, name: str) -> None:
        key = (topic, name)
        consumer = await self.log.topic(topic).consumer(name, DELIVERIES[name])
        self.told.consumers.add(key)
        while True:
            batch = await consumer.read_batch(max_records=self.rng.randint(1, 6))
            self.told.asked[key] = batch[-1].lsn
            await consumer.ack(batch[-1].lsn)
            self.told.returned.setdefault(key, []).extend(record.lsn for record in batch)

    async def hold(self) -> None:
        while True:
            before = self.told.holds[0]
            wanted = self.rng.randint(max(self.log.first_lsn, before or 1), self.log.durable_lsn + 1)
            self.told.holds = (before, wanted)
            await self.log.hold("holder", wanted)
            self.told.holds = (wanted, None)
            await asyncio.sleep(2e-3)


@dataclass(frozen=True, slots=True)
class Seen:
    """What opening and reading gave: records by LSN, topics' numbers, consumers' positions, the hold."""

    first: int
    next: int
    records: dict[int, Record]
    topics: dict[str, int | None]
    positions: dict[str, int]
    hold: int | None

    def __str__(self) -> str:
        return f"{self.first} {self.next} {sorted(self.positions.items())}"


async def recover(plan: Plan, device: SimDevice) -> Seen:
    """Open what a crash left and read it; every count and every topic's records must be those of a full scan."""
    config = replace(plan.config, reclaim="manual")  # nothing is to change while it is looked at
    log = await open_on(plan.disk(device, calm=True), config)
    records = [record async for record in log.read()]
    require([record.lsn for record in records] == list(range(log.first_lsn, log.next_lsn)), "LSNs are not dense")
    counts = Counter(record.topic for record in records)
    for name in log.topics():
        require(await log.topic(name).count() == counts[name], f"count of {name} is not that of a full scan")
        seen = [record async for record in log.topic(name).read()]
        require(seen == [record for record in records if record.topic == name], f"{name} reads otherwise alone")
    found = Seen(
        log.first_lsn,
        log.next_lsn,
        {record.lsn: record for record in records},
        {topic: log.writer.segments.topic_number(topic) for topic in TOPICS},
        dict(log.writer.core.metadata.positions),
        log.holds().get("holder"),
    )
    await log.close()
    return found


def check(seen: Seen, told: Told) -> None:
    """Raise Violation unless that is possible after what the program knows."""
    for lsn, record in seen.records.items():
        require(told.called.get(record.payload) == record.topic, f"LSN {lsn} is of topic {record.topic!r}")
    for lsn, payload in told.acked.items():
        if lsn >= seen.first:
            there = seen.records.get(lsn)
            require(there is not None and there.payload == payload, f"LSN {lsn} was acknowledged and is lost")
    check_positions(seen, told)
    held, coming = told.holds
    if held is not None:
        require(seen.hold in (held, coming), f"the hold is {seen.hold}")
        require(seen.first <= max(held, coming or 0), "records were dropped that somebody holds")


def check_positions(seen: Seen, told: Told) -> None:
    """Every consumer stands where its delivery allows, and nothing that it has not seen is dropped."""
    dropped = seen.first
    for topic, name in told.consumers:
        number = seen.topics[topic]
        require(number is not None, f"topic {topic} had a consumer and is gone")
        position = seen.positions.get(f"{number}/{name}")
        require(position is not None, f"consumer {name} of {topic} is gone")
        assert position is not None
        key = (topic, name)
        returned = told.returned.get(key, [])
        repeated = sum(lsn >= position for lsn in returned)
        require(repeated < DELIVERIES[name].persist_every, f"{repeated} acknowledged records of {key} come again")
        farthest = told.asked.get(key, 0) + 1
        unseen = [lsn for lsn, payload in told.acked.items() if farthest <= lsn and told.called[payload] == topic]
        require(all(lsn >= position for lsn in unseen), f"{key} at {position} skips what was not acknowledged")
        require(all(lsn >= dropped for lsn in unseen), f"records of {key} were dropped unread")


def explore_topics(seed: int, steps: int = 14) -> Explored:
    """Cut the power at every operation of a workload; returns what was seen. Raises Violation."""
    plan = Plan.draw(seed).with_options(reclaim="consumed", relaxed_interval=0.002)
    return cut_at_each(TopicWorkload(plan, plan.device(), Told(), steps), STATES, recover, check)
