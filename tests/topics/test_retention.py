"""Retention: what goes, what stays and why, who is told."""

from __future__ import annotations

import asyncio
import errno
import logging
import random

import pytest

from tests.contract.openers import behind
from tests.waiting import until
from walsvc import AtLeastOnce, BadOption, Truncated, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit.background import under_way
from walsvc.opening import open_on


async def write(log, count: int, *topics: str, size: int = 1000) -> None:
    """`count` records, in turn to `topics` (none: of no topic)."""
    for number in range(count):
        payload = b"%d" % number + bytes(size)
        await (log.topic(topics[number % len(topics)]).append(payload) if topics else log.append(payload))


def held_bytes(log) -> int:
    return log.retention().bytes


async def settled(log) -> None:
    """Wait until retention has done what there is to do; what joined a segment's first group lazily is written by a flush."""
    embedded = behind(log)

    async def rests() -> bool:
        if not (under_way(embedded._reclaimer._task) or embedded.writer.core.pipeline.rotation.busy):
            return True
        await embedded.flush()
        return False

    await until(rests)
    if embedded is not log:
        await log.refresh()  # what the server has done by itself it does not tell


async def all_of(consumer) -> list:
    """Read all records that are there, which over a network may come in several batches."""
    count, records = await consumer.lag(), []
    while len(records) < count:
        records += await consumer.read_batch()
    return records


async def drained(consumer) -> int:
    """Read all records that are there; returns the LSN of the last one."""
    return (await all_of(consumer))[-1].lsn


async def test_nothing_is_dropped_unless_asked(open_log):
    async with open_log() as log:
        consumer = await log.topic("t").consumer("c")
        await write(log, 300, "t")
        await consumer.ack(await drained(consumer))
        await settled(log)
        assert log.first_lsn == 1
    async with open_log() as log:
        assert await log.reclaim() > 0
        assert len(behind(log).writer.segments.ids()) == 1


async def test_reclaim_without_consumers_and_holds_drops_nothing(open_log):
    async with open_log() as log:
        await write(log, 300)
        assert await log.reclaim() == 0
        assert log.first_lsn == 1


async def test_segment_goes_only_when_every_consumer_has_passed_it(open_log):
    async with open_log() as log:
        await write(log, 300, "a", "b")
        slow, fast = await log.topic("a").consumer("slow"), await log.topic("b").consumer("fast")
        await fast.ack(await drained(fast))
        assert await log.reclaim() == 0
        records = await all_of(slow)
        await slow.ack(records[80].lsn)
        assert await log.reclaim() > 0
        segments = behind(log).writer.segments.ids()
        assert segments[0] == log.first_lsn <= slow.position < segments[1]
        assert [record.lsn async for record in log.topic("a").read()][-1] == records[-1].lsn
        pins = log.retention().pins
        assert [(pin.name, pin.topic, pin.lsn) for pin in pins] == [
            ("slow", "a", slow.position),
            ("fast", "b", log.next_lsn),
        ]
        assert pins[0].bytes == held_bytes(log) > pins[1].bytes
        assert log.stats().pins == pins


async def test_idle_consumer_of_a_rare_topic_holds_nothing_back(open_log):
    async with open_log() as log:
        rare = await log.topic("rare").consumer("c")
        empty = await log.topic("empty").consumer("c")
        await log.topic("rare").append(b"1")
        await rare.ack((await rare.next()).lsn)
        busy = await log.topic("busy").consumer("c")
        await write(log, 300, "busy")
        await busy.ack(await drained(busy))
        assert await log.reclaim() > 0
        await log.topic("rare").append(b"2")
        await log.topic("empty").append(b"3")
        await write(log, 100, "busy")
        assert (await rare.next()).payload == b"2"
        assert (await empty.next()).payload == b"3"
        await busy.ack(await drained(busy))
        first = log.first_lsn
        await log.reclaim()
        assert log.first_lsn <= rare.position, "the rare record is not acknowledged"
        assert log.first_lsn >= first
    async with open_log() as log:
        assert (await (await log.topic("rare").consumer("c")).next()).payload == b"2"


@pytest.mark.embedded("stops the consumer's turn from inside")
async def test_consumer_is_moved_to_where_it_stood_though_retention_moves_it_before_its_turn_comes(open_log):
    async with open_log() as log:
        rare, busy = await log.topic("rare").consumer("c"), await log.topic("busy").consumer("c")
        await log.topic("rare").append(b"1")
        await rare.ack((await rare.next()).lsn)
        async with rare._saving:
            moving = asyncio.ensure_future(rare.seek(stood := rare.position))
            await write(log, 300, "busy")
            await busy.ack(await drained(busy))
            assert await log.reclaim() > 0
        await moving
        assert rare.position >= log.first_lsn > stood
        await log.topic("rare").append(b"2")
        assert (await rare.next()).payload == b"2"


async def test_hold_keeps_records_also_after_reopening(open_log):
    async with open_log() as log:
        await write(log, 200)
        whole = await log.consumer("w")
        await whole.ack(await drained(whole))
        await log.hold("archive", 70)
        await log.reclaim()
        assert 1 < log.first_lsn <= 70
    async with open_log() as log:
        assert log.holds() == {"archive": 70}
        await log.reclaim()
        assert log.first_lsn <= 70
        with pytest.raises(BadOption, match="archive"):
            await log.truncate_before(71)
        await log.truncate_before(70)
        for lsn in (69, log.next_lsn + 1, 0):
            with pytest.raises(BadOption):
                await log.hold("archive", lsn)
        await log.hold("archive", 130)
        assert await log.reclaim() > 0
        await log.truncate_before(140, force=True)
        assert log.first_lsn == 140
        await log.release("archive")
        await log.release("archive")
        assert log.holds() == {}
        await log.reclaim()
        assert len(behind(log).writer.segments.ids()) == 1


async def test_deleted_consumer_holds_nothing_back(open_log):
    async with open_log(reclaim="consumed") as log:
        dead = await log.topic("t").consumer("dead")
        live = await log.topic("t").consumer("live")
        await write(log, 200, "t")
        await live.ack(await drained(live))
        await settled(log)
        assert log.first_lsn == 1
        await dead.close()
        await log.topic("t").delete_consumer("dead")
        await settled(log)
        assert len(behind(log).writer.segments.ids()) == 1


@pytest.mark.parametrize("delivery", [AtLeastOnce(persist_every=7), AtLeastOnce(persist_every=1)])
async def test_consumed_log_stays_within_its_bound_also_across_restarts(open_log, delivery):
    largest = 0
    for _ in range(3):
        async with open_log(reclaim="consumed") as log:
            topic = log.topic("t")
            consumer = await topic.consumer("c", delivery=delivery)
            for _ in range(16):
                await asyncio.gather(*(topic.append(bytes(1000)) for _ in range(20)))
                await consumer.ack(await drained(consumer))
            await settled(log)
            files = await behind(log).writer.segments.disk.list()
            largest = max(largest, sum(size for name, size in files.items() if name != "LOCK"))
            assert log.retention().segments <= 3
    assert largest <= 8 * 65536


@pytest.mark.embedded("a reader elsewhere has records ahead that were read before they were dropped")
async def test_reader_of_a_reclaimed_log_gets_truncated(open_log):
    async with open_log(reclaim="consumed") as log:
        await write(log, 100, "t")
        stream = log.read(1)
        assert (await anext(stream)).lsn == 1
        consumer = await log.topic("t").consumer("c")
        await consumer.ack(await drained(consumer))
        await settled(log)
        assert log.first_lsn > 1
        with pytest.raises(Truncated):
            while True:
                await anext(stream)


async def test_limit_by_bytes_overtakes_a_consumer_and_says_so(open_log, caplog):
    caplog.set_level(logging.INFO, "walsvc.retention")
    async with open_log(retain_bytes=200_000) as log:
        slow = await log.topic("t").consumer("slow")
        record = await asyncio.wait_for(asyncio.gather(write(log, 300, "t"), slow.next()), 60)
        await settled(log)
        assert held_bytes(log) <= 200_000 + 2 * 65536
        assert log.first_lsn > 1
        status = log.retention()
        assert status.overtaken >= 1
        assert status.dropped_records == log.first_lsn - 1
        assert "slow" in status.last_drop
        assert any("overtook consumers 'slow' of 't'" in each.message for each in caplog.records)
        with pytest.raises(Truncated):
            await slow.next()
        assert record[1].lsn == 1
    async with open_log() as log:
        slow = await log.topic("t").consumer("slow")
        with pytest.raises(Truncated):
            await slow.next()
        await slow.seek("first")
        assert (await slow.next()).lsn == log.first_lsn


async def test_limit_respects_holds(open_log):
    async with open_log(retain_bytes=100_000) as log:
        await log.hold("backup", 1)
        await write(log, 300)
        await settled(log)
        assert log.first_lsn == 1
        await log.release("backup")
        await settled(log)
        assert log.first_lsn > 1


async def test_limit_by_age(open_log):
    async with open_log(retain_seconds=0.05) as log:
        await write(log, 200)
        for _ in range(6000):
            if len(behind(log).writer.segments.ids()) == 1:
                break
            await asyncio.sleep(0.01)
        assert len(behind(log).writer.segments.ids()) == 1, "old segments go without anybody writing"


RECORDS = 150  # of each topic: together more than the segments that may be left


async def test_reclaiming_beside_appends_acks_and_seeks(open_log):
    async with open_log(reclaim="consumed") as log:
        rng = random.Random(4)
        topics = [log.topic(f"t{number}") for number in range(3)]
        consumers = [await topic.consumer("c") for topic in topics]

        async def produce(topic) -> int:
            for number in range(RECORDS):
                await topic.append(b"%d" % number + bytes(700))
            return RECORDS

        async def consume(consumer) -> list[int]:
            seen: list[int] = []
            while len(set(seen)) < RECORDS:
                batch = await consumer.read_batch(max_records=9)
                seen += [int(record.payload.rstrip(b"\0")) for record in batch]
                if rng.random() < 0.2:
                    await consumer.seek(consumer.position)
                    del seen[-len(batch) :]
                else:
                    await consumer.ack(batch[-1].lsn)
            return seen

        results = await asyncio.wait_for(
            asyncio.gather(*(produce(topic) for topic in topics), *(consume(consumer) for consumer in consumers)), 60
        )
        for seen in results[3:]:
            assert seen == list(range(RECORDS))
        await settled(log)
        assert log.retention().segments <= 3


def test_bad_options_are_refused():
    for options in ({"reclaim": "sometimes"}, {"retain_bytes": 1}, {"retain_seconds": 0}, {"retain_seconds": "1"}):
        with pytest.raises(BadOption):
            WalConfig.of(None, options)


def test_retention_that_failed_looks_again_by_itself(caplog):
    """No append and no call comes meanwhile."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        config = WalConfig(segment_bytes=65536, retain_bytes=200_000)
        async with await open_on(SimDisk(device), config) as log, await log.topic("t").consumer("c") as consumer:
            await write(log, 150, "t")
            device.fail("read", errno=errno.EMFILE, times=10_000)
            await write(log, 150, "t")
            await asyncio.sleep(5.5)
            before = held_bytes(log)
            assert before > 300_000
            assert "EMFILE" in str(log.retention().failed) or "open files" in str(log.retention().failed)
            device._faults.clear()
            await asyncio.sleep(1.5)
            assert held_bytes(log) <= 270_000
            assert log.retention().failed is None
            assert consumer.name == "c"

    with caplog.at_level(logging.WARNING, "walsvc.retention"):
        run_sim(main, seed=1)
    assert len([each for each in caplog.messages if "nothing was reclaimed" in each]) == 1
