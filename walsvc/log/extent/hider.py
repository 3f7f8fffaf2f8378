"""Hider: hides a topic's records below an LSN, or one by one. What it writes are ranges (walsvc.format.hidden), no more.

A range shares the group commit like any other change. What it hides stays in the files until its segment is truncated or compacted
(walsvc.log.extent.compaction). A range must say how many records lie below it and up to its end, and reaches up to the topic's next
record: that is read before it is written, and one such call is prepared at a time.

`truncate_before` drops: a consumer of the topic that has not passed the records is told so, as by the log's own truncation. A purge
says nothing: consumers go on behind what is hidden.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.errors import BadOption, Truncated, WalError, copy_of
from walsvc.format.hidden import FLOORS, KEY, RANGES_MAX, Hidden, Range, row_of
from walsvc.format.purge import lsns_of
from walsvc.format.queues import KEY as QUEUES
from walsvc.format.queues import done_row
from walsvc.log.commit.background import under_way
from walsvc.log.commit.queued import Joined
from walsvc.log.extent.dropping import check_before
from walsvc.log.extent.leaving import leave_alone
from walsvc.log.read.counting import place_of
from walsvc.log.read.rows import Row, Walk, rows_at
from walsvc.model import is_lsn

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.extent.reclaim import DropPlan, Reclaimer
    from walsvc.log.read.segments import Segments

NEAR = 4096  # LSNs that are read through on the way to the next one that is wanted
Change = Callable[[], dict[str, Any] | None]


class Single(NamedTuple):
    """A visible record that is to be hidden.

    Attributes:
        topic: number of its topic, 0: none.
        range: that hides it.
    """

    topic: int
    range: Range


class Request(NamedTuple):
    """A call that purges single records.

    Attributes:
        topic: whose records they are; None: anybody's.
        lsns: of the records, ascending.
        answer: how many were hidden, once that is durable.
    """

    topic: str | None
    lsns: Sequence[int]
    answer: asyncio.Future[int]


class Hiding(NamedTuple):
    """The records that were hidden, for consumers that have read ahead.

    Attributes:
        topic: whose records they are; None: records of any topic and of none, which `lsns` names.
        before: LSN below which all records of the topic are hidden; 0 where `lsns` names them.
        lsns: of single records.
    """

    topic: str | None
    before: int
    lsns: Sequence[int] = ()


class Hider:
    """Hides records of one log. Loop thread only.

    Attributes:
        listeners: are told what was hidden, before the call that has hidden it returns.
    """

    def __init__(self, core: Core, segments: Segments, reclaimer: Reclaimer) -> None:
        self.listeners: set[Callable[[Hiding], None]] = set()
        self._core = core
        self._segments = segments
        self._reclaimer = reclaimer
        self._preparing = asyncio.Lock()
        self._requests: list[Request] = []
        self._serving: asyncio.Task[None] | None = None

    # ---- below an LSN

    async def truncate_before(self, topic: str, lsn: int, *, force: bool = False, why: str = "truncate_before") -> None:
        """Drop the records of a topic below `lsn`, durably; see Topic.truncate_before."""
        self._core.health.check_call()
        while True:
            check_before(self._core, lsn)
            if not force:
                self._reclaimer.refuse_held(lsn)
            async with self._preparing:
                number = self._segments.topic_number(topic)
                if number is None or lsn <= self._segments.first_of(number):
                    return
                cuts = self._segments.cuts.count
                try:
                    hidden = await self._below(number, lsn)
                    plan = await self._reclaimer.plan(lsn, number)
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
                self._reclaimer.refuse_held(plan.target)
            same = segments.cuts.since(cuts) >= plan.target and number in segments.topics.names
            if not same or not self._reclaimer.still_true(plan):
                return None
            positions = plan.moves(segments.first_of)
            windows = {key: {"rows": done_row(1, plan.target - 1, 0)} for key in positions if key in queues}
            made: dict[str, Any] = {FLOORS: {str(number): plan.target}, KEY: row_of(number, hidden)}
            made["positions"] = {key: at for key, at in positions.items() if key not in windows}
            return {**made, QUEUES: windows} if windows else made

        return await self._accepted(change, [hiding])

    async def purge_below(self, topic: str, before: int | None) -> int:
        """Hide the records of a topic below LSN `before` (None: all so far); returns how many they were."""
        core = self._core
        core.health.check_call()
        lsn = core.next_lsn if before is None else before
        check_purge(core, lsn)
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
            async with self._preparing:
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
                ending = await self._accepted(change, [Hiding(topic, hidden.last + 1)])
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
        begin, hidden = await place_of(segments, first, number), await self._below(number, lsn)
        ranges = segments.metadata.hidden
        inside = ranges.records_from(number, begin.lsn) - ranges.records_from(number, hidden.last + 1)
        return max(hidden.upto - begin.below - inside, 0), hidden

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

    # ---- one by one

    async def purge_single(self, topic: str | None, lsns: Iterable[int]) -> int:
        """Hide records by their LSNs, of a topic or (None) of any; returns how many of them were visible until then."""
        self._core.health.check_call()
        wanted = check_lsns(self._core, lsns)
        if not wanted:
            return 0
        request = Request(topic, wanted, self._core.health.loop.create_future())
        self._requests.append(request)
        if not under_way(self._serving):
            self._serving = self._core.background.start("purging records", self._serve(), foreseen=(WalError,))
        return await request.answer

    async def _serve(self) -> None:
        """Hide what was asked for; calls that come while others are prepared share their reading and their group."""
        while self._requests:
            async with self._preparing:
                requests, self._requests = self._requests, []
                try:
                    await self._serve_all(requests)
                except WalError:  # perhaps of one of them alone
                    for request in requests:
                        try:
                            await self._serve_all([request])
                        except WalError as error:
                            if not request.answer.done():
                                request.answer.set_exception(copy_of(error))

    async def _serve_all(self, requests: Sequence[Request]) -> None:
        core, cuts = self._core, self._segments.cuts.count
        topics = dict.fromkeys(request.topic for request in requests)
        singles = {
            topic: {each.range.first: each for each in await self._find(topic, lsns_of_all(requests, topic))}
            for topic in topics
        }
        counts: list[int] = []

        def change() -> dict[str, Any] | None:
            made, cut, seen = Hidden(), self._segments.cuts.since(cuts), set[int]()
            counts.clear()
            for topic, lsns, _ in requests:
                fresh = [lsn for lsn in lsns if lsn in singles[topic] and core.metadata.truncated <= lsn < cut]
                fresh = [lsn for lsn in fresh if lsn not in seen and self._lives(singles[topic][lsn].topic)]
                for lsn in fresh:
                    number, hidden = singles[topic][lsn]
                    made.add(number, hidden._replace(last=min(hidden.last, cut - 1)))
                seen.update(fresh)
                counts.append(len(fresh))
            check_room(core, made)
            return {KEY: made.encode()} if made else None

        ending = await self._accepted(change, [Hiding(topic, 0, list(found)) for topic, found in singles.items()])
        if ending.done():
            ending.result()
        ending.add_done_callback(lambda _: answer_all(requests, counts, ending))

    def _lives(self, number: int) -> bool:
        return not number or number in self._segments.topics.names

    async def _find(self, topic: str | None, lsns: Sequence[int]) -> list[Single]:
        """The visible ones among the records with these LSNs, ascending. Those that are dropped meanwhile are left out."""
        segments = self._segments
        limit = await segments.reach()
        while True:
            first = segments.first_lsn
            standing = [lsn for lsn in lsns if segments.first_lsn <= lsn < limit]
            try:
                if topic is not None:
                    number = segments.topic_number(topic)
                    found = {} if number is None else {number: standing}
                else:
                    found = await self._numbers(standing, limit)
                singles = [Single(0, Range(lsn, lsn, 0, 0)) for lsn in found.pop(0, ())]
                for number, some in found.items():
                    singles += await self._of_topic(number, some, limit)
            except Truncated:
                continue  # meanwhile
            if first == segments.first_lsn:
                return singles

    async def _numbers(self, lsns: Sequence[int], limit: int) -> dict[int, list[int]]:
        """The visible ones among LSNs, by topic."""
        found: dict[int, list[int]] = {}
        rows, read = None, deque[Row]()
        for lsn in lsns:
            if rows is None or lsn >= rows.next_lsn + NEAR:
                rows, read = rows_at(self._segments, lsn, 0), deque()
            while (not read or read[-1].lsn < lsn) and (more := await rows.take(limit)):
                read = deque(more)
            while read and read[0].lsn < lsn:
                read.popleft()
            if read and read[0].lsn == lsn and read[0].visible:
                found.setdefault(read[0].topic, []).append(lsn)
        return found

    async def _of_topic(self, number: int, lsns: Sequence[int], limit: int) -> list[Single]:
        """The visible ones among a topic's records, each with the range that hides it: up to the topic's next record."""
        singles, walk = list[Single](), None
        for lsn in lsns:
            if self._segments.metadata.hidden.covers(number, lsn):
                continue
            if walk is None or lsn >= walk.rows.next_lsn + NEAR:
                walk = await Walk.begin(self._segments, number, lsn, limit)
            while (row := await walk.head()) is not None and row.lsn < lsn:
                walk.step()
            if row is None or row.lsn != lsn:
                continue
            below = walk.below(lsn)
            walk.step()
            following = await walk.head()
            if row.visible:
                last = limit - 1 if following is None else following.lsn - 1
                singles.append(Single(number, Range(lsn, last, below, below + 1)))
        return singles

    # ---- writing

    async def _accepted(self, make: Change, hidings: Sequence[Hiding]) -> asyncio.Task[bool]:
        """Let a change join a group, and wait until it is accepted, or refused.

        Args:
            make: makes it from the state at that moment; None: it is not to be made.
            hidings: what the listeners are told once it is durable.

        Returns:
            A task that ends then; whether the change was made.
        """
        accepted: asyncio.Future[None] = self._core.health.loop.create_future()
        made = False

        def change() -> dict[str, Any]:
            nonlocal made
            wanted = make()
            made = wanted is not None
            return {"positions": {}} if wanted is None else wanted

        def taken() -> None:
            if any(hiding.before for hiding in hidings):
                self._segments.cuts.hidden()
            if not accepted.done():
                accepted.set_result(None)

        async def work() -> bool:
            await self._core.changes.join(Joined(change, taken))
            for hiding in hidings if made else ():
                for listener in list(self.listeners):
                    listener(hiding)
            return made

        ending = self._core.background.start("hiding records", work(), foreseen=(WalError,))
        either: list[asyncio.Future[Any]] = [ending, accepted]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return ending


def lsns_of_all(requests: Sequence[Request], topic: str | None) -> list[int]:
    """The LSNs that a call names, ascending and each once."""
    return sorted({lsn for request in requests if request.topic == topic for lsn in request.lsns})


def answer_all(requests: Sequence[Request], counts: Sequence[int], ending: asyncio.Task[bool]) -> None:
    """Answer calls whose change is durable, or is not going to be."""
    error = asyncio.CancelledError() if ending.cancelled() else ending.exception()
    for request, count in zip(requests, counts, strict=True):
        if request.answer.done():
            continue
        if error is None:
            request.answer.set_result(count)
        elif isinstance(error, WalError):
            request.answer.set_exception(copy_of(error))
        else:
            request.answer.cancel()


def check_purge(core: Core, before: int) -> None:
    """BadOption unless purge(before) is possible."""
    if not is_lsn(before) or not 1 <= before <= core.next_lsn:
        raise BadOption(
            f"purge(before={before!r}) is out of range",
            path=core.disk.path,
            hint=f"1 to next_lsn, {core.next_lsn}",
        )


def check_lsns(core: Core, lsns: Iterable[int]) -> list[int]:
    """The LSNs, ascending and each once. BadOption unless they are few enough, and were given out."""
    wanted = lsns_of(lsns)
    for lsn in wanted:
        if not 1 <= lsn < core.next_lsn:
            raise BadOption(
                f"purge(lsns=...) names {lsn}, which no record has",
                path=core.disk.path,
                hint=f"LSNs below next_lsn, {core.next_lsn}",
            )
    return wanted


def check_room(core: Core, more: Hidden) -> None:
    """BadOption where the log would have too many ranges."""
    known = core.metadata.hidden
    if known.count + more.count <= RANGES_MAX:
        return
    trial = known.copy()
    trial.apply(more.encode())
    if trial.count > RANGES_MAX:
        raise BadOption(
            f"the log has {known.count} ranges of purged records, no more fit",
            path=core.disk.path,
            expected=f"at most {RANGES_MAX:,}",
            hint="truncate_before, of the log or of the topic, takes away the ranges below it",
        )
