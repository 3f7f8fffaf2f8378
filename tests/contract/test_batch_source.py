"""The source of a streamed batch may read the log and begin tasks, but wait for no change of it: the batch has the log until it ends."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

import walsvc
from walsvc import AtLeastOnce, BadOption, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on


async def in_transaction(log):
    async with log.transaction() as transaction:
        transaction.append(b"inside")


async def test_what_a_source_would_wait_for_in_vain_is_refused(open_log):
    async with open_log() as log:
        topic = log.topic("in")
        await topic.append_batch([b"%d" % number for number in range(4)])
        consumer = await topic.consumer("c", AtLeastOnce(persist_every=1))
        shared = await topic.consumer("s", shared=True)

        async def source():
            record, delivery = await consumer.next(), await shared.next()
            for change in (
                lambda: log.append(b"inside"),
                lambda: in_transaction(log),
                lambda: log.topic("new").append(b"inside"),
                lambda: consumer.ack(record.lsn),
                lambda: consumer.seek("first"),
                delivery.ack,
                delivery.nak,
                lambda: shared.seek("first"),
                lambda: log.hold("h", 1),
                lambda: log.truncate_before(2),
                lambda: log.truncate_after(2),
                lambda: topic.purge(keep=1),
                lambda: log.delete_topic("in"),
                log.compact,
                log.reclaim,
            ):
                with pytest.raises(BadOption, match="source") as refused:
                    await change()
                assert "create_task" in refused.value.hint
            yield record.payload
            later.append(asyncio.create_task(consumer.ack(record.lsn)))
            later.append(log.append(b"later"))
            yield bytes(200_000)

        later = []
        results = await log.append_batch(source())
        assert [result.lsn for result in results] == [5, 6]
        await later[0]
        assert (await later[1]).lsn == 7
        assert (await consumer.next()).payload == b"1"
        assert [len(record.payload) async for record in log.read(5)] == [1, 200_000, 5]


async def test_records_of_a_batch_are_let_go_of_once_they_are_written(tmp_path):
    """All of it may be far more than there is memory."""
    held = list[int]()

    async def source(payload_bytes: int, count: int):
        for number in range(count):
            yield b"x" * payload_bytes
            if number % (count // 64) == 0:
                held.append(tracemalloc.get_traced_memory()[0])

    async with walsvc.open(tmp_path, max_group_bytes=64 << 10, max_pending_bytes=1 << 20) as log:
        topic = log.topic("t")
        await topic.append(b"")
        for payload_bytes, count, most in ((32 << 10, 1024, 8 << 20), (1, 256 << 10, 10 << 20)):
            tracemalloc.start()
            try:
                result = await topic.append_batch(source(payload_bytes, count))
            finally:
                tracemalloc.stop()
            assert len(result) == count
            assert max(held) < most, "not 32 MiB of payloads, nor 256 Ki labels; a record has four bytes in the result"
            held.clear()
        assert len([record async for record in topic.read()]) == 1 + 1024 + (256 << 10)


def test_source_that_waits_for_its_append_later_is_told_then():
    async def main(seed):
        async with await open_on(SimDisk(SimDevice(seed)), WalConfig(max_group_bytes=4096)) as log:

            async def source():
                ours = [log.append(b"one"), log.append_batch([b"two", b"three"])]
                yield bytes(3000)
                yield bytes(3000)
                for each in ours:
                    with pytest.raises(BadOption, match="source"):
                        await each
                yield bytes(3000)

            assert [result.lsn for result in await log.append_batch(source())] == [1, 2, 3]
            assert (await log.append(b"goes on")).lsn == 4

    run_sim(main, seed=1)


async def test_source_that_ends_with_its_consumer_waits_for_no_durable_position(open_sim):
    async with open_sim(relaxed_interval=None) as log:
        await log.topic("in").append_batch([b"%d" % number for number in range(4)])
        consumer = await log.topic("in").consumer("c")
        await consumer.ack((await consumer.next()).lsn)

        async def source():
            yield bytes(200_000)
            await consumer.close()

        assert len(await log.append_batch(source())) == 1
        await log.flush()
        async with await log.topic("in").consumer("c") as again:
            assert (await again.next()).payload == b"1"
