"""A caller's timeout around every waiting call of a shared consumer, at every await point: no record is lost by it."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.giving_up import interrupted
from tests.service.simulated import serving
from walsvc import LeaseLost, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on
from walsvc.topics.registry import status_of_hub

RECORDS = 12
LEASE_SECONDS = 30.0
SMALL = WalConfig(segment_bytes=65536, max_group_records=3)
POINTS_MAX = 60  # await points of one call; more would be a call that never ends


@asynccontextmanager
async def embedded() -> AsyncIterator[Any]:
    async with await open_on(SimDisk(SimDevice(7)), SMALL) as log:
        yield log


@asynccontextmanager
async def served() -> AsyncIterator[Any]:
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        async with serving(Path(place), config=SMALL) as server, walsvc.open(server.addresses[0]) as log:
            yield log


class Worker:
    """One who works through a topic, and what it was given.

    Attributes:
        seen: its last delivery of each record.
    """

    def __init__(self, log: Any, consumer: Any, first: Any) -> None:
        self.seen = {first.record.lsn: first}
        self._log = log
        self._consumer = consumer
        self._first = first

    async def next(self) -> None:
        delivery = await self._consumer.next()
        self.seen[delivery.record.lsn] = delivery

    async def read_batch(self) -> None:
        for delivery in await self._consumer.read_batch(max_records=5):
            self.seen[delivery.record.lsn] = delivery

    async def ack(self) -> None:
        await self._consumer.ack([self._first])

    async def nak(self) -> None:
        await self._first.nak()

    async def transaction(self) -> None:
        async with self._log.transaction() as together:
            together.append(b"result", topic="results")
            together.ack(self._first)

    async def status(self) -> None:
        await self._consumer.status()

    async def seek(self) -> None:
        await self._consumer.seek("first")

    async def work(self) -> None:
        """Get everything, and finish it."""
        async with asyncio.timeout(4 * LEASE_SECONDS):
            while len(self.seen) < RECORDS:
                await self.next()
            while await self._consumer.lag():
                for delivery in self.seen.values():
                    try:
                        await delivery.ack()
                    except LeaseLost:
                        continue  # it was given back, or moved: it comes again
                if await self._consumer.lag():
                    await self.next()


CALLS = ("next", "read_batch", "ack", "nak", "transaction", "status", "seek")


async def given_up(log: Any, options: dict[str, Any], call: str, at: int, *, late: bool) -> bool:
    """Give one call up at an await point, then finish the work; whether it has so many points."""
    topic = log.topic("jobs")
    await topic.append_batch([b"%d" % number for number in range(RECORDS)])
    async with await topic.consumer("workers", shared=True, **options) as consumer:
        worker = Worker(log, consumer, await consumer.next())
        reached, outcome = await interrupted(getattr(worker, call)(), at, late=late)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
        await worker.work()
    return reached


@pytest.mark.parametrize("options", [{"lease": LEASE_SECONDS}, {"lease": None, "worker": "w"}], ids=["lease", "worker"])
@pytest.mark.parametrize("world", [embedded, served], ids=["embedded", "served"])
def test_call_that_is_given_up_at_any_point_loses_no_record(world: Any, options: dict[str, Any]) -> None:
    async def main(_: int) -> None:
        for call, late in itertools.product(CALLS, (False, True)):
            at, reached = 1, True
            while reached:
                async with world() as log:
                    reached = await given_up(log, options, call, at, late=late)
                at += 1
                assert at < POINTS_MAX, call

    run_sim(main, 1)


async def test_record_that_was_acknowledged_on_an_earlier_connection_does_not_come_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        topic = log.topic("jobs")
        await topic.append_batch([b"1", b"2", b"3"])
        consumer = await topic.consumer("workers", shared=True, lease=None, worker="w")
        first, _ = await consumer.read_batch(max_records=2)
        for connection in list(server.roster):
            connection.abort()
        await consumer.status()  # on the next connection
        await first.ack()
        assert [(await consumer.next()).record.payload for _ in range(2)] == [b"2", b"3"]
        await consumer.close()


@pytest.mark.parametrize("call", ["take_new", "claim"])
def test_what_a_worker_has_is_in_memory_as_in_the_log_wherever_a_call_is_given_up(call: str) -> None:
    async def tried(at: int, *, late: bool) -> bool:
        async with await open_on(SimDisk(SimDevice(7)), SMALL) as log:
            topic = log.topic("jobs")
            await topic.append_batch([b"%d" % number for number in range(RECORDS)])
            one = await topic.consumer("group", shared=True, lease=None, worker="one")
            two = await topic.consumer("group", shared=True, lease=None, worker="two")
            if call == "claim":
                await one.take_new(6)
            given_up = one.take_new(8) if call == "take_new" else two.claim([1, 2, 3, 4], 0.0)
            reached, _ = await interrupted(given_up, at, late=late)
            await asyncio.sleep(1)
            held = {each.lsn: each.worker for each in one.pending()}
            jobs = one.open_hub().leases.jobs.values()
            assert held == {job.lsn: job.lease.holder for job in jobs if job.lease is not None}
            assert len(held) + len(await two.take_new(RECORDS)) == RECORDS
            assert await one.settle(range(1, RECORDS + 1)) == RECORDS
            return reached

    async def main(_: int) -> None:
        for late in (False, True):
            at = 1
            while await tried(at, late=late):
                at += 1
                assert at < POINTS_MAX

    run_sim(main, 1)


async def test_workers_that_wait_at_once_read_no_more_than_they_need() -> None:
    async with await open_on(SimDisk(SimDevice(3)), WalConfig(segment_bytes=65536)) as log:
        for _ in range(20):
            await log.topic("jobs").append_batch([b"job"] * 10)
        consumer = await log.topic("jobs").consumer("workers", shared=True)
        batches = await asyncio.gather(*(consumer.read_batch(max_records=1) for _ in range(20)))
        assert sorted(each.record.lsn for batch in batches for each in batch) == list(range(1, 21))
        assert len(consumer.open_hub().leases.jobs) <= 40


async def test_acknowledgements_from_before_a_restart_that_come_at_once_all_count() -> None:
    device = SimDevice(4)
    async with await open_on(SimDisk(device), SMALL) as log:
        await log.topic("jobs").append_batch([b"one", b"two"])
        consumer = await log.topic("jobs").consumer("workers", shared=True)
        deliveries, token = await consumer.read_batch(), consumer.open_hub().past.token
    async with await open_on(SimDisk(device), SMALL) as log:
        hub = (await log.topic("jobs").consumer("workers", shared=True)).open_hub()
        finding = (hub.find(each.record.lsn, each.attempt, token, None) for each in deliveries)
        await hub.ack(await asyncio.gather(*finding))
        assert (await status_of_hub(hub)).lag == 0
