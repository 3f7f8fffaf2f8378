"""Purging: what is hidden, from whom, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from walsvc import BadOption, Closed, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.format.group import BadGroup
from walsvc.format.purge import MARK_BYTES_MAX, Marks, labels_of, mark_name, parse_mark
from walsvc.opening import open_on

from .conftest import lsns


async def write(log, count: int, topic: str | None = None, *, keys: int = 3, size: int = 20) -> None:
    """`count` records with keys k0, k1, ... in turn."""
    where = log if topic is None else log.topic(topic)
    for number in range(count):
        await where.append(b"%d" % number + bytes(size), attributes={"key": f"k{number % keys}", "n": number})


def keys_of(records) -> set[object]:
    return {record.attributes.get("key") for record in records}


async def test_purged_key_is_hidden_below_the_mark_and_visible_above(open_log):
    async with open_log() as log:
        await write(log, 9)
        await log.purge("k1")
        assert await lsns(log.read()) == [1, 3, 4, 6, 7, 9]
        result = await log.append(b"again", attributes={"key": "k1"})
        assert await lsns(log.read()) == [1, 3, 4, 6, 7, 9, result.lsn]
        await log.purge("k2", before=4)
        assert await lsns(log.read()) == [1, 4, 6, 7, 9, 10]
        assert await lsns(log.read(start=3, stop=8)) == [4, 6, 7]
    async with open_log() as log:
        assert await lsns(log.read()) == [1, 4, 6, 7, 9, 10]
    async with open_log(read_only=True) as log:
        assert await lsns(log.read()) == [1, 4, 6, 7, 9, 10]


async def test_mark_never_falls(open_sim):
    async with open_sim() as log:
        await write(log, 9)
        await log.purge("k0", before=8)
        await log.purge("k0", before=2)
        assert 1 not in await lsns(log.read())
        assert 7 not in await lsns(log.read())
        first, second = log.purge("k1", before=9), log.purge("k1", before=3)
        await asyncio.gather(first, second)  # both in one group
        assert await lsns(log.read()) == [3, 6, 9]
    async with open_sim() as log:
        assert await lsns(log.read()) == [3, 6, 9]


async def test_labels_must_all_match_and_bytes_and_numbers_are_keys_too(open_sim):
    async with open_sim() as log:
        rows = [{"tenant": 7, "shard": "a"}, {"tenant": 7, "shard": "b"}, {"tenant": 7}, {"key": b"\0\xff"}, {"key": 5}]
        rows += [{"key": True}, {"key": 1}, {"key": [1]}, {"key": 1.0}, {}]
        for row in rows:
            await log.append(b"x", attributes=row)
        await log.purge({"tenant": 7, "shard": "b"})
        assert await lsns(log.read()) == [1, 3, 4, 5, 6, 7, 8, 9, 10]
        await log.purge({"tenant": 7})
        await log.purge(b"\0\xff")
        await log.purge(5)
        await log.purge(1)
        assert await lsns(log.read()) == [6, 8, 10], "True is not 1, a list is no key, and 1.0 is 1"
    async with open_sim() as log:
        assert await lsns(log.read()) == [6, 8, 10]


async def test_purging_a_topic_leaves_the_others(open_sim):
    async with open_sim() as log:
        await write(log, 6, "a")
        await write(log, 6, "b")
        await write(log, 6)
        await log.topic("a").purge("k1")
        assert keys_of([record async for record in log.topic("a").read()]) == {"k0", "k2"}
        assert keys_of([record async for record in log.topic("b").read()]) == {"k0", "k1", "k2"}
        await log.purge("k2")
        assert keys_of([record async for record in log.topic("a").read()]) == {"k0"}
        assert keys_of([record async for record in log.topic("b").read()]) == {"k0", "k1"}
        assert len(await lsns(log.read())) == 18 - 2 - 6
        await log.topic("nobody").purge("k0")
        assert "nobody" not in log.topics()


async def test_purged_records_keep_their_lsns_and_count(open_sim):
    async with open_sim() as log:
        await write(log, 9, "t")
        consumer = await log.topic("t").consumer("c")
        await log.topic("t").purge("k0")
        assert await log.topic("t").count() == 9
        assert await consumer.lag() == 9
        assert await log.topic("t").first_lsn() == 2
        assert log.next_lsn == 10
        record = await consumer.next()
        await consumer.ack(record.lsn)
        assert record.lsn == 2
        assert await consumer.lag() == 7


async def test_consumer_passes_over_what_was_purged_after_it_was_read_ahead(open_log):
    async with open_log() as log:
        await asyncio.gather(*(log.topic("t").append(b"x", attributes={"key": f"k{n % 3}"}) for n in range(9)))
        consumer = await log.topic("t").consumer("c")
        first, second = await consumer.next(), await consumer.next()
        await log.topic("t").purge("k2")
        assert [(await consumer.next()).lsn for _ in range(4)] == [4, 5, 7, 8]
        await consumer.ack(first.lsn)
        await consumer.ack(second.lsn)  # what was delivered before can still be acknowledged
        whole = await log.consumer("whole")
        assert [record.lsn for record in await whole.read_batch()] == [1, 2, 4, 5, 7, 8]


async def test_waiting_consumer_is_not_woken_for_nothing_and_gets_what_comes_later(open_sim):
    async with open_sim() as log:
        await write(log, 3, "t", keys=1)
        await log.purge("k0")
        consumer = await log.topic("t").consumer("c")
        waiting = asyncio.ensure_future(consumer.next())
        follower = log.follow()
        following = asyncio.ensure_future(anext(follower))
        result = await log.topic("t").append(b"new", attributes={"key": "k0"})
        assert (await waiting).lsn == result.lsn == (await following).lsn
        await follower.aclose()


async def test_purged_records_hold_nothing_back(open_sim):
    async with open_sim() as log:
        consumer = await log.topic("t").consumer("c")
        await write(log, 100, "t", keys=1, size=2000)
        await log.topic("t").purge("k0")
        await log.topic("other").consumer("d")
        assert await log.reclaim() > 0
        last = await log.topic("t").append(b"kept")
        assert (await consumer.next()).lsn == last.lsn


async def test_purge_shares_the_group_commit(open_sim):
    async with open_sim() as log:
        await write(log, 3)
        before = log.stats().syncs
        await asyncio.gather(log.append(b"x"), *(log.purge(f"k{n}") for n in range(50)))
        assert log.stats().syncs - before <= 3


async def test_marks_live_in_snapshots_and_go_with_truncation(open_sim):
    async with open_sim() as log:
        await write(log, 30)
        await log.purge("k1", before=20)
        await log.purge("k2")
        await write(log, 100, size=2000)
        assert len(log.writer.segments.ids()) > 2
    async with open_sim() as log:
        hidden = {1, 2, 3, *range(1, 31)} - set(await lsns(log.read()))
        assert {2, 5, 17, 3, 30} <= hidden
        assert 20 not in hidden
        await log.truncate_before(20)
        assert list(log.writer.core.metadata.purges.values()) == [31]
        await log.truncate_before(31)
        assert log.writer.core.metadata.purges == {}
    async with open_sim() as log:
        assert log.writer.core.metadata.purges == {}
        assert log.writer.core.metadata.snapshot_bytes_max < 200, "the room that marks took is free again"


@pytest.mark.parametrize("crash", [False, True])
async def test_truncate_after_lowers_marks_so_that_reused_lsns_are_visible(crash):
    device = SimDevice(1)
    log = await open_on(SimDisk(device), WalConfig())
    await write(log, 12, keys=1)
    await log.purge("k0")
    await log.truncate_after(5)
    assert await lsns(log.read()) == []
    await write(log, 3, keys=1)
    assert await lsns(log.read()) == [6, 7, 8]
    if crash:
        device.kill()
    else:
        await log.close()
    log = await open_on(SimDisk(device), WalConfig())
    assert await lsns(log.read()) == [6, 7, 8]
    await log.close()


async def test_purge_says_what_is_wrong(open_sim):
    async with open_sim() as log:
        await write(log, 3)
        for before in (0, -1, 5, True, "1", 1.0):
            with pytest.raises(BadOption, match="out of range"):
                await log.purge("k0", before=before)
        for wrong in ({}, None, ["k"], {"key": None}, {"key": [1]}, {1: "k"}, float("nan"), {"a": float("inf")}):
            with pytest.raises(BadOption):
                await log.purge(wrong)
        with pytest.raises(BadOption, match="1024"):
            await log.purge("k" * MARK_BYTES_MAX)
        with pytest.raises(BadOption, match="Unicode"):
            await log.purge("\ud800")
        assert await lsns(log.read()) == [1, 2, 3]
        assert log.writer.core.metadata.purges == {}


async def test_number_of_marks_is_bounded(open_sim, monkeypatch):
    monkeypatch.setattr("walsvc.log.extent.purging.MARKS_MAX", 3)
    async with open_sim() as log:
        await write(log, 3)
        for number in range(3):
            await log.purge(number)
        with pytest.raises(BadOption, match="3 purge marks"):
            await log.purge("k0")
        await log.purge(1)  # one that is there already


async def test_room_for_marks_in_a_snapshot_is_never_underestimated(open_sim):
    async with open_sim() as log:
        await write(log, 3, "t")
        await log.topic("t").consumer("c")
        for number in range(40):
            await log.topic("t").purge({"label": "ä" * number, "n": number})
            metadata = log.writer.core.metadata.copy()
            metadata.topics.fold()
            assert len(metadata.snapshot()) <= log.writer.core.metadata.snapshot_bytes_max
        await log.topic("t").purge({"label": "", "n": 0}, before=1)
        assert len(metadata.purges) == 40


async def test_read_only_log_refuses_to_purge_and_to_compact(open_sim):
    async with open_sim() as log:
        await write(log, 3)
    async with open_sim(read_only=True) as log:
        for refused in (log.purge("k0"), log.compact()):
            with pytest.raises(Closed, match="read_only"):
                await refused
        assert await lsns(log.read()) == [1, 2, 3]


@pytest.mark.parametrize("labels", [{"key": "käse/1"}, {"b": b"\0\xff", "a": 1, "c": 1.5, "d": True}, {"": ""}])
def test_mark_names_are_read_as_they_were_written(labels):
    topic, (names, values) = parse_mark(mark_name(3, labels))
    assert topic == 3
    assert dict(zip(names, [value for _, value in values], strict=True)) == labels
    assert mark_name(3, dict(reversed(labels.items()))) == mark_name(3, labels)
    assert Marks({mark_name(3, labels): 9}).hides(8, 3, {**labels, "more": 1})
    assert not Marks({mark_name(3, labels): 9}).hides(9, 3, labels)
    assert not Marks({mark_name(3, labels): 9}).hides(8, 2, labels)


@pytest.mark.parametrize("name", ["", "x/{}", "1", "1/", "1/[]", '1/{"a":{"b":1}}', "1/7"])
def test_mark_that_nobody_writes_is_refused(name):
    with pytest.raises(BadGroup):
        parse_mark(name)


def test_key_stands_for_the_label_key():
    assert labels_of("a") == {"key": "a"}
    assert labels_of({"tenant": 1}) == {"tenant": 1}
