"""What a log has dropped since it was opened, in numbers and in words."""

from __future__ import annotations

import logging

from walsvc.format.named import topic_of
from walsvc.log.commit.core import Core
from walsvc.log.extent.needs import DropPlan
from walsvc.visible import counted

logger: logging.Logger = logging.getLogger("walsvc.retention")


class Dropped:
    """Counts it, and logs each drop: at level WARNING where consumers have lost records by it, else at INFO.

    Attributes:
        segments, bytes, records: that went.
        overtaken: consumers that have lost records, each as often as it did.
        last: the last drop, in words.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.segments = 0
        self.bytes = 0
        self.records = 0
        self.overtaken = 0
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
