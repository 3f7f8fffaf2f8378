"""Topics that come and go under power cuts: a workload, what it was told, and what a crash may leave.

python -m tests.crash.going SECONDS STEPS [FIRST_SEED]
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from walsvc.disk.sim import SimDevice
from walsvc.errors import BadOption
from walsvc.opening import open_on
from walsvc.topics.deleting import delete_topic

from .campaigning import explore_for_a_while
from .model import require
from .moments import Explored, cut_at_each
from .plan import Plan
from .program import Program

NAMES = ("a", "b", "c", "d")
SIZES = (0, 200, 900, 6000)
STATES = 3  # crash images at each operation


@dataclass
class Told:
    """What the program knows.

    Attributes:
        called: topic of every payload that was handed over.
        acked: payload of every LSN that was answered as durable, and was not cut.
        accepted: for each topic, the LSNs below which deletions that were accepted hide it, in order.
        returned: and the highest of those that have returned.
        given: the highest number of a topic with a durable record.
        first: first_lsn, and what it may be by a truncation under way.
        cut: the LSN of a truncate_after under way.
    """

    called: dict[bytes, str | None] = field(default_factory=dict)
    acked: dict[int, bytes] = field(default_factory=dict)
    accepted: dict[str, list[int]] = field(default_factory=dict)
    returned: dict[str, int] = field(default_factory=dict)
    given: int = 0
    first: tuple[int, int] = (1, 1)
    cut: int | None = None

    def freeze(self) -> Told:
        """A copy that stays as it is."""
        accepted = {name: list(befores) for name, befores in self.accepted.items()}
        return replace(
            self, called=dict(self.called), acked=dict(self.acked), accepted=accepted, returned=dict(self.returned)
        )

    def is_cut(self, lsn: int) -> None:
        """The log ends with record `lsn` now: what comes behind it is of another life."""
        self.acked = {each: payload for each, payload in self.acked.items() if each <= lsn}
        self.returned = {name: min(before, lsn + 1) for name, before in self.returned.items()}
        self.accepted = {name: [min(each, lsn + 1) for each in befores] for name, befores in self.accepted.items()}
        self.cut = None


ToldT = TypeVar("ToldT", bound=Told)


class GoingWorkload(Program[ToldT]):
    """One program: records of topics that are deleted, truncated and made again, one step after the other."""

    kind = "going"

    async def run(self) -> None:
        """Open, do some steps, close."""
        self.log = log = await open_on(self.plan.disk(self.device), self.plan.config)

        def accepted(name: str) -> None:
            self.told.accepted.setdefault(name, []).append(log.next_lsn)

        log.writer.segments.cuts.deletions.add(accepted)
        choices = self.choices()
        for _ in range(self.steps):
            await self.rng.choices([step for _, step in choices], [weight for weight, _ in choices])[0]()
        await log.close()

    def choices(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        """The steps, each with its weight."""
        return [
            (10, self.append_some),
            (8, self.delete_beside_appends),
            (4, self.sessions),
            (3, self.transaction),
            (3, self.truncate_before),
            (2, self.truncate_after),
            (2, self.compact),
            (1, self.consume),
        ]

    def payload(self, name: str | None, sizes: Sequence[int] = SIZES) -> bytes:
        self.number += 1
        made = b"%d %s " % (self.number, str(name).encode()) + bytes(self.rng.choice(sizes))
        self.told.called[made] = name
        return made

    async def append(self, name: str | None) -> None:
        payload = self.payload(name)
        answer = (self.log if name is None else self.log.topic(name)).append(payload)
        number = self.log.writer.segments.topics.get(name or "", 0)  # of the record, or an earlier one
        self.told.acked[(await answer).lsn] = payload
        self.told.given = max(self.told.given, number)

    async def append_some(self) -> None:
        names = self.rng.choices((*NAMES, None), k=self.rng.randint(1, 6))
        await asyncio.gather(*map(self.append, names))

    async def delete(self, name: str) -> None:
        with contextlib.suppress(BadOption):  # it is not there
            before = await delete_topic(self.log.writer.core, name)
            self.told.returned[name] = max(before, self.told.returned.get(name, 0))

    async def delete_beside_appends(self) -> None:
        name, other = self.rng.sample(NAMES, 2)
        work = [self.append(name), self.delete(name), self.append(name), self.append(other), self.delete(name)]
        self.rng.shuffle(work)
        await asyncio.gather(*work[: self.rng.randint(3, 5)], return_exceptions=False)
        for each in work:
            each.close()

    async def sessions(self) -> None:
        """Topics with one record each, some of which are deleted."""
        names = [f"session {self.number} {each}" for each in range(self.rng.randint(1, 12))]
        await asyncio.gather(*map(self.append, names))
        await asyncio.gather(*map(self.delete, self.rng.sample(names, len(names) // 2)))

    async def transaction(self) -> None:
        transaction, names = self.log.transaction(), self.rng.sample(NAMES, 2)
        payloads = [self.payload(name, SIZES[:3]) for name in names]  # a transaction is one group
        for name, payload in zip(names, payloads, strict=True):
            transaction.append(payload, topic=name)
        deleting = self.delete(names[0])
        results, _ = await asyncio.gather(transaction.commit(), deleting)
        self.told.acked |= {each.lsn: payload for each, payload in zip(results, payloads, strict=True)}

    async def truncate_before(self) -> None:
        first = self.log.first_lsn
        lsn = self.rng.randint(first, first + (self.log.next_lsn - first) * 3 // 4)
        self.told.first = (first, lsn)
        await self.log.truncate_before(lsn)
        self.told.first = (lsn, lsn)

    async def truncate_after(self) -> None:
        lsn = self.log.next_lsn - 1 - self.rng.randint(0, min(4, self.log.next_lsn - self.log.first_lsn))
        self.told.cut = lsn
        await self.log.truncate_after(lsn)
        self.told.is_cut(lsn)

    async def compact(self) -> None:
        await self.log.compact()

    async def consume(self) -> None:
        """A consumer keeps a topic that has no records, until the topic is deleted with it."""
        topic = self.log.topic(self.rng.choice(NAMES))
        async with await topic.consumer(f"c{self.number}") as consumer:
            if await topic.count():
                await consumer.ack((await consumer.next()).lsn)


@dataclass(frozen=True, slots=True)
class Seen:
    """What opening and reading gave: the range, topic and payload by LSN, the highest number of a topic."""

    first: int
    next: int
    records: dict[int, tuple[str | None, bytes]]
    given: int

    def __str__(self) -> str:
        return f"{self.first} {self.next} {len(self.records)} {self.given}"


async def shown(log: Any, *, purged: bool = False) -> dict[int, tuple[str | None, bytes]]:
    """Read a log in each way, and return its records. `purged`: a topic's last record may be hidden, and counts as its last one all the same."""
    records = [record async for record in log.read()]
    require([each async for each in log.read(reverse=True)] == records[::-1], "backwards it is not the same")
    require(records == [each async for some in log.read_batches() for each in some], "in batches it is not the same")
    counts = Counter(record.topic for record in records)
    require(set(counts) - {None} <= set(log.topics()), "a record is of a topic that is not there")
    for name in log.topics():
        topic = log.topic(name)
        of_topic = [record for record in records if record.topic == name]
        require([each async for each in topic.read()] == of_topic, f"{name} reads otherwise alone")
        require(await topic.count() == counts[name], f"count of {name} is not that of a full scan")
        last, visible = await topic.last_lsn(), of_topic[-1].lsn if of_topic else None
        require(last == visible or (purged and (last or 0) > (visible or 0)), f"{name} ends elsewhere")
    return {record.lsn: (record.topic, record.payload) for record in records}


async def recover(plan: Plan, device: SimDevice, *, purged: bool = False) -> Seen:
    """Open what a crash left, read it, go on, and read it again; a reader beside it sees the same. `purged`: see `shown`."""
    log = await open_on(plan.disk(device, calm=True), plan.config)
    records = await shown(log, purged=purged)
    found = Seen(log.first_lsn, log.next_lsn, records, log.writer.segments.topics.given)
    expected = dict(records)
    for name in NAMES:
        result = await log.topic(name).append(b"more", expected=await log.topic(name).last_lsn() or 0)
        expected[result.lsn] = (name, b"more")
    await delete_topic(log.writer.core, NAMES[0])
    expected = {lsn: each for lsn, each in expected.items() if each[0] != NAMES[0]}
    await log.compact()
    require(
        await shown(log, purged=purged) == expected, "another log after some more records, a deletion and compaction"
    )
    async with await open_on(plan.disk(device.fork(), calm=True), replace(plan.config, read_only=True)) as beside:
        require(await shown(beside, purged=purged) == expected, "a reader beside the log sees something else")
    await log.close()
    log = await open_on(plan.disk(device, calm=True), plan.config)
    require(await shown(log, purged=purged) == expected, "another log after opening it again")
    await log.close()
    return found


def check(seen: Seen, told: Told) -> None:
    """Raise Violation unless that is possible after what the program knows."""
    require(seen.first in told.first, f"first_lsn is {seen.first}, not {told.first}")
    require(seen.given >= told.given, f"the highest number is {seen.given}, though {told.given} was given")
    lost_from = seen.next if told.cut is None or seen.next != told.cut + 1 else told.cut + 1
    for lsn, (topic, payload) in seen.records.items():
        require(payload in told.called and told.called[payload] == topic, f"LSN {lsn} is of topic {topic!r}")
    acked: dict[str | None, set[int]] = {}
    for lsn, payload in told.acked.items():
        if told.cut is None or lsn <= told.cut or seen.next > told.cut + 1:
            require(lsn < lost_from, f"LSN {lsn} was acknowledged and is lost")
        if seen.first <= lsn < lost_from:
            acked.setdefault(told.called[payload], set()).add(lsn)
    visible: dict[str | None, set[int]] = {name: set() for name in acked}
    for lsn, (topic, _) in seen.records.items():
        visible.setdefault(topic, set()).add(lsn)
    for name, lsns in visible.items():
        durable = 0 if name is None else told.returned.get(name, 0)
        befores = {durable, *(each for each in told.accepted.get(name or "", ()) if each > durable)}
        possible = any(
            min(lsns, default=before) >= before and {lsn for lsn in acked.get(name, ()) if lsn >= before} <= lsns
            for before in befores
        )
        require(possible, f"{name!r} shows {sorted(lsns)} of {sorted(acked.get(name, ()))}, hidden below {befores}")


def explore_going(seed: int, steps: int = 14) -> Explored:
    """Cut the power at every operation of a workload; returns what was seen. Raises Violation."""
    plan = Plan.draw(seed).with_options(relaxed_interval=0.002)
    return cut_at_each(GoingWorkload(plan, plan.device(), Told(), steps), STATES, recover, check)


if __name__ == "__main__":
    explore_for_a_while(explore_going)
