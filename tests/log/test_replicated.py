"""What waiting for a replica covers: changes of metadata have no LSN, and are counted by their place. The tests move the replica;
tests/engines/test_replicated_changes.py has a real one."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import until
from walsvc import AtLeastOnce, Closed, Quorum, ReplicaLost, Truncated
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.log.commit.catalog import BEGINNING
from walsvc.log.commit.replicated import Replicated
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536, max_group_bytes=16384, relaxed_interval=None)


async def opened(device=None, config=CONFIG):
    return await open_on(SimDisk(device or SimDevice(1)), config)


async def with_replica():
    """A log of five records, and its replica, which has these."""
    log = await opened()
    for number in range(5):
        await log.append(b"%d" % number)
    replica = Replicated("nats://h/stream", 0)
    log.writer.core.attach(replica)
    replica.advance(5, log.writer.core.catalog.mark)
    return log, replica


async def asked(log, lsn=5):
    """A wait for the replica that has begun."""
    waiting = asyncio.ensure_future(log.wait_replicated(lsn))
    await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    return waiting


async def acknowledge(log):
    consumer = await log.consumer("mailer")
    await consumer.ack((await consumer.next()).lsn)


async def acknowledge_shared(log):
    consumer = await log.topic("jobs").consumer("workers", shared=True)
    await log.topic("jobs").append(b"job")
    log.writer.core.replicated.advance(6, log.writer.core.catalog.mark)
    await (await consumer.next()).ack()


async def release(log):
    await log.hold("somebody", 2)
    log.writer.core.replicated.advance(5, log.writer.core.catalog.mark)
    await log.release("somebody")


CHANGES = {
    "an acknowledgement": acknowledge,
    "one of a shared consumer": acknowledge_shared,
    "a consumer that is made": lambda log: log.consumer("mailer"),
    "truncate_before": lambda log: log.truncate_before(3),
    "truncate_after": lambda log: log.truncate_after(4),
    "purge": lambda log: log.purge("key"),
    "a hold": lambda log: log.hold("somebody", 2),
    "a hold that is given up": release,
    "seal": lambda log: log.seal(),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_waiting_for_a_replica_covers_changes_without_an_lsn(change):
    log, replica = await with_replica()
    await CHANGES[change](log)
    last = log.durable_lsn
    waiting = await asked(log, last)
    assert replica.lsn == last, "the replica has every record"
    assert not waiting.done(), change
    replica.advance(last, log.writer.core.catalog.mark)
    assert await waiting == last
    await log.close()


async def test_waiting_for_a_record_that_is_there_does_not_wait_for_later_ones():
    log, replica = await with_replica()
    await log.append(b"later", attributes={"label": 1})
    assert await asyncio.wait_for(log.wait_replicated(5), 60) == 5
    waiting = asyncio.ensure_future(log.wait_replicated())
    await until(lambda: len(replica._waiters) == 1)
    replica.advance(6, log.writer.core.catalog.mark)
    assert await waiting == 6
    await log.close()


async def test_flush_covers_acknowledgements_that_wait_for_the_next_commit():
    device = SimDevice(1)
    log = await opened(device)
    for number in range(5):
        await log.append(b"%d" % number)
    consumer = await log.consumer("mailer", AtLeastOnce(persist_every=100))
    for lsn in (1, 2, 3):
        await consumer.next()
        await consumer.ack(lsn)
    await log.flush()
    again = await opened(device.fork().crash())
    assert [each.position for each in await again.consumers()] == [4]
    await again.close()
    replica = Replicated("nats://h/stream", 0)
    log.writer.core.attach(replica)
    catalog = log.writer.core.catalog
    before = catalog.changed
    await consumer.next()
    await consumer.ack(4)
    waiting = asyncio.ensure_future(log.wait_replicated())
    await until(lambda: catalog.changed > before)  # the group is durable
    replica.advance(5, catalog.mark)
    assert await waiting == 5
    again = await opened(device.fork().crash())
    assert [each.position for each in await again.consumers()] == [5]
    await again.close()
    await log.close()


async def test_transaction_of_acknowledgements_is_answered_when_the_replica_has_them():
    log, replica = await with_replica()
    consumer = await log.consumer("mailer")
    await consumer.next()
    replica.advance(5, log.writer.core.catalog.mark)
    transaction = log.transaction(mode=Quorum)
    transaction.ack(consumer, 1)
    committing = asyncio.ensure_future(transaction.commit())
    await until(lambda: consumer.position == 2)
    await log.flush()
    assert not committing.done()
    replica.advance(5, log.writer.core.catalog.mark)
    assert await committing == ()
    await log.close()


async def test_transaction_of_what_is_done_already_is_answered():
    """It changes nothing, and there may be no group in which anybody could wait."""
    log = await opened()
    await log.append(b"x")
    consumer = await log.consumer("mailer")
    await consumer.next()
    await consumer.ack(1)
    for collect in (lambda each: each.ack(consumer, 1), lambda each: each.expect(1), lambda _: None):
        async with asyncio.timeout(60), log.transaction() as transaction:
            collect(transaction)
    lazily = await log.consumer("lazy", AtLeastOnce(persist_every=100))
    await lazily.next()
    await lazily.ack(1)
    async with log.transaction() as transaction:
        transaction.ack(lazily, 1)
    assert not log.writer.core.placement.group.metadata.joined, "what it found done is durable, too"
    await log.close()


async def test_truncate_after_moves_those_who_wait_to_the_state_behind_it():
    log, replica = await with_replica()
    await log.hold("somebody", 4)
    early, late = await asked(log, 3), await asked(log, 5)
    await log.truncate_after(3)
    replica.advance(3, BEGINNING)
    await asyncio.sleep(0)
    assert not early.done()
    assert not late.done(), "record 5 had been there, so the wait is for the change, which is void"
    again = await asked(log, 3)
    replica.advance(3, log.writer.core.catalog.mark)
    assert [await each for each in (early, late, again)] == [3, 3, 3]
    waiting = asyncio.ensure_future(log.wait_replicated((await log.append(b"x")).lsn))
    await until(lambda: len(replica._waiters) == 1)
    await log.truncate_after(2)  # its segment begins before the one that the replica has
    with pytest.raises(Truncated):
        await waiting
    waiting = await asked(log, 2)
    assert not waiting.done()
    replica.advance(2, log.writer.core.catalog.mark)
    assert await waiting == 2
    await log.close()


async def test_segment_full_of_changes_that_gave_way_to_another_is_behind_it():
    """Both have the same first LSN, and the new one ends at a lower offset."""
    log = await opened()
    replica = Replicated("nats://h/stream", 0)
    log.writer.core.attach(replica)
    catalog = log.writer.core.catalog
    while catalog.replacements == 0:
        before = catalog.mark
        await log.hold("somebody", 1)
    assert catalog.place < before[1:]
    replica.advance(0, before)
    waiting = await asked(log, 0)
    assert not waiting.done()
    replica.advance(0, catalog.mark)
    assert await waiting == 0
    await log.close()


async def test_replica_that_is_lost_and_a_log_that_is_closed_say_that_the_change_is_durable_here():
    log, replica = await with_replica()
    await log.truncate_before(2)
    waiting = await asked(log)
    replica.lose(ReplicaLost("another log is replicated there", path=replica.path))
    with pytest.raises(ReplicaLost, match="the change is durable here") as caught:
        await waiting
    assert caught.value.lsn is None
    replica.lost = None
    waiting = await asked(log)
    replica.close()
    with pytest.raises(Closed, match="the change, which is durable here"):
        await waiting
    await log.close()
