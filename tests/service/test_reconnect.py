"""Connections that are lost, and servers that are killed: every append is carried out once, and nobody hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

import walsvc
from tests.crash.sampling import sampled
from tests.service.wire import QUICK, payloads, placed
from tests.waiting import until
from walsvc import Closed, OutcomeUnknown, Relaxed, Unreachable, WalTimeout
from walsvc.format import producers
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.connection import Connection
from walsvc.service.server.limits import Limits
from walsvc.service.wire.methods import RIGHTS


async def test_append_whose_answer_was_lost_is_carried_out_once():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append(b"before")
        place.wire.deaf = True
        waiting = [log.append(b"%d" % number) for number in range(10)]
        waiting += [log.topic("t").append(b"labelled", type=3, attributes={"n": 1}), log.append(b"relaxed", Relaxed)]
        await until(lambda: place.log.next_lsn == 14)
        place.wire.deaf = False
        place.wire.cut()
        assert [result.lsn for result in await asyncio.gather(*waiting)] == list(range(2, 14))
        assert log._session.repeated == 4  # the first one alone, nine together, and two with labels of their own
        assert (await log.append(b"after")).lsn == 14
        assert len(await payloads(log)) == 14


async def test_append_before_a_kill_gets_the_same_lsn_after_it():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf = True
        waiting = [log.append(b"%d" % number) for number in range(5)]
        await until(lambda: place.log.durable_lsn == 5)
        await place.crash()
        waiting += [log.append(b"later")]
        await place.start()
        assert [result.lsn for result in await asyncio.gather(*waiting)] == [1, 2, 3, 4, 5, 6]
        assert await payloads(log) == [b"0", b"1", b"2", b"3", b"4", b"later"]


async def test_append_that_never_arrived_is_sent_again():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.mute = True
        waiting = log.append(b"x")
        await asyncio.sleep(0.01)
        assert place.log.next_lsn == 1
        place.wire.mute = False
        place.wire.cut()
        assert (await waiting).lsn == 1


async def test_order_is_kept_over_a_lost_connection():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        waiting = []
        for turn in range(50):
            waiting += [log.append(b"%d" % number) for number in range(turn * 4, turn * 4 + 4)]
            if turn % 7 == 3:
                place.wire.cut()
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting)
        assert [result.lsn for result in results] == list(range(1, 201))
        assert await payloads(log) == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize("size", [3, 40, 2000], ids=["one frame", "several groups", "several parts"])
async def test_batch_whose_answer_was_lost_is_carried_out_once(size):
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf = size < 1000  # the parts of a larger one need credit
        batch = log.append_batch([b"%d" % number + bytes(3000) for number in range(size)])
        others = [log.append(b"other") for _ in range(3)]
        if size < 1000:
            await until(lambda: place.log.durable_lsn == size + 3)
        else:
            await until(lambda: place.log.stats().written_bytes > 1 << 20)
        place.wire.deaf = False
        place.wire.cut()
        results = await batch
        assert [result.lsn for result in results] == list(range(results[0].lsn, results[0].lsn + size))
        assert {result.encoded_len for result in results[:3]} == {3001}
        await asyncio.gather(*others)
        found = await payloads(log)
        assert len(found) == size + 3
        assert found.count(b"other") == 3


async def test_batch_answered_before_a_kill_is_not_written_again():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf = True
        batch = log.append_batch([bytes(500)] * 20)
        await until(lambda: place.log.durable_lsn == 20)
        await place.crash()
        await place.start()
        assert [result.lsn for result in await batch] == list(range(1, 21))
        assert len(await payloads(log)) == 20


async def test_streamed_batch_cut_in_the_middle_leaves_nothing_and_says_so():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        go_on = asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            for _ in range(400):
                yield bytes(1000)
            await go_on.wait()
            yield b"last"

        batch = log.append_batch(source())
        await until(lambda: log._session.requests)
        other = log.append(b"other")
        place.wire.cut()
        go_on.set()
        with pytest.raises(Unreachable, match="before the whole batch"):
            await batch
        assert (await other).lsn == 1
        assert await payloads(log) == [b"other"]


async def test_streamed_batch_that_was_sent_whole_is_known_after_a_lost_connection():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:

        async def source(count: int) -> AsyncIterator[bytes]:
            for number in range(count):
                yield b"%d" % number

        place.wire.deaf = True
        batch = log.append_batch(source(30))
        await until(lambda: place.log.durable_lsn == 30)
        place.wire.deaf = False
        place.wire.cut()
        assert [result.lsn for result in await batch] == list(range(1, 31))

        place.wire.mute = True
        batch = log.append_batch(source(30))
        await until(lambda: any(getattr(each, "complete", False) for each in log._session.requests.values()))
        await asyncio.sleep(0.01)
        place.wire.mute = False
        place.wire.cut()
        with pytest.raises(Unreachable, match="before the whole batch"):
            await batch
        assert len(await payloads(log)) == 30


async def test_reading_and_following_go_on_where_they_were():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK, read_ahead_bytes=4096) as log:
        await log.append_batch([b"%d" % number + bytes(500) for number in range(300)])
        seen = []
        async for record in log.read():
            seen.append(record.lsn)
            if record.lsn % 50 == 0:
                place.wire.cut()
        assert seen == list(range(1, 301))

        followed = []

        async def follow() -> None:
            async for record in log.follow(250):
                followed.append(record.lsn)
                if record.lsn == 400:
                    return

        following = asyncio.create_task(follow())
        for _ in range(10):
            await asyncio.gather(*(log.append(bytes(300)) for _ in range(10)))
            place.wire.cut()
        await asyncio.wait_for(following, 60)
        assert followed == list(range(250, 401))


async def test_read_that_was_begun_before_ends_where_it_would_have_ended():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK, read_ahead_bytes=4096) as log:
        await log.append_batch([bytes(500)] * 100)
        seen = []
        async for record in log.read():
            seen.append(record.lsn)
            if record.lsn == 5:
                await log.append(b"too late")
                place.wire.cut()
        assert seen == list(range(1, 101))


async def test_consumer_goes_on_and_delivers_nothing_twice():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK, read_ahead_bytes=4096) as log:
        topic = log.topic("t")
        await topic.append_batch([b"%d" % number + bytes(200) for number in range(100)])
        consumer = await topic.consumer("c")
        seen = []
        for number in range(100):
            record = await consumer.next()
            seen.append(int(record.payload.rstrip(b"\0")))
            if number % 10 == 4:
                place.wire.cut()
            if number % 10 == 7:
                await consumer.ack(record.lsn)
                assert consumer.position == record.lsn + 1
        assert seen == list(range(100))
        assert await consumer.lag() == 2
        with pytest.raises(walsvc.InUse):
            await topic.consumer("c")
        await consumer.close()
        assert (await topic.consumers())[0].position == consumer.position


async def test_consumer_of_a_killed_server_repeats_nothing_that_was_acknowledged():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append_batch([b"%d" % number for number in range(20)])
        consumer = await log.consumer("c")
        records = await consumer.read_batch(max_records=8)
        await consumer.ack(records[4].lsn)
        await place.crash()
        ack = asyncio.create_task(consumer.ack(records[6].lsn))
        await place.start()
        await ack
        assert (await consumer.next()).lsn == records[7].lsn + 1
        assert (await log.consumers())[0].position == records[6].lsn + 1


async def test_outcome_is_unknown_when_the_server_has_forgotten(monkeypatch):
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 1)
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append(b"before")
        place.wire.deaf = True
        waiting = log.append(b"which?")
        await until(lambda: place.log.durable_lsn == 2)
        place.wire.refusing = True
        place.wire.cut()
        async with walsvc.open(f"unix://{place._directory}/server") as other:
            await other.append(b"of another producer")
        place.wire.deaf = place.wire.refusing = False
        with pytest.raises(OutcomeUnknown) as caught:
            await waiting
        assert caught.value.hint
        assert (await log.append(b"after")).lsn == 4


async def test_without_a_connection_in_time_waiting_calls_end():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK, reconnect_seconds=0.05) as log:
        place.wire.deaf = True
        sent = log.append(b"sent")
        await until(lambda: place.log.next_lsn == 2)
        reading = asyncio.create_task(anext(log.follow(10)))
        consumer = asyncio.create_task(log.consumer("c"))
        await asyncio.sleep(0)
        place.wire.refusing = True
        place.wire.cut()
        await until(lambda: not log._session.connected)
        unsent = log.append(b"unsent")
        with pytest.raises(OutcomeUnknown):
            await sent
        with pytest.raises(Unreachable) as caught:
            await unsent
        assert "nothing was written" in caught.value.hint
        for call in (reading, consumer, asyncio.ensure_future(log.flush())):
            with pytest.raises(Unreachable):
                await call
        place.wire.deaf = place.wire.refusing = False
        assert (await log.append(b"later")).lsn == 2 or place.log.next_lsn == 3


async def test_deadline_ends_a_call_and_says_what_is_known():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK, timeout=0.5) as log:
        place.wire.deaf = True
        with pytest.raises(OutcomeUnknown):
            await log.append(b"sent")
        with pytest.raises(OutcomeUnknown):
            await log.append_batch([b"a", b"b"])
        with pytest.raises(WalTimeout):
            await log.flush()
        place.wire.refusing = True
        place.wire.cut()
        await until(lambda: not log._session.connected)
        with pytest.raises(WalTimeout):
            await log.append(b"never sent")
        place.wire.deaf = place.wire.refusing = False
        place.wire.cut()
        await until(lambda: log._session.connected)
        assert (await log.append(b"after")).lsn == 4
        assert await payloads(log) == [b"sent", b"a", b"b", b"after"]


async def test_what_must_not_be_repeated_is_not():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append_batch([b"x"] * 10)
        place.wire.deaf = True
        cutting = asyncio.create_task(log.truncate_after(5))
        await until(lambda: place.log.next_lsn == 6)
        place.wire.deaf = False
        place.wire.cut()
        with pytest.raises(OutcomeUnknown):
            await cutting
        assert (await log.append(b"y")).lsn == 6


async def test_seal_is_repeated_since_a_second_one_changes_nothing():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append(b"x")
        place.wire.deaf = True
        sealing = asyncio.create_task(log.seal())
        await until(lambda: place.log.writer.core.metadata.sealed)
        place.wire.deaf = False
        place.wire.cut()
        await sealing
        with pytest.raises(Closed, match="sealed"):
            await log.append(b"y")


async def test_purge_is_not_repeated_since_it_would_reach_further():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        for _ in range(3):
            await log.append(b"x", attributes={"key": "k"})
        place.wire.deaf = True
        purging = asyncio.create_task(log.purge("k"))
        await until(lambda: place.log.writer.segments.marks.highest == 4)
        place.wire.deaf = False
        place.wire.cut()
        with pytest.raises(OutcomeUnknown, match="purge"):
            await purging
        await log.append(b"later", attributes={"key": "k"})
        assert await payloads(log) == [b"later"]
        await log.purge("k", before=4)
        assert await payloads(log) == [b"later"]


async def test_server_that_stops_in_order_is_waited_for():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append(b"before")
        await place.stop()
        waiting = [log.append(b"%d" % number) for number in range(3)]
        await place.start()
        assert [result.lsn for result in await asyncio.gather(*waiting)] == [2, 3, 4]


async def test_silent_server_is_given_up():
    async with placed(limits=Limits(idle_seconds=0.1)) as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf = True
        waiting = log.append(b"x")
        await until(lambda: place.wire.connections > 1)
        place.wire.deaf = False
        assert (await asyncio.wait_for(waiting, 60)).lsn == 1


async def test_idle_client_is_not_given_up():
    async with placed(limits=Limits(idle_seconds=0.6)) as place, walsvc.open(place.wire.url, **QUICK) as log:
        await asyncio.sleep(1.5)
        assert place.wire.connections == 1
        assert (await log.append(b"x")).lsn == 1


async def test_close_has_one_deadline_and_nobody_is_left_waiting():
    async with placed() as place:
        log = await walsvc.open(place.wire.url, **QUICK)
        place.wire.deaf = True
        waiting = log.append(b"x")
        following = asyncio.ensure_future(anext(log.follow(5), None))
        await asyncio.sleep(0)
        with pytest.raises(WalTimeout):
            await log.close(timeout=0.05)
        with pytest.raises(OutcomeUnknown):
            await waiting
        assert await following is None
        with pytest.raises(Closed):
            log.append(b"y")
        await log.close()


async def test_close_waits_for_answers_also_over_a_lost_connection():
    async with placed() as place:
        log = await walsvc.open(place.wire.url, **QUICK)
        place.wire.deaf = True
        waiting = log.append(b"x")
        relaxed = log.append(b"y", Relaxed)
        await until(lambda: place.log.next_lsn == 3)
        closing = asyncio.create_task(log.close())
        await asyncio.sleep(0)
        place.wire.deaf = False
        place.wire.cut()
        await closing
        assert (waiting.result().lsn, relaxed.result().lsn) == (1, 2)
        assert place.log.durable_lsn == 2


async def everything(url: str) -> None:
    """A little of all that writes, and what it must have done."""
    async with walsvc.open(url, **QUICK, open_seconds=20.0) as log:
        first = [log.append(b"a%d" % number) for number in range(3)]
        labelled = log.topic("t").append(b"labelled", type=7, attributes={"n": 1})
        whole = log.append_batch([b"w1", b"w2"])
        relaxed = log.append(b"relaxed", Relaxed)
        parts = log.append_batch([b"%d" % number + bytes(30_000) for number in range(12)])
        last = log.append(b"last")
        results = [*await asyncio.gather(*first, labelled), *await whole, await relaxed, *await parts, await last]
        consumer = await log.topic("t").consumer("c")
        await consumer.ack((await consumer.next()).lsn)
        records = [record async for record in log.read()]
        assert [record.lsn for record in records] == list(range(1, 21))
        assert {record.lsn: record.payload[:8] for record in records} == {
            result.lsn: payload
            for result, payload in zip(
                results,
                [b"a0", b"a1", b"a2", b"labelled", b"w1", b"w2", b"relaxed"]
                + [(b"%d" % number + bytes(8))[:8] for number in range(12)]
                + [b"last"],
                strict=True,
            )
        }
        assert consumer.position == results[3].lsn + 1


@pytest.mark.parametrize("way", [0, 1], ids=["to the server", "to the client"])
async def test_connection_cut_after_any_number_of_bytes_changes_nothing(way):
    async with placed() as place:
        await everything(place.wire.url)
        total = place.wire.carried[way]
    near = [*range(0, 700, 29)]
    for limit in sampled([*near, *range(700, total, max(total // 25, 29))], 3):
        async with placed() as place:
            place.wire.limits[way] = limit
            await asyncio.wait_for(everything(place.wire.url), 60)
            assert place.wire.connections > 1, f"{limit} of {total}"


async def test_kills_in_the_middle_of_everything_lose_and_repeat_nothing():
    """A client that appends, batches and follows, over ten crashes of the server with loss of all that was not synced."""
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        acked: dict[int, bytes] = {}
        followed: list[int] = []
        stop = False

        async def append(task: int) -> None:
            number = 0
            while not stop:
                number += 1
                payload = b"%d/%d" % (task, number)
                if number % 5 == 0:
                    results = await log.append_batch([payload + b"a", payload + b"b"])
                    acked.update({results[0].lsn: payload + b"a", results[1].lsn: payload + b"b"})
                else:
                    acked[(await log.append(payload)).lsn] = payload

        async def follow() -> None:
            async for record in log.follow():
                followed.append(record.lsn)

        tasks = [asyncio.create_task(append(task)) for task in range(20)]
        following = asyncio.create_task(follow())
        for _ in range(10):
            goal = len(acked) + 50
            await until(lambda goal=goal: len(acked) >= goal)
            await place.crash()
            await place.start()
        stop = True
        await asyncio.gather(*tasks)
        records = {record.lsn: record.payload async for record in log.read()}
        assert {lsn: records.get(lsn) for lsn in acked} == acked
        assert len(set(records.values())) == len(records)
        await log.close()
        await following
        assert followed == list(range(1, len(records) + 1))


async def test_peer_that_welcomes_and_hangs_up_is_met_after_pauses_and_not_for_ever(monkeypatch):
    """Such as a server that came back with limits that what is sent again is over."""
    welcome = Connection.welcome

    def hang_up(connection, *args):
        welcome(connection, *args)
        connection.flush()
        connection._transport.close()

    options = {"backoff_seconds": 0.01, "backoff_max_seconds": 0.05, "reconnect_seconds": 1.0}
    async with placed() as place, walsvc.open(place.wire.url, **options) as log:
        assert (await log.append(b"x")).lsn == 1
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "welcome", hang_up)
            place.wire.cut()
            with pytest.raises((Unreachable, OutcomeUnknown)):
                await log.append(b"never answered")
            assert 3 < place.wire.connections < 200, "a pause of 25 ms in the mean, for a second"
        assert (await log.append(b"y")).lsn in (2, 3)


async def test_token_that_was_changed_a_moment_too_late_is_tried_again(monkeypatch):
    grant = Grant("all", RIGHTS)
    monkeypatch.setenv("WALSVC_TOKEN", "o" * 32)
    async with placed(tokens=Tokens([("o" * 32, grant)])) as place, walsvc.open(place.wire.url, **QUICK) as log:
        assert (await log.append(b"x")).lsn == 1
        place.server.renew(tls=None, tokens=Tokens([("n" * 32, grant)]))
        connections = place.wire.connections
        place.wire.cut()
        waiting = log.append(b"y")
        await until(lambda: place.wire.connections > connections + 3)
        assert not log.connected
        monkeypatch.setenv("WALSVC_TOKEN", "n" * 32)
        assert (await waiting).lsn == 2


async def test_lost_and_found_connections_are_told_once_each(caplog):
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        told: list[walsvc.WalError | None] = []
        end = log.on_connection(told.append)
        assert log.connected
        with caplog.at_level(logging.INFO, "walsvc.client"):
            place.wire.refusing = True
            place.wire.cut()
            await until(lambda: place.wire.connections > 5)
            assert not log.connected
            place.wire.refusing = False
            await until(lambda: log.connected and len(told) == 2)
            assert isinstance(told[0], Unreachable)
            assert told[1] is None
            lines = [record.getMessage() for record in caplog.records if record.name == "walsvc.client"]
            assert [line.split(": ")[1].split(",")[0] for line in lines] == [
                "the connection is lost",
                "there is a connection again",
            ]
        end()
        end()
        place.wire.refusing = True
        place.wire.cut()
        await until(lambda: not log.connected)
        place.wire.refusing = False
        await log.append(b"x")
        assert len(told) == 2
        with pytest.raises(walsvc.BadOption):
            log.on_connection(None)  # type: ignore[arg-type]
    assert not log.connected
    assert len([record for record in caplog.records if "nothing connects" in record.getMessage()]) == 0
