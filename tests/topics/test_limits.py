"""Limits of topics: what is over them goes, what is held or young stays, and they are there after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.log.test_aging import YEAR, Clock, run
from walsvc import BadOption, Closed, Truncated, WalConfig
from walsvc.api import Log
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.format.group import BadGroup
from walsvc.format.limits import ROW, TopicLimits, apply, encode, row_of
from walsvc.model import LimitedTopic
from walsvc.opening import open_on

from .conftest import lsns

SMALL = WalConfig(segment_bytes=65536)
LIMIT = 400.0  # seconds of simulated time: each has its look


async def write(log, count: int, *topics: str, size: int = 100) -> None:
    """`count` records, of the topics in turn."""
    for number in range(count):
        await log.topic(topics[number % len(topics)]).append(bytes(size))


def simulated(scenario: Callable[[SimDevice], Awaitable[None]]) -> None:
    """Run it in simulated time."""

    async def main(seed: int) -> None:
        await scenario(SimDevice(seed))

    run_sim(main, 1)


async def test_limits_are_applied_at_once_shown_and_lifted(open_log):
    async with open_log() as log:
        await write(log, 20, "a", "b")
        topic = log.topic("a")
        assert await topic.limits() == TopicLimits()
        await topic.retain(records=4)
        assert await lsns(topic.read()) == [13, 15, 17, 19]
        assert await topic.count() == 4
        assert await log.topic("b").count() == 10
        await topic.retain(bytes=250)
        assert await lsns(topic.read()) == [17, 19]
        assert await topic.limits() == TopicLimits(None, 250, None)
        await topic.retain(records=100, seconds=1000.5)
        await log.refresh()
        assert log.stats().limited_topics == (LimitedTopic("a", 100, None, 1000.5),)
        assert await topic.limits() == TopicLimits(100, None, 1000.5)
        assert await log.topic("b").limits() == TopicLimits()
    for read_only in (True, False):
        async with open_log(read_only=read_only) as log:
            assert await log.topic("a").limits() == TopicLimits(100, None, 1000.5)
            if read_only:
                with pytest.raises(Closed):
                    await log.topic("a").retain()
    async with open_log() as log:
        await log.topic("a").retain()
        assert await log.topic("a").limits() == TopicLimits()
        await log.topic("new").retain(records=1)
        assert "new" in log.topics()


def test_what_comes_later_goes_by_itself_about_once_a_second():
    async def scenario(device: SimDevice) -> None:
        log = await open_on(SimDisk(device), SMALL)
        await log.topic("a").retain(records=5)
        await log.topic("b").retain(bytes=1000)
        for _ in range(4):
            await write(log, 40, "a", "b", "c")
            await asyncio.sleep(1.5)
            assert [await log.topic(name).count() for name in "ab"] == [5, 10]
        assert await log.topic("c").count() == 52
        await log.close()
        log = await open_on(SimDisk(device), SMALL)
        await write(log, 40, "a", "b")
        await asyncio.sleep(1.5)
        assert [await log.topic(name).count() for name in "ab"] == [5, 10]
        await log.topic("b").purge(lsns=[record.lsn async for record in log.topic("b").read()][:4])
        await write(log, 3, "b")
        await asyncio.sleep(1.5)
        assert await log.topic("b").count() == 9, "what was purged takes no room"
        await log.close()

    simulated(scenario)


def test_records_go_when_they_are_old_by_both_clocks(monkeypatch):
    async def scenario(device: SimDevice, clock: Clock) -> None:
        monkeypatch.setattr("time.time_ns", clock)
        log: Log = await open_on(SimDisk(device), SMALL)
        topic = log.topic("a")
        await topic.retain(seconds=LIMIT)
        for _ in range(6):
            await topic.append(b"x")
            await asyncio.sleep(LIMIT / 6)
        await asyncio.sleep(LIMIT * 0.47)  # the first three are over the limit
        assert await lsns(topic.read()) == [4, 5, 6]
        clock.offset += YEAR
        await topic.append(b"y")
        await asyncio.sleep(5)
        assert await lsns(topic.read()) == [4, 5, 6, 7], "a clock that is set ahead makes nothing old"
        await log.close()
        clock.offset -= 2 * YEAR
        log = await open_on(SimDisk(device), SMALL)
        topic = log.topic("a")
        await asyncio.sleep(LIMIT / 2)
        assert await lsns(topic.read()) == [4, 5, 6, 7], (
            "times in the future say nothing: they are as old as this opening"
        )
        await asyncio.sleep(LIMIT * 0.53)
        assert await lsns(topic.read()) == []
        await log.close()

    run(scenario)


async def test_holds_keep_and_consumers_are_told(open_sim):
    async with open_sim() as log:
        await write(log, 10, "a")
        consumer = await log.topic("a").consumer("c")
        await log.hold("copy", 4)
        await log.topic("a").retain(records=2)
        assert await lsns(log.topic("a").read()) == [4, 5, 6, 7, 8, 9, 10]
        with pytest.raises(Truncated):
            await consumer.next()
        await log.release("copy")
        await log.topic("a").retain(records=2)
        assert await lsns(log.topic("a").read()) == [9, 10]


async def test_limits_go_with_their_topic_and_keep_it(open_sim):
    async with open_sim() as log:
        await write(log, 4, "a", "b")
        for name in "ab":
            await log.topic(name).retain(records=2)
        await log.delete_topic("b")
        await log.truncate_before(log.next_lsn)
        assert log.topics() == ["a"], "it has a limit, though no record"
        assert len(log.writer.core.metadata.limits) == 1
        await write(log, 4, "b")
        assert await log.topic("b").limits() == TopicLimits()
    async with open_sim() as log:
        assert await log.topic("a").limits() == TopicLimits(2)


async def test_limits_that_cannot_be_are_refused_and_nothing_is_dropped(open_log):
    async with open_log() as log:
        await write(log, 3, "a")
        for name in ("records", "bytes", "seconds"):
            for wrong in (0, -1, True, "1", float("nan"), float("inf")):
                with pytest.raises(BadOption, match=name):
                    await log.topic("a").retain(**{name: wrong})
        for wrong in (1.5, 1 << 63):
            with pytest.raises(BadOption):
                await log.topic("a").retain(records=wrong)
        assert await log.topic("a").count() == 3
        assert await log.topic("a").limits() == TopicLimits()


def test_rows_that_are_cut_are_refused_and_the_last_one_counts():
    state: dict[int, TopicLimits] = {}
    with pytest.raises(BadGroup, match="cut"):
        apply(state, bytes(ROW.size - 1))
    apply(state, row_of(1, TopicLimits(5)) + row_of(2, TopicLimits(None, 7, 1.5)) + row_of(1, TopicLimits(6)))
    assert state == {1: TopicLimits(6), 2: TopicLimits(None, 7, 1.5)}
    again: dict[int, TopicLimits] = {}
    apply(again, encode(state))
    assert again == state
    apply(state, row_of(2, TopicLimits()))
    assert state == {1: TopicLimits(6)}
