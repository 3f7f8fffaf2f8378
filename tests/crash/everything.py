"""Work queues, transactions, and all ways in which records of topics go, in one program, under power cuts.

    python -m tests.crash.everything SECONDS STEPS [FIRST_SEED]

To what going.py does come shared consumers (acknowledgements alone, together and in transactions with their results, dead letters), topics
that are truncated from their beginning, limits of topics, and purging: by LSNs, below one, and of all but the newest. At each operation of the
disk the power is cut. A job and its result, or its dead letter, are both there or both not; what was acknowledged is done; a limit is
the one that was set; and no record is hidden but by what was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from walsvc.disk.sim import SimDevice
from walsvc.errors import LeaseLost, Truncated
from walsvc.opening import open_on
from walsvc.topics.shared import Delivery, SharedConsumer

from .campaigning import explore_for_a_while
from .going import NAMES, STATES, GoingWorkload, Seen, Told, check, recover
from .model import require
from .moments import Explored, cut_at_each
from .plan import Plan

RESULTS, DEAD = "results", "dead"
OPTIONS: dict[str, Any] = {"lease": 0.02, "max_deliveries": 1, "dead_letter": DEAD}
WORKER = "w"


def job_of(payload: bytes) -> bytes:
    """The number that a payload begins with: no other one has it."""
    return payload.partition(b" ")[0]


@dataclass
class Known(Told):
    """The program's further knowledge; jobs are named by the numbers that their payloads begin with.

    Attributes:
        purged: LSNs that were purged one by one, durably.
        purging: those, and the ones that are being purged.
        limits: for each topic, how many records `retain` may have said are to stay; None: no limit.
        limited: topics that have had a limit.
        asked, done: jobs whose acknowledgement was asked for, and has returned.
        together: jobs that were acknowledged in transactions only.
        moved: topics whose consumer was moved.
        was_cut: the end of the log was, or is being, cut.
    """

    purged: set[int] = field(default_factory=set)
    purging: set[int] = field(default_factory=set)
    limits: dict[str, set[int | None]] = field(default_factory=dict)
    limited: set[str] = field(default_factory=set)
    asked: set[bytes] = field(default_factory=set)
    done: set[bytes] = field(default_factory=set)
    together: set[bytes] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    was_cut: bool = False

    def freeze(self) -> Known:
        """A copy that stays as it is."""
        frozen = super().freeze()
        assert isinstance(frozen, Known)
        names = ("purged", "purging", "limited", "asked", "done", "together", "moved")
        sets = {name: set(getattr(self, name)) for name in names}
        limits = {name: set(each) for name, each in self.limits.items()}
        return replace(frozen, **sets, limits=limits)

    def is_cut(self, lsn: int) -> None:
        """See Told."""
        super().is_cut(lsn)
        self.purged = {each for each in self.purged if each <= lsn}
        self.purging = {each for each in self.purging if each <= lsn}

    def hides_below(self, name: str, before: int) -> None:
        """All records of a topic below an LSN may be hidden from here on."""
        self.accepted.setdefault(name, []).append(before)


class EverythingWorkload(GoingWorkload[Known]):
    """See the head of this file."""

    kind = "everything"

    def choices(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        """See GoingWorkload."""
        return [
            *super().choices(),
            (8, self.work),
            (4, self.truncate_topic),
            (3, self.limit),
            (4, self.purge_some),
            (3, self.purge_beginning),
        ]

    async def delete(self, name: str) -> None:
        returned = self.told.returned.get(name)
        self.told.limits.setdefault(name, {None}).add(None)
        await super().delete(name)
        if self.told.returned.get(name) != returned and name not in self.log.topics():
            self.told.limits[name] = {None}  # and not where another call deletes it, which has not returned

    async def truncate_after(self) -> None:
        self.told.was_cut = True
        await super().truncate_after()

    # ---- records that go

    async def hidden_below(self, name: str, before: int, hiding: Awaitable[Any]) -> None:
        """Do what hides the records of a topic below an LSN."""
        self.told.hides_below(name, before)
        await hiding
        self.told.returned[name] = max(before, self.told.returned.get(name, 0))

    def somewhere(self) -> int:
        """An LSN of the log."""
        return self.rng.randint(self.log.first_lsn, self.log.next_lsn)

    async def truncate_topic(self) -> None:
        name, lsn = self.rng.choice(NAMES), self.somewhere()
        await asyncio.gather(
            self.hidden_below(name, lsn, self.log.topic(name).truncate_before(lsn)), self.append(self.rng.choice(NAMES))
        )

    async def purge_beginning(self) -> None:
        name = self.rng.choice(NAMES)
        lsns = [record.lsn async for record in self.log.topic(name).read()]
        if lsns and self.rng.random() < 0.5:
            keep = self.rng.randint(0, len(lsns) - 1)
            before = lsns[-keep] if keep else lsns[-1] + 1
            await self.hidden_below(name, before, self.log.topic(name).purge(keep=keep))
        else:
            lsn = self.somewhere()
            await self.hidden_below(name, lsn, self.log.topic(name).purge(before=lsn))

    async def purge_some(self) -> None:
        lsns = {self.somewhere() for _ in range(self.rng.randint(1, 6))}
        of = self.log if self.rng.random() < 0.5 else self.log.topic(self.rng.choice(NAMES))
        known = {record.lsn async for record in of.read()} & lsns
        self.told.purging |= known
        await asyncio.gather(of.purge(lsns=sorted(known)), self.append(self.rng.choice(NAMES)))
        self.told.purged |= known

    async def limit(self) -> None:
        name, records = self.rng.choice(NAMES), self.rng.choice((1, 3, None))
        self.told.limits.setdefault(name, {None}).add(records)
        self.told.limited |= {name} if records is not None else set()
        await self.log.topic(name).retain(records=records)
        self.told.limits[name] = {records}

    # ---- jobs

    async def work(self) -> None:
        """Take some jobs of a topic, and acknowledge them in one of three ways, or give them back, which makes dead letters of them."""
        name = self.rng.choice(NAMES)
        async with await self.log.topic(name).consumer(WORKER, shared=True, **OPTIONS) as consumer:
            try:
                async with asyncio.timeout(0.005):
                    batch = await consumer.read_batch(max_records=4)
            except TimeoutError:
                return
            except Truncated:
                self.told.moved.add(name)
                await consumer.seek("first")
                return
            done = batch[: self.rng.randint(1, len(batch))]
            with contextlib.suppress(LeaseLost):
                await self.rng.choice((self.alone, self.with_results, self.given_back))(consumer, done)

    async def alone(self, consumer: SharedConsumer, jobs: Sequence[Delivery]) -> None:
        numbers = {job_of(each.record.payload) for each in jobs}
        self.told.asked |= numbers
        self.told.together -= numbers
        await consumer.ack(jobs)
        self.told.done |= numbers

    async def with_results(self, consumer: SharedConsumer, jobs: Sequence[Delivery]) -> None:
        numbers = {job_of(each.record.payload) for each in jobs}
        self.told.together |= numbers - self.told.asked
        self.told.asked |= numbers
        async with self.log.transaction() as transaction:
            for each in jobs:
                transaction.ack(each)
                transaction.append(job_of(each.record.payload), topic=RESULTS)
        self.told.done |= numbers

    async def given_back(self, consumer: SharedConsumer, jobs: Sequence[Delivery]) -> None:
        await asyncio.gather(*(each.nak() for each in jobs))


@dataclass(frozen=True, slots=True)
class SeenAll:
    """The result of opening and reading, and of the jobs that are there.

    Attributes:
        going: the topics and their records.
        done: whether each job is done.
        results, letters: how many each job has.
        limits: of topics that have one.
    """

    going: Seen
    done: dict[bytes, bool]
    results: Counter[bytes]
    letters: Counter[bytes]
    limits: dict[str, int | None]

    def __str__(self) -> str:
        return f"{self.going} {sum(self.done.values())} {len(self.results)} {len(self.letters)} {sorted(self.limits.items())}"


async def recover_all(plan: Plan, device: SimDevice) -> SeenAll:
    """Open what a crash left, look at the jobs and at the limits, take these away, and go on as going.recover does."""
    log = await open_on(plan.disk(device, calm=True), plan.config)
    limits = {name: (await log.topic(name).limits()).records for name in log.topics()}
    for name in [name for name, records in limits.items() if records is not None]:
        await log.topic(name).retain()
    await asyncio.sleep(3.0)  # the work that was begun for them has ended
    metadata, done = log.writer.core.metadata, dict[bytes, bool]()
    for name in NAMES:
        key = f"{log.writer.segments.topic_number(name)}/{WORKER}"
        if key not in metadata.positions:
            continue
        position, window = metadata.positions[key], metadata.queues.get(key)
        async for record in log.topic(name).read():
            done[job_of(record.payload)] = record.lsn < position or (window is not None and window.covers(record.lsn))
    results, letters = [
        Counter([job_of(record.payload) async for record in log.topic(name).read()]) for name in (RESULTS, DEAD)
    ]
    await log.close()
    return SeenAll(await recover(plan, device, purged=True), done, results, letters, limits)


def check_all(seen: SeenAll, told: Known) -> None:
    """Raise Violation unless that is possible after what the program knows."""
    check_jobs(seen, told)
    for name, possible in told.limits.items():
        require(seen.limits.get(name) in possible, f"{name} keeps {seen.limits.get(name)} records, not {possible}")
    records = seen.going.records
    require(not told.purged & records.keys(), f"purged: {sorted(told.purged & records.keys())}")
    known = replace(told, accepted={name: list(each) for name, each in told.accepted.items()})
    known.acked = {lsn: each for lsn, each in told.acked.items() if lsn not in told.purging}
    for name in told.limited:  # it may have dropped whatever is before a record of the topic
        known.accepted.setdefault(name, []).extend(lsn for lsn, (topic, _) in records.items() if topic == name)
        known.accepted[name].append(seen.going.next)
    ours = {lsn: each for lsn, each in records.items() if each[0] not in (RESULTS, DEAD)}
    check(replace(seen.going, records=ours), known)


def check_jobs(seen: SeenAll, told: Known) -> None:
    """Jobs are done with their results and dead letters, or neither is there."""
    topics = {job_of(payload): topic for topic, payload in seen.going.records.values() if topic in NAMES}
    for job, done in seen.done.items():
        require(done or job not in told.done, f"job {job!r} was acknowledged and is not done")
        require(done or job not in seen.results, f"job {job!r} has a result and is not done")
        require(done or job not in seen.letters, f"job {job!r} is a dead letter and not done")
        if not done or told.was_cut or topics.get(job) in told.moved:
            continue
        stands = job in told.asked or job in seen.letters
        require(stands, f"job {job!r} is done, and was neither acknowledged nor is a dead letter")
        if job in told.together and job not in seen.letters:
            require(job in seen.results, f"job {job!r} was done in a transaction, and its result is lost")
    for job, count in (*seen.results.items(), *seen.letters.items()):
        require(count == 1 or told.was_cut or bool(told.moved), f"job {job!r} has {count} results or dead letters")


def explore_everything(seed: int, steps: int = 14) -> Explored:
    """Cut the power at every operation of a workload; returns what was seen. Raises Violation."""
    plan = Plan.draw(seed).with_options(relaxed_interval=0.002)
    return cut_at_each(EverythingWorkload(plan, plan.device(), Known(), steps), STATES, recover_all, check_all)


if __name__ == "__main__":
    explore_for_a_while(explore_everything)
