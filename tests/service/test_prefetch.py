"""Deliveries that come with the answer to an acknowledgement, before a caller asks for them; and what was called for before a close."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import walsvc
from walsvc.errors import BadOption, Closed
from walsvc.service.server import connection
from walsvc.service.wire import frames
from walsvc.service.wire.frames import Call, Cancel, End, Error, Open, Result
from walsvc.service.wire.protocol import encode
from walsvc.topics.shared import LocalConsumer

from .raw import Raw
from .sharing import calls_for_all, calls_of, working
from .simulated import serving


async def test_job_costs_one_call_where_its_acknowledgement_brings_the_next(tmp_path: Path) -> None:
    async with working(tmp_path, 20, prefetch=1) as (server, _, consumer):
        before = calls_of(server)
        for lsn in range(1, 21):
            delivery = await consumer.next()
            assert (delivery.record.lsn, delivery.attempt) == (lsn, 1)
            await delivery.ack()
        assert calls_of(server) - before == 21
        assert await consumer.lag() == 0


async def test_batch_costs_one_call(tmp_path: Path) -> None:
    async with working(tmp_path, 100, prefetch=20) as (server, _, consumer):
        before, sizes = calls_of(server), list[int]()
        while sum(sizes) < 100:
            out = await consumer.read_batch(max_records=20)
            sizes.append(len(out))
            await consumer.ack(out)
        assert sizes == [20] * 5
        assert calls_of(server) - before == 6
        assert await consumer.lag() == 0


async def test_tasks_of_a_client_share_what_has_come(tmp_path: Path) -> None:
    async with working(tmp_path, 200, prefetch=10, ordered_by="key") as (server, _, consumer):
        assert await calls_for_all(server, consumer, 10) <= 30  # and not 400
        assert await consumer.lag() == 0


async def test_batch_takes_no_more_of_what_has_come_than_it_may(tmp_path: Path) -> None:
    async with working(tmp_path, 0, prefetch=10) as (_, log, consumer):
        for size in (1, 3, 4, 9, 2):
            await log.topic("t").append(b"x" * size)
        await (await consumer.next()).ack()
        assert [each.record.lsn for each in await consumer.read_batch(max_bytes=7, max_records=9)] == [2, 3]
        assert [each.record.lsn for each in await consumer.read_batch(max_bytes=7, max_records=9)] == [4]
        assert [each.record.lsn for each in await consumer.read_batch(max_bytes=7, max_records=9)] == [5]


async def test_nothing_comes_ahead_while_others_wait(tmp_path: Path) -> None:
    async with working(tmp_path, 2, prefetch=5) as (server, log, consumer), walsvc.open(server.addresses[0]) as other:
        slow = await other.topic("t").consumer("w", shared=True)
        first, second = await consumer.next(), await slow.next()
        waiting = asyncio.ensure_future(slow.next())
        await asyncio.sleep(0)
        await slow.status()  # answered behind it
        ack = asyncio.ensure_future(first.ack())
        await log.topic("t").append(b"x")
        await ack
        assert (await waiting).record.lsn == 3
        await second.ack()


async def test_key_is_with_one_worker_at_a_time_and_in_order(tmp_path: Path) -> None:
    async with working(tmp_path, 0, prefetch=3, ordered_by="key") as (_, log, consumer):
        for number in range(6):
            await log.topic("t").append(b"x", attributes={"key": number % 2})
        delivery = await consumer.next()
        await delivery.ack()
        out = await consumer.read_batch(max_records=3)
        assert [each.record.lsn for each in out] == [2, 3]  # 4 and 5 wait for them
        assert (await consumer.status()).outstanding == 2


async def test_no_more_than_max_outstanding_are_out(tmp_path: Path) -> None:
    async with working(tmp_path, 10, prefetch=5, max_outstanding=3) as (_, _, consumer):
        await (await consumer.next()).ack()
        assert (await consumer.status()).outstanding == 3
        assert [each.record.lsn for each in await consumer.read_batch()] == [2, 3, 4]


async def test_what_nobody_takes_goes_back_and_was_no_attempt(tmp_path: Path) -> None:
    async with (
        working(tmp_path, 4, prefetch=3, lease=4.0, max_deliveries=1) as (server, _, consumer),
        walsvc.open(server.addresses[0]) as other,
    ):
        await (await consumer.next()).ack()
        others = await other.topic("t").consumer("w", shared=True)
        out = [await others.next() for _ in range(3)]  # after half of their lease, which a busy machine does not use up
        assert [(each.record.lsn, each.attempt) for each in out] == [(2, 1), (3, 1), (4, 1)]
        await others.ack(out)
        status = await consumer.status()
        assert (status.outstanding, status.redeliveries, status.dead_letters, status.lag) == (0, 0, 0, 0)


@pytest.mark.parametrize("ends", ["consumer", "log"])
async def test_what_has_come_goes_back_at_the_end_and_was_no_attempt(tmp_path: Path, ends: str) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as other:
        await other.topic("t").append_batch([b"x"] * 4)
        others = await other.topic("t").consumer("w", shared=True, max_deliveries=9)
        log = await walsvc.open(server.addresses[0])
        consumer = await log.topic("t").consumer("w", shared=True, prefetch=3)
        await (await consumer.next()).ack()
        assert (await others.status()).outstanding == 3
        await (consumer if ends == "consumer" else log).close()
        out = await others.read_batch()
        assert [(each.record.lsn, each.attempt) for each in out] == [(2, 1), (3, 1), (4, 1)]
        await log.close()


async def test_what_an_acknowledgement_brings_after_the_close_goes_back(tmp_path: Path) -> None:
    async with (
        working(tmp_path, 4, prefetch=3, max_deliveries=1) as (server, _, consumer),
        walsvc.open(server.addresses[0]) as other,
    ):
        others = await other.topic("t").consumer("w", shared=True)
        delivery = await consumer.next()
        ack = asyncio.ensure_future(delivery.ack())
        for _ in range(2):
            await asyncio.sleep(0)  # it leaves
        await consumer.close()
        await ack
        out = await others.read_batch()
        assert [(each.record.lsn, each.attempt) for each in out] == [(2, 1), (3, 1), (4, 1)]


async def test_lost_connection_frees_what_had_come(tmp_path: Path) -> None:
    async with working(tmp_path, 3, prefetch=2) as (server, _, consumer):
        await (await consumer.next()).ack()
        for each in list(server.roster):
            each.abort()
        await consumer.status()  # on a new connection
        out = await consumer.read_batch()
        assert [each.record.lsn for each in out] == [2, 3]
        await consumer.ack(out)
        assert await consumer.lag() == 0


async def test_caller_that_gives_up_its_acknowledgement_loses_nothing_that_it_brings(tmp_path: Path) -> None:
    async with working(tmp_path, 3, prefetch=2, max_deliveries=1) as (_, _, consumer):
        delivery = await consumer.next()
        ack = asyncio.ensure_future(delivery.ack())
        for _ in range(2):
            await asyncio.sleep(0)
        ack.cancel()
        await asyncio.wait([ack])
        out = [await consumer.next() for _ in range(2)]
        assert [(each.record.lsn, each.attempt) for each in out] == [(2, 1), (3, 1)]


async def test_older_server_sends_nothing_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FEATURES", tuple(each for each in frames.FEATURES if each != "ahead"))
    async with working(tmp_path, 5, prefetch=3) as (server, _, consumer):
        before = calls_of(server)
        for lsn in range(1, 6):
            async with await consumer.next() as delivery:
                assert delivery.record.lsn == lsn
        assert calls_of(server) - before == 10


@pytest.mark.parametrize("wrong", [-1, 1_001, "1", True])
async def test_prefetch_is_checked(tmp_path: Path, wrong: Any) -> None:
    async with working(tmp_path, 1) as (_, log, _):
        with pytest.raises(BadOption, match="prefetch"):
            await log.topic("t").consumer("x", shared=True, prefetch=wrong)
    async with walsvc.open(tmp_path / "log") as here:
        with pytest.raises(BadOption, match="prefetch"):
            await here.topic("t").consumer("x", shared=True, prefetch=wrong)


async def test_worker_without_lease_has_no_prefetch(tmp_path: Path) -> None:
    async with working(tmp_path, 1) as (_, log, _):
        with pytest.raises(BadOption, match="without a lease"):
            await log.topic("t").consumer("x", shared=True, lease=None, worker="a", prefetch=1)


async def test_prefetch_is_of_an_opening_and_not_of_the_consumer(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path) as log:
        await log.topic("t").append_batch([b"x"] * 2)
        one = await log.topic("t").consumer("w", shared=True, prefetch=5)
        two = await log.topic("t").consumer("w", shared=True)
        assert one.sharing == two.sharing
        await (await one.next()).ack()
        assert (await two.next()).record.lsn == 2  # an embedded log has its records at hand


@pytest.mark.parametrize("wrong", [{"max_records": -1}, {"max_bytes": 0}, {"max_records": "1"}])
async def test_what_is_to_come_ahead_is_checked_before_anything_is_done(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append(b"x")
        raw = await Raw.welcomed(server)
        raw.send(Open(1, "shared", {"name": "w", "topic": "t", "start": "first", "options": {}}, 0))
        await raw.expect(Result)
        raw.send(Call(2, "shared.next", {"stream": 1, "max_bytes": 1, "max_records": 1}))
        answer = (await raw.expect(Result)).value
        delivery = [1, 1, answer["token"]]
        raw.send(Call(3, "shared.ack", {"stream": 1, "deliveries": [delivery], **wrong}))
        assert (await raw.expect(Error)).code == "BadOption"
        consumer = await log.topic("t").consumer("w", shared=True)
        assert (await consumer.status()).outstanding == 1
        raw.writer.close()


# ---- what was called for before a close


@pytest.mark.parametrize("prefetch", [0, 2])
async def test_what_was_called_before_a_close_is_carried_out(tmp_path: Path, prefetch: int) -> None:
    async with working(tmp_path, 5, prefetch=prefetch, max_deliveries=9) as (_, log, consumer):
        again = await log.topic("t").consumer("w", shared=True)
        out = [await consumer.next() for _ in range(5)]
        await asyncio.gather(out[0].ack(), consumer.ack(out[1:3]), out[3].nak(delay=60.0), consumer.close())
        with pytest.raises(Closed):
            await out[4].ack()
        assert await again.lag() == 2
        assert (await again.next()).record.lsn == 5
        assert (await again.status()).outstanding == 1


async def test_acknowledgement_of_an_exclusive_consumer_before_its_close_is_carried_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append_batch([b"x"] * 3)
        consumer = await log.topic("t").consumer("w")
        lsns = [(await consumer.next()).lsn for _ in range(2)]
        await asyncio.gather(consumer.ack(lsns[1]), consumer.close())
        assert (await (await log.topic("t").consumer("w")).next()).lsn == 3


async def test_consumer_that_was_given_up_as_its_connection_ended_is_free(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append(b"x")
        known = list(server.roster)
        raw = await Raw.welcomed(server)
        raw.send(Open(1, "consumer", {"name": "w", "topic": "t", "start": "first"}, 0))
        await raw.expect(Result)
        (line,) = [each for each in server.roster if each not in known]
        assert isinstance(line, connection.Connection)
        line.data_received(encode(Cancel(1)))
        line.abort()
        consumer = await log.topic("t").consumer("w")
        assert (await consumer.next()).lsn == 1
        raw.writer.close()


async def test_nothing_goes_out_ahead_while_a_caller_waits(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path) as log:
        topic = log.topic("t")
        one, two = [await topic.consumer("w", shared=True) for _ in range(2)]
        assert isinstance(two, LocalConsumer)
        waiting = asyncio.ensure_future(one.next())
        await asyncio.sleep(0)
        await topic.append(b"x")
        assert await two.ahead(1 << 20, 1) == []
        delivery = await waiting
        assert (delivery.record.lsn, (await two.status()).outstanding) == (1, 1)
        await topic.append(b"y")
        assert [each.record.lsn for each in await two.ahead(1 << 20, 1)] == [2]


async def test_consumer_may_be_opened_again_right_behind_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append(b"x")
        raw = await Raw.welcomed(server)
        opening = {"name": "w", "topic": "t", "start": "first"}
        raw.send(Open(1, "consumer", opening, 0))
        await raw.expect(Result, 1)
        raw.send(Call(2, "consumer.lag", {"stream": 1}), Cancel(1), Open(3, "consumer", opening, 0))
        answers = {type(each): each for each in [await raw.next() for _ in range(3)] if each is None or each.id != 2}
        assert answers.keys() == {End, Result}
        raw.send(Call(4, "consumer.lag", {"stream": 3}))
        assert (await raw.expect(Result, 4)).value == 1
        raw.writer.close()
