"""Reading backwards, on every log: what forward reading gives, the other way round; and the last record of a topic."""

from __future__ import annotations

import asyncio
import datetime
import random
from typing import Any

import pytest

from walsvc import BadOption, Truncated, UnsupportedFormat

TOPICS = ("orders", "noise", None)


async def fill(log: Any, count: int, seed: int = 1) -> None:
    rng = random.Random(seed)
    work = []
    for number in range(count):
        name = rng.choice(TOPICS)
        where = log if name is None else log.topic(name)
        payload = b"%d" % number + bytes(rng.choice((0, 40, 3000)))
        work.append(where.append(payload, type=rng.choice((0, 7)), attributes={"kind": rng.choice("ab")}))
        if rng.random() < 0.1:
            await asyncio.gather(*work)
            work.clear()
    await asyncio.gather(*work)


async def both(log: Any, *bounds: int | None, **wanted: Any) -> list[int]:
    """LSNs as a reading backwards gives them, seen to be those of one forwards."""
    forwards = [record async for record in log.read(*bounds, **wanted)]
    backwards = [record async for record in log.read(*bounds, reverse=True, **wanted)]
    assert backwards == forwards[::-1]
    return [record.lsn for record in backwards]


async def test_backwards_gives_what_forwards_gives(open_log):
    async with open_log(segment_bytes=65536, max_group_bytes=8192) as log:
        await fill(log, 200)
        middle = datetime.datetime.now(datetime.UTC)
        await fill(log, 100, seed=2)
        await log.append_batch([b"batch" * 900] * 30)
        assert await both(log) == list(range(330, 0, -1))
        assert len(await both(log, 20, 250)) == 230
        assert await both(log, 7, 8) == [7]
        assert await both(log, 8, 8) == await both(log, 331) == []
        for wanted in (
            {"topic": "orders"},
            {"where": {"kind": "a"}},
            {"types": {7}},
            {"since": middle},
            {"until": middle},
        ):
            assert await both(log, **wanted)
        assert await both(log, 30, 300, topic="noise", where={"kind": ["b"]}, types={0})
        assert await both(log, topic="there is none") == []
        await log.purge({"kind": "a"}, before=100)
        await log.truncate_before(50)
        assert min(await both(log)) >= 50
    async with open_log(read_only=True) as log:
        assert await both(log, 60, topic="orders")


async def test_a_reader_sees_what_was_accepted_before_the_call_and_nothing_later(open_log):
    async with open_log() as log:
        mine = [log.append(b"x") for _ in range(3)]
        reading = log.read(reverse=True)
        assert (await anext(reading)).lsn == 3
        await log.append(b"later")
        assert [record.lsn async for record in reading] == [2, 1]
        await asyncio.gather(*mine)


async def test_what_is_dropped_below_ends_it_or_is_said(open_log):
    async with open_log() as log:
        for _ in range(3):
            await log.append_batch([bytes(20_000)] * 10)
        open_ended, bounded = log.read(reverse=True), log.read(2, reverse=True)
        assert (await anext(open_ended)).lsn == (await anext(bounded)).lsn == 30
        await log.truncate_before(15)
        assert [record.lsn async for record in open_ended][-1] >= 1
        with pytest.raises(Truncated):
            [record async for record in log.read(2, reverse=True)]
        with pytest.raises(BadOption):
            log.read(0, reverse=True)


async def test_what_is_cut_off_meanwhile_is_left_out_and_so_is_what_takes_its_place(open_log):
    async with open_log() as log:
        for _ in range(3):
            await log.append_batch([bytes(20_000)] * 10)
        reading = log.read(reverse=True)
        assert (await anext(reading)).lsn == 30
        await log.truncate_after(17)
        await log.append_batch([b"new"] * 5)
        assert [record.lsn async for record in reading] == list(range(17, 0, -1))


async def test_a_record_of_a_required_type_ends_it_where_it_stands(open_log):
    async with open_log() as log:
        for type in (0, 0x8001, 3, 0x8001, 0, 3):
            await log.append(b"x", type=type)
        seen = []
        with pytest.raises(UnsupportedFormat):
            async for record in log.read(reverse=True, types={0, 3}):
                seen.append(record.lsn)
        assert seen == [6, 5]
        assert [record.lsn async for record in log.read(reverse=True, types={0, 3}, start=5)] == [6, 5]


async def test_last_is_the_last_record_that_is_visible(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        assert await topic.last() is None
        for number in range(4):
            await topic.append(b"%d" % number, attributes={"key": number})
        await log.append(b"of none")
        last = await topic.last()
        assert (last.lsn, last.payload, last.topic) == (4, b"3", "t")
        await topic.purge({"key": 3})
        assert (await topic.last()).lsn == 3
        await log.truncate_after(2)
        assert (await topic.last()).lsn == 2
        await log.truncate_before(3)
        assert await topic.last() is None
        await topic.append(b"again")
        assert (await topic.last()).payload == b"again"


async def test_iteration_that_is_given_up_goes_on_where_it_was(open_log):
    async with open_log() as log:
        await log.append_batch([bytes(9000)] * 40)
        reading, seen = log.read(reverse=True), []
        while len(seen) < 40:
            waiting = asyncio.ensure_future(anext(reading))
            await asyncio.sleep(0)
            waiting.cancel()
            try:
                seen.append((await waiting).lsn)
            except asyncio.CancelledError:
                seen.append((await anext(reading)).lsn)
        assert seen == list(range(40, 0, -1))


async def test_a_stretch_that_does_not_fit_in_memory_is_read_in_pieces(open_log, monkeypatch):
    monkeypatch.setattr("walsvc.log.read.backward.KEPT_BYTES_MAX", 5000)
    async with open_log() as log:
        await fill(log, 120)
        await both(log)
        assert await both(log, 10, 90, types={7})
