"""Rotation: from the write of a segment's first group to the seal of the segment before it.

Owns whether a segment is being begun: at most one at a time, and no other begins before its predecessor is sealed. The first
group carries the segment's header and snapshot in the same write. It is acknowledged after the file has its name. Until then
recovery finds it under the spare's name, whose directory entry was synced long before; so a rotation costs no extra sync. The
directory sync and the seal of the old segment follow at once. Where the system does not give the name now (a full file system that copies
on write), what was accepted waits for it, as for a device that stalls; who waits for room is told why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from walsvc.disk.base import Disk
from walsvc.errors import DurabilityLost, WalError
from walsvc.format.segment import segment_name
from walsvc.log.commit.background import Background, under_way
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.double_write import DoubleWrite, append_outside
from walsvc.log.commit.framing import seal_bytes
from walsvc.log.commit.group import Group
from walsvc.log.commit.health import Health
from walsvc.log.commit.patience import insist, kept_back, let_go, patiently
from walsvc.log.commit.segment import Segment
from walsvc.log.commit.spare import Spare
from walsvc.log.commit.tail import Tail
from walsvc.tasks import until_ended

logger: logging.Logger = logging.getLogger("walsvc.log")


class Rotation:
    """Begins the segments of one log. Loop thread only.

    Args:
        complete: told of a first group that may be acknowledged.
        freed: told when another segment may begin.
        refuse: gives its error to those who wait for room or for a turn.
    """

    def __init__(
        self,
        *,
        disk: Disk,
        tail: Tail,
        catalog: Catalog,
        health: Health,
        background: Background,
        double_write: DoubleWrite | None,
        complete: Callable[[Group], None],
        freed: Callable[[], None],
        refuse: Callable[[WalError], None],
    ) -> None:
        self._disk = disk
        self._tail = tail
        self._catalog = catalog
        self._health = health
        self._background = background
        self._double_write = double_write
        self._complete = complete
        self._freed = freed
        self._refuse = refuse
        self._task: asyncio.Task[None] | None = None
        self._head_in_flight = False
        # highest timestamp of a record in older segments, if known
        self._newest = 0 if tail.segment.header.ordinal == 1 else None

    @property
    def busy(self) -> bool:
        """True if a segment is being begun."""
        return under_way(self._task) or self._head_in_flight

    @property
    def head_in_flight(self) -> bool:
        """True if a group that begins a segment is not durable yet."""
        return self._head_in_flight

    def begun(self) -> None:
        """A group that begins a segment is being filled."""
        self._head_in_flight = True

    def head_durable(self) -> None:
        """Take note that the segment's first group is durable, with all groups before it."""
        self._head_in_flight = False

    def written(self, group: Group) -> None:
        """The disk has a segment's first group: finish in the background."""
        self._task = self._background.start("rotation", self._finish(group))

    async def ended(self) -> None:
        """Wait until no segment is being begun whose first group is written."""
        while self._task is not None and not self._task.done():
            await until_ended(self._task)

    async def _finish(self, group: Group) -> None:
        """Name the new segment, acknowledge its first group, then sync the directory and seal the old segment."""
        assert group.beginning is not None
        _, old, spare = group.beginning
        segment = group.segment
        try:
            await patiently(self._disk.check_place)  # before a name is taken that may be somebody else's by now
            segment.name = await self._install(spare, segment.id)
            replaces = segment.id == old.id
            if replaces:
                self._catalog.resize(segment.id, segment.header.file_bytes)  # who reads meanwhile finds the new file
                await self._disk.sync_directory()  # before the answer: its number would not be looked for among spares
                old.replaced = True
            self._catalog.begin(segment.id, segment.header.file_bytes)
            if replaces:
                self._catalog.arrive(segment.id, group.offset)
            group.written_in_order = self._health.loop.create_future()
            if self._health.failure is None:
                self._complete(group)
                await self._disk.sync_directory()
                await group.written_in_order  # like all groups before it, so that a seal never says more than is true
            if self._health.failure is None:
                if not replaces:
                    await self.seal(old, segment.id)
                await let_go(self._disk, old.file)
        except DurabilityLost:
            assert self._health.failure is not None, "only Health raises it here, and it told everybody"
        except OSError as error:
            if not self._health.released:  # else opening was given up, and nobody has the log
                self._health.fail("beginning a new segment failed", error, (segment.id, 0, group.first_lsn))
        finally:
            self._task = None
        self._freed()
        self._catalog.sealed()

    async def _install(self, spare: Spare, first_lsn: int) -> str:
        """Give a spare its name as a segment; durable only after sync_directory."""
        name, told = segment_name(first_lsn), False

        def refused(error: OSError) -> None:
            nonlocal told
            if self._health.failure is not None or self._health.closed is not None or self._health.released:
                raise error
            reason = kept_back(error, "a new segment cannot take its name now", path=self._disk.path, segment=first_lsn)
            if not told:
                logger.warning("%s", reason)
            told = True
            self._refuse(reason)

        await insist(lambda: self._disk.rename(spare.name, name), refused)
        return name

    async def seal(self, old: Segment, successor: int) -> None:
        """Write the group that ends a segment and names its successor, which is durable by now."""
        data = seal_bytes(
            old,
            successor,
            tally=old.tally,
            newest=await self._newest_with(old),
            generation=self._catalog.generation,
            durable_lsn=min(self._catalog.durable_lsn, successor - 1),
            timestamp_ns=self._tail.clock(),
        )
        assert old.end + len(data) <= old.header.file_bytes, "no room was kept for the seal"
        await append_outside(self._disk, self._double_write, old, data)

    async def _newest_with(self, old: Segment) -> int | None:
        """The highest timestamp of any record up to the end of a complete segment; None where it is not known."""
        if self._newest is None:
            self._newest = await self._tail.newest_before(old.id)
        if self._newest is not None:
            self._newest = max(self._newest, old.index.newest)
        return self._newest
