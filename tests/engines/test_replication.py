"""A log and its replica: what is shipped comes back, to the group; a stream follows one log, and says so to any other."""

from __future__ import annotations

import asyncio
import random
import shutil

import pytest

import walsvc
from tests.engines.replicas import (
    assert_beginning,
    groups_in,
    groups_sent,
    held,
    opening,
    records,
    records_in,
    replica_url,
    replicated,
)
from walsvc import BadOption, Closed, PathError, Quorum, Relaxed, ReplicaLost, Truncated
from walsvc.engines.replication.restore import restore_replica


@pytest.fixture
def url(cluster, stream):
    return replica_url(cluster, stream)


async def fill(log, rng, groups):
    for _ in range(groups):
        await asyncio.gather(*(log.append(rng.randbytes(rng.randrange(900))) for _ in range(rng.randrange(1, 30))))


async def test_restored_replica_is_the_log_to_the_group_and_goes_on(tmp_path, url):
    rng = random.Random(1)
    async with opening(tmp_path / "log", url) as log:
        await log.append(b"typed", type=7, attributes={"tenant": 3})
        await log.topic("orders").append(b"first")
        consumer = await log.consumer("mailer")
        await fill(log, rng, 30)
        await log.append_batch([rng.randbytes(3000) for _ in range(600)])  # over groups and segments
        async with consumer:
            await consumer.seek(3)
        await log.topic("orders").append(b"last")
        end = await replicated(log)
        assert len(log.writer.segments.ids()) >= 8
        assert log.replicated_lsn == log.stats().replicated_lsn == end == log.next_lsn - 1
        expected = await records(log)
        copied = await restore_replica(url, str(tmp_path / "back"))
        assert (copied.first_lsn, copied.next_lsn) == (1, log.next_lsn)
        assert len(log.writer.segments.ids()) - copied.segments in {0, 1}, "a hold that moves on may begin one more"
        assert_beginning(tmp_path / "back", tmp_path / "log")
    async with opening(tmp_path / "back", None) as back:
        assert await records(back) == expected
        assert [record.payload for record in await records(back.topic("orders"))] == [b"first", b"last"]
        assert [status.position for status in await back.consumers()] == [3]
        assert (await back.append(b"on")).lsn == end + 1


async def test_quorum_answers_when_the_replica_has_the_record(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        answers = await asyncio.gather(
            log.append(b"one", mode=Quorum),
            log.append_nowait(b"two", mode=Quorum),
            log.topic("t").append(b"three", mode=Quorum),
            log.topic("t").append_nowait(b"four", mode=Quorum),
        )
        assert [answer.lsn for answer in answers] == [1, 2, 3, 4]
        batch = await log.append_batch([b"five", b"six"], mode=Quorum)
        assert [answer.lsn for answer in batch] == [5, 6]
        large = await log.append_batch([bytes(900)] * 3000, mode=Quorum)
        assert log.replicated_lsn >= large[-1].lsn
        assert len(await log.append_batch([], mode=Quorum)) == 0
        await restore_replica(url, str(tmp_path / "back"))
        assert len(await records_in(tmp_path / "back")) == large[-1].lsn
        relaxed = await log.append(b"relaxed", mode=Relaxed)
        assert await log.wait_replicated(relaxed.lsn) >= relaxed.lsn
        with pytest.raises(BadOption, match="not given out"):
            await log.wait_replicated(relaxed.lsn + 1)


async def test_quorum_needs_a_replica(tmp_path):
    async with opening(tmp_path / "log", None) as log:
        for append in (log.append, log.append_nowait, log.topic("t").append, log.topic("t").append_nowait):
            with pytest.raises(BadOption, match="not replicated"):
                append(b"x", mode=Quorum)
        with pytest.raises(BadOption, match="not replicated"):
            log.append_batch([b"x"], mode=Quorum)
        with pytest.raises(BadOption, match="not replicated"):
            await log.wait_replicated(0)
        assert (log.replicated_lsn, log.stats().replica_state) == (None, None)
        assert log.next_lsn == 1


@pytest.mark.parametrize("seed", [1, 5])
async def test_any_history_comes_back(tmp_path, url, seed):
    rng = random.Random(seed)
    log = await opening(tmp_path / "log", url)
    for step in range(30):
        action = rng.choice(
            ["fill", "fill", "fill", "batch", "give up", "after", "before", "reopen", "meta", "restore"]
        )
        if action == "fill":
            await fill(log, rng, rng.randrange(1, 12))
        elif action == "batch":
            await log.append_batch([rng.randbytes(2000) for _ in range(rng.randrange(1, 1500))])
        elif action == "give up":
            given_up = log.append_batch(endless(rng.randrange(2000)))
            with pytest.raises(EOFError):
                await given_up
        elif action == "after":
            await log.truncate_after(rng.randrange(log.first_lsn - 1, log.next_lsn))
        elif action == "before":
            await replicated(log)
            await log.truncate_before(rng.randrange(log.first_lsn, log.next_lsn + 1), force=True)
        elif action == "reopen":
            await log.close()
            log = await opening(tmp_path / "log", url)
        elif action == "meta":
            await log.hold("somebody", log.first_lsn)
            await log.release("somebody")
        else:
            await check_copy(log, url, tmp_path / f"back{step}", tmp_path / "log")
    await check_copy(log, url, tmp_path / "back", tmp_path / "log")
    await log.close()


async def endless(count):
    for number in range(count):
        yield b"%d" % number * 300
    raise EOFError


async def check_copy(log, url, copy, whole):
    await log.append(b"last", mode=Quorum)
    expected = await records(log)
    await restore_replica(url, str(copy))
    assert await records_in(copy) == expected
    assert_beginning(copy, whole)
    shutil.rmtree(copy)


async def test_nothing_is_shipped_twice(tmp_path, url):
    for _ in range(3):
        async with opening(tmp_path / "log", url) as log:
            await fill(log, random.Random(2), 20)
            await replicated(log)
    sent = await groups_sent(url)
    assert len(set(sent)) == len(sent) > 60


async def test_segments_go_when_they_are_shipped_and_dropped(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        await fill(log, random.Random(3), 60)
        await held(log)
        before, middle = log.writer.segments.ids()[len(log.writer.segments.ids()) // 2 :][:2]
        await log.truncate_before(middle)
        await log.append(b"told", mode=Quorum)
        await log.append(b"and removed", mode=Quorum)
        copied = await restore_replica(url, str(tmp_path / "back"))
        assert copied.first_lsn == middle
        assert (
            min(segment for segment, *_ in await groups_sent(url)) >= before
        )  # whose seal came after the next one's head
        assert list(groups_in(tmp_path / "back")) == log.writer.segments.ids()


async def test_replica_alone_consumes_nothing(tmp_path, url):
    async with opening(tmp_path / "log", url, reclaim="consumed") as log:
        await fill(log, random.Random(4), 40)
        assert await held(log) > 1
        assert await log.reclaim() == 0
        assert log.first_lsn == 1


async def test_hold_keeps_what_is_not_shipped(tmp_path, cluster):
    nowhere = "nats://127.0.0.1:1/stream?timeout=1"
    async with opening(tmp_path / "log", nowhere, retain_bytes=65536) as log:
        await fill(log, random.Random(5), 40)
        assert log.holds() == {"replica": 1}
        await log.reclaim()
        assert log.first_lsn == 1
        with pytest.raises(BadOption, match="replica"):
            await log.truncate_before(log.next_lsn)
        stats = log.stats()
        assert (stats.replicated_lsn, stats.replica_records) == (0, log.durable_lsn)
        assert stats.replica_bytes >= stats.written_bytes / 2


async def test_records_dropped_before_they_were_shipped_begin_the_replica_anew(tmp_path, url, cluster):
    async with opening(tmp_path / "log", url) as log:
        await fill(log, random.Random(6), 10)
        await replicated(log)
    async with opening(tmp_path / "log", None) as log:
        await fill(log, random.Random(7), 60)
        await log.truncate_before(log.next_lsn, force=True)
    async with opening(tmp_path / "log", url) as log:
        await check_copy(log, url, tmp_path / "back", tmp_path / "log")


async def test_two_logs_on_one_stream_are_refused(tmp_path, url):
    async with opening(tmp_path / "one", url) as one:
        await one.append(b"first come", mode=Quorum)
        async with opening(tmp_path / "two", url) as two:
            with pytest.raises(ReplicaLost, match="another log") as caught:
                await two.append(b"second", mode=Quorum)
            assert caught.value.hint
            assert caught.value.lsn == 1
            with pytest.raises(ReplicaLost):  # known by now, so nothing is appended
                two.append(b"third", mode=Quorum)
            assert two.next_lsn == 2
            assert (await two.append(b"strict goes on")).lsn == 2
            assert two.stats().replica_state.startswith("lost: ")
        await one.append(b"and it goes on", mode=Quorum)


async def test_older_copy_of_a_log_is_refused_and_the_newest_takes_over(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        await fill(log, random.Random(8), 20)
        await replicated(log)
    shutil.copytree(tmp_path / "log", tmp_path / "old")
    async with opening(tmp_path / "log", url) as log:
        await log.append(b"newer", mode=Quorum)
        async with opening(tmp_path / "old", url) as old:
            with pytest.raises(ReplicaLost, match="does not have"):
                await old.append(b"different", mode=Quorum)
        await log.append(b"not disturbed", mode=Quorum)
        await restore_replica(url, str(tmp_path / "newest"))
        async with opening(tmp_path / "newest", url) as newest:
            assert (await newest.append(b"taken over", mode=Quorum)).lsn == log.next_lsn
            with pytest.raises(ReplicaLost, match="somebody else"):
                await log.append(b"too late", mode=Quorum)
    async with opening(tmp_path / "log", url) as log:
        with pytest.raises(ReplicaLost, match="does not have"):
            await log.append(b"diverged", mode=Quorum)


async def test_stream_that_is_a_log_itself_is_refused(tmp_path, cluster, stream, open_stream):
    async with open_stream() as there:
        await there.append(b"a log of its own")
        async with opening(tmp_path / "log", replica_url(cluster, stream)) as log:
            with pytest.raises(ReplicaLost, match="another log"):
                await log.append(b"x", mode=Quorum)
        await there.append(b"not fenced")


async def test_replica_can_be_read_where_it_is(tmp_path, url, open_stream):
    async with opening(tmp_path / "log", url) as log:
        await fill(log, random.Random(9), 20)
        await replicated(log)
        expected = await records(log)
        async with open_stream(read_only=True) as replica:
            assert await records(replica) == expected


async def test_truncate_after_ends_the_wait_for_what_it_drops(tmp_path):
    async with opening(tmp_path / "log", "nats://127.0.0.1:1/stream?timeout=1") as log:
        waiting = [log.append(b"%d" % number, mode=Quorum) for number in range(4)]
        await log.flush()
        await log.truncate_after(2)
        for each in waiting[2:]:
            with pytest.raises(Truncated):
                await each
        assert not waiting[0].done()
        assert not waiting[1].done()
        waiting[0].cancel()
    with pytest.raises(Closed, match="durable here"):
        await waiting[1]


async def test_restoring_says_what_is_missing(tmp_path, cluster, url, stream):
    with pytest.raises(PathError, match="no such stream"):
        await restore_replica(url, str(tmp_path / "back"))
    async with opening(tmp_path / "log", url) as log:
        await log.append(b"x", mode=Quorum)
    with pytest.raises(PathError, match="not an empty directory"):
        await restore_replica(url, str(tmp_path / "log"))
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


async def test_damage_in_the_log_is_not_shipped(tmp_path, url):
    async with opening(tmp_path / "log", None) as log:
        await fill(log, random.Random(10), 20)
    segment = sorted((tmp_path / "log").glob("*.wal"))[1]
    data = bytearray(segment.read_bytes())
    data[9000] ^= 1
    segment.write_bytes(data)
    async with opening(tmp_path / "log", url) as log:
        with pytest.raises(ReplicaLost, match="damage"):
            await log.append(b"x", mode=Quorum)
    await restore_replica(url, str(tmp_path / "back"))
    assert (await records_in(tmp_path / "back"))[0].lsn == 1


def test_only_a_log_open_for_writing_has_a_replica(tmp_path):
    with pytest.raises(BadOption, match="writing"):
        walsvc.open(tmp_path, replicate="nats://localhost/stream", read_only=True)
    with pytest.raises(BadOption, match="is no URL"):
        walsvc.open(tmp_path, replicate="localhost")


async def test_the_replica_becomes_the_log(tmp_path, url, open_stream):
    async with opening(tmp_path / "log", url) as log:
        await fill(log, random.Random(11), 20)
        await log.topic("t").append(b"topical")
        await replicated(log)
        expected = await records(log)
    async with open_stream() as moved:
        assert await records(moved) == expected
        assert moved.topics() == ["t"]
        assert (await moved.append(b"on")).lsn == expected[-1].lsn + 1
    async with opening(tmp_path / "log", url) as log:
        with pytest.raises(ReplicaLost):
            await log.append(b"too late", mode=Quorum)
