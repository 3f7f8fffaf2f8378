"""A busy program with topics, consumers of every kind, transactions and keys, which bears every error; see grid.py.

Whatever happens to it, nobody waits for ever; what was acknowledged does not come again, and everything else does; a result is there
if and only if its job is done; and what has one key is there once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from walsvc.errors import LeaseLost
from walsvc.model import Record
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import AtLeastOnce
from walsvc.topics.shared import SharedConsumer

from .grid import Program
from .model import require

LEASE_SECONDS = 5.0
JOBS, RESULTS, KEYED = "jobs", "results", "keyed"
Work = Callable[[], Awaitable[None]]


class Working(Program):
    """See grid.Program; its tasks use one topic of jobs.

    Attributes:
        done: LSNs of jobs whose acknowledgement was answered, by consumer.
        keys: LSN of each key that was answered.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.done: dict[str, set[int]] = {"reader": set(), "queue": set(), "group": set()}
        self.keys: dict[str, int] = {}
        self._jobs_of_results: dict[bytes, tuple[str, int]] = {}  # consumer and LSN
        self._asked: dict[str, set[int]] = {name: set() for name in self.done}

    async def work(self, number: int, *, turns: int) -> None:
        """One task: it makes jobs, then does some in its own way."""
        ways: tuple[Work, ...] = (self.read, self.share, self.group)
        for _ in range(turns):
            for size in (40, 3000, 300):
                await self.step(partial(self._appended, self._ledger.payload(number, size)))
            await self.step(partial(self._keyed, f"key {number % 10}", number))
            await self.step(ways[number % 10])

    async def _appended(self, payload: bytes) -> None:
        result = await self._log.topic(JOBS).append(payload)
        self._ledger.answered(result.lsn, payload, durable=result.durable)

    async def _keyed(self, key: str, number: int) -> None:
        """Append under a key; again and again it is the same record."""
        topic = self._log.topic(KEYED)
        for _ in range(2):
            result = await topic.append(self._ledger.payload(number, 20), dedupe=key)
            require(self.keys.setdefault(key, result.lsn) == result.lsn, f"{key} is there twice")

    # ---- ways to do jobs

    async def read(self) -> None:
        """A consumer of its own, which may lose a delivery to whatever ends its call: then it goes back."""
        consumer: Consumer = await self._log.topic(JOBS).consumer("reader", AtLeastOnce(2))
        try:
            for _ in range(3):
                records = await self._records(consumer)
                await self.step(
                    partial(self._acked, "reader", [records[-1].lsn], partial(consumer.ack, records[-1].lsn))
                )
                self.done["reader"] |= {each.lsn for each in records if records[-1].lsn in self.done["reader"]}
        finally:
            await self.step(consumer.close)

    async def _records(self, consumer: Consumer) -> Sequence[Record]:
        while True:
            try:
                return await consumer.read_batch(max_records=2)
            except self._borne as error:
                self.told.append(error)
                await consumer.seek(consumer.position)

    async def share(self) -> None:
        """A shared consumer with leases."""
        consumer = await self._log.topic(JOBS).consumer("queue", shared=True, lease=LEASE_SECONDS)
        try:
            for turn in range(3):
                await self.step(partial(self._one, consumer, "queue", turn))
        finally:
            await self.step(consumer.close)

    async def group(self) -> None:
        """One without."""
        consumer = await self._log.topic(JOBS).consumer("group", shared=True, lease=None, worker="w")
        try:
            for turn in range(3):
                await self.step(partial(self._one, consumer, "group", turn))
        finally:
            await self.step(consumer.close)

    async def _one(self, consumer: SharedConsumer, name: str, turn: int) -> None:
        delivery = await consumer.next()
        require(delivery.record.lsn not in self.done[name], f"LSN {delivery.record.lsn} of {name} was done")
        if turn == 1:
            await delivery.nak()
        elif turn == 2:
            await self._acked(name, [delivery.record.lsn], partial(self._result, name, delivery))
        else:
            await self._acked(name, [delivery.record.lsn], delivery.ack)

    async def _result(self, name: str, delivery: Any) -> None:
        payload = self._ledger.payload(100, 50)
        self._jobs_of_results[payload] = (name, delivery.record.lsn)
        async with self._log.transaction() as together:
            together.append(payload, topic=RESULTS)
            together.ack(delivery)
        self._ledger.answered(together.results[0].lsn, payload, durable=True)

    async def _acked(self, name: str, lsns: list[int], call: Callable[[], Awaitable[Any]]) -> None:
        self._asked[name] |= set(lsns)
        try:
            await call()
        except LeaseLost as lost:
            self.told.append(lost)
        else:
            self.done[name] |= set(lsns)

    # ---- the last look

    async def compare(self) -> None:
        """Everything that is left to do, against what was answered."""
        await super().compare()
        jobs = [record.lsn async for record in self._log.read(topic=JOBS)]
        results = [self._jobs_of_results[record.payload] async for record in self._log.read(topic=RESULTS)]
        require(len(results) == len(set(results)), "a job has two results")
        keyed = [record async for record in self._log.read(topic=KEYED)]
        require(len(keyed) <= 3, "a key is there twice")
        require(set(self.keys.values()) <= {record.lsn for record in keyed}, "the record of a key is lost")
        for name, options in {"queue": {"lease": LEASE_SECONDS}, "group": {"lease": None, "worker": "w"}}.items():
            left = await self._left(name, len(jobs), options)
            require(not left & self.done[name], f"{sorted(left & self.done[name])} of {name} came again")
            missing = set(jobs) - left - self._asked[name]
            require(not missing, f"{sorted(missing)} of {name} are lost")
            again = left & {lsn for consumer, lsn in results if consumer == name}
            require(not again, f"{sorted(again)} of {name} have results and came again")

    async def _left(self, name: str, most: int, options: Any) -> set[int]:
        async with await self._log.topic(JOBS).consumer(name, shared=True, **options) as consumer:
            found = set[int]()
            while len(found) < most and await consumer.lag():
                for delivery in await consumer.read_batch(max_records=most):
                    found.add(delivery.record.lsn)
                    await delivery.ack()
            return found
