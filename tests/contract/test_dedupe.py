"""Deduplication by the caller's key, on every log: the first append of a key counts, and the others get its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from walsvc import BadOption, Conflict, Relaxed


async def payloads(topic: Any) -> list[bytes]:
    return [record.payload async for record in topic.read()]


async def test_repeat_answers_the_first_result_and_writes_nothing(open_log):
    async with open_log() as log:
        orders = log.topic("orders")
        first = await orders.append(b"first", dedupe="order-4711", attributes={"a": 1})
        again = await orders.append(b"second and longer", dedupe="order-4711")
        assert (again, len(again)) == (first, 6)
        assert (first.duplicate, again.duplicate) == (False, True)
        assert (await orders.append(b"third", dedupe="order-4712")).lsn == 2
        assert log.next_lsn == 3
        assert await payloads(orders) == [b"first", b"third"]


async def test_repeats_in_flight_wait_for_the_first(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        results = await asyncio.gather(*(topic.append(b"%d" % number, dedupe="k") for number in range(20)))
        assert [each.duplicate for each in results] == [False] + [True] * 19
        assert {each[:5] for each in results} == {results[0][:5]}
        assert all(each.durable for each in results)
        assert await payloads(topic) == [b"0"]


async def test_each_topic_has_its_own_keys(open_log):
    async with open_log() as log:
        for where in (log.topic("a"), log.topic("b"), log):
            assert not (await where.append(b"1", dedupe="k")).duplicate
        for lsn, where in enumerate((log.topic("a"), log.topic("b"), log), start=1):
            again = await where.append_nowait(b"2", dedupe="k")
            assert (again.lsn, again.duplicate) == (lsn, True)


async def test_keys_survive_reopening_rotation_and_truncate_before(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        firsts = [await topic.append(bytes(20_000), dedupe=f"k{number}") for number in range(8)]
    async with open_log() as log:
        topic = log.topic("t")
        await log.truncate_before(9)
        for number, first in enumerate(firsts):
            again = await topic.append(b"again", dedupe=f"k{number}")
            assert (again[:5], again.duplicate) == (first[:5], True)
        await log.append_batch([bytes(20_000)] * 8)
    async with open_log() as log:
        assert (await log.topic("t").append(b"again", dedupe="k0")).duplicate
        assert (await log.topic("t").append(b"new", dedupe="k8")).lsn == 17


async def test_truncate_after_forgets_what_it_cuts(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        for number in range(4):
            await topic.append(b"x", dedupe=f"k{number}")
        await log.truncate_after(2)
        assert (await topic.append(b"y", dedupe="k1")).duplicate
        again = await topic.append(b"y", dedupe="k3")
        assert (again.lsn, again.duplicate) == (3, False)
    async with open_log() as log:
        topic = log.topic("t")
        assert (await topic.append(b"z", dedupe="k3")).duplicate
        assert (await topic.append(b"z", dedupe="k2")).lsn == 4


async def test_key_is_asked_before_expected(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        first = await topic.append(b"x", expected=0, dedupe="k")
        assert (await topic.append(b"x", expected=0, dedupe="k")) == first
        with pytest.raises(Conflict):
            await topic.append(b"y", expected=0, dedupe="other")
        assert (await topic.append(b"y", expected=1, dedupe="other")).lsn == 2


async def test_relaxed_repeat_does_not_wait(open_log):
    async with open_log(relaxed_interval=None) as log:
        first = await log.append(b"x", mode=Relaxed, dedupe="k")
        again = await log.append(b"y", mode=Relaxed, dedupe="k")
        assert (again.lsn, again.duplicate, again.durable) == (first.lsn, True, False)
        strict = await log.append(b"z", dedupe="k")
        assert (strict.lsn, strict.duplicate, strict.durable) == (first.lsn, True, True)


async def test_what_is_no_key_is_refused_at_once(open_log):
    async with open_log() as log:
        for wrong in ("", "x" * 1025, b"k", 7, "\ud800"):
            for call in (log.append, log.topic("t").append, log.append_nowait):
                with pytest.raises(BadOption, match="is no key"):
                    call(b"x", dedupe=wrong)
        assert log.next_lsn == 1
        assert not (await log.append(b"x", dedupe="x" * 1024)).duplicate
