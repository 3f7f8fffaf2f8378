"""The calls of a random program that makes them all at once, and what their answers promise. See tests/crash/everyone.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from walsvc import AtLeastOnce, LeaseLost, Relaxed, Strict
from walsvc.keyring import KeyRing

KEPT = ("a", "b", "c")
"""Topics whose acknowledged records stay, unless the log is truncated."""
GOING = ("g", "h")
"""Topics that are deleted, purged and limited; their records are counted nowhere."""
SIZES = (0, 0, 10, 300, 300, 3000, 9000, 9000, 70_000, 200_000)


class Wrong(AssertionError):
    """A record that was acknowledged is missing, or is another one."""


class Promises:
    """The records that were acknowledged and not dropped since: LSN to payload.

    Attributes:
        records: them.
        truncated: no record below has to be there.
        lossy: limits, or consumers, may drop records from the beginning on.
    """

    def __init__(self, *, lossy: bool) -> None:
        self.records: dict[int, bytes] = {}
        self.truncated = 1
        self.lossy = lossy
        self._cuts = 0

    def frozen(self) -> Promises:
        """As it is now."""
        copy = Promises(lossy=self.lossy)
        copy.records, copy.truncated = dict(self.records), self.truncated
        return copy

    @contextmanager
    def noting(self) -> Iterator[Callable[[Any, bytes], None]]:
        """Around an append, with what takes its result; it counts unless the end of the log was cut meanwhile."""
        cuts = self._cuts

        def note(result: Any, payload: bytes) -> None:
            if result.durable and cuts == self._cuts:
                self.records[result.lsn] = payload

        yield note

    def truncate_before(self, lsn: int) -> None:
        """Records below `lsn` may go."""
        self.truncated = max(self.truncated, lsn)
        self.records = {each: payload for each, payload in self.records.items() if each >= lsn}

    def truncate_after(self, lsn: int) -> None:
        """Records above `lsn` may go, and what is under way may come to stand anywhere."""
        self._cuts += 1
        self.records = {each: payload for each, payload in self.records.items() if each <= lsn}

    def check_record(self, lsn: int, payload: bytes) -> None:
        """Raise Wrong where a record that is there is another one."""
        if self.records.get(lsn, payload) != payload:
            raise Wrong(f"LSN {lsn} is {payload[:12]!r}, acknowledged was {self.records[lsn][:12]!r}")

    def check(self, first_lsn: int, found: dict[int, bytes]) -> None:
        """Raise Wrong unless all that must be there is there."""
        for lsn, payload in found.items():
            self.check_record(lsn, payload)
        for lsn in self.records.keys() - found.keys():
            if lsn >= first_lsn or not (self.lossy or lsn < self.truncated):
                raise Wrong(f"LSN {lsn} was acknowledged and is missing; the log begins with {first_lsn}")


class Calls:
    """One method for each kind of call; `WEIGHTS` says how often each is made."""

    WEIGHTS = {  # noqa: RUF012 - a table
        "append": 20, "going": 6, "nowait": 3, "batch": 5, "stream": 5, "consume": 7, "work": 7, "hold": 2, "delete": 3, "purge": 4,
        "limit": 1, "compact": 2, "truncate_before": 3, "truncate_after": 2, "use_keys": 4, "flush": 3, "read": 2, "follow": 1,
        "wait_durable": 2, "reclaim": 1,
    }  # fmt: skip

    def __init__(self, rng: random.Random, promises: Promises, *, encrypted: bool) -> None:
        self.rng = rng
        self.promises = promises
        self.log: Any = None
        self._encrypted = encrypted
        self._keys = 1
        self._payloads = 0

    def ring(self) -> KeyRing | None:
        """The keys, the newest one current."""
        keys = [(f"k{number}", bytes([number % 250 + 1]) * 32) for number in range(1, self._keys + 1)]
        return KeyRing(current=keys[-1], older=keys[:-1]) if self._encrypted else None

    def payload(self) -> bytes:
        """One that no other record has."""
        self._payloads += 1
        return b"%d " % self._payloads + bytes(self.rng.choice(SIZES))

    def place(self) -> Any:
        """The log, or one of the topics that stay."""
        topic = self.rng.choice((None, *KEPT))
        return self.log if topic is None else self.log.topic(topic)

    def lsn(self) -> int:
        """Any."""
        return self.rng.randint(self.log.first_lsn, self.log.next_lsn)

    async def append(self) -> None:
        rng, payload, options = self.rng, self.payload(), {}
        if rng.random() < 0.2:
            options["dedupe"] = f"d{self._payloads}"
        if rng.random() < 0.1:
            options["type"] = 3
        if rng.random() < 0.1:
            options["attributes"] = {"x": 1}
        with self.promises.noting() as note:
            note(await self.place().append(payload, Strict if rng.random() < 0.7 else Relaxed, **options), payload)

    async def going(self) -> None:
        await self.log.topic(self.rng.choice(GOING)).append(bytes(self.rng.choice((10, 3000))))

    async def nowait(self) -> None:
        payload = self.payload()
        with self.promises.noting() as note:
            note(await self.log.append_nowait(payload), payload)

    async def batch(self) -> None:
        payloads = [self.payload() for _ in range(self.rng.randint(1, 8))]
        with self.promises.noting() as note:
            for result, payload in zip(await self.place().append_batch(payloads), payloads, strict=True):
                note(result, payload)

    async def stream(self) -> None:
        rng = self.rng
        payloads = [self.payload() for _ in range(rng.randint(1, 20))]
        end = rng.randint(0, len(payloads)) if rng.random() < 0.4 else None

        async def source() -> AsyncIterator[bytes]:
            for index, payload in enumerate(payloads):
                if index == end:
                    raise LookupError
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.random() * 0.003)
                yield payload

        with self.promises.noting() as note:
            try:
                results = await self.log.append_batch(source())
            except LookupError:
                return
            for result, payload in zip(results, payloads, strict=True):
                note(result, payload)

    async def result_of(self, acknowledge: Callable[[Any], None]) -> None:
        """A transaction of a record and an acknowledgement."""
        payload = self.payload()
        with self.promises.noting() as note:
            async with self.log.transaction() as transaction:
                transaction.append(payload, topic="a")
                acknowledge(transaction)
            note(transaction.results[0], payload)

    async def consume(self) -> None:
        rng = self.rng
        topic = self.log.topic(rng.choice(KEPT + GOING))
        async with await topic.consumer(rng.choice("xy"), AtLeastOnce(rng.choice((1, 3, 100)))) as consumer:
            for _ in range(rng.randint(1, 6)):
                async with asyncio.timeout(0.01):
                    record = await consumer.next()
                kind = rng.random()
                if kind < 0.6:
                    await consumer.ack(record.lsn)
                elif kind < 0.7:
                    await consumer.seek(rng.choice(("first", "next")))
                elif kind < 0.85:
                    await self.result_of(lambda transaction, lsn=record.lsn: transaction.ack(consumer, lsn))  # type: ignore[misc]

    async def work(self) -> None:
        rng = self.rng
        options: dict[str, Any] = {"lease": None, "worker": rng.choice("12")}
        if (name := rng.choice("sz")) == "s":
            options = {"lease": 0.05, "max_deliveries": 2, "dead_letter": "g", "max_outstanding": 3}
        topic = self.log.topic(rng.choice(KEPT + GOING))
        async with await topic.consumer(name, shared=True, **options) as consumer:
            for _ in range(rng.randint(1, 8)):
                async with asyncio.timeout(0.02):
                    delivery = await consumer.next()
                try:
                    await self._finish(consumer, delivery)
                except LeaseLost:
                    pass

    async def _finish(self, consumer: Any, delivery: Any) -> None:
        kind = self.rng.random()
        if kind < 0.4:
            await delivery.ack()
        elif kind < 0.6:
            await delivery.nak(self.rng.choice((0.0, 0.01)))
        elif kind < 0.7:
            await asyncio.sleep(0.06)
        elif kind < 0.85:
            await self.result_of(lambda transaction: transaction.ack(delivery))
        elif kind < 0.9:
            await consumer.seek("first")

    async def hold(self) -> None:
        if self.rng.random() < 0.5:
            await self.log.hold(self.rng.choice("pq"), self.lsn())
        else:
            await self.log.release(self.rng.choice("pq"))

    async def delete(self) -> None:
        await self.log.delete_topic(self.rng.choice(GOING))

    async def purge(self) -> None:
        topic, kind = self.log.topic(self.rng.choice(GOING)), self.rng.random()
        if kind < 0.3:
            await topic.purge(keep=self.rng.randint(0, 2))
        elif kind < 0.6:
            await topic.purge(before=self.lsn())
        elif kind < 0.8:
            await topic.truncate_before(self.lsn())
        else:
            await topic.purge(lsns=[record.lsn async for record in topic.read()][:5])

    async def limit(self) -> None:
        await self.log.topic(self.rng.choice(GOING)).retain(records=self.rng.choice((None, 1, 3)))

    async def compact(self) -> None:
        await self.log.compact()

    async def truncate_before(self) -> None:
        lsn = self.lsn()
        self.promises.truncate_before(lsn)
        await self.log.truncate_before(lsn, force=self.rng.random() < 0.7)

    async def truncate_after(self) -> None:
        lsn = self.rng.randint(max(self.log.first_lsn - 1, self.log.next_lsn - 20), self.log.next_lsn - 1)
        self.promises.truncate_after(lsn)
        await self.log.truncate_after(lsn)

    async def use_keys(self) -> None:
        if self._encrypted:
            self._keys += 1
            await self.log.use_keys(self.ring())

    async def flush(self) -> None:
        await self.log.flush()

    async def seal(self) -> None:
        await self.log.seal()

    async def read(self) -> None:
        async for record in self.log.read(start=self.log.first_lsn):
            self.promises.check_record(record.lsn, record.payload)

    async def follow(self) -> None:
        async with asyncio.timeout(0.02):
            async for _ in self.log.follow(start=self.log.next_lsn):
                pass

    async def wait_durable(self) -> None:
        await self.log.wait_durable(self.log.next_lsn - 1)

    async def reclaim(self) -> None:
        self.promises.lossy = True
        await self.log.reclaim()
