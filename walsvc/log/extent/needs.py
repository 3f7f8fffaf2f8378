"""Needs: the records that consumers and holders still need, held against those that are to be dropped; and the count of dropped ones.

A consumer of a topic needs its topic's records only. So it is looked up whether the topic has a record there at or behind
the consumer's position (in the segments' summaries, mostly); if not, the change that drops the records moves the position up.
The look-up reads from the disk and so takes time; whether consumers and holds still stand as then is asked in the very step
of the loop that makes the change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from walsvc.errors import BadOption
from walsvc.format.named import topic_of
from walsvc.log.commit.core import Core
from walsvc.log.read.filter import Filter
from walsvc.log.read.reader import Cursor
from walsvc.log.read.segments import Segments
from walsvc.visible import counted

logger: logging.Logger = logging.getLogger("walsvc.retention")
NOBODY = 1 << 64  # above every LSN


@dataclass(slots=True, eq=False, repr=False)
class DropPlan:
    """The effect on consumers of dropping everything below `target`, as of one moment.

    Attributes:
        target: LSN.
        topic: number of the topic of which everything below is to be dropped; 0: of the whole log.
        positions: those below the target at that moment, by key.
        overtaken: the lowest LSN that is lost to a consumer, by key.
    """

    target: int
    topic: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    overtaken: dict[str, int] = field(default_factory=dict)

    def moves(self, first_of: Callable[[int], int]) -> dict[str, int]:
        """Positions of consumers that lose nothing; one that had lost something before, since it stands below `first_of` its topic,
        stays where it is."""
        return {
            key: self.target
            for key, at in self.positions.items()
            if key not in self.overtaken and at >= first_of(topic_of(key))
        }


class Needs:
    """Plans what one log may drop. Loop thread only; it changes nothing of the log."""

    def __init__(self, core: Core, segments: Segments) -> None:
        self._core = core
        self._segments = segments
        self._found: dict[str, tuple[int, int]] = {}  # of consumers: position, next record of the topic from there on

    async def plan(self, target: int, topic: int = 0) -> DropPlan:
        """The consumers below `target`, of the topic with this number or (0) all, and those that would lose records."""
        plan, metadata = DropPlan(target, topic), self._core.metadata
        self._found = {key: found for key, found in self._found.items() if key in metadata.positions}
        for key, position in list(metadata.positions.items()):
            number = topic_of(key)
            if position >= target or (topic and number != topic):
                continue
            plan.positions[key] = position
            lost = max(position, metadata.truncated)
            if number:
                lost = (
                    NOBODY
                    if metadata.topics.last_of(number) < position
                    else await self._record_from(key, number, lost, target)
                )
            if lost < target:
                plan.overtaken[key] = lost
        return plan

    async def _record_from(self, key: str, number: int, lsn: int, target: int) -> int:
        """LSN of a topic's first record from `lsn` on; some number from `target` on if there is none below."""
        position, found = self._found.get(key, (0, 0))
        if position == lsn and found >= lsn:
            return found
        cursor = Cursor(self._segments, lsn, Filter(number=number))
        records = await cursor.take(target)
        if not records:
            return NOBODY
        self._found[key] = (lsn, records[0].lsn)
        return records[0].lsn

    def still_true(self, plan: DropPlan, *, overtake: bool = True, keep_holds: bool = False) -> bool:
        """True if consumers, and with `keep_holds` holders, stand as when the plan was made."""
        if keep_holds and self.lowest_hold() < plan.target:
            return False
        below = {
            key: at
            for key, at in self._core.metadata.positions.items()
            if at < plan.target and plan.topic in (0, topic_of(key))
        }
        return below == plan.positions and (overtake or not plan.overtaken)

    # ---- holds

    def lowest_hold(self) -> int:
        """The lowest LSN that a holder needs; above every LSN where there is no hold."""
        return min(self._core.metadata.holds.values(), default=NOBODY)

    def refuse_held(self, lsn: int) -> None:
        """Raise BadOption where a holder needs what truncate_before(lsn) would drop."""
        holds = self._core.metadata.holds
        if self.lowest_hold() >= lsn:
            return
        name = min(holds, key=holds.__getitem__)
        raise BadOption(
            f"truncate_before({lsn}) would drop what {name!r} holds from LSN {holds[name]} on",
            path=self._core.disk.path,
            lsn=holds[name],
            hint=f"release({name!r}), or pass force=True",
        )


class Drops:
    """Counts what one log has dropped, and logs each drop: at level WARNING where consumers have lost records by it, else at INFO.

    Attributes:
        segments, bytes, records: that went.
        overtaken: consumers that have lost records, each as often as it did.
        last: the last drop, in words.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.segments: int = 0
        self.bytes: int = 0
        self.records: int = 0
        self.overtaken: int = 0
        self.last: str | None = None

    def add(self, first: int, before: dict[int, int], plan: DropPlan, why: str) -> None:
        """Records from LSN `first` on went as planned, with those of the segments `before` (first LSN to size) that are gone."""
        gone = [each for each in before if each not in self._core.catalog.view.sizes]
        size = sum(before[each] for each in gone)
        self.segments += len(gone)
        self.bytes += size
        self.records += plan.target - first
        what = f"{counted(len(gone), 'segment')}, {counted(size, 'byte')}"
        self.say(f"LSN {first} to {plan.target - 1} dropped ({why}): {what}", plan)

    def say(self, text: str, plan: DropPlan) -> None:
        """Log a drop, and the consumers that have lost records by it."""
        if plan.overtaken:
            self.overtaken += len(plan.overtaken)
            text += "; overtook consumers " + ", ".join(sorted(map(self._consumer, plan.overtaken))[:10])
            logger.warning("%s: %s", self._core.disk.path, text)
        else:
            logger.info("%s: %s", self._core.disk.path, text)
        self.last = text

    def _consumer(self, key: str) -> str:
        topic, name = self._core.metadata.topics.names.get(topic_of(key)), key.partition("/")[2]
        return repr(name) if topic is None else f"{name!r} of {topic!r}"
