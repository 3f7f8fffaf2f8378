"""Durable consumers: positions, deliveries, names, and what happens when the log changes under them."""

from __future__ import annotations

import asyncio

import pytest

import walsvc
from tests.giving_up import interrupted
from tests.waiting import until
from walsvc import AtLeastOnce, BadOption, Closed, InUse, StrictlyOnce, Truncated, WrongLoop


async def fill(log, count: int, *, size: int = 10, topic: str = "orders") -> None:
    """Records of one topic, with those of another in between."""
    for number in range(count):
        await log.topic(topic).append(b"%d" % number + bytes(size))
        if number % 3 == 0:
            await log.topic("noise").append(bytes(size))


async def test_batch_that_its_caller_gives_up_is_delivered_again(open_log):
    async with open_log(max_group_records=10) as log:
        await asyncio.gather(*(log.append(b"%d" % number) for number in range(300)))
        consumer, seen, given_up = await log.consumer("c"), [], 0
        async with asyncio.timeout(60):  # what was lost would be waited for
            while len(seen) < 300:
                batch = (
                    await interrupted(consumer.read_batch(max_records=35), given_up % 9 + 1, late=given_up % 2 == 0)
                )[1]
                if isinstance(batch, asyncio.CancelledError):
                    given_up += 1
                    assert given_up < 1000
                    continue
                seen += [record.lsn for record in batch]
                await consumer.ack(seen[-1])
        assert seen == list(range(1, 301))
        assert given_up


async def test_consumer_goes_on_where_it_had_acknowledged(open_log):
    async with open_log() as log:
        await fill(log, 20)
        consumer = await log.topic("orders").consumer("billing")
        first = [await consumer.next() for _ in range(5)]
        await consumer.ack(first[2].lsn)
        assert consumer.position == first[2].lsn + 1
        assert await consumer.lag() == 17
    async with open_log() as log:
        consumer = await log.topic("orders").consumer("billing", start="next")  # it exists: start says nothing
        assert await consumer.lag() == 17
        again = [await consumer.next() for _ in range(17)]
        assert again[:2] == first[3:]
        assert [record.payload.rstrip(b"\0") for record in again] == [b"%d" % number for number in range(3, 20)]
        assert {record.topic for record in again} == {"orders"}


async def test_strictly_once_ack_is_durable_when_it_returns(open_sim):
    from walsvc import WalConfig
    from walsvc.disk.sim import SimDevice, SimDisk
    from walsvc.opening import open_on

    device, config = SimDevice(1), WalConfig(segment_bytes=65536)
    log = await open_on(SimDisk(device), config)
    await fill(log, 9)
    consumer = await log.topic("orders").consumer("c", delivery=StrictlyOnce)
    for _ in range(9):
        record = await consumer.next()
        await consumer.ack(record.lsn)
        after = await open_on(SimDisk(device.fork().crash()), config)
        assert (await after.topic("orders").consumers())[0].position == record.lsn + 1
        await after.close()
    await log.close()


async def test_at_least_once_repeats_at_most_so_many(open_sim):
    from walsvc import WalConfig
    from walsvc.disk.sim import SimDevice, SimDisk
    from walsvc.opening import open_on

    device, config = SimDevice(1), WalConfig(segment_bytes=65536, relaxed_interval=None)
    log = await open_on(SimDisk(device), config)
    await fill(log, 30)
    groups = log.stats().groups
    consumer = await log.topic("orders").consumer("c", delivery=AtLeastOnce(persist_every=4))
    acknowledged = []
    for _ in range(30):
        record = await consumer.next()
        await consumer.ack(record.lsn)
        acknowledged.append(record.lsn)
        after = await open_on(SimDisk(device.fork().crash()), config)
        position = (await after.topic("orders").consumers())[0].position
        assert sum(lsn >= position for lsn in acknowledged) < 4
        await after.close()
    assert log.stats().groups - groups <= 1 + 30 // 4 + 1
    await consumer.close()
    after = await open_on(SimDisk(device.fork().crash()), config)
    assert (await after.topic("orders").consumers())[0].lag == 0, "closing makes it durable"
    await after.close()
    await log.close()


async def test_batch_of_acknowledgements_counts_as_many_records(open_sim):
    async with open_sim(relaxed_interval=None) as log:
        await fill(log, 10)
        consumer = await log.topic("orders").consumer("c", AtLeastOnce(persist_every=5))
        batch = await consumer.read_batch(max_records=8)
        groups = log.stats().groups
        await consumer.ack(batch[-1].lsn)
        assert log.stats().groups == groups + 1


async def test_ack_shares_the_group_commit_of_appends(open_log):
    async with open_log() as log:
        await fill(log, 100)
        consumers = [await log.topic("orders").consumer(f"c{number}") for number in range(50)]
        records = [await consumer.next() for consumer in consumers]
        before = log.stats().syncs
        await asyncio.gather(
            *(consumer.ack(record.lsn) for consumer, record in zip(consumers, records, strict=True)),
            *(log.append(b"x") for _ in range(100)),
        )
        assert log.stats().syncs - before <= 6


async def test_next_waits_for_a_record(open_log):
    async with open_log() as log:
        consumer = await log.topic("orders").consumer("c")
        waiting = asyncio.create_task(consumer.next())
        await log.topic("other").append(b"no")
        await asyncio.sleep(0)
        await log.topic("orders").append(b"yes")
        assert (await asyncio.wait_for(waiting, 60)).payload == b"yes"


async def test_wait_for_next_can_be_given_up_again_and_again(open_sim):
    async with open_sim() as log:
        consumer = await log.topic("orders").consumer("c")
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(consumer.next(), 0.001)
        assert log.writer.core.waits._topics == {}
        await log.topic("orders").append(b"x")
        assert (await consumer.next()).payload == b"x"


async def test_peek_is_repeatable_and_may_be_acknowledged(open_log):
    async with open_log() as log:
        await fill(log, 3)
        consumer = await log.topic("orders").consumer("c")
        first = await consumer.peek()
        assert await consumer.peek() == first
        assert await consumer.next() == first
        second = await consumer.peek()
        await consumer.ack(second.lsn)
        assert (await consumer.next()).lsn > second.lsn


async def test_read_batch_keeps_to_its_limits_and_gives_at_least_one(open_log):
    async with open_log() as log:
        await fill(log, 20, size=990)
        consumer = await log.topic("orders").consumer("c")
        assert len(await consumer.read_batch(max_bytes=1)) == 1
        assert len(await consumer.read_batch(max_records=3)) == 3
        assert len(await consumer.read_batch(max_bytes=5000)) == 5
        assert len(await consumer.read_batch()) == 11
        waiting = asyncio.create_task(consumer.read_batch())
        await asyncio.sleep(0)
        await log.topic("orders").append(b"late")
        assert [record.payload for record in await asyncio.wait_for(waiting, 60)] == [b"late"]
        with pytest.raises(BadOption):
            await consumer.read_batch(max_records=0)


async def test_async_for_acknowledges_the_one_before(open_log):
    async with open_log() as log:
        await fill(log, 6)
        seen = []
        async with await log.topic("orders").consumer("c") as consumer:
            async for record in consumer:
                seen.append(record)
                if len(seen) == 4:
                    break
        assert consumer.position == seen[2].lsn + 1
        async with await log.topic("orders").consumer("c") as consumer:
            assert await consumer.next() == seen[3]


async def test_async_for_ends_when_the_log_is_closed(open_log):
    async with open_log() as log:
        await fill(log, 3)
        consumer = await log.topic("orders").consumer("c")

        async def drain() -> int:
            return len([record async for record in consumer])

        draining = asyncio.create_task(drain())

        async def drained() -> bool:
            return await consumer.lag() == 0

        await until(drained)
    assert await asyncio.wait_for(draining, 60) == 3
    with pytest.raises(Closed):
        await consumer.next()


@pytest.mark.parametrize("of", ["topic", "log"])
@pytest.mark.parametrize("call", ["next", "peek", "read_batch", "__anext__"])
async def test_close_of_a_consumer_ends_the_waiting_for_records(open_log, of, call):
    async with open_log() as log:
        await fill(log, 3)
        consumer = await (log if of == "log" else log.topic("orders")).consumer("c", start="next")
        waiting = [asyncio.create_task(getattr(consumer, call)()) for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        await consumer.close()
        done, _ = await asyncio.wait(waiting, timeout=60)
        assert {type(each.exception()) for each in done} == {StopAsyncIteration if call == "__anext__" else Closed}
        assert len(done) == 2
        async with await (log if of == "log" else log.topic("orders")).consumer("c") as again:
            await log.topic("orders").append(b"later")
            assert (await again.next()).payload == b"later"


async def test_consumer_cannot_be_closed_from_another_loop(open_log):
    async with open_log() as log:
        consumer = await log.topic("orders").consumer("c")

        def elsewhere() -> None:
            with pytest.raises(WrongLoop):
                asyncio.run(consumer.close())

        await asyncio.to_thread(elsewhere)
        await consumer.close()
        await asyncio.to_thread(elsewhere)


async def test_waiting_consumer_hears_of_a_seal(open_sim):
    async with open_sim() as log:
        await fill(log, 1)
        consumer = await log.topic("orders").consumer("c")
        await consumer.next()
        whole = await log.consumer("w", start="next")
        waiting = [asyncio.create_task(each.next()) for each in (consumer, whole)]
        await asyncio.sleep(0)
        await log.seal()
        with pytest.raises(Closed):
            await asyncio.wait_for(waiting[0], 60)
        waiting[1].cancel()


async def test_start_first_next_and_lsn(open_log):
    async with open_log() as log:
        await fill(log, 10)
        topic = log.topic("orders")
        lsns = [record.lsn async for record in topic.read()]
        assert (await (await topic.consumer("all")).next()).lsn == lsns[0]
        assert (await (await topic.consumer("from", start=lsns[4])).next()).lsn == lsns[4]
        fresh = await topic.consumer("new", start="next")
        assert await fresh.lag() == 0
        await topic.append(b"new")
        assert (await fresh.next()).payload == b"new"
        for bad in (0, log.next_lsn + 1, "last", 1.5, True, None):
            with pytest.raises(BadOption):
                await topic.consumer("bad", start=bad)
        assert "bad" not in [each.name for each in await topic.consumers()]


async def test_name_in_use_is_refused_until_it_is_closed(open_log):
    async with open_log() as log:
        topic = log.topic("orders")
        consumer = await topic.consumer("c")
        with pytest.raises(InUse):
            await topic.consumer("c")
        with pytest.raises(InUse):
            await topic.delete_consumer("c")
        with pytest.raises(InUse):
            await topic.move_consumer("c", "next")
        await log.topic("other").consumer("c")
        await log.consumer("c")
        await consumer.close()
        await consumer.close()
        with pytest.raises(Closed):
            await consumer.next()
        await topic.consumer("c")
        with pytest.raises(InUse):
            await asyncio.gather(topic.consumer("d"), topic.consumer("d"))


@pytest.mark.parametrize("name", ["", "x" * 256, 7, None])
async def test_bad_consumer_names_and_deliveries_are_refused(open_sim, name):
    async with open_sim() as log:
        with pytest.raises(BadOption):
            await log.topic("t").consumer(name)
        with pytest.raises(BadOption):
            await log.topic("t").consumer("c", delivery="exactly once")
        with pytest.raises(BadOption):
            AtLeastOnce(persist_every=0)
        assert log.topics() == []


async def test_ack_of_what_was_not_delivered_is_refused(open_log):
    async with open_log() as log:
        await fill(log, 5)
        consumer = await log.topic("orders").consumer("c")
        record = await consumer.next()
        for lsn in (record.lsn + 2, log.next_lsn, 0, -1, True, None):
            with pytest.raises(BadOption):
                await consumer.ack(lsn)
        await consumer.ack(record.lsn)
        await consumer.ack(record.lsn)


async def test_seek_both_ways(open_log):
    async with open_log() as log:
        await fill(log, 10)
        consumer = await log.topic("orders").consumer("c")
        records = await consumer.read_batch()
        await consumer.ack(records[6].lsn)
        await consumer.seek(records[2].lsn)
        assert await consumer.next() == records[2]
        assert await consumer.lag() == 8
        await consumer.seek("next")
        assert await consumer.lag() == 0
        await consumer.seek("first")
        assert await consumer.next() == records[0]
        with pytest.raises(BadOption):
            await consumer.seek(log.next_lsn + 1)
    async with open_log() as log:
        assert (await log.topic("orders").consumers())[0].lag == 10


async def test_list_move_delete(open_log):
    async with open_log() as log:
        await fill(log, 10)
        topic = log.topic("orders")
        lsns = [record.lsn async for record in topic.read()]
        for name in ("b", "a"):
            await (await topic.consumer(name)).close()
        await topic.move_consumer("a", lsns[8])
        whole = await log.consumer("w")
        listed = [(each.name, each.topic, each.lag, each.in_use) for each in await log.consumers()]
        everything = log.next_lsn - 1
        assert listed == [("w", None, everything, True), ("a", "orders", 2, False), ("b", "orders", 10, False)]
        await topic.delete_consumer("b")
        await whole.close()
        await log.move_consumer("w", "next")
        with pytest.raises(BadOption):
            await topic.delete_consumer("b")
        with pytest.raises(BadOption):
            await log.topic("nothing").move_consumer("b", 1)
    async with open_log() as log:
        listed = [(each.name, each.topic, each.lag) for each in await log.consumers()]
        assert listed == [("w", None, 0), ("a", "orders", 2)]
        await log.delete_consumer("w")
    async with open_log(read_only=True) as log:
        assert [(each.name, each.lag) for each in await log.consumers()] == [("a", 2)]


async def test_consumer_of_the_whole_log(open_log):
    async with open_log() as log:
        await fill(log, 4)
        await log.append(b"of no topic")
        consumer = await log.consumer("all")
        records = await consumer.read_batch()
        assert [record.lsn for record in records] == list(range(1, log.next_lsn))
        assert {record.topic for record in records} == {"orders", "noise", None}
        await consumer.ack(3)
        assert await consumer.lag() == log.next_lsn - 4


async def test_truncated_after_under_a_consumer(open_log):
    async with open_log() as log:
        await fill(log, 10)
        topic = log.topic("orders")
        consumer = await topic.consumer("c")
        records = await consumer.read_batch()
        await consumer.ack(records[7].lsn)
        await log.truncate_after(records[4].lsn)
        assert consumer.position == records[4].lsn + 1
        assert await consumer.lag() == 0
        await topic.append(b"anew")
        assert (await consumer.next()).payload == b"anew"
    async with open_log() as log:
        assert (await log.topic("orders").consumers())[0].position == records[4].lsn + 1


async def test_overtaken_consumer_gets_truncated_until_it_seeks(open_log):
    async with open_log() as log:
        await fill(log, 10)
        topic = log.topic("orders")
        consumer = await topic.consumer("c")
        records = await consumer.read_batch(max_records=4)
        await consumer.ack(records[1].lsn)
        await log.truncate_before(records[3].lsn)
        for _ in range(2):
            with pytest.raises(Truncated):
                await consumer.next()
        with pytest.raises(Truncated):
            await consumer.lag()
        assert (await topic.consumers())[0].lag is None
    async with open_log() as log:
        consumer = await log.topic("orders").consumer("c")
        with pytest.raises(Truncated):
            await consumer.peek()
        await consumer.seek("first")
        assert (await consumer.next()).lsn == records[3].lsn


async def test_consumer_that_lost_nothing_does_not_hear_of_a_truncation(open_log):
    async with open_log() as log:
        await log.topic("rare").append(b"1")
        consumer = await log.topic("rare").consumer("c")
        await consumer.ack((await consumer.next()).lsn)
        await fill(log, 50)
        await log.truncate_before(40)
        await log.topic("rare").append(b"2")
        assert (await consumer.next()).payload == b"2"
    async with open_log() as log:
        consumer = await log.topic("rare").consumer("c")
        assert (await consumer.next()).payload == b"2"


async def test_acks_wait_for_a_streamed_batch_and_keep_their_order(open_sim):
    async with open_sim(max_group_bytes=16384) as log:
        await fill(log, 10)
        consumer = await log.topic("orders").consumer("c")
        records = await consumer.read_batch()
        go_on = asyncio.Event()

        async def source():
            for _ in range(100):
                yield bytes(2000)
            await go_on.wait()

        batch = log.append_batch(source())
        await asyncio.sleep(0.01)
        first = asyncio.create_task(consumer.ack(records[3].lsn))
        await asyncio.sleep(0.01)
        assert not first.done()
        go_on.set()
        await asyncio.gather(batch, first)
        assert consumer.position == records[3].lsn + 1


async def test_ack_after_a_failed_write_is_durability_lost(open_sim):
    async with open_sim() as log:
        await fill(log, 3)
        consumer = await log.topic("orders").consumer("c")
        record = await consumer.next()
        log.writer.core.health.fail("a test", OSError(5, "Input/output error"), (1, 0, 1))
        with pytest.raises(walsvc.DurabilityLost):
            await consumer.ack(record.lsn)
        with pytest.raises(walsvc.DurabilityLost):
            await asyncio.wait_for(log.topic("orders").append(b"x"), 60)
        log.writer.core.health.told = 1
