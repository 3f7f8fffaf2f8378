"""Truncating a topic by itself, and purging single records: what is hidden, from whom, and what counts."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.crash.sampling import of_campaign
from walsvc import BadOption, Closed, Conflict, Truncated, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.format.group import BadGroup
from walsvc.format.hidden import RANGES_MAX, ROW, Hidden, Range, forgetting_row, row_of
from walsvc.format.purge import LSNS_MAX
from walsvc.log.read.filtered import FilteredStream
from walsvc.opening import open_on

from .conftest import lsns

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=8192)


async def write(log, count: int, *topics: str | None, size: int = 20) -> None:
    """`count` records, of the topics in turn."""
    places = [log if topic is None else log.topic(topic) for topic in topics]
    for first in range(0, count, 7):
        rows = range(first, min(first + 7, count))
        await asyncio.gather(*(places[row % len(places)].append(b"%d" % row + bytes(size)) for row in rows))


async def test_truncated_topic_hides_its_records_and_no_others(open_log):
    async with open_log() as log:
        await write(log, 12, "a", "b", None)
        await log.topic("a").truncate_before(8)
        assert await lsns(log.topic("a").read()) == [10]
        assert await lsns(log.read()) == [2, 3, 5, 6, 8, 9, 10, 11, 12]
        assert await lsns(log.read(reverse=True)) == [12, 11, 10, 9, 8, 6, 5, 3, 2]
        assert await lsns(log.topic("a").read(start=1, reverse=True)) == [10]
        assert await lsns(log.read_lazy(topic="a")) == [10]
        assert await log.get(4) is None
        assert (await log.get(5)).lsn == 5
        assert await log.topic("a").first_lsn() == 10
        assert (await log.topic("a").last()).lsn == await log.topic("a").last_lsn() == 10
        assert (await log.topic("a").count(), await log.topic("b").count()) == (1, 4)
        assert log.first_lsn == 1
        await log.topic("a").truncate_before(3)  # nothing comes back
        await log.topic("nobody").truncate_before(3)
        assert "nobody" not in log.topics()
    for read_only in (True, False):
        async with open_log(read_only=read_only) as log:
            assert await lsns(log.topic("a").read()) == [10]
            assert (await log.topic("a").count(), await log.topic("a").first_lsn()) == (1, 10)
            assert await lsns(log.read()) == [2, 3, 5, 6, 8, 9, 10, 11, 12]


async def test_topic_that_is_truncated_whole_ends_with_nothing_and_goes_on(open_sim):
    async with open_sim() as log:
        await write(log, 10, "a", "b")
        topic = log.topic("a")
        await topic.truncate_before(log.next_lsn)
        assert (await topic.count(), await topic.first_lsn(), await topic.last_lsn(), await topic.last()) == (
            0,
            None,
            None,
            None,
        )
        with pytest.raises(Conflict) as told:
            await topic.append(b"x", expected=9)
        assert told.value.actual == 0
        assert (await topic.append(b"x", expected=0)).lsn == 11
        assert await lsns(topic.read()) == [11]
        assert await topic.count() == 1
    async with open_sim() as log:
        assert (await log.topic("a").append(b"y", expected=11)).lsn == 12
        assert await log.topic("a").count() == 2


async def test_errors_are_those_of_the_log(open_sim):
    async with open_sim() as log:
        await write(log, 10, "a")
        topic = log.topic("a")
        for wrong in (0, -1, 12, True, "1", 1.0, None):
            with pytest.raises(BadOption, match="out of range"):
                await topic.truncate_before(wrong)
        await log.hold("archive", 4)
        with pytest.raises(BadOption, match="'archive' holds from LSN 4 on"):
            await topic.truncate_before(5)
        assert await topic.count() == 10
        await topic.truncate_before(4)
        await topic.truncate_before(6, force=True)
        assert await lsns(topic.read()) == [6, 7, 8, 9, 10]
        assert log.holds() == {"archive": 4}
    async with open_sim(read_only=True) as log:
        with pytest.raises(Closed, match="read_only"):
            await log.topic("a").truncate_before(7)
        with pytest.raises(Closed, match="read_only"):
            await log.topic("a").purge(lsns=[7])
    with pytest.raises(Closed):
        await topic.truncate_before(7)
    with pytest.raises(Closed):
        await topic.purge(lsns=[7])


async def test_consumers_stand_as_after_a_truncation_of_the_log(open_log):
    async with open_log() as log:
        await write(log, 12, "a", "b")
        topic = log.topic("a")
        done, behind = await topic.consumer("done"), await topic.consumer("behind")
        for _ in range(3):
            record = await done.next()
        await done.ack(record.lsn)
        first = await behind.next()
        other, whole = await log.topic("b").consumer("other"), await log.consumer("whole")
        await topic.truncate_before(7)  # of LSN 1, 3, 5, 7, 9, 11
        assert await done.lag() == 3
        assert (await done.next()).lsn == 7
        with pytest.raises(Truncated, match="overtaken"):
            await behind.next()
        with pytest.raises(Truncated):
            await behind.lag()
        seen = {(each.name, each.topic): (each.position, each.lag) for each in await log.consumers()}
        seen |= {(each.name, each.topic): (each.position, each.lag) for each in await topic.consumers()}
        assert seen["done", "a"] == (7, 3)
        assert seen["behind", "a"] == (1, None)
        await behind.seek("first")
        assert await behind.lag() == 3
        assert (await behind.next()).lsn == 7
        assert first.lsn == 1
        assert await other.lag() == 6
        assert [record.lsn for record in await whole.read_batch()] == [2, 4, 6, 7, 8, 9, 10, 11, 12]
        new = await topic.consumer("new", start=2)
        assert (await new.next()).lsn == 7


async def test_position_that_was_overtaken_stays_so_over_a_restart_and_a_truncation_of_the_log(open_sim):
    async with open_sim() as log:
        await write(log, 20, "a")
        await (await log.topic("a").consumer("c")).close()
        await log.topic("a").truncate_before(7)
    async with open_sim() as log:
        consumer = await log.topic("a").consumer("c")
        with pytest.raises(Truncated, match="from LSN 1 on"):
            await consumer.next()
        await log.truncate_before(7)
        with pytest.raises(Truncated):
            await consumer.next()
        await log.truncate_before(12)
        assert log.writer.core.metadata.floors == {}
        assert not log.writer.core.metadata.hidden
        with pytest.raises(Truncated):
            await consumer.next()


async def test_shared_consumers_stand_as_after_a_truncation_of_the_log(open_sim):
    async with open_sim() as log:
        await write(log, 12, "a", "b")
        topic = log.topic("a")
        workers = await topic.consumer("workers", shared=True)
        out = [await workers.next() for _ in range(5)]
        for place in (0, 1, 2, 4):
            await out[place].ack()
        await topic.truncate_before(6)
        status = await workers.status()
        assert (status.position, status.lag) == (6, 2)
        await out[3].ack()
        assert (await workers.next()).record.lsn == 11
        late = await topic.consumer("late", shared=True)
        assert (await late.next()).record.lsn == 7
        await topic.truncate_before(10)
        with pytest.raises(Truncated):
            await late.next()
        await late.seek("first")
        assert (await late.next()).record.lsn == 11


async def test_single_records_are_hidden_and_nothing_else(open_log):
    async with open_log() as log:
        await write(log, 12, "a", "b", None)
        assert await log.purge(lsns=[3, 4, 4, 8]) == 3
        assert await log.purge(lsns=[8, 9]) == 1
        assert await lsns(log.read()) == [1, 2, 5, 6, 7, 10, 11, 12]
        assert [await log.get(lsn) for lsn in (3, 4, 8, 9)] == [None] * 4
        assert (await log.topic("a").count(), await log.topic("b").count()) == (3, 3)
        assert await log.topic("a").purge(lsns=range(1, 13)) == 3, "the others are not of it"
        assert await lsns(log.read()) == [2, 5, 6, 11, 12]
        assert await log.topic("a").count() == 0
        assert await log.topic("a").last() is None
        assert await log.topic("a").last_lsn() == 10, "what a purge hides counts"
        assert await log.topic("nobody").purge(lsns=[1]) == 0
        assert await log.purge(lsns=[]) == 0
        assert (await log.topic("a").append(b"new", expected=10)).lsn == 13
        assert await log.topic("a").count() == 1
    async with open_log(read_only=True) as log:
        assert await lsns(log.read()) == [2, 5, 6, 11, 12, 13]
        assert await log.topic("a").count() == 1


async def test_purged_records_reach_no_consumer_and_no_lag(open_log):
    async with open_log() as log:
        await write(log, 12, "a", "b")
        topic = log.topic("a")
        consumer = await topic.consumer("c")
        assert (await consumer.next()).lsn == 1
        await topic.purge(lsns=[3, 7])
        assert await consumer.lag() == 4
        assert [(await consumer.next()).lsn for _ in range(2)] == [5, 9]
        assert await topic.purge(before=10) == 3
        assert await consumer.lag() == 1, "those below were not missed"
        assert (await consumer.next()).lsn == 11


async def test_keeping_the_newest_records(open_log):
    async with open_log() as log:
        await write(log, 20, "a", "b")
        topic = log.topic("a")
        await topic.purge(lsns=[13, 19])
        assert await topic.purge(keep=8) == 0
        assert await topic.purge(keep=3) == 5
        assert await lsns(topic.read()) == [11, 15, 17]
        assert await topic.count() == 3
        assert await topic.purge(keep=3) == 0
        await topic.append(b"x")
        assert await topic.purge(keep=3) == 1
        assert await lsns(topic.read()) == [15, 17, 21]
        assert await topic.purge(keep=0) == 3
        assert await lsns(log.read()) == list(range(2, 21, 2))
        await topic.append(b"x")
        assert await topic.count() == 1


async def test_purge_says_what_is_wrong_and_changes_nothing(open_log):
    async with open_log() as log:
        await write(log, 10, "a")
        topic = log.topic("a")
        for wrong in ({}, {"lsns": [1], "before": 3}, {"lsns": [1], "keep": 3}, {"keep": 1, "before": 1}):
            with pytest.raises(BadOption):
                await topic.purge(**wrong)
        for place in (log, topic):
            for wrong in ([0], [11], [-1], ["1"], [True], 3, "12", [1.0], [None]):
                with pytest.raises(BadOption):
                    await place.purge(lsns=wrong)
            with pytest.raises(BadOption):
                await place.purge("k", lsns=[1])
            with pytest.raises(BadOption, match=f"{LSNS_MAX + 1} records"):
                await place.purge(lsns=range(1, LSNS_MAX + 2))
        for wrong in (-1, True, "1", 1.5):
            with pytest.raises(BadOption):
                await topic.purge(keep=wrong)
        for wrong in (0, 12, True, "1"):
            with pytest.raises(BadOption):
                await topic.purge(before=wrong)
        for wrong in ({}, {"before": 3}):
            with pytest.raises(BadOption, match="to know what to hide"):
                await log.purge(**wrong)
        assert await topic.count() == 10


async def test_records_that_are_purged_in_order_are_one_range(open_sim):
    async with open_sim() as log:
        await write(log, 60, "a", "b", None)
        for lsn in range(1, 60, 3):
            assert await log.topic("a").purge(lsns=[lsn]) == 1
        order = list(range(2, 61, 3))
        random.Random(5).shuffle(order)
        for lsn in order:
            assert await log.purge(lsns=[lsn]) == 1
        hidden = log.writer.core.metadata.hidden
        assert hidden.count == 2
        assert hidden.topics == {1: [Range(1, 60, 0, 20)], 2: [Range(2, 60, 0, 20)]}
        assert await lsns(log.read()) == list(range(3, 61, 3))


async def test_what_hides_lives_in_snapshots_and_goes_with_truncation(open_sim):
    async with open_sim() as log:
        await write(log, 30, "a", "b")
        await log.topic("a").truncate_before(10)
        await log.purge(lsns=[20, 24])
        await write(log, 100, "b", size=2000)
        assert len(log.writer.segments.ids()) > 2
    async with open_sim() as log:
        assert set(await lsns(log.read(stop=31))) == set(range(1, 31)) - {1, 3, 5, 7, 9, 20, 24}
        await log.truncate_before(22)
        assert log.writer.core.metadata.hidden.topics == {2: [Range(24, 25, 11, 12)]}
        assert await log.topic("b").count() == 100 + 4
        await log.truncate_before(31)
        assert not log.writer.core.metadata.hidden
        assert await log.topic("b").count() == 100
    async with open_sim() as log:
        assert not log.writer.core.metadata.hidden
        assert log.writer.core.metadata.snapshot_bytes_max < 300


@pytest.mark.parametrize("crash", [False, True])
async def test_truncate_after_shows_what_is_written_in_the_place_of_what_was_hidden(crash):
    device = SimDevice(1)
    log = await open_on(SimDisk(device), SMALL)
    await write(log, 20, "a", "b")
    await log.topic("a").truncate_before(15)
    await log.purge(lsns=[4, 10, 12])
    await log.topic("b").purge(lsns=[18, 20])
    await log.truncate_after(9)
    assert await log.topic("a").count() == 0
    assert await log.topic("b").count() == 3
    await write(log, 6, "a", "b")
    assert await lsns(log.read()) == [2, 6, 8, *range(10, 16)]
    if crash:
        device.kill()
    else:
        await log.close()
    log = await open_on(SimDisk(device), SMALL)
    assert await lsns(log.read()) == [2, 6, 8, *range(10, 16)]
    assert (await log.topic("a").count(), await log.topic("b").count()) == (3, 6)
    assert await lsns(log.topic("a").read()) == [10, 12, 14]
    await log.close()


async def test_cut_inside_of_what_a_purge_hides_leaves_the_right_count(open_sim):
    async with open_sim() as log:
        await write(log, 20, "a", "b")
        await log.topic("a").purge(before=15)
        await log.truncate_after(9)
        assert await log.topic("a").count() == 0
        await write(log, 4, "a", "b")
        assert await log.topic("a").count() == 2
        assert await lsns(log.topic("a").read()) == [10, 12]


async def test_compaction_gives_the_room_back_and_counts_stay(open_sim):
    async with open_sim() as log:
        await write(log, 300, "a", "b", None, size=1000)
        await log.topic("a").truncate_before(280)
        await log.purge(lsns=[2, 3, 6, 9, 12, 200, 201])
        before = [await lsns(log.read()), await log.topic("a").count(), await log.topic("b").count()]
        freed = await log.compact()
        assert freed > 80_000
        await log.compact()  # the segment that has ended meanwhile
        assert await log.compact() == 0
        assert [await lsns(log.read()), await log.topic("a").count(), await log.topic("b").count()] == before
        assert await lsns(log.topic("a").read()) == [280, *range(283, 300, 3)]
        assert 0 not in log.writer.core.metadata.hidden.topics, "a topic's ranges stay, since they count"
        with pytest.raises(Conflict):
            await log.topic("a").append(b"x", expected=0)
    async with open_sim() as log:
        assert [await lsns(log.read()), await log.topic("a").count(), await log.topic("b").count()] == before
        await log.topic("a").truncate_before(log.next_lsn)
        await log.compact()
        assert (await log.topic("a").append(b"x", expected=0)).lsn == 301


async def test_hiding_shares_the_group_commit(open_sim):
    async with open_sim() as log:
        await write(log, 70, "a", "b")
        before = log.stats().syncs
        await asyncio.gather(*(log.purge(lsns=[lsn]) for lsn in range(1, 60)), log.topic("a").truncate_before(65))
        assert log.stats().syncs - before < 20
        assert await lsns(log.read()) == [60, 62, 64, *range(65, 71)]


async def test_there_are_no_more_ranges_than_fit(open_sim, monkeypatch):
    monkeypatch.setattr("walsvc.log.extent.singles.RANGES_MAX", 3)
    async with open_sim() as log:
        await write(log, 20, None)
        await log.purge(lsns=[2, 4, 6])
        with pytest.raises(BadOption, match="3 ranges of purged records") as told:
            await log.purge(lsns=[8])
        assert "truncate_before" in str(told.value)
        assert await log.get(8) is not None
        assert await log.purge(lsns=[3, 7]) == 2, "they join others"
        await log.truncate_before(8)
        assert await log.purge(lsns=[8, 10, 12]) == 3
    assert RANGES_MAX == 65_536


@pytest.mark.parametrize("seed", of_campaign(range(4), 2))
async def test_random_hiding_agrees_with_a_model(seed):
    chance = random.Random(seed)
    names = ["a", "b", None]
    device = SimDevice(seed)
    log = await open_on(SimDisk(device), SMALL)
    alive: dict[int, str | None] = {}  # what is visible
    for step in range(60):
        await write(log, chance.randrange(1, 12), *chance.sample(names, 2), size=chance.choice([10, 3000]))
        async for record in log.read(start=max(alive, default=0) + 1 if alive else None):
            alive.setdefault(record.lsn, record.topic)
        topic, place = chance.choice(["a", "b"]), chance.randrange(log.first_lsn, log.next_lsn + 1)
        mine = [lsn for lsn, name in alive.items() if name == topic]
        some = chance.sample(range(log.first_lsn, log.next_lsn), min(5, log.next_lsn - log.first_lsn))
        gone: list[int] = []
        match chance.randrange(8):
            case 0:
                await log.topic(topic).truncate_before(place)
                gone = [lsn for lsn in mine if lsn < place]
            case 1:
                gone = [lsn for lsn in mine if lsn < place]
                assert await log.topic(topic).purge(before=place) == len(gone)
            case 2:
                keep = chance.randrange(10)
                gone = mine[: max(len(mine) - keep, 0)]
                assert await log.topic(topic).purge(keep=keep) == len(gone)
            case 3:
                gone = [lsn for lsn in some if lsn in mine]
                assert await log.topic(topic).purge(lsns=some) == len(gone)
            case 4:
                gone = [lsn for lsn in some if lsn in alive]
                assert await log.purge(lsns=some) == len(gone)
            case 5:
                await log.compact()
            case 6 if step % 3 == 0:
                cut = max(place - 1, log.next_lsn - 6, log.first_lsn - 1)
                await log.truncate_after(min(cut, log.next_lsn - 1))
                gone = [lsn for lsn in alive if lsn >= log.next_lsn]
            case 7 if step % 3 == 0:
                await log.truncate_before(place)
                gone = [lsn for lsn in alive if lsn < place]
            case _:
                await log.close()
                log = await open_on(SimDisk(device), SMALL)
        alive = {lsn: name for lsn, name in alive.items() if lsn not in gone}
        assert await lsns(log.read()) == list(alive), (seed, step)
        for name in ("a", "b"):
            if name in log.topics():
                expected = [lsn for lsn in alive if alive[lsn] == name]
                assert await lsns(log.topic(name).read()) == expected, (seed, step)
                assert await log.topic(name).count() == len(expected), (seed, step)
                assert await log.topic(name).first_lsn() == next(iter(expected), None)
    await log.close()


def test_rows_that_are_cut_are_refused_and_ranges_that_meet_are_one():
    hidden = Hidden()
    with pytest.raises(BadGroup, match="cut"):
        hidden.apply(bytes(ROW.size - 1))
    for each in (Range(1, 4, 0, 2), Range(7, 9, 3, 5), Range(5, 5, 2, 3), Range(20, 30, 9, 10)):
        hidden.apply(row_of(3, each))
    assert hidden.topics == {3: [Range(1, 5, 0, 3), Range(7, 9, 3, 5), Range(20, 30, 9, 10)]}
    assert (hidden.count, hidden.highest, hidden.records_from(3, 6)) == (3, 30, 3)
    hidden.apply(row_of(3, Range(6, 40, 3, 12)))
    assert hidden.topics == {3: [Range(1, 40, 0, 12)]}
    assert list(hidden.rows(38, 5, [3, 0, 3, 3, 3])) == [0, 2]
    assert list(hidden.rows(38, 5, None)) == []
    hidden.apply(row_of(0, Range(50, 51, 0, 0)) + forgetting_row(3, 40))
    assert hidden.topics == {0: [Range(50, 51, 0, 0)]}
    again = Hidden()
    again.apply(hidden.encode())
    assert again.topics == hidden.topics
    hidden.pass_by(51)
    assert hidden.count == 1
    hidden.pass_by(52)
    assert not hidden


async def test_trimming_by_lsn_reads_what_is_left_of_the_topic_and_not_the_segment(open_sim, monkeypatch):
    steps, step = 0, FilteredStream.step

    async def counted(stream, *args, **options):
        nonlocal steps
        steps += 1
        return await step(stream, *args, **options)

    async with open_sim() as log:
        topic = log.topic("a")
        for number in range(120):
            await (topic if number % 2 else log).append(b"a group of its own")
        assert await topic.purge(before=100) == 49  # by the segment's snapshot: the topic begins before it
        monkeypatch.setattr(FilteredStream, "step", counted)
        for before, gone in ((104, 2), (105, 1), (105, 0), (115, 5)):
            steps = 0
            assert await topic.purge(before=before) == gone
            assert steps <= 40, "of 130 groups"
        assert await lsns(topic.read()) == [116, 118, 120]
        assert await topic.count() == 3
        assert await topic.purge(lsns=[118]) == 1
        assert await topic.purge(before=119) == 1
        assert await lsns(topic.read()) == [120]
        assert await topic.count() == 1
    async with open_sim() as log:
        assert await log.topic("a").count() == 1
