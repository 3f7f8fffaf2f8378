"""Purging, compacting, both truncations, reopening and power cuts in any order, against a model of a few lines."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walsvc import Log, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, SimLoop
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)
KEYS = ("a", "b", 7, b"c")
TOPICS = (None, "t", "u")


class Row(NamedTuple):
    """A record as the model knows it."""

    payload: bytes
    key: object
    topic: str | None
    hidden: bool = False


fraction = st.floats(0, 1)
steps = st.one_of(
    st.tuples(
        st.just("append"), st.sampled_from(KEYS), st.sampled_from(TOPICS), st.integers(1, 12), st.integers(0, 4000)
    ),
    st.tuples(st.just("purge"), st.sampled_from(KEYS), st.sampled_from(TOPICS), st.none() | fraction),
    st.tuples(st.just("compact")),
    st.tuples(st.just("before"), fraction),
    st.tuples(st.just("after"), fraction),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("cut")),
)


class Modelled:
    """A log, and what must be in it."""

    def __init__(self) -> None:
        self.device = SimDevice(1)
        self.rows: dict[int, Row] = {}
        self.first, self.next = 1, 1
        self.log: Log

    async def open(self) -> None:
        self.log = await open_on(SimDisk(self.device), CONFIG)

    async def append(self, key: object, topic: str | None, count: int, size: int) -> None:
        where = self.log if topic is None else self.log.topic(topic)
        payloads = [b"%d %d " % (self.next, number) + bytes(size) for number in range(count)]
        results = [where.append(payload, attributes={"key": key, "more": [1]}) for payload in payloads]
        for future, payload in zip(results, payloads, strict=True):
            result = await future
            assert result.lsn == self.next
            self.rows[self.next] = Row(payload, key, topic)
            self.next += 1

    async def purge(self, key: object, topic: str | None, at: float | None) -> None:
        before = None if at is None else 1 + round(at * (self.next - 1))
        await (self.log if topic is None else self.log.topic(topic)).purge(key, before=before)
        limit = self.next if before is None else before
        for lsn, row in self.rows.items():
            if lsn < limit and row.key == key and topic in (None, row.topic):
                self.rows[lsn] = row._replace(hidden=True)

    async def compact(self) -> None:
        before = dict(self.log.writer.core.catalog.view.sizes)
        freed = await self.log.compact()
        after = self.log.writer.core.catalog.view.sizes  # perhaps with one more: compaction writes a group
        assert sum(after[first] for first in before) == sum(before.values()) - freed

    async def before(self, at: float) -> None:
        self.first = max(self.first, self.first + round(at * (self.next - self.first)) // 2)
        await self.log.truncate_before(self.first)

    async def after(self, at: float) -> None:
        lsn = self.next - 1 - round(at * (self.next - self.first)) // 2
        await self.log.truncate_after(lsn)
        self.rows = {each: row for each, row in self.rows.items() if each <= lsn}
        self.next = lsn + 1

    async def reopen(self) -> None:
        await self.log.close()
        await self.open()
        assert self.log.report.clean

    async def cut(self) -> None:
        await self.log.flush()
        left = self.device.fork()
        await self.log.close()  # in the world without the cut
        self.device = left.crash()
        await self.open()

    async def check(self) -> None:
        """All readers see what the model says."""
        assert (self.log.first_lsn, self.log.next_lsn) == (self.first, self.next)
        wanted = [(lsn, row) for lsn, row in self.rows.items() if lsn >= self.first]
        visible = [(lsn, row._replace(hidden=False)) for lsn, row in wanted if not row.hidden]
        seen = [(r.lsn, Row(r.payload, r.attributes["key"], r.topic)) async for r in self.log.read()]
        assert seen == visible
        for topic in self.log.topics():
            seen_there = [record.lsn async for record in self.log.topic(topic).read()]
            assert seen_there == [lsn for lsn, row in visible if row.topic == topic]
            assert await self.log.topic(topic).count() == sum(row.topic == topic for _, row in wanted)

    async def run(self, script: list[tuple]) -> None:
        await self.open()
        for name, *arguments in script:
            await getattr(self, name)(*arguments)
            await self.check()
        await self.reopen()
        await self.check()
        await self.log.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=3, max_size=24))
def test_any_order_of_purging_compacting_and_truncating_agrees_with_the_model(script: list[tuple]) -> None:
    loop = SimLoop()
    try:
        loop.run_until_complete(Modelled().run(script))
    finally:
        loop.close()
