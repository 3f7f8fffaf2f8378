"""The contract of a log, whatever it stands on. Every disk, and every way to a log elsewhere, passes this one suite."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import mmap
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import walsvc
from tests.contract.openers import behind
from tests.giving_up import interrupted
from walsvc import (
    Backpressure,
    BadOption,
    BadPayload,
    Closed,
    Log,
    RecordTooLarge,
    Relaxed,
    Strict,
    Truncated,
    UnsupportedFormat,
)
from walsvc.api import Log as EmbeddedLog
from walsvc.log.commit.ack import all_done
from walsvc.log.read.stream import open_stream


async def read_all(log: Log, *args: Any) -> list[walsvc.Record]:
    return [record async for record in log.read(*args)]


async def test_new_log_is_empty(open_log):
    async with open_log() as log:
        assert (log.first_lsn, log.next_lsn, log.durable_lsn) == (1, 1, 0)
        assert log.report.created
        assert await read_all(log) == []
        assert await log.flush() == 0


async def test_one_topic_is_looked_up_by_its_name(open_log):
    async with open_log() as log:
        assert not await log.has_topic("a")
        assert not await log.has_topic("c")
        await log.topic("a").append(b"x")
        async with await log.topic("c").consumer("of a new topic"):
            pass
        log.topic("b")
        assert [await log.has_topic(name) for name in ("a", "b", "c")] == [True, False, True]
        for wrong in ("", "é" * 128, "\ud800", b"a", None):
            with pytest.raises(BadOption):
                await log.has_topic(wrong)
    async with open_log(read_only=True) as log:
        assert [await log.has_topic(name) for name in ("a", "b", "c")] == [True, False, True]


async def test_every_kind_of_log_is_a_log_with_topics_and_consumers(open_log):
    async with open_log() as log:
        assert isinstance(log, walsvc.Log)
        topic = log.topic("a")
        assert isinstance(topic, walsvc.Topic)
        assert not isinstance(topic, walsvc.Log)
        async with await topic.consumer("c") as consumer:
            assert isinstance(consumer, walsvc.Consumer)
        await log.append(b"x")
        assert await log.refresh() == log.next_lsn == 2
    async with open_log(read_only=True) as log:
        assert isinstance(log, walsvc.Log)
        assert isinstance(log.topic("a"), walsvc.Topic)


async def test_strict_append_is_durable_when_it_returns(open_log):
    async with open_log() as log:
        result = await log.append(b"payload", mode=Strict)
        assert result.lsn == 1
        assert result.durable
        assert log.durable_lsn == 1
        assert result.encoded_len >= len(b"payload")


async def test_lsns_are_dense_over_rotation_and_reopening(open_log):
    for opening in range(3):
        async with open_log() as log:
            results = await asyncio.gather(*(log.append(bytes(700)) for _ in range(400)))
            assert [result.lsn for result in results] == list(range(opening * 400 + 1, opening * 400 + 401))
            assert log.stats().rotations >= 3
    async with open_log() as log:
        assert log.report.clean
        assert [record.lsn for record in await read_all(log)] == list(range(1, 1201))


async def test_many_concurrent_appends_share_few_syncs(open_log):
    async with open_log(segment_bytes=1 << 20) as log:
        before = log.stats().syncs
        await asyncio.gather(*(log.append(b"x" * 100) for _ in range(1000)))
        assert log.stats().syncs - before <= 10


async def test_one_record_a_group_is_one_sync_an_append(open_log):
    async with open_log(max_group_records=1) as log:
        before = log.stats().groups
        await asyncio.gather(*(log.append(b"x") for _ in range(20)))
        assert log.stats().groups - before == 20
        assert log.stats().group_records_max == 1


async def test_lone_strict_append_does_not_wait_for_company(open_log):
    async with open_log(relaxed_interval=None) as log:
        assert (await asyncio.wait_for(log.append(b"alone"), 60)).durable


async def test_relaxed_is_accepted_at_once_and_durable_after_flush(open_log):
    async with open_log(relaxed_interval=None) as log:
        result = await log.append(b"later", mode=Relaxed)
        assert not result.durable
        assert log.durable_lsn == 0
        assert await log.flush() == result.lsn


async def test_relaxed_becomes_durable_by_itself_within_the_interval(open_log):
    async with open_log(relaxed_interval=0.02) as log:
        result = await log.append(b"soon", mode=Relaxed)
        record = await asyncio.wait_for(anext(log.follow(result.lsn)), 60)
        assert record.payload == b"soon"


async def test_strict_takes_earlier_relaxed_records_along(open_log):
    async with open_log(relaxed_interval=None) as log:
        await log.append(b"a", mode=Relaxed)
        result = await log.append(b"b")
        assert result.lsn == 2
        assert log.durable_lsn == 2


async def test_close_makes_relaxed_records_durable(open_log):
    async with open_log(relaxed_interval=None) as log:
        await log.append(b"kept", mode=Relaxed)
    async with open_log() as log:
        assert [record.payload for record in await read_all(log)] == [b"kept"]


async def test_wait_durable_starts_the_commit_that_nobody_started(open_log):
    async with open_log(relaxed_interval=None) as log:
        result = await log.append(b"x", mode=Relaxed)
        assert await asyncio.wait_for(log.wait_durable(result.lsn), 60) == 1
        with pytest.raises(BadOption):
            await log.wait_durable(2)


async def test_batch_gets_consecutive_lsns_and_reads_back(open_log):
    async with open_log() as log:
        await log.append(b"before")
        results = await log.append_batch([b"a", b"", bytearray(b"ccc")])
        assert [result.lsn for result in results] == [2, 3, 4]
        assert [result.encoded_len for result in results] == [1, 0, 3]
        assert results[-1].durable
        assert list(await log.append_batch([])) == []
        assert [record.payload for record in await read_all(log, 2)] == [b"a", b"", b"ccc"]


async def test_batch_larger_than_group_and_segment_is_streamed_over_several(open_log):
    payloads = [b"%d:" % i + bytes(1000) for i in range(300)]
    async with open_log(max_group_bytes=8192) as log:
        await log.append(b"before")
        results = await log.append_batch(payloads)
        assert len({result.segment_id for result in results}) > 3
        assert [result.lsn for result in results] == list(range(2, 302))
        assert results[150] == list(results)[150]
        assert results[-1].durable
        assert (await log.append(b"after")).lsn == 302
        expected = [b"before", *payloads, b"after"]
        assert [record.payload for record in await read_all(log)] == expected
    async with open_log() as log:
        assert log.report.clean
        assert [record.payload for record in await read_all(log)] == expected


async def test_batch_from_an_asynchronous_iterable_makes_others_wait_their_turn(open_log):
    async with open_log(max_group_bytes=4096) as log:
        others: list[asyncio.Future[walsvc.AppendResult]] = []

        async def source() -> AsyncIterator[bytes]:
            for number in range(50):
                others.append(log.append(b"other"))
                assert log.next_lsn == 1, "a part of an unfinished batch shows"
                assert await read_all(log) == []
                yield b"%d" % number * 500
                await asyncio.sleep(0)

        results = await log.append_batch(source())
        assert [result.lsn for result in results] == list(range(1, 51))
        assert sorted([(await other).lsn for other in others]) == list(range(51, 101))


async def test_batch_that_is_cancelled_or_whose_source_fails_leaves_nothing(open_log):
    async with open_log(max_group_bytes=4096) as log:
        await log.append(b"before")
        reached = asyncio.Event()

        async def source(fails: bool) -> AsyncIterator[bytes]:
            for number in range(200):
                yield b"%d" % number * 700
            reached.set()
            if fails:
                raise RuntimeError("the source failed")
            await asyncio.sleep(3600)

        cancelled = log.append_batch(source(False))
        waiting = log.append(b"after the first")
        await reached.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await waiting).lsn == 2
        with pytest.raises(RuntimeError):
            await log.append_batch(source(True))
        assert (await log.append(b"after the second")).lsn == 3
        expected = [b"before", b"after the first", b"after the second"]
        assert [record.payload for record in await read_all(log)] == expected
    async with open_log() as log:
        assert log.report.clean
        assert [record.payload for record in await read_all(log)] == expected


async def test_batch_cancelled_again_and_again_is_given_up_to_the_end(open_log):
    async with open_log(max_group_bytes=4096) as log:
        for _ in range(5):
            batch = log.append_batch([bytes(3000)] * 40)
            other = log.append(b"other")
            for _ in range(30):
                await asyncio.sleep(0)
                batch.cancel()
            await all_done([batch])
            await other
        payloads = [record.payload for record in await read_all(log)]
        assert payloads.count(b"other") == 5
        assert payloads.count(bytes(3000)) % 40 == 0
    async with open_log() as log:
        assert [record.payload for record in await read_all(log)] == payloads


async def test_closing_gives_an_unfinished_batch_up(open_log):
    async with open_log(max_group_bytes=4096) as log:
        await log.append(b"before")
        reached = asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(1000)
            reached.set()
            while True:
                await asyncio.sleep(0)
                yield bytes(1000)

        batch = log.append_batch(source())
        await reached.wait()
        await log.close()
        with pytest.raises(Closed):
            await batch
    async with open_log() as log:
        assert [record.payload for record in await read_all(log)] == [b"before"]


async def test_streamed_batch_over_the_limit_leaves_nothing(open_log):
    async with open_log(max_group_bytes=4096, max_batch_bytes=100_000) as log:
        with pytest.raises(RecordTooLarge):
            await log.append_batch(bytes(1000) for _ in range(101))
        assert log.next_lsn == 1
        assert len(await log.append_batch(bytes(1000) for _ in range(100))) == 100


async def test_record_larger_than_a_segment_is_taken(open_log):
    payload = bytes(range(256)) * 1200
    async with open_log() as log:
        await log.append(b"small")
        await log.append(payload)
        await log.append(b"small again")
    async with open_log() as log:
        assert [record.payload for record in await read_all(log)] == [b"small", payload, b"small again"]


async def test_payload_may_be_changed_after_the_call(open_log):
    async with open_log() as log:
        payload = bytearray(b"original")
        future = log.append(payload)
        payload[:] = b"XXXXXXXX"
        await future
        assert (await read_all(log))[0].payload == b"original"


async def test_truncation_takes_numbers_only_and_a_wrong_one_changes_nothing(open_log):
    async with open_log() as log:
        await log.append_batch([b"%d" % number for number in range(20)])
        for wrong in (5.5, 5.0, True, "5", None):
            for truncate in (log.truncate_before, log.truncate_after):
                with pytest.raises(BadOption):
                    await truncate(wrong)
        assert (log.first_lsn, log.next_lsn) == (1, 21)
    async with open_log() as log:
        assert (await log.append(b"x")).lsn == 21
        assert len([record async for record in log.read()]) == 21


async def test_attributes_that_would_not_come_back_are_refused_and_harm_nobody(open_log):
    odd = {"counts": {1: [2], None: {"a": None}, b"x": 4, 2.5: (True,)}}
    async with open_log() as log:
        neighbour = log.append(b"neighbour")
        for wrong in (
            {"a": {(1, 2): 3}},
            {"a": [{(1,): 2}]},
            {"a": {1, 2}},
            {3: 4},
            [("a", 1)],
            {"a": 1 << 65},
            [],
            (),
            "",
            0,
            False,
        ):
            with pytest.raises(BadOption):
                await log.append(b"bad", attributes=wrong)
        assert (await neighbour).lsn == 1
        assert (await log.append(b"odd", attributes=odd)).lsn == 2
    async with open_log() as log:
        records = [record async for record in log.read()]
        assert [dict(record.attributes) for record in records] == [
            {},
            {"counts": {1: [2], None: {"a": None}, b"x": 4, 2.5: [True]}},
        ]


async def test_type_and_attributes_come_back_beside_plain_records(open_log):
    async with open_log() as log:
        await asyncio.gather(
            log.append(b"plain"),
            log.append(b"typed", type=0x8001),
            log.append(b"labelled", attributes={"tenant": 7, "tags": ["a", b"b"]}),
            log.append(b"plain too"),
        )
        records = await read_all(log)
        assert [record.type for record in records] == [0, 0x8001, 0, 0]
        assert [dict(record.attributes) for record in records] == [{}, {}, {"tenant": 7, "tags": ["a", b"b"]}, {}]
        assert [record.payload for record in records] == [b"plain", b"typed", b"labelled", b"plain too"]


@pytest.mark.parametrize("payload", ["text", None, 5, [b"x"]])
async def test_payload_that_is_not_bytes_is_refused_and_nothing_is_written(open_log, payload):
    async with open_log() as log:
        with pytest.raises(BadPayload) as caught:
            await log.append(payload)
        assert caught.value.hint
        with pytest.raises(BadPayload):
            await log.append_batch([b"good", payload])
        assert log.next_lsn == 1


async def test_payload_that_cannot_be_read_any_more_is_refused_and_nothing_is_written(open_log):
    released, closed = memoryview(b"x"), mmap.mmap(-1, 16)
    released.release()
    closed.close()
    async with open_log() as log:
        for payload in (released, closed):
            for append in (log.append, log.append_nowait, log.topic("t").append):
                with pytest.raises(BadPayload, match="cannot be read"):
                    await append(payload)
            with pytest.raises(BadPayload, match="cannot be read"):
                await log.append_batch([b"good", payload])
        assert log.next_lsn == 1


async def test_type_is_an_integer_and_nothing_that_is_equal_to_one(open_log):
    async with open_log() as log:
        for append in (log.append, log.append_nowait, log.topic("t").append, log.topic("t").append_nowait):
            for wrong in (0.0, 1.0, False, True, "", "1", None, -1, 65536, b""):
                with pytest.raises(BadOption):
                    await append(b"x", type=wrong)
        assert log.next_lsn == 1


async def test_waiting_for_an_lsn_takes_integers_only(open_log):
    async with open_log() as log:
        await log.append(b"x")
        for wrong in (True, False, 1.0, "1", None, -1, 2):
            with pytest.raises(BadOption):
                await log.wait_durable(wrong)
        assert await log.wait_durable(1) == 1


async def test_mode_that_is_none_is_refused_and_those_that_there_are_are_named(open_log):
    async with open_log() as log:
        for append in (log.append, log.append_nowait, log.topic("t").append):
            with pytest.raises(BadOption) as caught:
                await append(b"x", mode="quorum")
            assert caught.value.hint == "one of: Strict, Relaxed, Quorum"
        assert log.next_lsn == 1


async def test_payload_over_the_limit_is_refused_and_nothing_is_written(open_log):
    async with open_log(max_record_bytes=1000, max_batch_bytes=3000) as log:
        await log.append(bytes(1000))
        with pytest.raises(RecordTooLarge):
            await log.append(bytes(1001))
        with pytest.raises(RecordTooLarge):
            await log.append_batch([bytes(1000)] * 4)
        assert log.next_lsn == 2


async def test_read_sees_everything_accepted_before_it(open_log):
    async with open_log(relaxed_interval=None) as log:
        await log.append(b"a", mode=Relaxed)
        assert [record.payload for record in await read_all(log)] == [b"a"]
        assert log.durable_lsn == 1


async def test_read_from_start_to_stop(open_log):
    async with open_log() as log:
        await asyncio.gather(*(log.append(b"%d" % i) for i in range(1, 101)))
        await asyncio.gather(*(log.append(b"%d" % i) for i in range(101, 201)))
        assert [record.lsn for record in await read_all(log, 50, 151)] == list(range(50, 151))
        assert await read_all(log, 201) == []
        assert await read_all(log, 90, 90) == []
        with pytest.raises(BadOption):
            await read_all(log, 0)


async def test_follow_yields_new_records_in_order_and_ends_on_close(open_log):
    seen = []

    async def watch(log: Log) -> None:
        async for record in log.follow(start=3):
            seen.append(record.lsn)

    async with open_log() as log:
        await log.append_batch([b"a", b"b", b"c"])
        task = asyncio.ensure_future(watch(log))
        for _ in range(5):
            await asyncio.gather(*(log.append(bytes(2000)) for _ in range(20)))
    await asyncio.wait_for(task, 60)
    assert seen == list(range(3, 104)), "closing lets it read what came last"


async def open_readers(log: Log) -> dict[str, Any]:
    """Every way of reading 400 records of topic "t", each after its first record."""
    for _ in range(10):
        await asyncio.gather(*(log.topic("t").append(b"old" + bytes(2000)) for _ in range(40)))
    readers = {
        "read": log.read(),
        "batches": log.read_batches(),
        "lazy": log.read_lazy(),
        "topic": log.topic("t").read(),
    }
    for reader in readers.values():
        await anext(reader)
    return readers


def lsns_of(given: list[Any]) -> list[int]:
    return [record.lsn for each in given for record in (each if isinstance(each, list) else [each])]


@pytest.mark.parametrize("cut", [57, 250, 399])
async def test_reading_ends_where_the_log_is_cut_meanwhile(open_log, cut):
    async with open_log() as log:
        readers = await open_readers(log)
        await log.truncate_after(cut)
        await asyncio.gather(*(log.topic("t").append(b"new" + bytes(900)) for _ in range(200)))
        for way, reader in readers.items():
            lsns = lsns_of([each async for each in reader])
            assert lsns == list(range(cut + 1 - len(lsns), cut + 1)), way
            assert lsns or way == "batches", way
        assert [record.lsn async for record in log.read()] == list(range(1, cut + 201))
        assert {record.payload[:3] async for record in log.topic("t").read(cut + 1)} == {b"new"}


async def test_record_listed_before_a_cut_is_not_fetched_behind_it(open_log):
    async with open_log() as log:
        await log.append_batch([bytes(9000)] * 30)
        records = [record async for record in log.read_lazy()]
        await log.truncate_after(10)
        await log.append_batch([b"new" * 3000] * 30)
        assert await records[9].payload() == bytes(9000)
        cut = 0
        for record in records[10:]:
            try:
                assert await record.payload() == bytes(9000), "it came with its payload"
            except Truncated:
                cut += 1
        assert (
            cut == 20
            or not isinstance(log, EmbeddedLog)
            or log.writer.segments.keys is not None
            or log.stats().disk == "jetstream"
        )


async def test_follow_goes_on_behind_a_cut_without_ghosts_or_gap(open_log):
    async with open_log() as log:
        await log.append_batch([b"old"] * 10)
        reader, follower, topic, late = log.follow(), log.follow(), log.topic("t").follow(), log.follow(11)
        waiting = [asyncio.ensure_future(anext(each)) for each in (topic, late)]
        assert [(await anext(reader)).lsn for _ in range(10)] == list(range(1, 11))
        assert (await anext(follower)).lsn == 1
        end = asyncio.ensure_future(anext(reader))
        await log.truncate_after(5)
        for number in range(6, 14):
            await log.topic("t").append(b"new %d" % number)
        expected = [(number, b"new %d" % number) for number in range(6, 14)]
        assert [(await anext(follower)).lsn for _ in range(4)] == [2, 3, 4, 5]
        for first, each in ((end, reader), (None, follower), (waiting[0], topic), (waiting[1], late)):
            records = [await asyncio.wait_for(first or anext(each), 60)]
            records += [await asyncio.wait_for(anext(each), 60) for _ in range(7)]
            assert [(record.lsn, record.payload) for record in records] == expected
            await each.aclose()


async def test_follow_over_several_cuts_begins_at_the_lowest(open_log):
    async with open_log() as log:
        await log.append_batch([b"old"] * 10)
        follower = log.follow()
        assert [(await anext(follower)).lsn for _ in range(10)] == list(range(1, 11))
        for cut in (3, 8, 6):
            await log.truncate_after(cut)
            await log.append_batch([b"behind %d" % cut] * 9)
        records = [await asyncio.wait_for(anext(follower), 60) for _ in range(12)]
        assert [record.payload for record in records] == [b"behind 3"] * 3 + [b"behind 6"] * 9
        assert [record.lsn for record in records] == list(range(4, 16))
        await follower.aclose()


async def test_closing_ends_followers_and_whoever_reads_gets_closed(open_log):
    async with open_log() as log:
        for _ in range(12):
            await asyncio.gather(*(log.append(bytes(5000)) for _ in range(40)))
        readers = {
            "read": log.read(),
            "batches": log.read_batches(),
            "lazy": log.read_lazy(),
            "topic": log.topic("t").read(),
        }
        for way in ("read", "batches", "lazy"):
            await anext(readers[way])
        followers = [log.follow(), log.topic("t").follow()]
        first = asyncio.ensure_future(anext(followers[1]))
        assert (await anext(followers[0])).lsn == 1
        await log.topic("t").append(b"x")
        await first
        waiting = asyncio.ensure_future(anext(followers[1], None))
        await anext(readers["topic"])
        await log.topic("t").append_batch([bytes(5000)] * 480)
        await log.close()
        for way in ("read", "batches", "lazy"):
            with pytest.raises(Closed):
                async for _ in readers[way]:
                    pass
        assert await asyncio.wait_for(waiting, 60) is None or len([record async for record in followers[1]]) < 480
        lsns = [record.lsn async for record in followers[0]]
        assert lsns == list(range(2, len(lsns) + 2))


async def test_follow_ends_behind_the_last_record_of_a_sealed_log(open_log):
    async def follow(log: Log) -> list[int]:
        return [record.lsn async for record in log.follow()]

    async def follow_topic(log: Log, name: str) -> list[int]:
        return [record.lsn async for record in log.topic(name).follow()]

    async with open_log() as log:
        await log.append_batch([b"1", b"2"])
        await log.topic("t").append(b"3")
        ways = (follow(log), follow_topic(log, "t"), follow_topic(log, "nobody"))
        following = [asyncio.ensure_future(way) for way in ways]
        await asyncio.sleep(0.01)
        await log.append(b"4", mode=Relaxed)
        await log.seal()
        assert await asyncio.wait_for(asyncio.gather(*following), 60) == [[1, 2, 3, 4], [3], []]
    for read_only in (False, True):
        async with open_log(read_only=read_only) as log:
            assert await asyncio.wait_for(follow(log), 60) == [1, 2, 3, 4]
            assert await asyncio.wait_for(follow_topic(log, "t"), 60) == [3]


async def test_truncate_before_hides_records_and_frees_segments(open_log):
    async with open_log() as log:
        for _ in range(10):
            await asyncio.gather(*(log.append(bytes(1000)) for _ in range(40)))
        segments = log.stats().segments
        await log.truncate_before(250)
        assert log.first_lsn == 250
        assert log.stats().segments < segments
        assert [record.lsn for record in await read_all(log)] == list(range(250, 401))
        with pytest.raises(Truncated):
            await read_all(log, 249)
        with pytest.raises(BadOption):
            await log.truncate_before(402)
        await log.truncate_before(10)
        assert log.first_lsn == 250
    async with open_log() as log:
        assert log.first_lsn == 250
        assert [record.lsn for record in await read_all(log)] == list(range(250, 401))


@pytest.mark.parametrize("cut", [0, 1, 57, 399])
async def test_truncate_after_then_append_continues_without_ghosts(open_log, cut):
    async with open_log() as log:
        for _ in range(10):
            await asyncio.gather(*(log.append(b"old" * 300) for _ in range(40)))
        await log.truncate_after(cut)
        assert (log.next_lsn, log.durable_lsn) == (cut + 1, cut)
        assert (await log.append(b"new")).lsn == cut + 1
        expected = [b"old" * 300] * cut + [b"new"]
        assert [record.payload for record in await read_all(log)] == expected
    async with open_log() as log:
        assert [record.payload for record in await read_all(log)] == expected
        with pytest.raises(BadOption):
            await log.truncate_after(cut + 2)


async def test_cancelled_append_keeps_its_record_and_harms_no_neighbour(open_log):
    async with open_log() as log:
        futures = [log.append(b"%d" % i) for i in range(10)]
        futures[4].cancel()
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(results[4], asyncio.CancelledError)
        assert [r.lsn for r in results if not isinstance(r, BaseException)] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert len(await read_all(log)) == 10


async def test_append_waits_at_the_cap_and_append_nowait_raises(open_log):
    async with open_log(max_pending_bytes=10_000, relaxed_interval=None) as log:
        await log.append(bytes(9_000), mode=Relaxed)
        with pytest.raises(Backpressure):
            log.append_nowait(bytes(2_000))
        waiting = [log.append(bytes(2_000)) for _ in range(20)]
        assert log.stats().waiting > 0
        assert log.stats().pending_bytes <= 10_000
        results = await asyncio.wait_for(asyncio.gather(*waiting), 60)
        assert [result.lsn for result in results] == list(range(2, 22))


async def test_append_cancelled_while_it_waits_for_room_writes_nothing(open_log):
    async with open_log(max_pending_bytes=10_000, relaxed_interval=None) as log:
        await log.append(bytes(9_000), mode=Relaxed)
        first, second = log.append(bytes(5_000)), log.append(b"second" * 900)
        first.cancel()
        assert (await second).lsn == 2
        assert [len(record.payload) for record in await read_all(log)] == [9_000, 5_400]


async def test_append_nowait_answers_like_append(open_log):
    async with open_log() as log:
        future = log.append_nowait(b"x")
        assert isinstance(future, asyncio.Future)
        assert (await future).lsn == 1
        assert not (await log.append_nowait(b"y", mode=Relaxed)).durable


async def test_mode_comes_second_in_every_call_that_appends(open_log):
    async with open_log(relaxed_interval=None) as log:
        for each in (log, log.topic("t")):
            assert not (await each.append(b"x", Relaxed)).durable
            assert not (await each.append_nowait(b"y", Relaxed, 7, {"a": 1})).durable
            assert not (await each.append_batch([b"z"], Relaxed)).durable
        assert [record.type for record in await read_all(log)] == [0, 7, 0] * 2


async def test_unknown_keyword_of_an_append_is_refused_with_the_one_that_was_meant(open_log):
    async with open_log() as log:
        for each in (log, log.topic("t")):
            for call in (each.append, each.append_nowait, each.append_batch):
                with pytest.raises(
                    TypeError, match=rf"^{call.__name__}\(\) got .*'expectd'; did you mean 'expected'\?"
                ):
                    call(b"x", expectd=1)
                with pytest.raises(TypeError, match=r"'zzz'; known: payloads?, mode, "):
                    call(b"x", zzz=1)
        with pytest.raises(TypeError, match="did you mean 'not_before'"):
            log.topic("t").append(b"x", not_befor=1)
        with pytest.raises(TypeError, match="'not_before'"):
            log.append(b"x", not_before=1)
        assert log.next_lsn == 1


async def test_seal_ends_appending_for_good_and_reading_goes_on(open_log):
    async with open_log() as log:
        await log.append(b"last", mode=Relaxed)
        await log.seal()
        with pytest.raises(Closed):
            await log.append(b"no")
        assert [record.payload for record in await read_all(log)] == [b"last"]
    async with open_log() as log:
        with pytest.raises(Closed):
            await log.append(b"no")
        assert [record.payload for record in await read_all(log)] == [b"last"]


async def test_sealed_log_tells_what_is_durable_and_is_sealed_again_for_nothing(open_log):
    async def told(log: Log) -> None:
        await log.seal()
        assert await log.flush() == 3
        assert [await log.wait_durable(lsn) for lsn in range(4)] == [3] * 4
        with pytest.raises(BadOption):
            await log.wait_durable(4)
        with pytest.raises(Closed):
            await log.append_batch([b"no"])

    async with open_log() as log:
        await log.append_batch([b"x"] * 3, mode=Relaxed)
        await asyncio.gather(log.seal(), log.seal())
        await told(log)
    async with open_log() as log:
        await told(log)


async def test_closed_log_refuses_everything_and_closing_twice_is_fine(open_log):
    async with open_log() as log:
        await log.close()
        for call in (lambda: log.append(b"x"), lambda: log.append_nowait(b"x"), lambda: log.append_batch([b"x"])):
            with pytest.raises(Closed):
                call()
        with pytest.raises(Closed):
            await log.flush()


@pytest.mark.parametrize("ending", ["close", "seal"])
async def test_refused_append_keeps_nothing_of_its_caller(open_log, ending):
    class Payload(bytearray):
        pass

    async def refused() -> weakref.ref[Payload]:
        payload = Payload(b"x")
        with pytest.raises(Closed):
            await log.append(payload)
        return weakref.ref(payload)

    async with open_log() as log:
        await getattr(log, ending)()
        payloads = [await refused() for _ in range(3)]
        await asyncio.sleep(0)  # the loop itself keeps what it did in its last turn
        gc.collect()
        assert [payload() for payload in payloads] == [None] * 3


async def test_close_makes_durable_what_waits_for_room_and_refuses_what_comes_later(open_log):
    async with open_log(max_pending_bytes=20_000, max_group_bytes=4096) as log:
        topic = log.topic("t")
        single = [log.append(b"%d" % number + bytes(1000)) for number in range(100)]
        batches = [
            log.append_batch([bytes(1000)] * 3),
            log.append_batch([bytes(1000)] * 30),
            topic.append_batch(bytes(1000) for _ in range(30)),
        ]
        behind_them = [log.append(b"last", Relaxed), topic.append(b"of a topic")]
        closing = asyncio.ensure_future(log.close())
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            await log.append(b"later")
        await closing
        results = [
            *await asyncio.gather(*single),
            *(each for batch in await asyncio.gather(*batches) for each in batch),
        ]
        results += await asyncio.gather(*behind_them)
        assert [result.lsn for result in results] == list(range(1, 166))
    async with open_log() as log:
        assert log.report.clean
        assert [record.lsn for record in await read_all(log)] == list(range(1, 166))


async def test_close_waits_for_no_source_of_a_batch(open_log):
    async with open_log(max_group_bytes=4096) as log:
        reached = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(1000)
            reached.set()
            await asyncio.Event().wait()

        batches = [log.append_batch(endless())]
        between = log.append(b"between")
        batches.append(log.append_batch(endless()))  # its turn has not come
        await reached.wait()
        batches.append(log.append_batch(endless()))  # it has not even begun
        await asyncio.wait_for(log.close(), 60)
        for batch in batches:
            with pytest.raises(Closed):
                await batch
        assert (await between).durable
    async with open_log() as log:
        assert [record.payload for record in await read_all(log)] == [b"between"]


async def test_read_only_log_refuses_whatever_would_change_it(open_log):
    async with open_log() as log:
        await log.append_batch([b"%d" % number for number in range(10)])
        await log.topic("t").append(b"eleven")
        for each in (log, log.topic("t")):
            async with await each.consumer("c") as consumer:
                await consumer.ack((await consumer.next()).lsn)
        await log.hold("h", 3)
        before = await log.consumers()
    async with open_log(read_only=True) as log:
        topic = log.topic("t")
        for call in (
            *(lambda each=each: each.append(b"x") for each in (log, topic)),
            *(lambda each=each: each.append(None, mode="no mode") for each in (log, topic)),
            *(lambda each=each: each.append_nowait(b"x") for each in (log, topic)),
            *(lambda each=each: each.append_batch([b"x", b"y"]) for each in (log, topic)),
            *(lambda each=each: each.consumer("c") for each in (log, topic)),
            *(lambda each=each: each.move_consumer("c", "next") for each in (log, topic)),
            *(lambda each=each: each.delete_consumer("c") for each in (log, topic)),
            *(lambda each=each: each.purge("key") for each in (log, topic)),
            lambda: log.delete_topic("t"),
            log.flush,
            lambda: log.wait_durable(1),
            lambda: log.wait_replicated(1),
            lambda: log.hold("h", 5),
            lambda: log.release("h"),
            log.reclaim,
            log.compact,
            lambda: log.truncate_before(2),
            lambda: log.truncate_after(2),
            lambda: log.use_keys(None),
            log.seal,
        ):
            with pytest.raises(Closed, match="opened with read_only=True") as caught:
                await call()
            assert caught.value.hint == "open it without read_only"
        assert log.replicated_lsn is None
        assert len(await read_all(log)) == 11
        assert await topic.consumers() == [each for each in await log.consumers() if each.topic == "t"]
    async with open_log() as log:
        assert (log.first_lsn, log.next_lsn, log.holds()) == (1, 12, {"h": 3})
        assert await log.consumers() == before
        assert (await log.append(b"goes on")).lsn == 12


async def test_result_says_where_the_bytes_stand(open_log, tmp_path):
    async with open_log() as log:
        strict = await asyncio.gather(*(log.append(b"payload number %d" % i) for i in range(300)))
        relaxed = [await log.append(b"relaxed number %d" % i, mode=Relaxed) for i in range(300)]
        batch = await log.append_batch([b"batch number %d" % i for i in range(300)])
        embedded = behind(log)
        for result, record in zip([*strict, *relaxed, *batch], await read_all(log), strict=True):
            name, length = embedded.writer.segments.file(result.segment_id)
            stored = await embedded.writer.segments.disk.read(name, result.offset // 4096 * 4096, 8192)
            at = result.offset % 4096
            assert (stored[at : at + result.encoded_len] == record.payload) == (embedded.writer.segments.keys is None)
            assert result.lsn == record.lsn
            if embedded.writer.segments.keys is not None and result.lsn % 50 == 0:
                _, stream = await open_stream(
                    embedded.writer.segments.disk, name, result.segment_id, length, embedded.writer.segments.keys
                )
                while stream.chain.offset <= result.offset:
                    group = await stream.next()
                at = result.offset - group.header.offset
                assert bytes(group.data[at : at + result.encoded_len]) == record.payload


# ---- filters, seeking, purging


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def moment(timestamp_ns: int) -> datetime.datetime:
    """A record's time as a datetime: not later, and less than a microsecond earlier."""
    return EPOCH + datetime.timedelta(microseconds=timestamp_ns // 1000)


async def labelled(log: Log) -> list[walsvc.Record]:
    """60 records of three types, two topics and none, and the labels `n` and `shard`, each in a group of its own."""
    for number in range(60):
        where = log if number % 3 == 0 else log.topic("ab"[number % 2])
        await where.append(
            b"%d" % number, type=number % 4, attributes={"n": number % 7, "shard": b"xy"[number % 2 :][:1]}
        )
    return await read_all(log)


FILTERS: list[tuple[dict[str, Any], Callable[[walsvc.Record], object]]] = [
    ({"topic": "a"}, lambda r: r.topic == "a"),
    ({"topic": "nobody"}, lambda r: False),
    ({"types": {1, 3}}, lambda r: r.type in (1, 3)),
    ({"types": []}, lambda r: False),
    ({"where": {"n": 3}}, lambda r: r.attributes["n"] == 3),
    ({"where": {"n": (3, 4.0), "shard": [b"x"]}}, lambda r: r.attributes["n"] in (3, 4) and r.lsn % 2),
    ({"where": {"n": {True, "3"}}}, lambda r: r.attributes["n"] == 1),
    ({"where": {"nothing": None}}, lambda r: False),
    ({"topic": "b", "types": (2, 3), "where": {"n": [1, 2, 3]}},
     lambda r: r.topic == "b" and r.type in (2, 3) and r.attributes["n"] in (1, 2, 3)),
]  # fmt: skip


async def test_filters_let_through_what_they_say(open_log):
    async with open_log() as log:
        everything = await labelled(log)
        for wanted, fits in FILTERS:
            expected = [record for record in everything if fits(record)]
            assert [record async for record in log.read(**wanted)] == expected, wanted
            assert [record async for batch in log.read_batches(**wanted) for record in batch] == expected
            assert [record async for record in log.read(20, 40, **wanted)] == [r for r in expected if 20 <= r.lsn < 40]
            assert [await lazy.record() async for lazy in log.read_lazy(**wanted)] == expected
            followed = log.follow(**wanted)
            assert [await anext(followed) for _ in expected] == expected
            await followed.aclose()


async def test_times_bound_reading_and_are_found(open_log):
    async with open_log() as log:
        everything = await labelled(log)
        for at in (0, 17, 59):
            when = moment(everything[at].timestamp_ns)
            first = next(r.lsn for r in everything if moment(r.timestamp_ns) >= when)
            assert await log.seek_time(when) == first
            assert [r.lsn async for r in log.read(since=when)] == list(range(first, 61))
            assert [r.lsn async for r in log.read(until=when)] == list(range(1, first))
            assert [r.lsn async for r in log.topic("a").read(since=when)] == [
                r.lsn for r in everything if r.lsn >= first and r.topic == "a"
            ]
        later = moment(everything[-1].timestamp_ns) + datetime.timedelta(hours=1)
        assert await log.seek_time(later) == 61
        assert await log.seek_time(EPOCH - datetime.timedelta(days=1)) == 1
        assert [r.lsn async for r in log.read(since=EPOCH - datetime.timedelta(days=1), until=later)] == list(
            range(1, 61)
        )


async def test_follow_with_a_filter_waits_for_what_fits(open_log):
    async with open_log() as log:
        waiting = asyncio.ensure_future(anext(log.follow(where={"n": 1}, types={2})))
        await log.append(b"a", type=2, attributes={"n": 2})
        await log.append(b"b", type=1, attributes={"n": 1})
        await log.append(b"c", type=2, attributes={"n": 1})
        assert (await asyncio.wait_for(waiting, 60)).payload == b"c"


async def test_record_of_a_required_type_ends_reading(open_log):
    async with open_log() as log:
        for type in (1, 2, 0x8002, 1):
            await log.append(b"x", type=type)
        seen = []
        with pytest.raises(UnsupportedFormat) as caught:
            async for record in log.read(types={1}):
                seen.append(record.lsn)
        assert (seen, caught.value.lsn) == ([1], 3)
        assert [record.lsn async for record in log.read(types={1, 0x8002})] == [1, 3, 4]


async def test_filter_that_is_none_is_refused(open_log):
    naive = datetime.datetime(2026, 1, 1)
    wrong: list[dict[str, Any]] = [
        {"types": 1}, {"types": "1"}, {"types": [1 << 16]}, {"where": [("a", 1)]}, {"where": {1: 1}},
        {"since": naive}, {"until": 5}, {"since": "2026-01-01"},
    ]  # fmt: skip
    async with open_log() as log:
        await log.append(b"x")
        for wanted in wrong:
            with pytest.raises(BadOption):
                await anext(log.read(**wanted))
        with pytest.raises(BadOption):
            await anext(log.follow(until=EPOCH))
        with pytest.raises(BadOption):
            await log.seek_time(naive)
        for reading in (log.read, log.read_batches, log.read_lazy, log.follow):
            with pytest.raises(TypeError, match="'wehre' here; did you mean 'where'"):
                await anext(reading(wehre={"a": 1}))
        with pytest.raises(TypeError, match="'revers' here; did you mean 'reverse'"):
            await anext(log.read(revers=True))
        with pytest.raises(TypeError, match="'reverse' here; known: since, start, stats, topic, types, where"):
            await anext(log.follow(reverse=True))


async def test_purged_records_are_hidden_from_every_reading_and_for_good(open_log):
    async with open_log() as log:
        everything = await labelled(log)
        await log.purge({"n": 3})
        await log.topic("a").purge({"shard": b"y"}, before=30)
        left = [
            r.lsn for r in everything
            if r.attributes["n"] != 3 and not (r.topic == "a" and r.attributes["shard"] == b"y" and r.lsn < 30)
        ]  # fmt: skip
        assert 30 < len(left) < 60
        assert [r.lsn for r in await read_all(log)] == left
        assert [lazy.lsn async for lazy in log.read_lazy()] == left
        assert [r.lsn async for r in log.read(where={"n": [3, 4]})] == [
            r.lsn for r in everything if r.attributes["n"] == 4
        ]
        consumer = await log.consumer("c")
        assert [(await consumer.next()).lsn for _ in left] == left
        assert (await log.append(b"again", attributes={"n": 3})).lsn == 61
        assert (await consumer.next()).lsn == 61
        await consumer.close()
        for wrong in ({}, {"n": None}, None, float("nan")):
            with pytest.raises(BadOption):
                await log.purge(wrong)
        with pytest.raises(BadOption):
            await log.purge("k", before=63)
    async with open_log(read_only=True) as log:
        assert [r.lsn for r in await read_all(log)] == [*left, 61]


READINGS = {
    "read": lambda log: log.read(),
    "read_batches": lambda log: log.read_batches(),
    "read_lazy": lambda log: log.read_lazy(),
    "follow": lambda log: log.follow(),
    "read of a topic": lambda log: log.topic("t").read(),
    "follow of a topic": lambda log: log.topic("t").follow(),
}


async def test_iteration_that_its_caller_gives_up_goes_on_where_it_was(open_log):
    async with open_log(max_group_records=3) as log:
        await asyncio.gather(*(log.topic("t").append(b"%d" % number) for number in range(12)))
        for name, reading in READINGS.items():
            records, at, seen, last = reading(log), 0, list[int](), log.durable_lsn
            while len(seen) < last:
                at += 1
                cut_short, outcome = await interrupted(anext(records), at % 7 + 1, late=at % 2 == 0)
                if isinstance(outcome, asyncio.CancelledError):
                    assert cut_short
                    continue
                assert not isinstance(outcome, BaseException), outcome
                seen += [record.lsn for record in (outcome if isinstance(outcome, list) else [outcome])]
            assert seen == list(range(1, last + 1)), name
            if "follow" in name:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(records), 0.001)
                await log.topic("t").append(b"late")
                assert (await asyncio.wait_for(anext(records), 60)).lsn == last + 1
            else:
                assert await anext(records, None) is None
            async with contextlib.aclosing(records):
                pass
            assert await anext(records, None) is None


async def test_iteration_has_one_reader_at_a_time(open_log):
    async with open_log() as log:
        records = log.follow()
        first = asyncio.create_task(anext(records))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(records)
        await log.append(b"x")
        assert (await first).lsn == 1


@pytest.mark.parametrize("wrong", [True, 1.5, float("nan"), "1", -1, b"1"])
async def test_lsns_limits_and_timeouts_are_numbers_of_their_kind(open_log, wrong):
    async with open_log() as log:
        await log.append(b"x")
        consumer = await log.consumer("c")
        await consumer.peek()
        calls = [
            lambda: anext(log.read(wrong)),
            lambda: anext(log.read_lazy(wrong)),
            lambda: anext(log.follow(wrong)),
            lambda: consumer.ack(wrong),
            lambda: consumer.seek(wrong),
            lambda: consumer.read_batch(wrong),
            lambda: consumer.read_batch(max_records=wrong),
            lambda: log.move_consumer("other", wrong),
            lambda: log.consumer("new", start=wrong),
            lambda: log.hold("h", wrong),
            lambda: log.truncate_before(wrong),
            lambda: log.truncate_after(wrong),
            lambda: log.wait_durable(wrong),
            lambda: log.purge("key", before=wrong),
        ]
        if wrong != 1.5:
            calls.append(lambda: log.close(timeout=wrong))
        if wrong != -1:
            calls.append(lambda: anext(log.read(stop=wrong)))
        for number, call in enumerate(calls):
            with pytest.raises(BadOption):
                await call()
                pytest.fail(f"call {number} took {wrong!r}")
        assert consumer.position == 1
        assert log.first_lsn == 1
        assert log.next_lsn == 2


async def test_wrong_argument_of_any_kind_is_refused_and_harms_no_other_call(open_log):
    async with open_log() as log:
        await log.append(b"x")
        await log.hold("h", 1)
        topic, consumer = log.topic("t"), await log.consumer("c")
        await consumer.peek()
        shared = await topic.consumer("s", shared=True)
        calls = [
            log.get,
            log.compact,
            log.wait_durable,
            log.delete_consumer,
            log.release,
            consumer.seek,
            shared.seek,
            shared.ack,
            lambda wrong: shared.read_batch(max_records=wrong),
            lambda wrong: log.hold(wrong, 1),
            lambda wrong: log.hold("other", wrong),
            lambda wrong: log.move_consumer("other", wrong),
            lambda wrong: log.purge("key", before=wrong),
            lambda wrong: topic.consumer("lease", shared=True, lease=wrong, worker=None),
            lambda wrong: topic.consumer("label", shared=True, ordered_by=wrong),
            lambda wrong: log.consumer("new", shared=wrong),
            lambda wrong: log.truncate_before(2, force=wrong),
            log.truncate_after,
            lambda wrong: consumer.ack(1, only=wrong),
            lambda wrong: anext(log.read(wrong)),
            lambda wrong: anext(log.read(topic=wrong)),
            lambda wrong: anext(log.follow(topic=wrong)),
            lambda wrong: anext(log.read(reverse=wrong)),
        ]
        for wrong in ({1: 2}, 1 << 64, {"a": object()}):
            for number, call in enumerate(calls):
                with pytest.raises(BadOption):
                    await call(wrong)
                    pytest.fail(f"call {number} took {wrong!r}")
        with pytest.raises(BadOption):
            await log.get(None)
        for wrong in (None, 5, object()):
            with pytest.raises(BadPayload, match="iterable"):
                await log.append_batch(wrong)
        assert (await log.append(b"y")).lsn == 2
        assert (log.first_lsn, consumer.position, await shared.lag()) == (1, 1, 0)


async def test_append_is_a_coroutine_for_task_groups_and_a_future_for_gather(open_log):
    async with open_log() as log:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(log.append(b"%d" % number)) for number in range(5)]
            batch = group.create_task(log.append_batch([b"5", b"6"]))
        assert [task.result().lsn for task in tasks] == [1, 2, 3, 4, 5]
        assert [result.lsn for result in batch.result()] == [6, 7]
        ack = log.append(b"7")
        assert isinstance(ack, walsvc.Ack)
        (first, again) = await asyncio.gather(ack, asyncio.shield(ack))
        assert first == again == await asyncio.wait_for(ack, 60)
        topic = log.topic("orders")
        assert (await asyncio.create_task(topic.append(b"8"))).lsn == 9
        assert (await asyncio.create_task(topic.append(b"9", mode=walsvc.Relaxed))).lsn == 10
        streamed = await asyncio.create_task(log.append_batch(bytes(1000) for _ in range(300)))
        assert len(streamed) == 300
        now = log.append_nowait(b"now")
        assert isinstance(now, asyncio.Future)
        assert (await asyncio.wait([now]))[0] == {now}


async def test_a_call_on_an_opening_that_was_not_awaited_says_what_is_missing(tmp_path):
    opening = walsvc.open(tmp_path / "log")
    for name in ("append", "read", "close"):
        with pytest.raises(AttributeError, match=rf"no '{name}': await it first, `log = await walsvc.open\(\.\.\.\)`"):
            getattr(opening, name)
    async with opening as log:
        assert (await log.append(b"x")).lsn == 1


async def test_get_gives_one_record_and_says_why_there_is_none(open_log):
    async with open_log() as log:
        for first in (1, 11, 21):  # in three groups, which leave room for what cannot wait for any
            await asyncio.gather(
                *(log.topic("t").append(b"%d" % n, type=n, attributes={"key": n}) for n in range(first, first + 10))
            )
        for lsn in (1, 17, 30):
            record = await log.get(lsn)
            assert (record.lsn, record.payload, record.type, record.topic) == (lsn, b"%d" % lsn, lsn, "t")
            assert record.attributes == {"key": lsn}
        unsynced = log.append_nowait(b"last", mode=Relaxed)
        await asyncio.sleep(0)
        assert (await log.get(31)).payload == b"last"
        assert (await unsynced).lsn == 31
        assert log.durable_lsn >= 31
        for lsn, words in (
            (32, "not given out yet"),
            (1000, "not given out yet"),
            (0, "no LSN"),
            ("1", "no LSN"),
            (True, "no LSN"),
        ):
            with pytest.raises(BadOption, match=words):
                await log.get(lsn)
        await log.purge(17)
        assert await log.get(17) is None
        assert (await log.get(18)).lsn == 18
        await log.truncate_before(10)
        with pytest.raises(Truncated):
            await log.get(9)
        assert (await log.get(10)).lsn == 10
        await log.truncate_after(20)
        with pytest.raises(BadOption, match="not given out yet"):
            await log.get(21)
    with pytest.raises(Closed):
        await log.get(10)


async def test_a_hold_begins_at_the_first_record_or_the_next_one_by_name(open_log):
    async with open_log() as log:
        await log.append_batch([b"x"] * 5)
        await log.truncate_before(3)
        await log.hold("old", "first")
        await log.hold("new", "next")
        with pytest.raises(BadOption, match="no position"):
            await log.hold("wrong", "last")
        assert log.holds() == {"old": 3, "new": 6}
        await log.refresh()
        assert log.holds() == {"old": 3, "new": 6}
