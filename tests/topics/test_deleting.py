"""Topics that are deleted, or go by themselves: what is hidden, from whom, and what begins anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.openers import behind
from walsvc import AtLeastOnce, BadOption, Closed, Conflict, InUse, Relaxed, Truncated, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.format.segment import segment_name
from walsvc.log.extent.leaving import is_over
from walsvc.log.offline.repair import apply_repair, plan_repair
from walsvc.opening import open_on

from .conftest import lsns


async def write(log: Any, *names: str | None) -> None:
    """One record for each name, which is its payload; None: of no topic."""
    for name in names:
        await (log if name is None else log.topic(name)).append(str(name).encode())


async def taken(records: Any, count: int) -> list[int]:
    """LSNs of the next records of a follower or consumer."""
    return [(await asyncio.wait_for(anext(records), 60)).lsn for _ in range(count)]


async def test_deleted_topic_is_hidden_from_all_reading_and_its_name_begins_anew(open_log):
    async with open_log() as log:
        await write(log, "a", "b", None, "a", "b", "a")
        await log.delete_topic("a")
        await seen(log, [2, 3, 5], ["b"])
        assert (await log.topic("a").append(b"new", expected=0)).lsn == 7
        await seen(log, [2, 3, 5, 7], ["b", "a"], of_a=[7])
    async with open_log() as log:
        await seen(log, [2, 3, 5, 7], ["b", "a"], of_a=[7])
        await log.delete_topic("a")
        await log.delete_topic("b")
        await seen(log, [3], [])
    async with open_log(read_only=True) as log:
        await seen(log, [3], [])
    async with open_log() as log:
        await write(log, "b", "a")
        await seen(log, [3, 8, 9], ["b", "a"], of_a=[9])


async def seen(log: Any, visible: list[int], topics: list[str], of_a: list[int] | None = None) -> None:
    """Check every way of reading; `of_a`: LSNs of topic "a"."""
    of_a, a = of_a or [], log.topic("a")
    await log.refresh()
    assert log.topics() == topics
    assert [await log.has_topic(name) for name in ("a", "b")] == [name in topics for name in ("a", "b")]
    assert await lsns(log.read()) == visible
    assert await lsns(log.read(reverse=True)) == visible[::-1]
    assert [each.lsn for batch in [batch async for batch in log.read_batches()] for each in batch] == visible
    assert [(each.lsn, each.topic) async for each in log.read_lazy()] == [
        (each.lsn, each.topic) async for each in log.read()
    ]
    got = [await log.get(lsn) for lsn in range(1, log.next_lsn)]
    assert [each.lsn for each in got if each is not None] == visible
    assert await lsns(a.read()) == of_a
    assert await lsns(a.read(reverse=True)) == of_a[::-1]
    assert (await a.count(), await a.first_lsn(), await a.last_lsn()) == (
        len(of_a),
        min(of_a, default=None),
        max(of_a, default=None),
    )
    assert (last.lsn if (last := await a.last()) else None) == max(of_a, default=None)
    follower = log.follow()
    assert await taken(follower, len(visible)) == visible
    await follower.aclose()


async def test_deleting_frees_consumers_keys_and_marks_and_refuses_while_one_is_open(open_log):
    async with open_log() as log:
        await write(log, "a", "a", "b")
        a = log.topic("a")
        assert not (await a.append(b"once", dedupe="key")).duplicate
        await a.purge("nobody")
        consumer = await a.consumer("c")
        await consumer.ack((await consumer.next()).lsn)
        workers = await a.consumer("w", shared=True, lease=30.0, max_deliveries=7)
        await (await workers.next()).ack()
        for each, name in ((consumer, "c"), (workers, "w")):
            with pytest.raises(InUse, match="is open"):
                await log.delete_topic("a")
            assert await lsns(a.read()) == [1, 2, 4], "it is as it was"
            await each.close()
            assert name in [each.name for each in await a.consumers()]
        await log.delete_topic("a")
        assert await a.consumers() == []
        assert [each.name for each in await log.consumers()] == []
        again = await a.append(b"once more", dedupe="key")
        assert (again.lsn, again.duplicate) == (5, False), "another topic's keys"
        async with await a.consumer("c") as consumer:
            assert (await consumer.next()).lsn == 5
        async with await a.consumer("w", shared=True) as workers:
            delivery = await workers.next()
            assert (delivery.record.lsn, delivery.attempt) == (5, 1)
            await delivery.ack()


async def test_topic_that_is_not_there_and_names_that_cannot_be(open_log):
    async with open_log() as log:
        await write(log, "a")
        with pytest.raises(BadOption, match="no topic 'b'") as caught:
            await log.delete_topic("b")
        assert "topics" in caught.value.hint
        for name in ("", "x" * 256, 7):
            with pytest.raises(BadOption):
                await log.delete_topic(name)
        await log.delete_topic("a")
        with pytest.raises(BadOption, match="no topic 'a'"):
            await log.delete_topic("a")
    async with open_log(read_only=True) as log:
        with pytest.raises(Closed):
            await log.delete_topic("a")


async def test_conditions_begin_anew(open_log):
    async with open_log() as log:
        await write(log, "a", "a")
        await log.delete_topic("a")
        with pytest.raises(Conflict) as caught:
            await log.topic("a").append(b"x", expected=2)
        assert caught.value.actual == 0
        async with log.transaction() as both:
            both.append(b"x", topic="a", expected=0)
            both.append(b"y", topic="b", expected=0)
        assert [each.lsn for each in both.results] == [3, 4]
        with pytest.raises(Conflict):
            await log.topic("a").append(b"x", expected=0)


async def test_follower_of_the_name_goes_on_with_what_is_made_under_it(open_log):
    async with open_log() as log:
        await write(log, "a", "b", "a")
        of_a, of_all = log.topic("a").follow(), log.follow()
        assert (await taken(of_a, 1), await taken(of_all, 1)) == ([1], [1])
        await log.delete_topic("a")
        waiting = asyncio.ensure_future(anext(of_a))
        await write(log, "b", "a")
        assert (await asyncio.wait_for(waiting, 60)).lsn == 5, "record 3 is hidden"
        assert await taken(of_all, 3) == [2, 4, 5]
        await log.delete_topic("a")
        await write(log, "a")
        assert await taken(of_a, 1) == [6]
        for each in (of_a, of_all):
            await each.aclose()


async def test_readers_that_have_read_ahead_show_nothing_of_it(open_log):
    async with open_log() as log:
        payloads = [log.topic("ab"[number % 2]).append(b"%d" % number) for number in range(40)]
        await asyncio.gather(*payloads)  # in one group, or a few
        readers = {
            "read": log.read(),
            "of a": log.topic("a").read(),
            "lazy": log.read_lazy(),
            "follow": log.follow(),
            "reverse": log.read(reverse=True),
        }
        begun = {name: (await anext(reader)).lsn for name, reader in readers.items()}
        assert begun == {"read": 1, "of a": 1, "lazy": 1, "follow": 1, "reverse": 40}
        await log.delete_topic("a")
        assert await lsns(readers["read"]) == list(range(2, 41, 2))
        assert await lsns(readers["of a"]) == []
        assert await lsns(readers["lazy"]) == list(range(2, 41, 2))
        assert await taken(readers["follow"], 20) == list(range(2, 41, 2))
        assert await lsns(readers["reverse"]) == list(range(38, 0, -2))
        for reader in readers.values():
            await reader.aclose()


async def test_consumers_of_the_whole_log_get_nothing_of_it(open_log):
    async with open_log() as log:
        await asyncio.gather(*(log.topic("ab"[number % 2]).append(b"%d" % number) for number in range(20)))
        consumer = await log.consumer("c", delivery=AtLeastOnce(persist_every=100))
        workers = await log.consumer("w", shared=True, max_outstanding=4)
        assert [(await consumer.next()).lsn for _ in range(3)] == [1, 2, 3]
        out = [await workers.next() for _ in range(4)]
        await log.delete_topic("a")
        await consumer.ack(3)
        assert [record.lsn for record in await consumer.read_batch(max_records=4)] == [4, 6, 8, 10]
        await out[0].ack()
        await out[2].nak()
        assert [(await workers.next()).record.lsn for _ in range(2)] == [6, 8], "record 3 does not come back"
        for each in out[1::2]:
            await each.ack()
        for each in (consumer, workers):
            await each.close()


async def test_appends_on_their_way_are_of_the_topic_that_has_the_name_when_they_are_accepted(open_sim):
    async with open_sim() as log:
        a = log.topic("a")
        await a.append(b"first")
        before = a.append(b"before")
        deleting = asyncio.ensure_future(log.delete_topic("a"))
        await asyncio.sleep(0)
        after = [a.append(b"after"), a.append(b"and after")]  # all in one group
        assert [each.lsn for each in await asyncio.gather(before, *after)] == [2, 3, 4]
        await deleting
        assert (await lsns(a.read()), await a.count()) == ([3, 4], 2)
    async with open_sim() as log:
        assert (await lsns(log.read()), await log.topic("a").count()) == ([3, 4], 2)


async def test_streamed_batch_and_deletion_come_one_after_the_other(open_sim):
    async with open_sim(max_group_bytes=16384) as log:
        a, reached, go_on = log.topic("a"), asyncio.Event(), asyncio.Event()
        await write(log, "a", "b")

        async def source():
            for number in range(40):
                yield bytes(1000)
                if number == 20:
                    reached.set()
                    await go_on.wait()

        batch = asyncio.ensure_future(a.append_batch(source()))
        await reached.wait()
        deleting = asyncio.ensure_future(log.delete_topic("a"))
        await asyncio.sleep(0)
        assert not deleting.done()
        go_on.set()
        results = await batch
        await deleting
        assert (len(results), await a.count(), await lsns(log.read())) == (40, 0, [2])
        again = await a.append_batch([bytes(1000) for _ in range(40)])
        assert await lsns(a.read()) == [each.lsn for each in again]


async def test_truncate_after_does_not_bring_a_topic_back(open_log):
    async with open_log() as log:
        await write(log, "a", "b", "a", "b")
        await log.delete_topic("a")
        await write(log, "a", "b")  # 5, 6
        await log.truncate_after(3)
        assert await lsns(log.read()) == [2]
        assert await lsns(log.topic("a").read()) == []
        assert (await log.topic("a").count(), await log.topic("b").count()) == (0, 1)
        await write(log, "a", "b")  # 4, 5
        assert await lsns(log.topic("a").read()) == [4]
        await log.truncate_after(1)
    async with open_log() as log:
        assert await lsns(log.read()) == []
        await write(log, "a", "b")
        assert (await lsns(log.topic("a").read()), await lsns(log.topic("b").read())) == ([2], [3])
        assert [await log.topic(name).count() for name in "ab"] == [1, 1]


async def test_record_that_was_listed_before_cannot_be_fetched_any_more(open_sim):
    async with open_sim() as log:
        await log.topic("a").append(bytes(200_000))
        await log.topic("b").append(bytes(200_000))
        listed = [record async for record in log.read_lazy()]
        await log.delete_topic("a")
        with pytest.raises(Truncated, match="deleted"):
            await listed[0].payload()
        assert len(await listed[1].payload()) == 200_000


async def test_compaction_gives_the_room_back(open_log):
    async with open_log() as log:
        for number in range(60):
            await log.topic("ab"[number % 3 == 0]).append(b"%d " % number * 800, attributes={"n": number})
            await log.append(b"%d" % number)
        await log.delete_topic("a")
        before = [(record.lsn, record.payload, record.topic) async for record in log.read()]
        try:
            freed = await log.compact()
        except BadOption:  # in JetStream: it stays hidden
            freed = 0
        else:
            assert freed > 60_000
            epoch = behind(log).writer.segments.epoch
            assert await log.compact() == 0
            assert behind(log).writer.segments.epoch == epoch, "nothing was left to drop, so nothing was written anew"
        await write(log, "a")
        assert [(record.lsn, record.payload, record.topic) async for record in log.read()][:-1] == before
    async with open_log() as log:
        assert [(record.lsn, record.payload, record.topic) async for record in log.read()][:-1] == before
        assert await lsns(log.topic("a").read()) == [121]
        assert (await log.topic("a").count(), await log.topic("b").count()) == (1, 20)


async def test_dead_letters_go_on_when_their_topic_is_deleted(open_sim):
    async with open_sim() as log:
        jobs, dead = log.topic("jobs"), log.topic("jobs.dead")
        for number in range(2):
            await jobs.append(b"%d" % number)
        async with await jobs.consumer("w", shared=True, max_deliveries=1) as workers:
            await (await workers.next()).nak()
            assert await lsns(dead.read()) == [3]
            await log.delete_topic("jobs.dead")
            assert await log.topic("jobs").redrive("w") == 0
            await (await workers.next()).nak()
            assert [record.attributes["dead.lsn"] async for record in dead.read()] == [2]
            assert await jobs.redrive("w") == 1


async def test_consumer_that_is_being_opened_keeps_its_topic_or_makes_it_anew(open_sim):
    async with open_sim() as log:
        await write(log, "a", "b")
        first, refused, second = await asyncio.gather(
            log.topic("a").consumer("c"), log.delete_topic("a"), log.topic("b").consumer("d"), return_exceptions=True
        )
        assert isinstance(refused, InUse)
        assert (await first.next()).lsn == 1
        deleting, opening = log.delete_topic("b"), log.topic("b").consumer("e")
        await second.close()
        _, third = await asyncio.gather(deleting, opening)
        waiting = asyncio.ensure_future(third.next())
        await write(log, "b")
        assert (await waiting).lsn == 3, "it is of the new topic"
        assert [each.name for each in await log.topic("b").consumers()] == ["e"]
        for each in (first, third):
            await each.close()


async def test_repaired_log_hides_what_was_deleted_before_the_damage():
    device, config = SimDevice(3), WalConfig(segment_bytes=65536)
    log = await open_on(SimDisk(device), config)
    for number in range(60):
        await log.topic("ab"[number % 2]).append(b"%d" % number * 800)
    await log.delete_topic("a")
    last = log.writer.segments.ids()[-1]
    for _ in range(60):
        await log.topic("a").append(bytes(2000))
    damaged = log.writer.segments.ids()[-2]
    assert damaged > last
    await log.close()
    device.flip(segment_name(damaged), 30_000, 3)
    disk = SimDisk(device)
    plan = await plan_repair(disk)
    await apply_repair(disk, plan, 65536)
    await disk.close()
    async with await open_on(SimDisk(device), config) as log:
        found = [(record.lsn, record.topic) async for record in log.read()]
        assert found == [(lsn, "b") for lsn in range(2, 61, 2)] + [(lsn, "a") for lsn in range(61, log.next_lsn)]
        assert damaged <= log.next_lsn <= 121
        assert (await log.topic("a").count(), await log.topic("b").count()) == (log.next_lsn - 61, 30)


# ---- topics that go by themselves


async def test_topic_of_which_nothing_is_left_goes_by_itself(open_log):
    async with open_log() as log:
        await write(log, "gone", "consumed", "kept", "gone")
        async with await log.topic("consumed").consumer("c") as consumer:
            await consumer.ack((await consumer.next()).lsn)
        await log.topic("keyed").append(b"x", dedupe="key")
        await write(log, "alive")
        await log.truncate_before(6)
        await log.refresh()
        assert log.topics() == ["consumed", "keyed", "alive"]
        assert (await log.topic("gone").count(), await log.topic("gone").last_lsn()) == (0, None)
        assert (await log.topic("keyed").append(b"x", dedupe="key")).duplicate, "truncation forgets no key"
        assert (await log.topic("gone").append(b"again", expected=0)).lsn == 7
        await log.refresh()
        assert log.topics() == ["consumed", "keyed", "alive", "gone"]
    async with open_log() as log:
        await log.topic("consumed").delete_consumer("c")
        await log.truncate_before(7)
        await log.refresh()
        assert log.topics() == ["keyed", "gone"]
        assert await lsns(log.topic("gone").read()) == [7]


async def test_topic_that_is_truncated_by_itself_goes_when_nothing_is_left_of_it(open_log):
    async with open_log() as log:
        await write(log, "a", "b", "a", "consumed", "a")
        async with await log.topic("consumed").consumer("c") as consumer:
            await consumer.ack((await consumer.next()).lsn)
        await log.topic("a").truncate_before(5)
        await log.topic("consumed").truncate_before(6)
        await log.refresh()
        assert log.topics() == ["a", "b", "consumed"]
        assert await lsns(log.read()) == [2, 5]
        await log.topic("a").truncate_before(6)
        await log.refresh()
        assert log.topics() == ["b", "consumed"]
        assert await lsns(log.read()) == [2]
        assert (await log.topic("a").append(b"new", expected=0)).lsn == 6
    async with open_log() as log:
        assert (await lsns(log.read()), await lsns(log.topic("a").read())) == ([2, 6], [6])


async def test_record_that_is_only_accepted_keeps_its_topic(open_sim):
    async with open_sim(relaxed_interval=None) as log:
        await write(log, "a", "b")
        await log.truncate_before(3)
        assert log.topics() == []
        await write(log, "a", "b")
        await log.truncate_before(4)
        core = log.writer.core
        number = core.metadata.topics.get("b")
        core.metadata.apply({"truncated": 5})  # as if the truncation had come in this very step
        assert is_over(core, number)
        log.topic("b").append_nowait(b"in the filling group", mode=Relaxed)
        assert not is_over(core, number)
        assert (await log.topic("b").count(), log.topics()) == (1, ["b"])


async def test_deletion_and_several_lives_of_a_name_in_one_group_survive_a_crash():
    device = SimDevice(3)
    config = WalConfig(segment_bytes=65536, relaxed_interval=None)
    log = await open_on(SimDisk(device), config)
    for name in ("a", "b"):
        await log.topic(name).append(b"first")
    calls = []
    for number in range(3):  # nothing of it is written before the last call
        log.topic("a").append_nowait(b"%d" % number, mode=Relaxed)
        calls.append(asyncio.ensure_future(log.delete_topic("a")))
        log.topic(f"c{number}").append_nowait(b"c", mode=Relaxed)
        await asyncio.sleep(0)
    log.topic("a").append_nowait(b"last", mode=Relaxed)
    await asyncio.gather(*calls)
    await log.flush()
    expected, given = await lsns(log.read()), log.writer.core.metadata.topics.given
    for image in (device.fork().crash(), device):
        if image is device:
            await log.close()
        async with await open_on(SimDisk(image), config) as again:
            assert await lsns(again.read()) == expected
            assert [record.payload async for record in again.topic("a").read()] == [b"last"]
            assert (again.topics()[0], again.writer.core.metadata.topics.given) == ("b", given)


async def test_key_that_is_forgotten_holds_no_topic(open_sim):
    async with open_sim(dedupe_seconds=0.001) as log:
        await log.topic("a").append(b"x", dedupe="key")
        await write(log, "b")
        log.writer.core.queue.conditions._begun_ns += 1_000_000_000
        await log.truncate_before(2)
        assert log.topics() == ["b"]


async def test_topics_for_a_while_cost_what_lives(open_log):
    """A topic for each session, truncated behind: neither the table nor what each segment begins with grows."""
    async with open_log() as log:
        core = behind(log).writer.core
        most = 0
        for number in range(0, 1200, 100):
            await asyncio.gather(
                *(log.topic(f"session {each}").append(bytes(400)) for each in range(number, number + 100))
            )
            await core.tail.spares.settle()  # where there is no room now, the topics go with the next truncation
            await log.truncate_before(log.next_lsn - 50)
            most = max(most, core.metadata.snapshot_bytes_max)
        await log.refresh()
        kept = 50
        while len(log.topics()) > kept > 46:  # there was no room in the group that took the truncation
            kept -= 1
            await core.tail.spares.settle()
            await log.truncate_before(log.next_lsn - kept)
            await log.refresh()
        assert len(log.topics()) == kept
        assert most < 20_000, "1,200 names take 50,000"
        assert core.metadata.topics.given == 1200
    async with open_log() as log:
        assert len(log.topics()) == kept
        assert behind(log).report.bytes_read < 400_000
        await log.topic("one more").append(b"x")
        assert behind(log).writer.core.metadata.topics.given == 1201, "no number is given twice"


async def test_deleted_one_by_one_they_cost_what_lives(open_sim):
    async with open_sim() as log:
        for number in range(600):
            await log.topic(f"{number}").append(bytes(300))
            if number > 20:
                await log.delete_topic(f"{number - 20}")
        assert len(log.topics()) == 21
        assert log.writer.core.metadata.snapshot_bytes_max < 2000
        assert await log.compact() > 600 * 300 / 2
        assert len(await lsns(log.read())) == 21
    async with open_sim() as log:
        assert len(log.topics()) == 21
        assert log.report.bytes_read < 300_000


async def test_deletion_that_returned_survives_a_crash_and_one_under_way_is_there_or_not():
    device = SimDevice(3)
    config = WalConfig(segment_bytes=65536)
    log = await open_on(SimDisk(device), config)
    await write(log, "a", "b", "c")
    await log.delete_topic("a")
    images = [(device.fork().crash(), [["b", "c"]])]
    deleting = asyncio.ensure_future(log.delete_topic("b"))
    await asyncio.sleep(0)
    images.append((device.fork().crash(), [["b", "c"], ["c"]]))
    await deleting
    images.append((device.fork().crash(), [["c"]]))
    await log.close()
    for image, outcomes in images:
        async with await open_on(SimDisk(image), config) as again:
            assert again.topics() in outcomes
            assert await lsns(again.read()) == [{"b": 2, "c": 3}[name] for name in again.topics()]
