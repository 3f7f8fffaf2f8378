"""Calls of one client at a shared consumer that are made together: they share frames, and no caller can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

import walsvc
from walsvc.errors import BadOption, Closed, LeaseLost
from walsvc.service.server import connection
from walsvc.service.wire.frames import Call, Error, Open, Result
from walsvc.topics.shared import Delivery, SharedConsumer

from .raw import Raw
from .sharing import calls_for_all, calls_of, working
from .simulated import serving


async def tasks(consumer: SharedConsumer, count: int) -> list[asyncio.Task[Delivery]]:
    """So many calls of next() that wait at the server."""
    made = [asyncio.ensure_future(consumer.next()) for _ in range(count)]
    await asyncio.sleep(0)
    await consumer.status()  # answered behind what was asked before
    return made


def lsns(deliveries: Sequence[Delivery]) -> list[int]:
    return [each.record.lsn for each in deliveries]


async def test_tasks_of_a_client_share_frames(tmp_path: Path) -> None:
    async with working(tmp_path, 400) as (server, _, consumer):
        assert await calls_for_all(server, consumer, 20) <= 80  # and not 800
        assert await consumer.lag() == 0


async def test_acknowledgements_of_a_turn_are_one_change_of_the_log(tmp_path: Path) -> None:
    async with working(tmp_path, 100) as (server, _, consumer):
        out = await asyncio.gather(*(consumer.next() for _ in range(100)))
        before, groups = calls_of(server), server.logs[""].stats().groups
        await asyncio.gather(*(each.ack() for each in out))
        assert calls_of(server) - before == 1
        assert server.logs[""].stats().groups - groups == 1
        assert await consumer.lag() == 0


async def test_delivery_that_is_lost_fails_its_own_caller_only(tmp_path: Path) -> None:
    async with working(tmp_path, 6) as (_, _, consumer):
        out = await asyncio.gather(*(consumer.next() for _ in range(6)))
        await out[2].nak()
        again = await consumer.next()
        assert again.record.lsn == out[2].record.lsn
        acked = await asyncio.gather(
            *(each.ack() for each in out[:3]), consumer.ack(out[3:5]), out[5].ack(), return_exceptions=True
        )
        assert [type(each) for each in acked] == [type(None), type(None), LeaseLost, type(None), type(None)]
        assert await consumer.lag() == 1
        both = await asyncio.gather(consumer.ack([again, out[2]]), again.ack(), return_exceptions=True)
        assert [type(each) for each in both] == [LeaseLost, type(None)]
        assert await consumer.lag() == 0


async def test_callers_get_records_in_the_order_in_which_they_asked(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        walsvc.open(server.addresses[0]) as one,
        walsvc.open(server.addresses[0]) as two,
    ):
        workers = [await log.topic("t").consumer("w", shared=True) for log in (one, two)]
        waiting = [*await tasks(workers[0], 3), *await tasks(workers[1], 1), *await tasks(workers[0], 2)]
        for number, task in enumerate(waiting, 1):
            await two.topic("t").append(b"x")
            done, _ = await asyncio.wait(waiting[number - 1 :], return_when=asyncio.FIRST_COMPLETED)
            assert done == {task}
            assert task.result().record.lsn == number


async def test_callers_of_one_question_are_counted_each(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append_batch([b"x"] * 5)
        consumer = await log.topic("t").consumer("w", shared=True, max_outstanding=2)
        waiting = await tasks(consumer, 5)
        out = [await waiting[0], await waiting[1]]
        assert (await consumer.status()).waiting == 3
        await out[0].ack()
        assert (await waiting[2]).record.lsn == 3
        assert (await consumer.status()).waiting == 2
        for each in waiting[3:]:
            each.cancel()
        await asyncio.wait(waiting)
        assert (await consumer.status()).waiting == 0


async def test_caller_that_gives_up_leaves_its_record_to_others(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        walsvc.open(server.addresses[0]) as one,
        walsvc.open(server.addresses[0]) as two,
    ):
        workers = [await log.topic("t").consumer("w", shared=True) for log in (one, two)]
        waiting = await tasks(workers[0], 3)
        other = await tasks(workers[1], 1)
        waiting[0].cancel()
        waiting[2].cancel()
        await two.topic("t").append_batch([b"a", b"b"])
        out = [await waiting[1], await other[0]]
        assert sorted(lsns(out)) == [1, 2]
        assert [each.attempt for each in out] == [1, 1]
        await two.topic("t").append(b"c")
        assert (await workers[1].next()).attempt == 1
        await asyncio.gather(*(each.ack() for each in out))
        assert (await workers[0].status()).outstanding == 1


@pytest.mark.parametrize("late", [False, True])
async def test_callers_that_are_given_up_at_any_moment_drop_nothing(tmp_path: Path, late: bool) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        consumer = await log.topic("t").consumer("w", shared=True, lease=600.0)
        seen: list[int] = []
        for moment in range(30):
            waiting = [asyncio.ensure_future(consumer.next()) for _ in range(4)]
            await log.topic("t").append_batch([b"x"] * 4)
            for _ in range(moment):
                await asyncio.sleep(0)
            for each in waiting[late::2]:
                each.cancel()
            await asyncio.wait(waiting)
            got = [each.result() for each in waiting if each.done() and not each.cancelled()]
            got += await asyncio.gather(*(consumer.next() for _ in range(4 - len(got))))
            await asyncio.gather(*(each.ack() for each in got))
            assert {each.attempt for each in got} == {1}
            seen += lsns(got)
        assert sorted(seen) == list(range(1, 121))


async def test_older_server_is_asked_for_each_call_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FEATURES", tuple(each for each in connection.FEATURES if each != "each"))
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        consumer = await log.topic("t").consumer("w", shared=True)
        before = calls_of(server)
        waiting = [asyncio.ensure_future(consumer.next()) for _ in range(100)]
        await log.topic("t").append_batch([b"x"] * 100)
        out = await asyncio.gather(*waiting)
        assert lsns(out) == list(range(1, 101))
        assert calls_of(server) - before == 100
        await asyncio.gather(*(each.ack() for each in out))
        assert await consumer.lag() == 0


async def test_acknowledgement_that_is_given_up_before_it_is_sent_does_nothing(tmp_path: Path) -> None:
    async with working(tmp_path, 3) as (_, _, consumer):
        out = await consumer.read_batch()
        acks = [asyncio.ensure_future(each.ack()) for each in out]
        await asyncio.sleep(0)
        acks[1].cancel()
        await asyncio.wait(acks)
        assert (await consumer.status()).outstanding == 1
        await out[1].ack()
        assert await consumer.lag() == 0


async def test_calls_that_wait_end_with_the_consumer_and_acknowledgements_before_it(tmp_path: Path) -> None:
    async with working(tmp_path, 3) as (_, log, consumer):
        out = await consumer.read_batch()
        waiting = [*await tasks(consumer, 2), asyncio.ensure_future(consumer.next())]
        acks = [asyncio.ensure_future(each.ack()) for each in out]
        await asyncio.sleep(0)
        await consumer.close()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in ended} == {Closed}
        await asyncio.gather(*acks)
        with pytest.raises(Closed):
            await out[1].ack()
        assert await (await log.topic("t").consumer("w", shared=True)).lag() == 0


async def test_server_refuses_more_calls_in_one_question_than_records_may_be_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.send(Open(1, "shared", {"name": "c"}, 0))
        await raw.expect(Result, 1)
        for wrong in (0, 20_001, 1 << 63):
            raw.send(Call(2, "shared.next", {"stream": 1, "max_bytes": 1, "max_records": wrong, "each": True}))
            assert (await raw.expect(Error, 2)).code == BadOption.__name__
