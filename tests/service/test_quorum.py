"""Quorum over the wire: an append is answered when the server's replica has it. The replica is moved by the tests here;
tests/engines/test_replication_service.py has a real one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import walsvc
from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.service.wire import QUICK, payloads, placed
from tests.waiting import until
from walsvc import BadOption, Closed, OutcomeUnknown, Quorum, ReplicaLost, Truncated
from walsvc.log.commit.replicated import Replicated
from walsvc.service.server.limits import Limits
from walsvc.service.server.server import serve
from walsvc.service.wire.frames import Ack, Error


def replica_of(log: Any) -> Replicated:
    """Give a log a replica, which has nothing yet."""
    replicated = Replicated("nats://h/stream", 0)
    log.writer.core.attach(replicated)
    return replicated


async def test_answers_come_when_the_replica_has_the_records(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.append(b"strict")
        replica = replica_of(server.logs[""])
        waiting = [
            log.append(b"one", mode=Quorum),
            log.append_nowait(b"two", mode=Quorum, type=7),
            log.topic("t").append(b"three", mode=Quorum),
            log.topic("t").append_nowait(b"four", mode=Quorum),
            log.append_batch([b"five", b"six"], mode=Quorum),
            log.append_batch([bytes(900)] * 300, mode=Quorum),  # in parts, over several groups
        ]
        strict = await log.append(b"strict again")
        assert strict.lsn == 308
        assert not any(each.done() for each in waiting)
        for lsn in range(1, 6):
            replica.advance(lsn)
        answers = await asyncio.gather(*waiting[:4])
        assert [(each.lsn, each.durable) for each in answers] == [(2, True), (3, True), (4, True), (5, True)]
        assert not waiting[4].done()
        replica.advance(306)
        assert [each.lsn for each in await waiting[4]] == [6, 7]
        assert not waiting[5].done()
        replica.advance(307)
        assert [each.lsn for each in await waiting[5]] == list(range(8, 308))
        assert len(await log.append_batch([], mode=Quorum)) == 0
        assert await log.wait_replicated(307) == 307
        later = asyncio.ensure_future(log.wait_replicated(308))
        await asyncio.sleep(0.05)
        assert not later.done()
        replica.advance(308)
        assert await later == 308


async def test_log_without_a_replica_takes_nothing(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for append in (
            lambda: log.append(b"x", mode=Quorum),
            lambda: log.append_batch([b"x", b"y"], mode=Quorum),
            lambda: log.append_batch([bytes(900)] * 300, mode=Quorum),
            lambda: log.wait_replicated(0),
        ):
            with pytest.raises(BadOption, match="not replicated") as caught:
                await append()
            assert "replicate=" in caught.value.hint
        assert (await log.append(b"first")).lsn == 1


async def test_transaction_is_answered_when_the_replica_has_its_records(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for which in (log, server.logs[""]):
            with pytest.raises(BadOption, match="not replicated"):
                async with which.transaction(mode=Quorum) as transaction:
                    transaction.append(b"x")
        replica = replica_of(server.logs[""])
        for which, last in ((log, 2), (server.logs[""], 4)):
            transaction = which.transaction(mode=Quorum)
            for topic in ("a", "b"):
                transaction.append(b"x", topic=topic)
            waiting = asyncio.ensure_future(transaction.commit())
            await until(lambda last=last: server.logs[""].durable_lsn == last)
            replica.advance(last - 1)
            await log.refresh()
            assert not waiting.done()
            replica.advance(last)
            assert [each.lsn for each in await waiting] == [last - 1, last]


async def test_connection_lost_while_the_replica_is_behind_gives_the_same_lsn_later() -> None:
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append(b"before")
        replica = replica_of(place.log)
        waiting = [log.append(b"%d" % number, mode=Quorum) for number in range(5)]
        waiting.append(log.append_batch([b"a", b"b"], mode=Quorum))
        await until(lambda: place.log.durable_lsn == 8)
        place.wire.cut()
        await until(lambda: log._session.repeated > 0)
        assert not any(each.done() for each in waiting)
        replica.advance(8)
        answers = await asyncio.gather(*waiting)
        assert [each.lsn for each in answers[:5]] == [2, 3, 4, 5, 6]
        assert [each.lsn for each in answers[5]] == [7, 8]
        assert len(await payloads(log)) == 8


async def test_errors_say_that_the_record_is_durable_where_it_is(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        replica = replica_of(server.logs[""])
        waiting = [log.append(b"%d" % number, mode=Quorum, type=number) for number in range(3)]
        await log.flush()
        await log.truncate_after(2)
        with pytest.raises(Truncated, match="before it was replicated"):
            await waiting[2]
        replica.lose(ReplicaLost("another log is replicated there", path=replica.path))
        for lsn, each in enumerate(waiting[:2], 1):
            with pytest.raises(ReplicaLost, match="durable here, but not replicated") as caught:
                await each
            assert caught.value.lsn == lsn
        with pytest.raises(ReplicaLost, match="another log"):
            await log.append(b"x", mode=Quorum)
        assert (await log.append(b"strict goes on")).lsn == 3


async def test_server_that_stops_does_not_wait_for_the_replica(tmp_path) -> None:
    async with serving(tmp_path) as server:
        log = await walsvc.open(server.addresses[0], timeout=60)
        replica = replica_of(server.logs[""])
        waiting = log.append(b"x", mode=Quorum)
        await until(lambda: server.logs[""].durable_lsn == 1)
        replica.close()
        with pytest.raises(Closed, match="durable here"):
            await waiting
        await log.close()


async def test_mode_that_is_none_is_refused(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server, None) as raw:
        raw.append(1, b"x", mode=3)
        answer = await raw.expect(Error)
        assert (answer.code, answer.fields["hint"]) == ("BadOption", "0: Strict, 1: Relaxed, 2: Quorum")


async def test_replica_that_is_down_stops_nobody_who_does_not_wait_for_it(tmp_path) -> None:
    """Neither the bytes nor the number of appends that wait for it count as load of the server."""
    limits = Limits(pending_bytes=65536, pending_total_bytes=100_000, requests=20)
    async with serving(tmp_path, limits=limits) as server:
        replica = replica_of(server.logs[""])
        others = [await walsvc.open(server.addresses[0], max_pending_bytes=65536) for _ in range(4)]
        waiting = [log.append(bytes(10_000), mode=Quorum, type=number) for log in others for number in range(6)]
        async with walsvc.open(server.addresses[0], timeout=60) as log:
            await until(lambda: server.logs[""].durable_lsn == 24)
            assert not any(each.done() for each in waiting)
            await until(lambda: server.budget.bytes == 0)
            for number in range(10):
                assert (await log.append(bytes(10_000))).lsn == 25 + number
        replica.advance(24)
        await asyncio.gather(*waiting)
        for each in others:
            await each.close()


async def test_append_that_nobody_waits_for_any_more_is_forgotten(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0], timeout=0.4) as log:
        replica = replica_of(server.logs[""])
        (connection,) = server.roster
        for number in range(3):
            with pytest.raises(OutcomeUnknown):
                await log.append(b"%d" % number, mode=Quorum)
        await until(lambda: not connection.requests._answers.waiting)
        for _ in range(500):  # and those that are left in the replica's queue are dropped in time
            answer = server.logs[""].append(b"x", mode=Quorum)
            await server.logs[""].flush()
            answer.cancel()
        assert len(replica._waiters) < 250
        assert (await log.append(b"strict")).lsn == 504


async def test_more_than_may_wait_is_refused_and_the_connection_lives(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(requests=2)) as server, await Raw.welcomed(server) as raw:
        replica = replica_of(server.logs[""])
        (connection,) = server.roster
        for id in range(1, 33):
            raw.append(id, b"x", mode=2)
            await until(lambda id=id: id in connection.requests._answers.waiting)  # a little later than durable_lsn
        raw.append(33, b"x", mode=2)
        refusal = await raw.expect(Error)
        assert (refusal.id, refusal.code) == (33, "Backpressure")
        raw.append(34, b"strict")
        assert (await raw.expect(Ack)).id == 34
        replica.advance(33)
        assert {(await raw.expect(Ack)).id for _ in range(32)} == set(range(1, 33))


async def test_server_stops_at_once_while_the_replica_is_down(tmp_path) -> None:
    async with serving(tmp_path) as server:
        log = await walsvc.open(server.addresses[0], timeout=20)
        replica = replica_of(server.logs[""])
        replica.words = lambda: "down: no server answers"
        waiting = [log.append(b"x", mode=Quorum), log.append_batch([bytes(900)] * 300, mode=Quorum)]
        await until(lambda: server.logs[""].durable_lsn == 301)
        async with asyncio.timeout(15):  # not as long as it may take at most
            await server.stop(20)
        for each in waiting:
            with pytest.raises(Closed, match="durable here"):
                await each
        await log.close()


async def test_server_that_stops_tells_who_waits_for_a_replica_that_is_stalled(tmp_path) -> None:
    """Nobody has found out yet that it is down."""
    async with serving(tmp_path) as server:
        log = await walsvc.open(server.addresses[0], timeout=20)
        replica_of(server.logs[""])
        waiting = [log.append(b"x", mode=Quorum), log.append_batch([bytes(900)] * 300, mode=Quorum)]
        await until(lambda: server.logs[""].durable_lsn == 301)
        async with asyncio.timeout(60):
            await server.stop(4)  # a busy machine closes slowly
        for each in waiting:
            with pytest.raises(Closed, match="durable here"):
                await each
        await log.close()


async def test_log_that_outlives_its_server_waits_for_its_replica_again(tmp_path) -> None:
    async with walsvc.open(tmp_path / "log") as own:
        replica = replica_of(own)
        async with serve(own, unix=tmp_path / "s") as server:
            log = await walsvc.open(server.addresses[0])
            replica.words = lambda: "down: no server answers"
            waiting = log.append(b"x", mode=Quorum)
            await until(lambda: own.durable_lsn == 1)
        with pytest.raises(Closed, match="durable here"):
            await waiting
        await log.close()
        later = own.append(b"y", mode=Quorum)
        replica.advance(2)
        assert (await later).lsn == 2
