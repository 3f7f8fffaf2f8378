"""Shared consumers: what goes out, in which order, when it comes again, and what is durable of it."""

from __future__ import annotations

import asyncio
import datetime
import time

import pytest

import walsvc
from tests.giving_up import interrupted
from tests.topics.test_consumers import fill
from tests.waiting import until
from walsvc import AtLeastOnce, BadOption, Closed, InUse, LeaseLost, Truncated, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.format.queues import KEY, done_row
from walsvc.log.read import counting
from walsvc.log.read.reader import Cursor
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)


async def shared(log, name="workers", topic="orders", **options):
    return await log.topic(topic).consumer(name, shared=True, **options)


async def take(consumer, count):
    async with asyncio.timeout(60):
        return [await consumer.next() for _ in range(count)]


def lsns(deliveries):
    return [each.record.lsn for each in deliveries]


async def dead(log, topic="orders.dead"):
    return [record async for record in log.topic(topic).read()]


async def test_what_was_acknowledged_in_any_order_is_all_that_does_not_come_again(open_log):
    async with open_log() as log:
        await fill(log, 12)
        consumer = await shared(log)
        out = await take(consumer, 12)
        assert {each.record.topic for each in out} == {"orders"}
        assert all(each.attempt == 1 for each in out)
        for place in (7, 2, 3, 0, 11, 1):
            await out[place].ack()
        assert await consumer.lag() == 6
        status = await consumer.status()
        assert (status.shared, status.outstanding, status.position) == (True, 6, out[4].record.lsn - 1)
    async with open_log() as log:
        [found] = [each for each in await log.consumers() if each.name == "workers"]
        assert (found.shared, found.lag) == (True, 6)
        consumer = await shared(log)
        again = await take(consumer, 6)
        assert lsns(again) == [out[place].record.lsn for place in (4, 5, 6, 8, 9, 10)]
        assert [each.record.payload for each in again] == [out[place].record.payload for place in (4, 5, 6, 8, 9, 10)]
        assert {each.attempt for each in again} == {2}, "they went back when the log was closed"
        await consumer.ack(again)
        assert await consumer.lag() == 0


async def test_two_who_have_it_open_get_different_records_and_one_that_closes_gives_back_its_own_at_once(open_log):
    async with open_log() as log:
        await fill(log, 6)
        one = await shared(log, lease=600.0)
        two = await shared(log)
        assert two.sharing.lease == 600.0
        first, second = await take(one, 3), await take(two, 2)
        assert sorted(lsns(first + second)) == sorted({*lsns(first), *lsns(second)})
        waiting = asyncio.create_task(take(two, 4))
        await two.ack(second)
        await one.close()
        rest = await waiting
        assert sorted(each.attempt for each in rest) == [1, 2, 2, 2]
        assert {*lsns(first)} < {*lsns(rest)}
        for call in (first[0].ack(), first[0].nak(), one.next(), one.status()):
            with pytest.raises(Closed):
                await call
        await one.close()


async def taken_in_time(consumer):
    """A delivery whose short lease was extended before it ran out."""
    while True:
        [delivery] = await take(consumer, 1)
        try:
            await delivery.extend(600.0)
        except LeaseLost:
            continue
        return delivery


async def test_record_whose_lease_ran_out_goes_to_another_and_the_first_one_is_told(open_log):
    async with open_log() as log:
        await fill(log, 1)
        consumer = await shared(log, lease=0.05)
        [slow] = await take(consumer, 1)
        assert slow.deadline is not None
        again = await taken_in_time(consumer)  # waits for the deadline
        assert again.record == slow.record
        assert again.attempt >= 2
        assert again.deadline > slow.deadline + 500
        for call in (slow.ack(), slow.nak(), slow.extend(5.0), consumer.ack([again, slow])):
            with pytest.raises(LeaseLost, match="has ended"):
                await call
        await again.ack()
        await again.ack()
        assert await consumer.lag() == 0


async def test_acknowledging_behind_the_deadline_counts_as_long_as_nobody_got_the_record(open_log):
    async with open_log() as log:
        await fill(log, 2)
        consumer = await shared(log, lease=0.05, max_outstanding=2)
        out = await take(consumer, 2)
        assert (await take(consumer, 1))[0].record == out[0].record  # so the other one is overdue as well
        await out[1].ack()
        assert (await consumer.status()).lag == 1


def test_deadline_that_is_over_is_looked_at_on_any_loop():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed (walsvc[uvloop])")

    async def overdue():
        async with await open_on(SimDisk(SimDevice(1)), CONFIG) as log:
            await fill(log, 1)
            consumer = await shared(log, lease=0.001)
            await take(consumer, 1)
            time.sleep(0.01)  # noqa: ASYNC251  the loop has no turn in which its timer could ring
            consumer.open_hub().alarm.stop()
            for _ in range(2):
                consumer.open_hub().changed()
            return (await take(consumer, 1))[0].attempt

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(overdue()) == 2


async def test_given_back_with_a_delay_it_comes_after_it_and_without_one_at_once(open_log):
    async with open_log() as log:
        await fill(log, 2)
        consumer = await shared(log)
        first, second = await take(consumer, 2)
        await first.nak(0.5)
        await second.nak()
        assert lsns(await take(consumer, 2)) == [second.record.lsn, first.record.lsn]


async def test_context_manager_acknowledges_or_gives_back(open_log):
    async with open_log() as log:
        await fill(log, 3)
        consumer = await shared(log)
        async with await consumer.next() as delivery:
            assert delivery.attempt == 1
        with pytest.raises(RuntimeError):
            async with await consumer.next() as failed:
                raise RuntimeError
        async with await consumer.next() as again:
            assert (again.record, again.attempt) == (failed.record, 2)
        async with await consumer.next() as by_hand:
            await by_hand.nak(600.0)
        assert (await consumer.status()).lag == 1


async def test_poison_goes_to_the_dead_letter_topic_once_with_all_that_it_was(open_log):
    async with open_log() as log:
        topic = log.topic("orders")
        await topic.append(b"poison", type=7, attributes={"kind": "x", "n": 3})
        await topic.append(b"good")
        consumer = await shared(log, max_deliveries=3, dead_letter="orders.dead")
        seen = []
        while await consumer.lag():
            [delivery] = await take(consumer, 1)
            seen.append((delivery.record.payload, delivery.attempt))
            if delivery.record.payload == b"poison":
                await delivery.nak()
            else:
                await delivery.ack()
        assert [attempt for payload, attempt in seen if payload == b"poison"] == [1, 2, 3]
        [letter] = await dead(log)
        assert (letter.payload, letter.type) == (b"poison", 7)
        origin = {"dead.topic": "orders", "dead.lsn": 1, "dead.attempts": 3, "dead.consumer": "workers"}
        assert dict(letter.attributes) == {"kind": "x", "n": 3, **origin}
        assert (await consumer.status()).dead_letters == 1
    async with open_log() as log:
        assert len(await dead(log)) == 1
        assert await (await shared(log)).lag() == 0


async def test_last_attempt_that_runs_out_needs_no_caller_to_be_a_dead_letter(open_log):
    async with open_log() as log:
        await fill(log, 1)
        consumer = await shared(log, lease=0.05, max_deliveries=1)
        [delivery] = await take(consumer, 1)
        async with asyncio.timeout(60):
            letter = await anext(log.topic("orders.dead").follow())
        assert letter.payload == delivery.record.payload
        with pytest.raises(LeaseLost):
            await delivery.ack()
        assert await consumer.lag() == 0


async def test_equal_keys_are_out_one_at_a_time_in_order_and_others_beside_them(open_log):
    async with open_log() as log:
        topic = log.topic("orders")
        for key in ("a", "b", "a", None, "b", None, "a"):
            await topic.append(b"x", attributes={} if key is None else {"key": key})
        consumer = await shared(log, ordered_by="key", max_deliveries=2, dead_letter="d")
        out = {each.record.lsn: each for each in await take(consumer, 4)}
        assert sorted(out) == [1, 2, 4, 6]
        await out[2].nak(600.0)  # blocks "b" and nothing else
        await out[1].ack()
        [third] = await take(consumer, 1)
        assert third.record.lsn == 3
        await third.nak()
        [third] = await take(consumer, 1)
        await third.nak()  # dead: it frees its key
        assert lsns(await take(consumer, 1)) == [7]
        assert [letter.attributes["dead.lsn"] for letter in await dead(log, "d")] == [3]


async def test_record_is_not_delivered_before_its_time(open_log):
    async with open_log() as log:
        topic = log.topic("orders")
        now = datetime.datetime.now(datetime.UTC)
        await topic.append(b"far", not_before=now + datetime.timedelta(days=1))
        await topic.append(b"soon", not_before=now.timestamp() + 1.0, attributes={"a": 1})
        await topic.append(b"past", not_before=now)
        await topic.append_nowait(b"now")
        consumer = await shared(log)
        out = await take(consumer, 3)
        assert [each.record.payload for each in out] == [b"past", b"now", b"soon"]
        assert datetime.datetime.now(datetime.UTC).timestamp() >= now.timestamp() + 1.0
        assert set(out[2].record.attributes) == {"a", "not_before"}
        await consumer.ack(out)
        for wrong in (-1.0, "tomorrow", datetime.datetime(2030, 1, 1)):
            with pytest.raises(BadOption):
                await topic.append(b"x", not_before=wrong)


async def test_record_that_is_alone_is_delivered_at_its_time(open_log):
    async with open_log() as log:
        consumer = await shared(log)
        waiting = asyncio.ensure_future(consumer.next())
        await log.topic("orders").append(b"soon", not_before=time.time() + 0.1)
        delivery = await waiting
        assert (delivery.record.payload, delivery.attempt) == (b"soon", 1)
        assert time.time() >= delivery.record.attributes["not_before"] / 1e6
        await delivery.nak(delay=0.1)
        assert (await consumer.next()).attempt == 2


async def test_beyond_max_outstanding_next_waits_and_is_counted(open_sim):
    async with open_sim() as log:
        await fill(log, 5)
        consumer = await shared(log, max_outstanding=2)
        out = await take(consumer, 2)
        waiting = [asyncio.create_task(consumer.next()) for _ in range(2)]
        await until(lambda: log.stats().waiting >= 2, 0)
        assert (await consumer.status()).waiting == 2
        assert not any(task.done() for task in waiting)
        await out[0].ack()
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        await out[1].nak()
        await asyncio.wait(waiting)
        assert log.stats().waiting == 0


async def test_batch_is_acknowledged_as_a_whole_or_not_at_all(open_log):
    async with open_log() as log:
        await fill(log, 10)
        consumer = await shared(log)
        batch = await consumer.read_batch(max_records=4)
        assert len(batch) == 4
        assert len(await consumer.read_batch(max_bytes=1)) == 1
        rest = await consumer.read_batch()
        assert 1 <= len(rest) <= 5
        await batch[0].nak()
        [again] = await take(consumer, 1)
        assert again.record.lsn in lsns([batch[0], *await take(consumer, 5 - len(rest))])
        before = await consumer.lag()
        if again.record.lsn == batch[0].record.lsn:
            with pytest.raises(LeaseLost):
                await consumer.ack(batch)
            assert await consumer.lag() == before
        await consumer.ack(rest)
        assert await consumer.lag() == before - len(rest)


@pytest.mark.parametrize("late", [False, True])
async def test_next_that_is_given_up_at_any_await_drops_nothing(open_log, late):
    async with open_log() as log:
        await fill(log, 30)
        consumer, seen, at, given_up = await shared(log, lease=600.0), [], 1, 0
        async with asyncio.timeout(60):
            while len(seen) < 30:
                call = consumer.next() if at % 2 else consumer.read_batch(max_records=3)
                got = (await interrupted(call, at // 2 % 4 + 1, late=late))[1]
                at += 1
                if isinstance(got, asyncio.CancelledError):
                    given_up += 1
                    continue
                batch = got if isinstance(got, list) else [got]
                assert {each.attempt for each in batch} == {1}
                seen += batch
                await consumer.ack(batch)
        assert len(set(lsns(seen))) == 30
        assert given_up
        assert await consumer.lag() == 0


async def test_calls_that_are_given_up_at_any_await_do_all_or_nothing(open_log):
    async with open_log() as log:
        await fill(log, 24)
        consumer = await shared(log)
        out = await take(consumer, 24)
        for place, delivery in enumerate(out):
            call = delivery.ack() if place % 3 else delivery.nak(0.01)
            await interrupted(call, place % 4 + 1, late=place % 2 == 0)
        async with asyncio.timeout(60):
            while await consumer.lag():
                async with await consumer.next():
                    pass
        assert (await consumer.status()).position == out[-1].record.lsn + 1


async def test_worker_without_lease_keeps_its_records_over_restarts_by_its_name(open_log):
    async with open_log() as log:
        await fill(log, 6)
        one = await shared(log, lease=None, worker="one")
        two = await shared(log, worker="two")
        first, second = await take(one, 3), await take(two, 2)
        assert first[0].deadline is None
        await first[1].ack()
        await one.close()
        assert len(await take(two, 1)) == 1
        one = await shared(log, worker="one")
        assert [(each.record.lsn, each.attempt) for each in await take(one, 2)] == [
            (first[0].record.lsn, 2),
            (first[2].record.lsn, 2),
        ]
        await second[0].nak()
        assert lsns(await take(one, 1)) == [second[0].record.lsn]
    async with open_log() as log:
        two = await shared(log, worker="two")
        assert len(await two.read_batch(max_records=2)) == 2
        one = await shared(log, worker="one")
        assert len(await take(one, 3)) == 3


async def test_what_is_opened_wrongly_says_so(open_log):
    async with open_log() as log:
        topic = log.topic("orders")
        await fill(log, 1)
        for wrong in (
            {"lease": 0.0},
            {"lease": True},
            {"lease": None},
            {"worker": "w"},
            {"max_deliveries": 0},
            {"dead_letter": "d"},
            {"max_deliveries": 2, "dead_letter": "orders"},
            {"max_outstanding": 0},
            {"max_outstanding": 20_001},
            {"ordered_by": ""},
            {"prefetch": -1},
            {"lookahead": 3},
            {"delivery": AtLeastOnce(3)},
        ):
            with pytest.raises(BadOption):
                await topic.consumer("workers", shared=True, **wrong)
        with pytest.raises(BadOption, match=r"unknown option 'leese' of a shared consumer\. Hint: lease\? known"):
            await log.topic("t").consumer("q", shared=True, leese=3.0)
        with pytest.raises(BadOption, match="shared=True"):
            await topic.consumer("workers", lease=3.0)
        with pytest.raises(BadOption, match="whole log"):
            await log.consumer("workers", shared=True, max_deliveries=3)
        assert not [each for each in await log.consumers() if each.in_use]
        exclusive = await topic.consumer("billing")
        with pytest.raises(InUse):
            await topic.consumer("billing", shared=True)
        await exclusive.close()
        consumer = await topic.consumer("billing", shared=True, lease=10.0)
        with pytest.raises(InUse):
            await topic.consumer("billing")
        with pytest.raises(InUse, match="lease"):
            await topic.consumer("billing", shared=True, lease=11.0)
        [delivery] = await take(consumer, 1)
        for wrong in (delivery.nak(-1.0), delivery.extend(0.0), consumer.ack([object()]), consumer.seek(99)):
            with pytest.raises(BadOption):
                await wrong
        await consumer.close()
        again = await topic.consumer("billing", shared=True, lease=11.0)
        assert again.sharing.lease == 11.0


async def test_whole_log_has_shared_consumers_too(open_log):
    async with open_log() as log:
        await fill(log, 4)
        consumer = await log.consumer("all", shared=True)
        out = await take(consumer, 6)
        assert lsns(out) == [1, 2, 3, 4, 5, 6]
        await consumer.ack(out[1:])
        assert await consumer.lag() == 1


async def test_seek_takes_away_what_is_out(open_log):
    async with open_log() as log:
        await fill(log, 5)
        consumer = await shared(log)
        out = await take(consumer, 5)
        await consumer.ack(out[1:3])
        await consumer.seek("first")
        with pytest.raises(LeaseLost):
            await out[0].ack()
        again = await take(consumer, 5)
        assert lsns(again) == lsns(out)
        await consumer.seek("next")
        await log.topic("orders").append(b"new")
        assert [each.record.payload for each in await take(consumer, 1)] == [b"new"]
    async with open_log() as log:
        assert [each.record.payload for each in await take(await shared(log), 1)] == [b"new"]


async def test_cut_log_takes_away_what_was_beyond_its_end(open_log):
    async with open_log() as log:
        await fill(log, 8)
        consumer = await shared(log)
        out = await take(consumer, 8)
        await consumer.ack([out[0], out[2], out[6], out[7]])
        await log.truncate_after(out[4].record.lsn)
        with pytest.raises(LeaseLost):
            await out[5].ack()
        await consumer.ack([out[1], out[3], out[4]])
        assert await consumer.lag() == 0
        new = (await log.topic("orders").append(b"new")).lsn
        assert lsns(await take(consumer, 1)) == [new]
    async with open_log() as log:
        consumer = await shared(log)
        assert lsns(await take(consumer, 1)) == [new]


async def test_consumer_that_was_overtaken_says_so_and_goes_on_behind_the_gap(open_log):
    async with open_log() as log:
        await fill(log, 5)
        consumer = await shared(log)
        [delivery] = await take(consumer, 1)
        await delivery.ack()
        await log.truncate_before(4)
        with pytest.raises(Truncated, match="overtaken"):
            await take(consumer, 2)
        await consumer.seek("first")
        assert lsns(await take(consumer, 2)) == [4, 5]


async def test_purged_records_are_not_delivered_and_hold_nothing_up(open_log):
    async with open_log() as log:
        topic = log.topic("orders")
        for key in ("a", "b", "a", "c"):
            await topic.append(b"x", attributes={"key": key})
        consumer = await shared(log, lease=600.0)
        [first] = await take(consumer, 1)
        await log.topic("orders").purge("b")
        await topic.purge("a")
        [last] = await take(consumer, 1)
        assert last.record.attributes == {"key": "c"}
        await last.ack()
        await first.ack()
        assert (await consumer.status()).position == 5
        assert await consumer.lag() == 0


async def test_record_that_is_too_large_to_be_kept_in_memory_beside_others_is_read_again(open_sim, monkeypatch):
    monkeypatch.setattr("walsvc.topics.ahead.KEPT_BYTES_MAX", 30)
    async with open_sim() as log:
        await fill(log, 20, size=20)
        consumer = await shared(log, max_deliveries=2)
        out = await take(consumer, 20)
        for delivery in out:
            await delivery.nak()
        again = await take(consumer, 20)
        assert [each.record for each in again] == [each.record for each in out]
        for delivery in again:
            await delivery.nak()
        assert [letter.payload for letter in await dead(log)] == [each.record.payload for each in out]


async def test_state_in_the_metadata_is_bounded_however_the_acknowledgements_come(open_sim, monkeypatch):
    monkeypatch.setattr("walsvc.topics.feed.WINDOW_BYTES_MAX", 1000)
    async with open_sim() as log:
        await fill(log, 400)
        consumer = await shared(log, max_outstanding=10)
        held, largest = [], 0
        key = "1/workers"
        while True:
            try:
                async with asyncio.timeout(0.2):
                    delivery = await consumer.next()
            except TimeoutError:
                break
            if delivery.record.lsn % 2 and len(held) < 9:
                held.append(delivery)
            elif delivery.record.lsn % 2:
                await delivery.nak(300.0)
            else:
                await delivery.ack()
            largest = max(largest, log.writer.core.metadata.queues.get(key).rows_bytes)
        assert 500 < largest < 1600
        for delivery in held:
            await delivery.ack()
        assert len(await take(consumer, 1)) == 1


async def test_counts_of_deliveries_survive_a_crash_but_for_the_one_under_way(open_sim):
    device = SimDevice(1)
    log = await open_on(SimDisk(device), CONFIG)
    await fill(log, 2)
    consumer = await shared(log)
    for attempt in range(1, 4):
        out = await take(consumer, 2)
        assert {each.attempt for each in out} == {attempt}
        after = await open_on(SimDisk(device.fork().crash()), CONFIG)
        assert {each.attempt for each in await take(await shared(after), 2)} == {attempt}
        await after.close()
        for delivery in out:
            await delivery.nak()
    await log.close()


async def test_acknowledgement_is_durable_when_it_returns_and_a_dead_letter_comes_with_its_own(open_sim):
    device = SimDevice(2)
    log = await open_on(SimDisk(device), CONFIG)
    await fill(log, 8)
    consumer = await shared(log, max_deliveries=1)
    out = await take(consumer, 8)
    for place, delivery in enumerate(out):
        await (delivery.nak() if place % 2 else delivery.ack())
        after = await open_on(SimDisk(device.fork().crash()), CONFIG)
        found = await shared(after)
        assert await found.lag() == 7 - place
        assert len(await dead(after)) == (place + 1) // 2
        await after.close()
    await log.close()


async def test_dead_letters_are_sent_back_once_as_they_were(open_log):
    async with open_log() as log:
        for number in range(5):
            await log.topic("orders").append(b"%d" % number, type=number, attributes={"n": number})
        await log.topic("other").append(b"elsewhere")
        consumer = await shared(log, max_deliveries=1, dead_letter="d")
        other = await shared(log, topic="other", max_deliveries=1, dead_letter="d")
        for delivery in (*await take(consumer, 2), *await take(other, 1), *await take(consumer, 2)):
            await delivery.nak()
        assert len(await dead(log, "d")) == 5
        assert await log.topic("orders").redrive("workers") == 4
        assert await log.topic("orders").redrive("workers") == 0
        [fifth, *back] = await take(consumer, 5)
        assert fifth.record.payload == b"4"
        assert [
            (each.record.payload, each.record.type, dict(each.record.attributes), each.attempt) for each in back
        ] == [(b"%d" % number, number, {"n": number}, 1) for number in range(4)]
        await consumer.ack([fifth, *back])
        for name, topic in (("nobody", "orders"), ("workers", "d"), ("workers", "none")):
            with pytest.raises(BadOption, match="dead-letter"):
                await log.topic(topic).redrive(name)
    async with open_log() as log:
        assert await log.topic("other").redrive("workers") == 1
        assert await log.topic("orders").redrive("workers") == 0


async def test_exclusive_consumer_acknowledges_one_record_alone(open_log):
    async with open_log() as log:
        await fill(log, 6)
        consumer = await log.topic("orders").consumer("jobs")
        out = [await consumer.next() for _ in range(5)]
        await consumer.ack(out[3].lsn, only=True)
        await consumer.ack(out[1].lsn, only=True)
        await consumer.ack(out[3].lsn, only=True)
        assert consumer.position <= out[0].lsn
        assert await consumer.lag() == 4
        with pytest.raises(BadOption, match="not delivered"):
            await consumer.ack(out[4].lsn + 1, only=True)
    async with open_log() as log:
        consumer = await log.topic("orders").consumer("jobs")
        assert await consumer.lag() == 4
        again = [await consumer.next() for _ in range(4)]
        assert [each.lsn for each in again[:3]] == [out[0].lsn, out[2].lsn, out[4].lsn]
        await consumer.ack(out[0].lsn, only=True)
        assert consumer.position == out[2].lsn
        await consumer.ack(again[3].lsn)
        assert await consumer.lag() == 0
    async with open_log() as log:
        consumer = await log.topic("orders").consumer("jobs", shared=True)
        await log.topic("orders").append(b"new")
        assert [each.record.payload for each in await take(consumer, 1)] == [b"new"]


async def test_consumer_that_is_deleted_and_made_again_begins_anew(open_log):
    async with open_log() as log:
        await fill(log, 4)
        consumer = await shared(log, lease=3.0)
        out = await take(consumer, 4)
        await consumer.ack(out[2:])
        with pytest.raises(InUse):
            await log.topic("orders").delete_consumer("workers")
        await consumer.close()
        await log.topic("orders").move_consumer("workers", "first")
        consumer = await shared(log)
        assert (len(await take(consumer, 4)), consumer.sharing.lease) == (4, 3.0)
        await consumer.close()
        await log.topic("orders").delete_consumer("workers")
        consumer = await shared(log)
        assert (len(await take(consumer, 4)), consumer.sharing.lease) == (4, 30.0)
    async with open_log() as log:
        assert await (await shared(log)).lag() == 4


async def test_those_who_wait_hear_of_the_end(open_log):
    async with open_log() as log:
        consumer = await shared(log)
        waiting = [asyncio.create_task(consumer.next()) for _ in range(3)]
        await asyncio.sleep(0)
        await consumer.close()
        for task in waiting:
            with pytest.raises(Closed):
                await task
        other = await shared(log)
        last = asyncio.create_task(other.next())
        every = asyncio.create_task(collect(other))
        await asyncio.sleep(0)
    with pytest.raises((Closed, walsvc.Unreachable)):
        await last
    assert await every == []


async def collect(consumer):
    return [each async for each in consumer]


@pytest.mark.parametrize("share", [True, False])
async def test_lag_is_told_though_retention_drops_what_was_being_counted(open_sim, monkeypatch, share):
    """Counting reads a segment, and meanwhile the consumer goes on and its segment goes."""
    opened = counting.open_stream
    async with await open_on(SimDisk(SimDevice(1)), CONFIG) as log:
        topic = log.topic("orders")
        consumer = await topic.consumer("c", shared=True) if share else await topic.consumer("c")

        async def late(*args):
            """Reads what is no longer there."""
            monkeypatch.setattr(counting, "open_stream", opened)
            batch = await consumer.read_batch(max_bytes=1 << 30)
            await consumer.ack(batch if share else batch[-1].lsn)
            assert await log.reclaim() > 0
            return await opened(*args)

        for ask in (topic.consumers, consumer.lag):
            for _ in range(12):
                await topic.append(bytes(20_000))
            monkeypatch.setattr(counting, "open_stream", late)
            answer = await ask()
            assert (answer if ask == consumer.lag else answer[0].lag) == 0


@pytest.mark.parametrize("records", [0, 1, 3])
async def test_batch_that_reads_while_its_consumer_is_closed_hears_of_it(open_sim, records):
    for turns in range(12):
        async with await open_on(SimDisk(SimDevice(1)), CONFIG) as log:
            await fill(log, 2 * records)
            consumer, other = await shared(log), await shared(log)
            await take(other, records)
            await log.topic("noise").append(bytes(9000))
            waiting = asyncio.ensure_future(consumer.read_batch(max_records=5))
            for _ in range(turns):
                await asyncio.sleep(0)
            await consumer.close()
            with pytest.raises(Closed, match="is closed"):
                while True:
                    await waiting
                    waiting = asyncio.ensure_future(consumer.read_batch(max_records=5))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_records_whose_reading_was_cut_short_are_delivered_all_the_same(monkeypatch, error):
    """By a signal handler, or for want of memory: who then acknowledges the next record acknowledges only that."""
    take = Cursor.take

    async def main(_):
        async with await open_on(SimDisk(SimDevice(1)), WalConfig(max_group_records=2)) as log:
            topic = log.topic("jobs")
            queue = await topic.consumer("queue", shared=True)
            single = await topic.consumer("single")
            await asyncio.gather(*(topic.append(b"%d" % number) for number in range(6)))
            for call in (queue.read_batch, single.read_batch):
                due = True

                async def cut_short(cursor, limit):
                    nonlocal due
                    records = await take(cursor, limit)
                    if due and records:
                        due = False
                        raise error
                    return records

                monkeypatch.setattr(Cursor, "take", cut_short)
                with pytest.raises(error):
                    await call()
                assert not due
            seen = []
            while len(seen) < 6:
                for delivery in await queue.read_batch(max_records=2):
                    seen.append(delivery.record.payload)
                    await delivery.ack()
            assert seen == [record.payload for record in await single.read_batch()] == [b"%d" % n for n in range(6)]

    run_sim(main, 1)


async def test_worker_that_comes_back_is_not_held_up_by_what_was_purged_meanwhile(open_log):
    async with open_log() as log:
        for _ in range(4):
            await log.topic("orders").append(b"job")
        consumer = await shared(log, lease=None, worker="one")
        assert lsns(await take(consumer, 3)) == [1, 2, 3]
    async with open_log() as log:
        assert await log.purge(lsns=[1, 3]) == 2
    async with open_log() as log:
        consumer = await shared(log, lease=None, worker="one")
        (second, fourth) = await take(consumer, 2)
        assert lsns([second, fourth]) == [2, 4]
        await consumer.ack([second, fourth])
        assert (await consumer.status()).position == 5
        assert await consumer.lag() == 0


def test_what_vanished_is_said_to_be_done_once_however_often_its_worker_looks():
    async def main(_):
        device = SimDevice(1)
        async with await open_on(SimDisk(device), CONFIG) as log:
            await log.topic("orders").append(b"job")
            await take(await shared(log, lease=None, worker="one"), 1)
        async with await open_on(SimDisk(device), CONFIG) as log:
            assert await log.purge(lsns=[1]) == 1
        async with await open_on(SimDisk(device), CONFIG) as log:
            consumer = await shared(log, lease=None, worker="one")
            hub = consumer.open_hub()
            for _ in range(5):
                assert await hub.there(consumer) is None
            assert hub.acking([]).change() == {KEY: {hub.key: {"rows": done_row(1, 1, 0)}}}

    run_sim(main, 1)


async def test_delivery_that_is_acknowledged_twice_at_once_is_one_record_less(open_log):
    async with open_log() as log:
        await fill(log, 6)
        consumer = await shared(log)
        out = await take(consumer, 6)
        await consumer.ack([out[3], out[1], out[3], out[2], out[3]])
        assert await consumer.lag() == 3
        await asyncio.gather(out[5].ack(), out[5].ack())
        assert await consumer.lag() == 2
        await consumer.ack([out[0], out[4]])
        assert await consumer.lag() == 0


@pytest.mark.parametrize(
    ("first", "loses"),
    [("ack", {"nak", "extend"}), ("nak", {"extend"}), ("cut", set[str]())],
    ids=["done", "back", "cut"],
)
async def test_what_a_delivery_may_still_do_when_nobody_else_has_its_record(open_log, first, loses):
    """As docs/QUEUES.md says it: an acknowledgement may be repeated."""
    for last in ("ack", "nak", "extend"):
        async with open_log() as log:
            await fill(log, 1)
            consumer = await shared(log)
            delivery = await consumer.next()
            await (log.truncate_before(log.next_lsn, force=True) if first == "cut" else getattr(delivery, first)())
            ended = getattr(delivery, last)(*[60.0] * (last == "extend"))
            if last in loses:
                with pytest.raises(LeaseLost, match="has ended"):
                    await ended
            else:
                assert await ended is None
            await consumer.seek(log.next_lsn)


async def test_acknowledgement_of_records_in_a_row_is_one_row_of_the_log(open_sim):
    async with open_sim() as log:
        topic = log.topic("orders")
        for number in range(10):
            await topic.append(b"%d" % number)
            await log.topic("others").append(b"x")
        consumer = await shared(log)
        out = await take(consumer, 10)
        await consumer.ack([*out[2:5], *out[6:8]])
        [window] = log.writer.core.metadata.queues.windows.values()
        lsn = [each.record.lsn for each in out]
        assert (window.lasts, window.records) == ([lsn[4], lsn[7]], [3, 2])
        assert all(window.spans(lsn[first], lsn[last]) for first, last in ((2, 4), (6, 7)))
        assert not any(map(window.covers, (lsn[0], lsn[1], lsn[5], lsn[8])))
        await consumer.ack([*out[:2], *out[5:6], *out[8:]])
        assert await consumer.lag() == 0
