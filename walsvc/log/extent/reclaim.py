"""Retention: whole segments go when everybody has passed them, or when a limit says so. Never silently.

When a segment is to go, and the topics' consumers need nothing in it, the same change that drops the segment moves their
positions up (see walsvc.log.extent.needs). A position below first_lsn therefore always means that the consumer lost something,
also after a restart, and says Truncated.

The decision takes time; positions and holds may change meanwhile. It is verified in the very step of the loop that makes the
change, and made again if anything has moved.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from walsvc.config import one_of
from walsvc.errors import WalError
from walsvc.format.segment import segment_name
from walsvc.log.commit.background import under_way
from walsvc.log.commit.core import Core
from walsvc.log.extent.aging import Ages
from walsvc.log.extent.dropping import check_before, drop_segments, droppable
from walsvc.log.extent.leaving import leave
from walsvc.log.extent.needs import DropPlan, Drops, Needs
from walsvc.log.extent.steps import run_shielded
from walsvc.log.read.pins import REPLICA_HOLD, pins_of
from walsvc.log.read.segments import Segments
from walsvc.log.read.stream import load_header
from walsvc.model import Retention
from walsvc.tasks import TWICE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

logger: logging.Logger = logging.getLogger("walsvc.retention")
clocks: logging.Logger = logging.getLogger("walsvc.log")
LOOK_AGAIN_SECONDS = 0.05  # at least, between two looks at the age of segments
TRY_AGAIN_SECONDS = 1.0  # after what failed: a shortage ends without telling anybody


class Reclaimer:
    """Drops segments of one log, on request and, where the options ask for it, by itself.

    Attributes:
        needs: the consumers and holders that it asks.
    """

    def __init__(self, core: Core, segments: Segments) -> None:
        self.needs: Needs = Needs(core, segments)
        self._core = core
        self._segments = segments
        self._config = core.config
        self._limited = self._config.retain_bytes is not None or self._config.retain_seconds is not None
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._timers: list[asyncio.TimerHandle] = []  # two, see TWICE
        self._created_ns: dict[int, int] = {}
        self._ages = Ages(self._wall, core.health.loop.time, self._begun_ns)
        self._ages.note(core.catalog.view.ids)
        self._dropped = Drops(core)
        self._failed: str | None = None
        core.catalog.when_begun(self.wake)
        core.changes.when_passed(self._passed)
        self.wake()

    def _wall(self) -> int:
        return self._core.tail.clock()

    # ---- by itself

    def wake(self) -> None:
        """There may be something to drop: look, in the background."""
        self._ages.note(self._core.catalog.view.ids)
        automatic = self._limited or self._config.reclaim == "consumed"
        if not automatic or len(self._core.catalog.view.ids) < 2 or self._core.health.closing:
            return
        self._again = True
        if not under_way(self._task):
            self._task = self._core.background.start("retention", self._run())

    def _passed(self, lsn: int) -> None:
        """A consumer or holder has passed everything below `lsn`."""
        ids = self._core.catalog.view.ids
        if len(ids) > 1 and lsn >= ids[1]:
            self.wake()

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._pass(consumed=self._config.reclaim == "consumed")
                self._failed = None
        except (WalError, OSError) as error:  # whoever uses the log is told by the log itself
            if self._core.health.failure is None and self._core.health.closed is None:
                if self._failed != str(error):
                    logger.warning("nothing was reclaimed in %s: %s", self._core.disk.path, error)
                self._failed = str(error)
                self._look_again(TRY_AGAIN_SECONDS)
        except Exception as error:  # the next rotation looks again
            self._failed = repr(error)
            logger.exception("nothing was reclaimed in %s", self._core.disk.path)

    def _look_again(self, seconds: float) -> None:
        self.stop()
        loop, pause = self._core.health.loop, max(seconds, LOOK_AGAIN_SECONDS)
        alive = weakref.WeakMethod(self.wake)  # the loop keeps no log that was dropped
        self._timers = [loop.call_later(pause, wake_alive, alive) for _ in TWICE]

    def stop(self) -> None:
        """Look no more."""
        for timer in self._timers:
            timer.cancel()

    async def close(self) -> None:
        """Wait for a look under way, which the closed writer ends."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # ---- on request

    async def reclaim(self) -> int:
        """Drop what everybody has passed, and what the limits say. Returns the number of records dropped."""
        self._core.health.check_call()
        before = self._core.metadata.truncated
        await self._pass(consumed=True)
        return self._core.metadata.truncated - before

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop all records below `lsn`, durably."""
        self._core.health.check_call()
        check_before(self._core, lsn)
        one_of("force", force, (True, False))
        if lsn <= self._core.metadata.truncated and not droppable(self._core):
            return
        if not force:
            self.needs.refuse_held(lsn)

        async def target() -> int:
            check_before(self._core, lsn)  # again: another truncation may have come first
            if not force:
                self.needs.refuse_held(lsn)
            await self._core.durable(lsn - 1)
            return lsn

        await self._to_the_end(self._drop(target, "truncate_before", keep_holds=not force))

    async def _to_the_end(self, change: Coroutine[Any, Any, None]) -> None:
        await run_shielded(self._core, "truncate_before", change)

    # ---- deciding

    async def _pass(self, *, consumed: bool) -> None:
        if consumed:
            await self._to_the_end(self._drop(self._consumed_by_all, "consumed by all", overtake=False))
        if self._limited:
            await self._to_the_end(self._drop(self._over_limit, "limit"))

    def _boundary(self, lsn: int) -> int:
        """The highest segment's first LSN up to `lsn` below which everything is durable; 0 if there is none."""
        ids = self._core.catalog.view.ids
        place = bisect_right(ids, min(lsn, self._core.catalog.durable_lsn + 1))
        return ids[place - 1] if place > 1 else 0

    async def _consumed_by_all(self) -> int:
        metadata = self._core.metadata
        if not metadata.positions and not metadata.holds.keys() - {REPLICA_HOLD}:
            return 0  # no consumer or hold has passed anything; the hold of a replica goes with the log
        target = self._boundary(self.needs.lowest_hold())
        while target > metadata.truncated:
            plan = await self.needs.plan(target)
            if not plan.overtaken:
                return target
            target = self._boundary(min(plan.overtaken.values()))
        return 0

    async def _over_limit(self) -> int:
        core, config = self._core, self._config
        ids, target = list(core.catalog.view.ids), 0
        total = sum(core.catalog.view.sizes.values())
        if config.retain_seconds is not None and (news := self._ages.news()) is not None:
            clocks.warning("%s: %s", core.disk.path, news)
        for position, (first, following) in enumerate(pairwise(ids), 1):
            left = 0.0
            if config.retain_seconds is not None:
                left = config.retain_seconds - await self._ages.seconds(following, ids[position + 1 :])
            if (config.retain_seconds is None or left >= 0) and (
                config.retain_bytes is None or total <= config.retain_bytes
            ):
                if config.retain_seconds is not None:
                    self._look_again(left)
                break
            target, total = following, total - core.catalog.view.sizes.get(first, 0)
        return self._boundary(min(target, self.needs.lowest_hold()))

    async def _begun_ns(self, first: int) -> int:
        """When a segment began, as its header says."""
        if first not in self._created_ns:
            header, _ = await load_header(self._core.disk, segment_name(first), first)
            sizes = self._core.catalog.view.sizes
            self._created_ns = {each: at for each, at in self._created_ns.items() if each in sizes}
            self._created_ns[first] = header.created_ns
        return self._created_ns[first]

    # ---- dropping

    async def _drop(
        self, decide: Callable[[], Awaitable[int]], why: str, *, overtake: bool = True, keep_holds: bool = True
    ) -> None:
        """Drop everything below the LSN that `decide` gives, if that is more than was dropped before."""
        core = self._core
        async with core.extent.changing() as turn:
            while True:
                target = await decide()
                if target <= core.metadata.truncated:
                    if droppable(core):  # it could not be removed when its records were dropped
                        turn.begin()
                        await drop_segments(core)
                    return
                plan = await self.needs.plan(target)
                if not self.needs.still_true(plan, overtake=overtake, keep_holds=keep_holds):
                    continue
                change = {"truncated": target, "positions": plan.moves(self._segments.first_of)}
                first, before = core.metadata.truncated, dict(core.catalog.view.sizes)
                done = core.changes.try_write(change)
                if done is not None:
                    turn.begin()
                    break
                await core.queue.room_change(metadata=True)
            await done
            try:
                await drop_segments(core)
            finally:
                if core.health.failure is None:
                    self._dropped.add(first, before, plan, why)
        await leave(core)

    def tell_topic(self, topic: str, plan: DropPlan, why: str) -> None:
        """A topic's records were dropped: what its consumers have lost by it."""
        self._dropped.say(f"records of topic {topic!r} below LSN {plan.target} dropped ({why})", plan)
        self.wake()

    def status(self, pins_max: int | None = None) -> Retention:
        """Records that are kept, the pins that need them, and the records that were dropped."""
        core = self._core
        dropped = self._dropped
        return Retention(
            first_lsn=core.metadata.truncated,
            next_lsn=core.next_lsn,
            segments=len(core.catalog.view.ids),
            bytes=sum(core.catalog.view.sizes.values()),
            pins=pins_of(core.metadata, core.next_lsn, core.catalog.view.sizes, pins_max),
            dropped_segments=dropped.segments,
            dropped_bytes=dropped.bytes,
            dropped_records=dropped.records,
            overtaken=dropped.overtaken,
            last_drop=dropped.last,
            failed=self._failed,
            clocks=self._ages.disagreement(),
        )


def wake_alive(wake: weakref.WeakMethod[Callable[[], None]]) -> None:
    """Wake a Reclaimer, if it is still there."""
    if (alive := wake()) is not None:
        alive()
