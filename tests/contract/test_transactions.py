"""Transactions, on every log: appends to several topics, acknowledgements and conditions together, or nothing of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.giving_up import interrupted
from walsvc import BadOption, Closed, Conflict, LeaseLost, RecordTooLarge, Relaxed


async def payloads(where: Any) -> list[bytes]:
    return [record.payload async for record in where.read()]


async def test_all_of_it_is_there_with_topics_types_and_labels(open_log):
    async with open_log() as log:
        await log.topic("old").append(b"before")
        async with log.transaction() as transaction:
            transaction.append(b"one", topic="new", type=7, attributes={"a": 1})
            transaction.append(b"", topic="old")
            transaction.append(memoryview(b"of none"))
            transaction.append(b"two", topic="new")
            assert log.next_lsn == 2
        results = transaction.results
        assert [each.lsn for each in results] == [2, 3, 4, 5]
        assert all(each.durable for each in results)
        one = [record async for record in log.topic("new").read()]
        assert [(each.lsn, each.payload, each.type, dict(each.attributes)) for each in one] == [
            (2, b"one", 7, {"a": 1}),
            (5, b"two", 0, {}),
        ]
        assert await payloads(log) == [b"before", b"one", b"", b"of none", b"two"]
        assert await log.topic("old").count() == 2
        assert sorted(log.topics()) == ["new", "old"]
        assert (await log.topic("old").append(b"after", expected=3)).lsn == 6
    async with open_log() as log:
        assert await payloads(log.topic("new")) == [b"one", b"two"]


async def test_a_condition_that_does_not_hold_writes_nothing(open_log):
    async with open_log() as log:
        a, b = log.topic("a"), log.topic("b")
        first = await a.append(b"x")
        for refused in (
            lambda it: it.append(b"y", topic="a", expected=0),
            lambda it: it.append(b"y", expected=0),
            lambda it: it.expect(7, topic="b"),
        ):
            transaction = log.transaction()
            transaction.append(b"y", topic="b")
            refused(transaction)
            with pytest.raises(Conflict) as raised:
                await transaction.commit()
            assert raised.value.actual in {0, first.lsn}
        assert log.next_lsn == 2
        async with log.transaction() as transaction:  # what holds is asked of the log as it was before
            for _ in range(2):
                transaction.append(b"y", topic="a", expected=first.lsn)
            transaction.append(b"z", topic="b", expected=0)
            transaction.expect(first.lsn)
        assert await payloads(b) == [b"z"]
        only = log.transaction()
        only.expect(1, topic="a")
        with pytest.raises(Conflict):
            await only.commit()


async def test_of_many_with_one_expectation_exactly_one_is_done(open_log):
    async with open_log() as log:

        async def move(number: int) -> bool:
            try:
                async with log.transaction() as transaction:
                    transaction.append(b"%d" % number, topic="left", expected=0)
                    transaction.append(b"%d" % number, topic="right", expected=0)
            except Conflict:
                return False
            return True

        assert sum(await asyncio.gather(*map(move, range(12)))) == 1
        assert await payloads(log.topic("left")) == await payloads(log.topic("right"))
        assert log.next_lsn == 3


async def test_a_delivery_is_done_with_what_was_made_of_it(open_log):
    async with open_log() as log:
        jobs = log.topic("jobs")
        for number in range(4):
            await jobs.append(b"%d" % number)
        workers = await jobs.consumer("workers", shared=True)
        first, second, third = [await workers.next() for _ in range(3)]
        async with log.transaction() as transaction:
            for delivery in (third, first, first):
                transaction.ack(delivery)
            transaction.append(b"of 0 and 2", topic="done")
        await first.ack()  # once more
        failed = log.transaction()
        failed.ack(second)
        failed.append(b"never", topic="done", expected=0)
        with pytest.raises(Conflict):
            await failed.commit()
        async with log.transaction() as transaction:
            transaction.ack(await workers.next())
        await workers.close()
    async with open_log() as log:
        workers = await log.topic("jobs").consumer("workers", shared=True)
        assert (await workers.next()).record.payload == b"1"
        assert await workers.lag() == 1
        assert await payloads(log.topic("done")) == [b"of 0 and 2"]


async def test_a_delivery_that_another_worker_has_aborts_it(open_log):
    async with open_log() as log:
        await log.topic("jobs").append(b"x")
        workers = await log.topic("jobs").consumer("workers", shared=True)
        late = await workers.next()
        await late.nak()
        await workers.next()
        for with_record in (True, False):
            transaction = log.transaction()
            transaction.ack(late)
            if with_record:
                transaction.append(b"of a lost lease")
            with pytest.raises(LeaseLost):
                await transaction.commit()
        assert log.next_lsn == 2


async def test_a_consumer_that_nobody_shares_moves_on_with_what_was_made_of_its_records(open_log):
    async with open_log() as log:
        source = log.topic("source")
        for number in range(4):
            await source.append(b"%d" % number)
        consumer = await source.consumer("forward")
        records = [await consumer.next() for _ in range(3)]
        async with log.transaction() as transaction:
            transaction.ack(consumer, records[1].lsn)
            transaction.append(b"0 and 1", topic="target")
        assert consumer.position == records[1].lsn + 1
        with pytest.raises(BadOption):
            log.transaction().ack(consumer, 4)
        await consumer.ack(records[2].lsn)
    async with open_log() as log:
        consumer = await log.topic("source").consumer("forward")
        assert (await consumer.next()).payload == b"3"
        assert await payloads(log.topic("target")) == [b"0 and 1"]


async def test_an_exception_in_the_block_leaves_everything_as_it_was(open_log):
    async with open_log() as log:
        with pytest.raises(ZeroDivisionError):
            async with log.transaction() as transaction:
                transaction.append(b"x")
                raise ZeroDivisionError
        for call in (lambda: transaction.append(b"y"), lambda: transaction.expect(0)):
            with pytest.raises(Closed):
                call()
        with pytest.raises(Closed):
            await transaction.commit()
        assert log.next_lsn == 1
        assert list(await log.transaction().commit()) == []


async def test_what_is_wrong_is_said_at_once_and_leaves_the_rest(open_log):
    async with open_log(max_record_bytes=10_000, max_group_bytes=16_384) as log:
        transaction = log.transaction()
        transaction.append(b"good")
        for wrong in (
            lambda: transaction.append(b"x", type=70_000),
            lambda: transaction.append(b"x", topic=""),
            lambda: transaction.append(b"x", expected=-1),
            lambda: transaction.append(b"x", attributes={"a": object()}),
            lambda: transaction.expect(None),
            lambda: transaction.ack(object()),
            lambda: transaction.ack(object(), 1),
        ):
            with pytest.raises(BadOption):
                wrong()
        with pytest.raises(RecordTooLarge):
            transaction.append(bytes(10_001))
        with pytest.raises(RecordTooLarge):  # a served log says it when it is committed
            large = log.transaction()
            for _ in range(3):
                large.append(bytes(8000))
            await large.commit()
        await transaction.commit()
        assert await payloads(log) == [b"good"]


async def test_relaxed_transaction_is_answered_when_it_is_accepted(open_log):
    async with open_log(relaxed_interval=None) as log:
        transaction = log.transaction(mode=Relaxed)
        transaction.append(b"x", topic="t")
        (result,) = await transaction.commit()
        assert (result.lsn, result.durable) == (1, False)
        await log.flush()
        assert await payloads(log.topic("t")) == [b"x"]


async def test_a_commit_that_is_given_up_at_any_await_does_all_or_nothing(open_log):
    async with open_log() as log:
        for number in range(16):
            await log.topic("jobs").append(b"%d" % number)
        workers = await log.topic("jobs").consumer("workers", shared=True)
        for place in range(16):
            transaction = log.transaction()
            transaction.ack(await workers.next())
            transaction.append(b"%d" % place, topic="done")
            await interrupted(transaction.commit(), place % 4 + 1, late=place % 2 == 0)
        done = await payloads(log.topic("done"))
        assert await workers.lag() == 16 - len(done)
        await workers.close()
        workers = await log.topic("jobs").consumer("workers", shared=True)
        left = {(await workers.next()).record.payload for _ in range(16 - len(done))}
        assert left.isdisjoint(done)


async def test_a_transaction_that_needs_a_new_segment_begins_one(open_log):
    async with open_log(segment_bytes=65536) as log:
        for number in range(12):
            async with log.transaction() as transaction:
                for topic in range(5):
                    transaction.append(bytes(4000), topic=f"{number} {topic}")
        assert [await log.topic(f"11 {topic}").last_lsn() for topic in range(5)] == list(range(56, 61))
        assert log.stats().segments > 3
    async with open_log(segment_bytes=65536) as log:
        assert len(log.topics()) == 60
        assert sorted([record.lsn async for record in log.read()]) == list(range(1, 61))


@pytest.mark.parametrize("mode", ["strict", None])
async def test_a_mode_that_cannot_be_is_refused_and_nothing_written(open_log, mode):
    async with open_log() as log:
        with pytest.raises(BadOption):
            async with log.transaction(mode=mode) as transaction:
                transaction.append(b"x")
        assert log.next_lsn == 1
        assert (await log.append(b"y")).lsn == 1


async def test_more_deliveries_than_an_array_of_a_frame_has_are_acknowledged_in_one_call_or_one_transaction(open_log):
    """It has 8,192 elements at most; 20,000 records may be out."""
    count = 8_200
    async with open_log() as log:
        jobs = log.topic("jobs")
        for _ in range(2):
            await jobs.append_batch([b""] * count)
        workers = await jobs.consumer("workers", shared=True, max_outstanding=20_000, lease=600.0)
        given = list[Any]()
        while len(given) < count:
            given += await workers.read_batch(max_records=count - len(given))
        await workers.ack(given)
        assert await workers.lag() == count
        given.clear()
        while len(given) < count:
            given += await workers.read_batch(max_records=count - len(given))
        async with log.transaction() as transaction:
            for each in given:
                transaction.ack(each)
            for number in range(count):
                transaction.append(b"", topic=("done", "told")[number % 2])
        assert await workers.lag() == 0
        assert await log.topic("told").count() == count // 2
        await workers.close()


async def test_delivery_of_a_consumer_that_was_closed_is_no_part_of_a_transaction(open_log):
    async with open_log() as log:
        await log.topic("jobs").append(b"job")
        workers = await log.topic("jobs").consumer("workers", shared=True)
        delivery = await workers.next()
        await workers.close()
        with pytest.raises(Closed, match="'workers' is closed"):
            log.transaction().ack(delivery)


async def test_delivery_from_before_the_consumer_was_moved_is_lost_however_its_record_was_done_once(open_log):
    """Before the move the same attempt of the same record was acknowledged."""
    async with open_log() as log:
        await log.topic("jobs").append(b"job")
        async with await log.topic("jobs").consumer("workers", shared=True) as workers:
            await (await workers.next()).ack()
            await workers.seek("first")
            again = await workers.next()
            assert (again.record.lsn, again.attempt) == (1, 1)
            await workers.seek("next")
            with pytest.raises(LeaseLost):
                await again.ack()
