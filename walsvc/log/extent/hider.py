"""Hider: hides a topic's records below an LSN. What it writes are ranges (walsvc.format.hidden), no more.

A range shares the group commit like any other change. What it hides stays in the files until its segment is truncated or compacted
(walsvc.log.extent.compaction). A range must say how many records lie below it and up to its end, and reaches up to the topic's next
record: that is read before it is written (walsvc.log.extent.hidings).

`truncate_before` drops: a consumer of the topic that has not passed the records is told so, as by the log's own truncation. A purge
says nothing: consumers go on behind what is hidden.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, Truncated
from walsvc.format.hidden import FLOORS, KEY, Range, row_of
from walsvc.format.queues import KEY as QUEUES
from walsvc.format.queues import done_row
from walsvc.log.extent.dropping import check_before
from walsvc.log.extent.leaving import leave_alone
from walsvc.log.extent.purging import limit_of
from walsvc.log.read.counting import NextRecords, place_of
from walsvc.log.read.cuts import Hiding
from walsvc.log.read.rows import Walk
from walsvc.model import is_lsn

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.extent.hidings import Hidings
    from walsvc.log.extent.needs import DropPlan
    from walsvc.log.extent.reclaim import Reclaimer
    from walsvc.log.read.segments import Segments


class Hider:
    """Hides the oldest records of the topics of one log. Loop thread only."""

    def __init__(self, core: Core, segments: Segments, reclaimer: Reclaimer, hidings: Hidings) -> None:
        self._core = core
        self._segments = segments
        self._reclaimer = reclaimer
        self._hidings = hidings

    async def truncate_before(self, topic: str, lsn: int, *, force: bool = False, why: str = "truncate_before") -> None:
        """Drop the records of a topic below `lsn`, durably; see Topic.truncate_before."""
        self._core.health.check_call()
        while True:
            async with self._hidings.preparing:
                check_before(self._core, lsn)
                if not force:
                    self._reclaimer.needs.refuse_held(lsn)
                number = self._segments.topic_number(topic)
                if number is None or lsn <= self._segments.first_of(number):
                    return
                cuts = self._segments.cuts.count
                try:
                    hidden = await self._below(number, lsn)
                    plan = await self._reclaimer.needs.plan(lsn, number)
                except Truncated:
                    continue  # meanwhile
                ending = await self._truncated(number, hidden, plan, cuts, Hiding(topic, lsn), force=force)
            if await asyncio.shield(ending):
                self._reclaimer.tell_topic(topic, plan, why)
                leave_alone(self._core, number)
                return

    async def _truncated(
        self, number: int, hidden: Range, plan: DropPlan, cuts: int, hiding: Hiding, *, force: bool
    ) -> asyncio.Task[bool]:
        segments, queues = self._segments, self._core.metadata.queues

        def change() -> dict[str, Any] | None:
            if not force:
                self._reclaimer.needs.refuse_held(plan.target)
            same = segments.cuts.since(cuts) >= plan.target and number in segments.topics.names
            if not same or not self._reclaimer.needs.still_true(plan):
                return None
            positions = plan.moves(segments.first_of)
            windows = {key: {"rows": done_row(1, plan.target - 1, 0)} for key in positions if key in queues}
            made: dict[str, Any] = {FLOORS: {str(number): plan.target}, KEY: row_of(number, hidden)}
            made["positions"] = {key: at for key, at in positions.items() if key not in windows}
            return {**made, QUEUES: windows} if windows else made

        return await self._hidings.accepted(change, [hiding])

    async def purge_below(self, topic: str, before: int | None) -> int:
        """Hide the records of a topic below LSN `before` (None: all so far); returns how many they were."""
        core = self._core
        core.health.check_call()
        lsn = limit_of(core, before)
        return await self._purge(topic, lambda number: self._counted_below(number, lsn))

    async def purge_all_but(self, topic: str, keep: int) -> int:
        """Hide the records of a topic but for the `keep` newest ones; returns how many they were."""
        self._core.health.check_call()
        if not is_lsn(keep) or keep < 0:
            raise BadOption(f"purge(keep={keep!r}) is no number of records", hint="an integer, 0 or more")
        return await self._purge(topic, lambda number: self._counted_but(number, keep))

    async def _purge(self, topic: str, find: Callable[[int], Awaitable[tuple[int, Range]]]) -> int:
        segments = self._segments
        while True:
            async with self._hidings.preparing:
                number = segments.topic_number(topic)
                if number is None:
                    return 0
                cuts, first = segments.cuts.count, segments.first_lsn
                try:
                    records, hidden = await find(number)
                except Truncated:
                    continue  # meanwhile
                if first != segments.first_lsn:
                    continue  # ranges may have gone
                if not records:
                    return 0
                change = partial(self._hiding, number, hidden, cuts)
                ending = await self._hidings.accepted(change, [Hiding(topic, hidden.last + 1)])
            if await asyncio.shield(ending):
                return records

    def _hiding(self, number: int, hidden: Range, cuts: int) -> dict[str, Any] | None:
        same = self._segments.cuts.since(cuts) > hidden.last and number in self._segments.topics.names
        return {KEY: row_of(number, hidden)} if same else None

    async def _below(self, number: int, lsn: int) -> Range:
        """The range that hides a topic below an LSN."""
        await self._core.durable(lsn - 1)
        place = await place_of(self._segments, lsn, number)
        return Range(1, place.lsn - 1, 0, place.below)

    async def _counted_below(self, number: int, lsn: int) -> tuple[int, Range]:
        """How many visible records a topic has below an LSN, and the range that hides them."""
        segments, first = self._segments, self._segments.first_of(number)
        lsn = min(lsn, self._core.next_lsn)  # the end may have been cut since
        if lsn <= first:
            return 0, Range(1, 1, 0, 0)
        ranges, begin = segments.metadata.hidden, await place_of(segments, first, number)
        if not any(begin.lsn < segment <= lsn for segment in segments.ids()):
            # less of the topic is left than of the segment
            return await self._walked_below(number, begin, lsn)
        hidden = await self._below(number, lsn)
        inside = ranges.records_from(number, begin.lsn) - ranges.records_from(number, hidden.last + 1)
        return max(hidden.upto - begin.below - inside, 0), hidden

    async def _walked_below(self, number: int, begin: NextRecords, lsn: int) -> tuple[int, Range]:
        """The same, by going over the topic's records from where it begins."""
        await self._core.durable(lsn - 1)
        covering = self._segments.metadata.hidden.at(number, lsn)
        end = lsn if covering is None else covering.last + 1
        walk = Walk(self._segments, number, end, begin=begin.lsn, below=begin.below)
        passed = 0
        while await walk.head() is not None:
            walk.step()
            passed += 1
        return passed, Range(1, end - 1, 0, walk.below(end))

    async def _counted_but(self, number: int, keep: int) -> tuple[int, Range]:
        """How many records a topic has besides the newest ones, and the range that hides them."""
        segments = self._segments
        limit = await segments.reach()
        begin = await place_of(segments, segments.first_of(number), number)
        total, _ = await segments.topic_sums(number)
        ranges = segments.metadata.hidden
        excess = total - begin.below - ranges.records_from(number, begin.lsn) - keep
        if excess <= 0 or begin.lsn >= limit:
            return 0, Range(1, 1, 0, 0)
        walk = Walk(segments, number, limit, begin=begin.lsn, below=begin.below)
        passed = 0
        while (row := await walk.head()) is not None and passed < excess:
            walk.step()
            passed += 1
        end = limit if row is None else row.lsn
        return passed, Range(1, end - 1, 0, walk.below(end))
