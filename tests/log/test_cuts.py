"""truncate_after beside whoever reads: no ghost, no gap, and no damage where there is none."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import walsvc
from walsvc import BadOption, Closed, DurabilityLost, Record, Truncated, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.read import reader as reading
from walsvc.log.read.cuts import FAR, Cuts
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)


@given(st.lists(st.integers(1, 20)))
def test_cuts_since_any_of_them_are_the_lowest(ends):
    cuts = Cuts()
    for end in ends:
        cuts.note(end)
    assert [cuts.since(count) for count in range(len(ends) + 1)] == [
        min(ends[count:], default=FAR) for count in range(len(ends) + 1)
    ]


async def everything(log: Any, **wanted: Any) -> list[Record]:
    return [record async for record in log.read(**wanted)]


# ---- read-only beside the writer


async def fill(log: Any, count: int, what: bytes, size: int = 1000) -> None:
    await asyncio.gather(*(log.append(what + bytes(size)) for _ in range(count)))


@pytest.mark.parametrize("cut", ["inside", "at a segment's beginning", "everything"])
@pytest.mark.parametrize("more", [0, 3, 400])
async def test_read_only_log_ends_where_the_writer_has_cut(tmp_path, cut, more):
    async with walsvc.open(tmp_path, segment_bytes=65536) as log, walsvc.open(tmp_path, read_only=True) as reader:
        for _ in range(10):
            await fill(log, 30, b"old")
        assert len(await everything(reader)) == 300
        begun, follower = reader.read(), reader.follow(290)
        await anext(begun)
        assert [(await anext(follower)).lsn for _ in range(11)] == list(range(290, 301))
        last = {"inside": 155, "at a segment's beginning": log.writer.segments.ids()[-1] - 1, "everything": 0}[cut]
        await log.truncate_after(last)
        await fill(log, more, b"new", 500)
        rest = [record async for record in begun]
        assert [record.lsn for record in rest] == list(range(2, len(rest) + 2))
        assert {record.payload[:3] for record in rest} <= {b"old"}
        assert await reader.refresh() == reader.next_lsn == last + more + 1
        records = await everything(reader)
        assert [record.payload[:3] for record in records] == [b"old"] * last + [b"new"] * more
        await log.append(b"last")
        records = [await asyncio.wait_for(anext(follower), 60) for _ in range(more + 1)]
        assert [record.lsn for record in records] == list(range(last + 1, last + more + 2))
        assert [record.payload[:3] for record in records] == [b"new"] * more + [b"las"]


async def test_read_only_follower_whose_new_records_are_dropped_meanwhile_is_truncated(tmp_path):
    async with walsvc.open(tmp_path, segment_bytes=65536) as log, walsvc.open(tmp_path, read_only=True) as reader:
        await fill(log, 300, b"old")
        follower = reader.follow(299)
        assert [(await anext(follower)).lsn for _ in range(2)] == [299, 300]
        await log.truncate_after(5)
        await fill(log, 290, b"new")
        await log.truncate_before(200)
        with pytest.raises(Truncated):
            await asyncio.wait_for(anext(follower), 60)


async def test_closing_a_read_only_log_ends_its_followers_and_whoever_reads_gets_closed(tmp_path):
    async with walsvc.open(tmp_path, segment_bytes=65536) as log:
        for _ in range(10):
            await fill(log, 100, b"x", 5000)
        reader = await walsvc.open(tmp_path, read_only=True)
        ways = [reader.read(), reader.read_batches(), reader.read_lazy()]
        for way in ways:
            await anext(way)
        follower, waiting = reader.follow(), asyncio.ensure_future(anext(reader.follow(log.next_lsn), None))
        await anext(follower)
        await asyncio.sleep(0.01)
        await reader.close()
        for way in ways:
            with pytest.raises(Closed):
                async for _ in way:
                    pass
        assert len([record async for record in follower]) < 1000
        assert await asyncio.wait_for(waiting, 60) is None
        with pytest.raises(Closed):
            await reader.refresh()


# ---- consumers


@pytest.mark.parametrize("seed", range(8))
def test_consumer_that_reads_during_a_cut_has_no_ghost_and_no_gap(seed):
    async def main(seed: int) -> None:
        log = await open_on(SimDisk(SimDevice(seed)), CONFIG)
        await fill(log, 300, b"old")
        consumer = await log.consumer("c")
        delivered: list[bytes] = []

        async def deliver() -> None:
            """Ask for a record, and not wait for long."""
            asked = asyncio.ensure_future(consumer.next())
            await asyncio.wait([asked], timeout=0.0002)
            if not asked.cancel():
                delivered.append((await asked).payload[:3])

        while len(delivered) < 300:
            await deliver()
        cutting = asyncio.ensure_future(log.truncate_after(250))
        while not cutting.done():
            await deliver()
        assert len(delivered) == 300, "what is about to go was delivered again"
        await fill(log, 100, b"new")
        while delivered.count(b"new") < 100:
            await deliver()
        assert delivered == [b"old"] * 300 + [b"new"] * 100
        await log.close()

    run_sim(main, seed)


# ---- failing


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_cut_that_fails_half_way_is_no_damage_to_who_reads(nth):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        await fill(log, 600, b"old")
        readers = [log.read(), log.read(200), log.read(500)]
        for reader in readers:
            await anext(reader)
        device.fail("remove", nth=nth)
        for _ in range(2):
            with pytest.raises(DurabilityLost):
                await log.truncate_after(150)
        for reader in readers:
            with suppress(DurabilityLost):
                assert {record.payload[:3] async for record in reader} == {b"old"}
        with suppress(DurabilityLost):
            await log.close()
        log = await open_on(SimDisk(device), CONFIG)
        assert [record.lsn for record in await everything(log)] == list(range(1, 151))
        await log.close()

    run_sim(main, nth)


# ---- all at once


class Model:
    """What whoever follows from the first record on keeps: what lies at or above an LSN that comes again is dropped."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def take(self, record: Record) -> None:
        assert record.lsn <= len(self.kept) + 1, "a gap"
        del self.kept[record.lsn - 1 :]
        self.kept.append(record.payload)


async def stress(log: Any, other: Any, seed: int, rounds: int) -> None:
    """Append, cut, read and follow at random; then everybody must have what the log has."""
    chance, models, done = random.Random(seed), [Model(), Model()], asyncio.Event()
    numbers = iter(range(1 << 30))

    async def append() -> None:
        for _ in range(rounds * 3):
            payloads = [b"%d:" % next(numbers) + bytes(chance.randrange(2500)) for _ in range(chance.randrange(1, 9))]
            await log.append_batch(payloads)

    async def cut() -> None:
        for _ in range(rounds):
            await asyncio.sleep(chance.random() * 0.005)
            try:
                await log.truncate_after(max(log.next_lsn - 1 - chance.randrange(80), 0))
            except BadOption:
                pass

    async def read(whose: Any) -> None:
        while not done.is_set():
            way = chance.choice([whose.read, whose.read_batches, whose.read_lazy])
            start, place = chance.randrange(1, whose.next_lsn + 1), None
            async for each in way(start):
                for record in each if isinstance(each, list) else [each]:
                    assert record.lsn == (start if place is None else place + 1)
                    place = record.lsn
            await asyncio.sleep(0.0005)

    async def follow(whose: Any, model: Model) -> None:
        async for record in whose.follow(1):
            model.take(record)

    readers = [asyncio.ensure_future(read(whose)) for whose in (log, log, other)]
    followers = [asyncio.ensure_future(follow(*pair)) for pair in zip((log, other), models, strict=True)]
    await asyncio.gather(append(), append(), cut())
    await log.append(b"last")
    done.set()
    await asyncio.gather(*readers)
    await log.seal()
    await asyncio.gather(*followers)
    kept = [record.payload for record in await everything(log)]
    for model in models:
        assert model.kept == kept


@pytest.mark.parametrize("seed", range(6))
def test_readers_and_followers_beside_cuts_on_the_simulated_disk(seed):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        other = await open_on(SimDisk(device, lock=False), WalConfig(segment_bytes=65536, read_only=True))
        await stress(log, other, seed, 40)
        await other.close()
        await log.close()

    run_sim(main, seed)


@pytest.mark.parametrize("reading", ["direct", "mapped"])
async def test_readers_and_followers_beside_cuts_in_a_directory(tmp_path, reading):
    async with (
        walsvc.open(tmp_path, segment_bytes=65536, reading=reading) as log,
        walsvc.open(tmp_path, read_only=True, reading=reading) as other,
    ):
        await stress(log, other, 7, 30)


async def test_reader_at_a_segment_that_is_cut_away_with_the_one_before_it_ends_there(monkeypatch):
    """It has opened the segment, and looks for the one before it to see whether they belong together."""
    async with await open_on(SimDisk(SimDevice(1)), CONFIG) as log:
        for _ in range(30):
            await log.append(bytes(9000))
        ids = log.writer.segments.ids()
        open_stream, cut = reading.open_stream, False

        async def opened(disk: Any, name: str, first: int, *arguments: Any) -> Any:
            nonlocal cut
            found = await open_stream(disk, name, first, *arguments)
            if first == ids[-2] and not cut:
                cut = True
                await log.truncate_after(ids[-4])
            return found

        monkeypatch.setattr(reading, "open_stream", opened)
        assert await everything(log, start=ids[-2]) == []
        assert cut
        assert len(await everything(log)) == ids[-4]


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("taken", [0, 2])
def test_consumer_that_stands_before_a_cut_gets_what_is_written_behind_it(taken: int, shared: bool) -> None:
    """A reader does not go beyond a cut that came after it was made, so the consumer needs a new one wherever it stood."""

    async def main(seed: int) -> None:
        async with await open_on(SimDisk(SimDevice(seed)), CONFIG) as log:
            topic = log.topic("jobs")
            consumer: Any = await topic.consumer("c", shared=True, lease=600.0) if shared else await topic.consumer("c")
            for number in range(taken):
                await topic.append(b"%d" % number)
                await (await consumer.next()).ack() if shared else await consumer.ack((await consumer.next()).lsn)
            await topic.append_batch([b"kept", b"cut", b"cut"])
            await log.truncate_after(taken + 1)
            await topic.append_batch([b"new", b"newer"])
            found = [await consumer.next() for _ in range(3)]
            assert [(each.record if shared else each).payload for each in found] == [b"kept", b"new", b"newer"]

    run_sim(main, 1)
