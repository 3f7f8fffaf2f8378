"""Conditional appends that wait for room, are given up, and meet truncations, against a model of a few lines."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.openers import opener_on
from walsvc import Backpressure, Conflict, Log, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536, max_pending_bytes=4096, max_group_bytes=4096)
TOPICS = (None, "a", "b")

step = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(TOPICS), st.integers(0, 3), st.integers(0, 1500)),
    st.tuples(st.just("batch"), st.sampled_from(TOPICS), st.integers(0, 3), st.integers(1, 7)),
    st.tuples(st.just("plain"), st.sampled_from(TOPICS), st.just(0), st.integers(0, 1500)),
    st.tuples(st.just("give up"), st.sampled_from(TOPICS), st.integers(0, 3), st.integers(0, 1500)),
    st.tuples(st.just("before"), st.none(), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("after"), st.none(), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("reopen"), st.none(), st.just(0), st.just(0)),
)


class Modelled:
    """A log, and the LSNs that it must have by topic. Calls are made together, several to a turn, and answered in order."""

    def __init__(self) -> None:
        self.device = SimDevice(3)
        self.topics: dict[str | None, list[int]] = {each: [] for each in TOPICS}
        self.next = self.first = 1

    def last(self, topic: str | None) -> int:
        last = self.next - 1 if topic is None else max(self.topics[topic], default=0)
        return last if last >= self.first else 0

    async def call(self, name: str, topic: str | None, off: int, size: int) -> None:
        """One call, with an expectation that is right where `off` is 0."""
        where = self.log if topic is None else self.log.topic(topic)
        actual, count = self.last(topic), size if name == "batch" else 1
        expected = actual if off == 0 else actual + off if off < 3 else max(actual - 1, 0)
        if name == "plain":
            answer = where.append(bytes(size))
        elif name == "batch":
            answer = where.append_batch([bytes(1000)] * count, expected=expected)
        else:
            answer = where.append(bytes(size), expected=expected)
        if name != "plain" and expected != actual:
            with pytest.raises(Conflict) as refused:
                await answer
            assert (refused.value.expected, refused.value.actual) == (expected, actual)
            return
        if name == "give up":
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            await self.log.flush()
            assert self.log.next_lsn in (self.next, self.next + 1)
            count = self.log.next_lsn - self.next
        else:
            await answer
        self.topics[topic] += range(self.next, self.next + count)
        self.next += count

    async def before(self, off: int) -> None:
        self.first = min(self.first + off * 3, self.next)
        await self.log.truncate_before(self.first)

    async def after(self, off: int) -> None:
        self.next = max(self.next - off * 2, self.first)
        await self.log.truncate_after(self.next - 1)
        self.topics = {name: [lsn for lsn in lsns if lsn < self.next] for name, lsns in self.topics.items()}

    async def run(self, script: list[tuple[str, str | None, int, int]]) -> None:
        self.log: Log = await open_on(SimDisk(self.device), CONFIG)
        for name, topic, off, size in script:
            if name == "reopen":
                await self.log.close()
                self.log = await open_on(SimDisk(self.device), CONFIG)
            elif name in ("before", "after"):
                await (self.before(off) if name == "before" else self.after(off))
            else:
                await self.call(name, topic, off, size)
            assert (self.log.first_lsn, self.log.next_lsn) == (self.first, self.next)
        await self.log.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(step, min_size=3, max_size=25))
def test_what_is_accepted_agrees_with_the_model(script: list[tuple[str, str | None, int, int]]) -> None:
    run_sim(lambda _: Modelled().run(script), 0)


async def test_the_decision_is_made_when_the_turn_has_come(tmp_path):
    async with opener_on("sim", tmp_path)(max_pending_bytes=4096, max_group_bytes=4096) as log:
        topic = log.topic("t")
        first = [topic.append(bytes(4000)) for _ in range(3)]
        waits = topic.append(b"behind three", expected=3)
        early = topic.append(b"decided later", expected=3)
        with pytest.raises(Backpressure):
            topic.append_nowait(b"x", expected=0)
        given_up = topic.append(b"never", expected=4)
        after = topic.append(b"in its place", expected=4)
        given_up.cancel()
        assert [each.lsn for each in await asyncio.gather(*first)] == [1, 2, 3]
        assert (await waits).lsn == 4
        with pytest.raises(Conflict, match="topic 't' does not end with the expected LSN"):
            await early
        assert (await after).lsn == 5
        assert [record.payload async for record in topic.read(start=4)] == [b"behind three", b"in its place"]


async def test_many_expectations_look_at_each_record_of_the_group_once(tmp_path):
    async with opener_on("sim", tmp_path)(segment_bytes=1 << 20) as log:
        topics = [log.topic(f"t{number}") for number in range(200)]
        answers = [topic.append(b"x", expected=0) for topic in topics for _ in range(3)]
        results = await asyncio.gather(*answers, return_exceptions=True)
        assert [isinstance(each, Conflict) for each in results] == [False, True, True] * 200
        group = log.writer.core.placement.group
        assert (group.metadata.seen, group.metadata.lasts) == (0, {})
