"""Singles: records that are purged one by one, by their LSNs.

A range hides each of them (walsvc.format.hidden): it reaches up to the topic's next record, so what follows the record is read first. Calls
that come while others are prepared share their reading and their group.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.errors import BadOption, Truncated, WalError, copy_of
from walsvc.format.hidden import KEY, RANGES_MAX, Hidden, Range
from walsvc.format.purge import lsns_of
from walsvc.log.commit.background import under_way
from walsvc.log.read.cuts import Hiding
from walsvc.log.read.rows import RecordRow, Walk, rows_at

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.extent.hidings import Hidings
    from walsvc.log.read.segments import Segments

NEAR = 4096  # LSNs that are read through on the way to the next one that is wanted


class Single(NamedTuple):
    """A visible record that is to be hidden.

    Attributes:
        topic: number of its topic, 0: none.
        range: that hides it.
    """

    topic: int
    range: Range


class PurgeRequest(NamedTuple):
    """A call that purges single records.

    Attributes:
        topic: whose records they are; None: anybody's.
        lsns: of the records, ascending.
        answer: how many were hidden, once that is durable.
    """

    topic: str | None
    lsns: Sequence[int]
    answer: asyncio.Future[int]


class Singles:
    """Purges single records of one log. Loop thread only."""

    def __init__(self, core: Core, segments: Segments, hidings: Hidings) -> None:
        self._core = core
        self._segments = segments
        self._hidings = hidings
        self._requests: list[PurgeRequest] = []
        self._taken: list[PurgeRequest] = []  # of these the records are being looked for
        self._serving: asyncio.Task[None] | None = None

    async def purge(self, topic: str | None, lsns: Iterable[int]) -> int:
        """Hide records by their LSNs, of a topic or (None) of any; returns how many of them were visible until then."""
        self._core.health.check_call()
        wanted = check_lsns(self._core, lsns)
        if not wanted:
            return 0
        request = PurgeRequest(topic, wanted, self._core.health.loop.create_future())
        self._requests.append(request)
        if not under_way(self._serving):
            self._serving = self._core.background.start("purging records", self._serve(), foreseen=(WalError,))
            self._serving.add_done_callback(self._ended)
        return await request.answer

    def _ended(self, _: asyncio.Task[None]) -> None:
        """Where an error that nobody foresaw has ended the work, and so failed the log, tell the callers that it leaves unanswered."""
        health = self._core.health
        if health.failure is None:
            return
        for request in [*self._taken, *self._requests]:
            if not request.answer.done():
                request.answer.set_exception(health.failure_told())
                health.note_told(1)
        self._requests.clear()

    async def _serve(self) -> None:
        """Hide what was asked for; calls that come while others are prepared share their reading and their group."""
        while self._requests:
            async with self._hidings.preparing:
                requests, self._requests = self._requests, []
                self._taken = requests
                try:
                    await self._serve_all(requests)
                except WalError:  # perhaps of one of them alone
                    for request in requests:
                        try:
                            await self._serve_all([request])
                        except WalError as error:
                            if not request.answer.done():
                                request.answer.set_exception(copy_of(error))

    async def _serve_all(self, requests: Sequence[PurgeRequest]) -> None:
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

        ending = await self._hidings.accepted(
            change, [Hiding(topic, 0, list(found)) for topic, found in singles.items()]
        )
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
        rows, read = None, deque[RecordRow]()
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


def lsns_of_all(requests: Sequence[PurgeRequest], topic: str | None) -> list[int]:
    """The LSNs of a topic that the requests name, ascending and each once."""
    return sorted({lsn for request in requests if request.topic == topic for lsn in request.lsns})


def answer_all(requests: Sequence[PurgeRequest], counts: Sequence[int], ending: asyncio.Task[bool]) -> None:
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
