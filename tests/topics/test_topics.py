"""Topics on the shared log: names, order, counts, and reading one without the others."""

from __future__ import annotations

import asyncio
import random

import pytest

import walsvc
from tests.contract.openers import behind
from tests.waiting import until
from walsvc import BadOption, BadPayload, Closed, Relaxed
from walsvc.log.read.filter import Filter
from walsvc.log.read.reader import Cursor

from .conftest import lsns


async def by_topic(log) -> dict[str | None, list]:
    """A full scan, by topic."""
    found: dict[str | None, list] = {}
    async for record in log.read():
        found.setdefault(record.topic, []).append(record)
    return found


async def assert_like_a_full_scan(log) -> None:
    full = await by_topic(log)
    for name in log.topics():
        topic, expected = log.topic(name), full.get(name, [])
        assert [record async for record in topic.read()] == expected
        assert await topic.count() == len(expected)
        assert await topic.first_lsn() == (expected[0].lsn if expected else None)
        assert await topic.last_lsn() == (expected[-1].lsn if expected else None)
    assert set(full) - {None} <= set(log.topics())


async def test_topic_is_made_by_its_first_record_and_survives_reopening(open_log):
    async with open_log() as log:
        assert log.topics() == []
        topic = log.topic("orders")
        assert log.topics() == []
        assert await topic.count() == 0
        assert (await topic.first_lsn(), await topic.last_lsn()) == (None, None)
        result = await topic.append(b"one")
        assert (result.lsn, result.durable) == (1, True)
        await log.append(b"of no topic")
        await log.topic("注文").append(b"two", type=7, attributes={"n": 1})
        assert log.topics() == ["orders", "注文"]
        assert log.stats().topics == 2
    async with open_log() as log:
        assert log.topics() == ["orders", "注文"]
        records = [record async for record in log.read()]
        assert [record.topic for record in records] == ["orders", None, "注文"]
        assert (records[2].type, records[2].attributes) == (7, {"n": 1})
        await assert_like_a_full_scan(log)


async def test_topics_share_the_group_commit(open_log):
    async with open_log(segment_bytes=1 << 20) as log:
        before = log.stats().syncs
        await asyncio.gather(*(log.topic(f"t{number}").append(b"x") for number in range(1000)))
        assert log.stats().syncs - before <= 40  # a server takes 32 requests of a client in a turn of its loop
        assert len(log.topics()) == 1000


async def test_modes_nowait_and_batches_go_to_the_topic(open_log):
    async with open_log(relaxed_interval=None) as log:
        topic = log.topic("t")
        assert not (await topic.append(b"relaxed", Relaxed)).durable
        assert (await topic.append_nowait(b"nowait")).lsn == 2
        assert [each.lsn for each in await topic.append_batch([b"a", b"b"])] == [3, 4]
        assert len(await topic.append_batch([bytes(3000)] * 100)) == 100  # over groups and segments

        async def source():
            yield b"streamed"

        assert (await log.topic("new by a stream").append_batch(source()))[0].lsn == 105
        assert await topic.count() == 104
        await assert_like_a_full_scan(log)
    async with open_log() as log:
        await assert_like_a_full_scan(log)


async def test_payloads_of_a_topic_are_checked_and_copied(open_sim):
    async with open_sim(max_record_bytes=100) as log:
        topic = log.topic("t")
        await topic.append(b"first")
        payload = bytearray(b"before")
        waiting = topic.append(payload)
        payload[:] = b"after."
        await waiting
        with pytest.raises(BadPayload):
            topic.append("text")
        with pytest.raises(BadOption):
            topic.append(b"x", type=-1)
        assert [record.payload async for record in topic.read()] == [b"first", b"before"]
    with pytest.raises(Closed):
        await topic.append(b"late")


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128, 7, None, b"bytes", "\ud800"])
async def test_bad_topic_names_are_refused(open_sim, name):
    async with open_sim() as log:
        with pytest.raises(BadOption):
            log.topic(name)
        assert log.topic("x" * 255).name == "x" * 255


async def test_cancelled_first_append_makes_no_topic(open_sim):
    async with open_sim(max_pending_bytes=4096) as log:
        big = log.append(bytes(4000))
        waiting = log.topic("never").append(bytes(3000))
        later = log.topic("later").append(b"x")
        waiting.cancel()
        await asyncio.gather(big, later)
        assert log.topics() == ["later"]


async def test_names_and_counts_survive_a_crash(tmp_path):
    from walsvc import WalConfig
    from walsvc.disk.sim import SimDevice, SimDisk
    from walsvc.opening import open_on

    device, config = SimDevice(3), WalConfig(segment_bytes=65536)
    async with await open_on(SimDisk(device), config) as log:
        for number in range(300):
            await log.topic(f"t{number % 7}").append(bytes(900))
        crashed = device.fork().crash()  # the machine itself goes on, so that what it has under way ends
    async with await open_on(SimDisk(crashed), config) as log:
        assert log.next_lsn == 301
        assert log.topics() == [f"t{number}" for number in range(7)]
        await assert_like_a_full_scan(log)


async def test_counts_after_truncations_are_those_of_a_full_scan(open_log):
    rng = random.Random(5)
    for _ in range(3):
        async with open_log() as log:
            for _ in range(2):
                names = [f"t{rng.randrange(6)}" for _ in range(150)]
                await asyncio.gather(*(log.topic(name).append(bytes(rng.randrange(1500))) for name in names))
                await log.append(b"none")
                await log.truncate_before(rng.randint(log.first_lsn, log.first_lsn + 60))
                await assert_like_a_full_scan(log)
                await log.truncate_after(rng.randint(max(log.next_lsn - 150, log.first_lsn), log.next_lsn - 1))
                await assert_like_a_full_scan(log)
    async with open_log(read_only=True) as log:
        await assert_like_a_full_scan(log)


async def test_batch_given_up_counts_nothing(open_log):
    async with open_log(max_group_bytes=16384) as log:
        topic = log.topic("t")
        await topic.append(b"before")

        async def failing():
            for _ in range(200):
                yield bytes(2000)
            raise RuntimeError("the source ended early")

        with pytest.raises(RuntimeError):
            await topic.append_batch(failing())
        assert (await topic.count(), await topic.last_lsn()) == (1, 1)
        await topic.append(b"after")
        await assert_like_a_full_scan(log)
    async with open_log() as log:
        await assert_like_a_full_scan(log)


async def test_partly_written_batch_is_not_counted(open_sim):
    async with open_sim(max_group_bytes=16384) as log:
        topic = log.topic("t")
        await topic.append(b"before")
        proceed = asyncio.Event()

        async def slow():
            for _ in range(150):
                yield bytes(2000)
            await proceed.wait()
            yield b"last"

        batch = topic.append_batch(slow(), mode=Relaxed)
        await until(lambda: log.stats().written_bytes >= 150_000)
        assert (await topic.count(), await topic.last_lsn()) == (1, 1)
        proceed.set()
        await batch
        assert await topic.count() == 152


async def test_follow_of_a_topic_that_does_not_exist_yet(open_log):
    async with open_log() as log:
        seen: list[bytes] = []

        async def follow() -> None:
            async for record in log.topic("later").follow():
                seen.append(record.payload)
                if len(seen) == 2:
                    return

        following = asyncio.create_task(follow())
        await log.topic("other").append(b"not this")
        await log.topic("later").append(b"1")
        await log.topic("other").append(b"nor this")
        await log.topic("later").append(b"2")
        await asyncio.wait_for(following, 60)
        assert seen == [b"1", b"2"]


async def test_follow_ends_when_the_log_is_closed(open_log):
    async with open_log() as log:
        await log.topic("t").append(b"x")
        stream = log.topic("t").follow()
        assert (await anext(stream)).lsn == 1
        following = asyncio.create_task(lsns(stream))
        await until(lambda: behind(log).writer.core.waits._topics, 0)
    assert await asyncio.wait_for(following, 60) == []


async def test_waiting_for_one_topic_is_not_woken_by_others(open_sim, monkeypatch):
    async with open_sim() as log:
        await log.topic("quiet").append(b"x")
        stream = log.topic("quiet").follow()
        assert (await anext(stream)).lsn == 1
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reads: list[int] = []
        read = log.writer.segments.disk.read
        monkeypatch.setattr(
            log.writer.segments.disk, "read", lambda name, *place: reads.append(1) or read(name, *place)
        )
        for _ in range(50):
            await log.topic("busy").append(b"x")
        assert len(reads) <= 1
        await log.topic("quiet").append(b"y")
        assert (await asyncio.wait_for(waiting, 60)).payload == b"y"
        await stream.aclose()


@pytest.mark.embedded("it counts the bytes that a cursor reads from segments")
async def test_reader_of_one_topic_skips_segments_without_it(open_log):
    async with open_log() as log:
        rare, busy = log.topic("rare"), log.topic("busy")
        await rare.append(b"first")
        await asyncio.gather(*(busy.append(bytes(1000)) for _ in range(2000)))
        await rare.append(b"last")
        segments = len(log.writer.segments.ids())
        assert segments > 10
    async with open_log(read_only=True) as log:  # nothing is known from writing
        number = log.segments.topic_number("rare")
        cursor = Cursor(log.segments, 1, Filter(number=number))
        found = [record.payload for _ in range(3) for record in await cursor.take(log.next_lsn)]
        assert found == [b"first", b"last"]
        header = 0 if log.segments.keys is None else 4096  # which says by what key the seal is encrypted
        assert cursor.stats.bytes_read <= segments * (8192 + header) + 3 * (65536 + 4096)
        again = Cursor(log.segments, 1, Filter(number=number))
        while await again.take(log.next_lsn):
            pass
        assert again.stats.bytes_read <= 3 * (65536 + 4096)


async def test_reader_of_one_topic_skips_payloads_of_large_groups_without_it(open_sim):
    async with open_sim(segment_bytes=8 << 20, max_group_bytes=1 << 20) as log:
        await log.topic("rare").append(b"first")
        await asyncio.gather(*(log.topic("busy").append(bytes(10_000)) for _ in range(400)))
        await asyncio.gather(*(log.append(bytes(10_000)) for _ in range(200)))
        await log.topic("rare").append(b"last")
        cursor = Cursor(log.writer.segments, 1, Filter(number=log.writer.segments.topic_number("rare")))
        found = [record.payload for _ in range(3) for record in await cursor.take(log.next_lsn)]
        assert found == [b"first", b"last"]
        assert cursor.stats.bytes_read < 2 << 20, "most of 6 MB was passed over"


async def test_segments_without_a_summary_are_looked_through(open_sim, monkeypatch):
    from walsvc.log.commit import framing, rotation

    def without(*args, **options):
        return framing.seal_bytes(*args, **{**options, "tally": None})

    monkeypatch.setattr(rotation, "seal_bytes", without)
    async with open_sim() as log:
        for number in range(300):
            await log.topic(f"t{number % 5}").append(bytes(1000))
        await assert_like_a_full_scan(log)
    async with open_sim() as log:
        await assert_like_a_full_scan(log)


async def test_summary_finds_room_with_many_topics_in_small_segments(open_sim):
    async with open_sim() as log:
        for round_ in range(3):
            await asyncio.gather(*(log.topic(f"topic {number}").append(b"%d" % round_) for number in range(4000)))
        summaries = 0
        for segment, successor in zip(log.writer.segments.ids(), log.writer.segments.ids()[1:], strict=False):
            summary = (await log.writer.segments.summaries.seal(segment, successor)).summary
            assert summary is not None
            held = {record.topic async for record in log.read(segment, successor)}
            assert {log.writer.segments.topics.names[number] for number in summary.numbers} == held
            summaries += 1
        assert summaries >= 3


async def test_ten_thousand_topics_interleaved(open_sim):
    rng = random.Random(11)
    async with open_sim(segment_bytes=1 << 20) as log:
        expected: dict[str, list[bytes]] = {}
        for batch in range(10):
            appends = []
            for number in range(3000):
                name, payload = f"topic/{rng.randrange(10_000)}", b"%d %d" % (batch, number)
                expected.setdefault(name, []).append(payload)
                appends.append(log.topic(name).append(payload))
            await asyncio.gather(*appends)
    async with open_sim(segment_bytes=1 << 20) as log:
        assert set(log.topics()) == set(expected)
        full = await by_topic(log)
        assert {name: [record.payload for record in records] for name, records in full.items()} == expected
        for name in rng.sample(sorted(expected), 20):
            assert [record.payload async for record in log.topic(name).read()] == expected[name]
            assert await log.topic(name).count() == len(expected[name])


async def test_first_record_of_a_topic_on_a_full_group_is_read_with_its_name(open_sim):
    async with open_sim(max_group_records=2) as log:
        await asyncio.gather(*(log.topic(f"t{number}").append(b"x") for number in range(9)))
        assert [record.topic async for record in log.read()] == [f"t{number}" for number in range(9)]


async def test_repaired_log_keeps_topics_and_counts(tmp_path):
    from walsvc.disk.choose import open_disk
    from walsvc.log.offline.repair import apply_repair, plan_repair

    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=65536) as log:
        await (await log.topic("t0").consumer("c")).close()
        for number in range(60):
            await log.topic(f"t{number % 3}").append(b"%d" % number + bytes(900))
        damaged = path / f"{log.writer.segments.ids()[3]:016x}.wal"
    data = bytearray(damaged.read_bytes())
    data[4096 * 4 + 200] ^= 1
    damaged.write_bytes(data)
    config = walsvc.WalConfig()
    disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=True)
    plan = await plan_repair(disk)
    assert plan.reasons
    await apply_repair(disk, plan, 65536)
    await disk.close()
    async with walsvc.open(path, segment_bytes=65536) as log:
        assert log.next_lsn == plan.keep_to + 1 < 61
        await assert_like_a_full_scan(log)
        assert [each.lag for each in await log.consumers()] == [await log.topic("t0").count()]
