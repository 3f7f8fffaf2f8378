"""Checks are made in the step that takes: changes that had to wait for their turn, and callers that gave up meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.giving_up import interrupted
from walsvc import AtLeastOnce, BadOption, InUse
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on

SMALL = WalConfig(segment_bytes=65536)


def simulated(scenario):
    """Run a test on a log on a simulated disk, in simulated time."""

    def test() -> None:
        async def main(seed: int) -> None:
            async with await open_on(SimDisk(SimDevice(seed)), SMALL) as log:
                await scenario(log)

        run_sim(main, 5)

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


@asynccontextmanager
async def nothing_joins(log):
    """Changes of metadata wait for their turn until the block's end, as behind a truncation."""
    turn = log.writer.core.queue.take_turn()
    await turn.granted
    try:
        yield
    finally:
        turn.end()


async def started(*calls) -> list[asyncio.Task]:
    """Tasks of the calls, each of which has come to where it waits."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


@simulated
async def test_consumer_that_is_opened_meanwhile_is_neither_deleted_nor_moved(log):
    await asyncio.gather(*(log.append(b"%d" % number) for number in range(10)))
    await (await log.consumer("c")).close()
    async with nothing_joins(log):
        changes = await started(log.delete_consumer("c"), log.move_consumer("c", 5))
        consumer = await log.consumer("c")
    for change in changes:
        with pytest.raises(InUse):
            await change
    assert (await consumer.next()).lsn == 1
    await consumer.ack(1)
    assert (await log.consumers())[0].position == 2


@simulated
async def test_changes_of_one_consumer_come_in_the_order_of_their_calls(log):
    await log.append(b"x")
    async with nothing_joins(log):
        changes = await started(
            log.topic("t").consumer("c"), log.topic("t").delete_consumer("c"), log.topic("u").consumer("c")
        )
    opened, deleted, other = await asyncio.gather(*changes, return_exceptions=True)
    assert isinstance(deleted, InUse)
    assert (opened.topic, other.topic) == ("t", "u")
    async with nothing_joins(log):
        changes = await started(log.hold("h", 1), log.release("h"))
    await asyncio.gather(*changes)
    assert log.holds() == {}


@simulated
async def test_one_of_two_who_open_a_new_consumer_gets_it(log):
    async with nothing_joins(log):
        changes = await started(*(log.topic("t").consumer("c") for _ in range(5)))
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(each, InUse) for each in outcomes) == 4


@simulated
async def test_name_is_free_again_when_opening_was_given_up_at_any_point(log):
    for at in range(1, 4):
        for late in (False, True):
            for topic in (None, f"{at}{late}"):
                owner = log if topic is None else log.topic(topic)
                _, outcome = await interrupted(owner.consumer(f"c{at}{late}"), at, late=late)
                if not isinstance(outcome, asyncio.CancelledError):
                    await outcome.close()
                async with await owner.consumer(f"c{at}{late}"):
                    pass
    async with nothing_joins(log):
        (opening,) = await started(log.consumer("queued"))
        opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    with pytest.raises(BadOption, match="no consumer"):
        await log.delete_consumer("queued")
    assert log.writer.core.changes.places == {}


@pytest.mark.parametrize("call", ["truncate_before", "purge"])
@pytest.mark.parametrize("before", [0, 3, 9, 20])
def test_hiding_that_waited_for_a_cut_waits_for_no_record_that_is_gone(call: str, before: int) -> None:
    """Both once waited for a record behind the new end, and kept whoever came behind them waiting, until one got its LSN."""

    @simulated
    async def waiting(log):
        topic = log.topic("t")
        await asyncio.gather(*(topic.append(bytes(3000)) for _ in range(40)))
        (cut,) = await started(log.truncate_after(20))
        for _ in range(before):
            await asyncio.sleep(0)
        (first,) = await started(topic.purge(before=10))
        async with asyncio.timeout(100):
            if call == "purge":
                assert await topic.purge(before=40) == 11
            else:
                with pytest.raises(BadOption, match="out of range"):
                    await topic.truncate_before(40)
        assert await first == 9
        await cut

    waiting()


@simulated
async def test_ack_that_waited_for_a_cut_does_not_go_beyond_it(log):
    """It once put the position behind the new end, and the records that came there were never delivered."""
    await asyncio.gather(*(log.append(b"%d" % number) for number in range(20)))
    consumer = await log.consumer("c")
    batch = await consumer.read_batch()
    cut = asyncio.ensure_future(log.truncate_after(10))
    await asyncio.sleep(0)
    await consumer.ack(batch[-1].lsn)
    await cut
    assert consumer.position == 11
    await asyncio.gather(*(log.append(b"new") for _ in range(10)))
    assert [record.lsn for record in await consumer.read_batch()] == list(range(11, 21))


@simulated
async def test_ack_that_was_given_up_is_durable_when_it_is_made_again(log):
    await asyncio.gather(*(log.append(b"%d" % number) for number in range(10)))
    consumer = await log.consumer("c")
    await consumer.read_batch()
    device = log.writer.core.disk.device
    device.stall_sync(5)
    _, outcome = await interrupted(consumer.ack(7), 1, late=False)
    assert isinstance(outcome, asyncio.CancelledError)
    await consumer.ack(7)
    async with await open_on(SimDisk(device.fork().crash()), SMALL) as after:
        assert (await after.consumers())[0].position == 8


@simulated
async def test_seek_that_was_given_up_is_done_or_not_begun(log):
    await asyncio.gather(*(log.append(b"%d" % number) for number in range(10)))
    consumer = await log.consumer("c")
    for to in (9, 3, 5, 1):
        for late in (False, True):
            await interrupted(consumer.seek(to), 1, late=late)
            await log.flush()
            async with consumer._saving:
                written = log.writer.core.metadata.positions["0/c"]
            assert consumer.position == written
            assert (await consumer.peek()).lsn == written


@simulated
async def test_closing_that_was_given_up_ends_all_the_same_and_loses_no_acknowledgement(log):
    await asyncio.gather(*(log.append(b"%d" % number) for number in range(10)))
    for late in (False, True):
        consumer = await log.consumer("c", AtLeastOnce(100), "first")
        record = await consumer.next()
        async with nothing_joins(log):
            await consumer.ack(record.lsn)
            (closing,) = await started(consumer.close())
            closing.cancel()
            (opening,) = await started(log.consumer("c"))
        async with await opening as again:
            assert again.position == record.lsn + 1, late
        await consumer.close()
