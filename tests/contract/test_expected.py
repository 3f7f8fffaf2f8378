"""Conditional appends, on every log: of several that expect the same end, exactly one is accepted, and the others are told which
LSN there is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from walsvc import BadOption, Closed, Conflict, Relaxed


async def ways(count: int):
    for number in range(count):
        yield b"%d" % number


async def conflict_of(answer: Any) -> tuple[Any, Any]:
    with pytest.raises(Conflict) as refused:
        await answer
    return refused.value.expected, refused.value.actual


async def test_of_many_appends_with_one_expectation_exactly_one_is_accepted(open_log):
    async with open_log() as log:
        orders = log.topic("orders")
        await log.append(b"of no topic")
        for expected in (0, 2, 3):
            answers = await asyncio.gather(
                *(orders.append(b"%d" % number, expected=expected) for number in range(16)), return_exceptions=True
            )
            lost = [each for each in answers if isinstance(each, Conflict)]
            assert (answers[0].lsn, len(lost)) == (max(expected + 1, 2), 15)
            assert {(each.expected, each.actual) for each in lost} == {(expected, answers[0].lsn)}
        assert await orders.last_lsn() == 4
        assert [record.payload async for record in orders.read()] == [b"0", b"0", b"0"]


async def test_on_the_whole_log_every_record_counts(open_log):
    async with open_log() as log:
        assert await conflict_of(log.append(b"x", expected=3)) == (3, 0)
        assert (await log.append(b"x", expected=0)).lsn == 1
        await log.topic("t").append(b"y")
        assert await conflict_of(log.append(b"x", expected=1)) == (1, 2)
        assert (await log.append(b"x", expected=2, type=7, attributes={"a": 1})).lsn == 3
        assert (await log.append_nowait(b"x", expected=3, mode=Relaxed)).lsn == 4
        assert await conflict_of(log.append_nowait(b"x", expected=3)) == (3, 4)
    async with open_log() as log:
        assert await conflict_of(log.append(b"x", expected=0)) == (0, 4)
        assert (await log.append(b"x", expected=4)).lsn == 5


async def test_what_is_accepted_counts_before_it_is_durable(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        first = topic.append(b"1", expected=0)
        chain = [topic.append(b"2", expected=1), topic.append(b"3", expected=1), topic.append(b"4", expected=2)]
        results = await asyncio.gather(first, *chain, return_exceptions=True)
        assert [each.actual if isinstance(each, Conflict) else each.lsn for each in results] == [1, 2, 2, 3]


async def test_batches_are_accepted_whole_or_not_at_all(open_log):
    async with open_log(max_group_bytes=4096) as log:
        topic = log.topic("t")
        large = [bytes(3000)] * 5
        assert [each.lsn for each in await topic.append_batch([b"a", b"b"], expected=0)] == [1, 2]
        assert await conflict_of(topic.append_batch([b"a"], expected=0)) == (0, 2)
        assert await conflict_of(topic.append_batch(large, expected=1)) == (1, 2)
        assert [each.lsn for each in await topic.append_batch(large, expected=2)] == [3, 4, 5, 6, 7]
        assert await conflict_of(topic.append_batch(ways(3), expected=6)) == (6, 7)
        assert [each.lsn for each in await topic.append_batch(ways(3), expected=7)] == [8, 9, 10]
        assert await conflict_of(log.append_batch([b"a"], expected=9)) == (9, 10)
        assert await conflict_of(log.append_batch([], expected=9)) == (9, 10)
        assert list(await log.append_batch([], expected=10)) == []
        assert (await log.append(b"x", expected=10)).lsn == 11


async def test_a_topic_of_which_nothing_is_visible_ends_with_0(open_log):
    async with open_log() as log:
        topic = log.topic("t")
        await topic.append(b"1")
        await topic.append(b"2")
        await log.truncate_after(1)
        assert await conflict_of(topic.append(b"2", expected=2)) == (2, 1)
        await log.append(b"of no topic", expected=1)
        await log.truncate_before(2)
        assert await conflict_of(topic.append(b"2", expected=1)) == (1, 0)
        assert (await topic.append(b"2", expected=0)).lsn == 3
        await log.truncate_before(4)
        assert await conflict_of(log.append(b"2", expected=3)) == (3, 0)
        assert (await log.append(b"2", expected=0)).lsn == 4


async def test_expected_that_is_no_lsn_is_refused_at_once(open_log):
    async with open_log() as log:
        for wrong in (-1, 1.0, "1", True, 1 << 64):
            for call in (log.append, log.append_nowait, log.topic("t").append, log.topic("t").append_nowait):
                with pytest.raises(BadOption, match="is no LSN"):
                    call(b"x", expected=wrong)
            with pytest.raises(BadOption, match="is no LSN"):
                log.append_batch([b"x"], expected=wrong)
        assert log.next_lsn == 1
    with pytest.raises(Closed):
        await log.append(b"x", expected=0)
