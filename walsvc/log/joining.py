"""Changes of metadata that join a group commit: an acknowledgement of a consumer shares its sync with whatever else is
appended, and costs none of its own.

A change joins the filling group, is true in memory at once, and durable with the group. Nothing joins while a batch is
streamed, which may be given up with all its groups, or while the log's end is being cut.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from walsvc.errors import WalError
from walsvc.format.group import GROUP_HEADER_BYTES
from walsvc.format.meta import change_bytes_max, merge
from walsvc.log.accept import Acceptor
from walsvc.log.summaries import Summaries

if TYPE_CHECKING:
    from walsvc.config import WalConfig
    from walsvc.disk.base import Disk
    from walsvc.format.meta import Metadata
    from walsvc.log.double_write import DoubleWrite
    from walsvc.log.segments import Segment

Change = Callable[[], dict[str, Any]]


@dataclass(slots=True)
class Place:
    """Where an open consumer stands.

    Attributes:
        position: LSN behind the last acknowledged record; the metadata may be behind it by what may be repeated.
        following: LSN behind the last record that was delivered.
        turns: changes whenever the consumer was moved, so that what it had read ahead is void.
        leaving: makes its last position durable; then its name is free.
    """

    position: int
    following: int
    turns: int = 0
    leaving: asyncio.Task[None] | None = None

    def rewind(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        self.move(min(self.position, end), min(self.following, end))

    def move(self, position: int, following: int) -> None:
        """Go on elsewhere."""
        self.position, self.following = position, following
        self.turns += 1


class Joiner(Acceptor):
    """Lets changes of metadata join the filling group, and knows who reads from where."""

    def __init__(
        self,
        disk: Disk,
        config: WalConfig,
        segment: Segment,
        *,
        next_lsn: int,
        generation: int,
        metadata: Metadata,
        sizes: Mapping[int, int],
        double_write: DoubleWrite | None = None,
    ) -> None:
        self._joins: OrderedDict[asyncio.Future[None], Change] = OrderedDict()  # changes that wait for room
        self._places: dict[str, Place] = {}  # of the consumers in use, by their keys in `positions`
        super().__init__(
            disk,
            config,
            segment,
            next_lsn=next_lsn,
            generation=generation,
            metadata=metadata,
            sizes=sizes,
            double_write=double_write,
        )
        self._summaries = Summaries(disk, config.keys)

    def _join_lazily(self, change: Change) -> bool:
        """Let a change become durable with the next commit, whoever causes it, within relaxed_interval. False: not now."""
        if self._joins or not self._merge(change):
            return False
        self._arm_relaxed_timer()
        return True

    async def _join(self, change: Change) -> None:
        """Make a change durable. It is accepted in the order of the calls; cancelling ends only the wait.

        Args:
            change: makes the change when its turn has come, from the state at that moment; may raise a WalError.

        Raises:
            Closed, DurabilityLost, NoSpace, and what `change` raises.
        """
        if (terminal := self.health.terminal()) is not None:
            raise terminal
        durable: asyncio.Future[None] = self._create_future()
        if self._joins or not self._merge(change, durable):
            self._joins[durable] = change
            durable.add_done_callback(self._leave_joins)
        await durable

    def _leave_joins(self, durable: asyncio.Future[None]) -> None:
        if durable.cancelled():
            self._joins.pop(durable, None)
            self._room_freed()  # close may wait until nothing is queued

    def _serve_joins(self) -> None:
        """Let waiting changes move up, in order."""
        while self._joins:
            durable, change = next(iter(self._joins.items()))
            if not durable.done():
                try:
                    error = self.health.ended()
                    if error is None and not self._merge(change, durable):
                        error = self._no_space()
                        if error is None:
                            break
                    if error is not None:
                        durable.set_exception(error)
                except WalError as wrong:
                    durable.set_exception(wrong)
            self._joins.pop(durable, None)

    def _merge(self, wanted: Change, durable: asyncio.Future[None] | None = None) -> bool:
        """Let a change join the filling group, or a new one behind it; False if there is no room now."""
        if self._holds or self._batch_lsn or self.health.over:
            return False
        group, change = self._filling, wanted()
        size = change_bytes_max(change, group.joined)
        if size > self._join_room():
            if not group.empty:
                self._cut_off()
            if not self._place(size, joining=True):
                return False
            group = self._filling
        self._metadata.apply(change)
        merge(group.joined, change)
        group.reserved += size
        self._set_room()
        if durable is not None:
            group.barriers.append((durable, None))
            self._want_commit()
        return True

    def _join_room(self) -> int:
        """Bytes that the filling group may still take besides its records."""
        group = self._filling
        limit = group.segment.limit if group.payloads else group.segment.join_limit
        return limit - group.offset - self._filled_bytes - group.reserved - GROUP_HEADER_BYTES

    @abstractmethod
    async def _write_meta(self, change: dict[str, Any]) -> int:
        """Append a group of metadata only and wait until it is durable."""

    async def _newest_before(self, segment: int) -> int | None:
        place = self.catalog.view.ids.index(segment)
        if place == 0:
            return None
        seal = await self._summaries.seal(self.catalog.view.ids[place - 1], segment)
        return None if seal is None else seal.newest

    # ---- topics

    async def _topic_number(self, name: str) -> int:
        """A topic's number; it is made, durably, if it is not there. For callers that hold off all appends."""
        number = self._metadata.topics.get(name)
        if number is None:
            number = len(self._metadata.names)
            await self._write_meta({"topics": {name: number}})
        return number

    def _topic_sums(self, number: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one, without a batch that is not complete."""
        if not self._batch_lsn or self._batch_mark is None:
            return self._metadata.count_of(number), self._metadata.last_of(number)
        counts, lasts, tally = self._batch_mark
        row = tally.get(number)
        return (counts[number - 1] + row.records, row.last_lsn) if row else (counts[number - 1], lasts[number - 1])

    def _topic_record(self, name: str, lsn: int) -> asyncio.Future[Any]:
        """A future for when there may be a durable record of a topic at or behind `lsn`, which is not durable yet. Whoever
        waits for it may end it.

        Raises Closed once no more can come, and DurabilityLost.
        """
        number = self._metadata.topics.get(name)
        if number is not None and self._metadata.last_of(number) >= lsn:
            return self.waits.durable(lsn)
        if (ended := self.health.ended()) is not None:
            raise ended
        return self.waits.topic(name)

    def _room_freed(self) -> None:
        self._serve_joins()  # before the next batch begins: acknowledgements do not starve behind a row of them
        super()._room_freed()
        if self.health.over:
            self.waits.wake_beyond(self.next_lsn)
            self.waits.wake_topics()
