"""Changes of metadata: those that join a group commit, and those that are a group of their own.

An acknowledgement of a consumer joins the filling group, so it shares its sync with whatever else is appended, and costs none of
its own. It is true in memory at once, and durable with the group. Nothing joins while a batch is streamed, which may be given
up with all its groups, or while the log's end is being cut.

Owns the changes that wait for room, and where each open consumer stands.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from walsvc.errors import NoSpace, WalError
from walsvc.format.group import GROUP_HEADER_BYTES, Flag
from walsvc.format.meta import Metadata, change_bytes_max, encode_map, merge
from walsvc.log.commit.health import Health
from walsvc.log.commit.pipeline import Pipeline
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.queue import Queue
from walsvc.log.commit.queued import Joining
from walsvc.log.commit.whole import whole

Change = Callable[[], dict[str, Any]]


@dataclass(slots=True, eq=False, repr=False)
class Standing:
    """The state of an open consumer: its position and its deliveries.

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

    @property
    def waiting(self) -> int:
        """Calls that wait since the consumer may give out no more."""
        return 0

    def pass_by(self, position: int) -> None:
        """Everything below `position` is acknowledged."""
        self.position = max(self.position, position)

    def rewind(self, end: int) -> None:
        """The log ends before LSN `end` now."""
        self.move(min(self.position, end), min(self.following, end))

    def move(self, position: int, following: int) -> None:
        """Go on elsewhere."""
        self.position, self.following = position, following
        self.turns += 1


class Silent:
    """A change of which nobody needs to know when it is accepted."""

    __slots__ = ("change",)

    def __init__(self, change: Change) -> None:
        self.change: Change = change

    def accepted(self) -> None:
        """Nothing is to be done."""


class Changes:
    """Changes the metadata of one log. Loop thread only.

    Attributes:
        places: of the consumers in use, by their keys in `positions`.
        unsure: keys of consumers whose creation or move was given up: it is in `metadata`, and perhaps not durable yet.
        marked: the log, which was sealed for good, has the mark of its end: nothing is written to it any more.
    """

    def __init__(
        self, metadata: Metadata, placement: Placement, pipeline: Pipeline, queue: Queue, health: Health
    ) -> None:
        self.places: dict[str, Standing] = {}
        self.unsure: set[str] = set()
        self.marked = False
        self._metadata = metadata
        self._placement = placement
        self._pipeline = pipeline
        self._queue = queue
        self._health = health
        self._open_due = 0  # Flag.OPEN where opening found no room for it: the next group of metadata only has it
        self._waiting: OrderedDict[asyncio.Future[None], Joining] = OrderedDict()  # those that are cancelled leave it
        self._on_passed: Callable[[int], None] = lambda _: None

    @property
    def length(self) -> int:
        """How many changes wait for room."""
        return len(self._waiting)

    @property
    def waiting(self) -> list[asyncio.Future[None]]:
        """The changes that wait: each is done when it is durable, or refused."""
        return list(self._waiting)

    def when_passed(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with each LSN up to which a consumer or holder needs nothing more."""
        self._on_passed = listener

    def passed(self, lsn: int) -> None:
        """A consumer or holder needs nothing below `lsn` any more."""
        self._on_passed(lsn)

    # ---- joining

    def join_lazily(self, change: Change) -> bool:
        """Let a change become durable with the next commit, whoever causes it, within relaxed_interval. False: not now."""
        if self._waiting or not self._merge(Silent(change)):
            return False
        self._queue.relaxed.arm()
        return True

    async def join(self, change: Change | Joining) -> None:
        """Make a change durable. It is accepted in the order of the calls; cancelling ends only the wait.

        Args:
            change: makes the change when its turn has come, from the state at that moment; may raise a WalError. A Joining is
                told when it is accepted.

        Raises:
            Closed, DurabilityLost, NoSpace, BadOption from the source of a streamed batch, and what `change` raises.
        """
        if (terminal := self._health.terminal()) is not None:
            raise terminal
        self._health.check_source()
        wanted = Silent(change) if callable(change) else change
        durable: asyncio.Future[None] = self._health.loop.create_future()
        if self._waiting or not self._merge(wanted, durable):
            self._waiting[durable] = wanted
            durable.add_done_callback(self._leave)
        await durable

    @whole("leaving the queue")
    def _leave(self, durable: asyncio.Future[None]) -> None:
        if durable.cancelled() and self._waiting.pop(durable, None) is not None:
            self._queue.move_up()  # close may wait until nothing is queued

    def serve(self) -> None:
        """For the queue, which guards it: let waiting changes move up, in order."""
        while self._waiting:
            durable, change = next(iter(self._waiting.items()))
            if not durable.done():
                try:
                    if (error := self._queue.refusal()) is not None:
                        raise error
                    no_space = self._queue.no_space()  # merging starts another attempt, and forgets the last one
                    if not self._merge(change, durable):
                        if no_space is None or self._queue.held or self._placement.batch_lsn:
                            break  # for the end of a turn or of a batch, which needs no segment
                        raise no_space
                except WalError as wrong:
                    if not durable.done():
                        durable.set_exception(wrong)
            self._waiting.pop(durable, None)

    @whole("changing metadata")
    def _merge(self, wanted: Joining, durable: asyncio.Future[None] | None = None) -> bool:
        """Let a change join the filling group, or a new one behind it; False if there is no room now."""
        if self._queue.held or self._placement.batch_lsn or self._health.over:
            return False
        change = wanted.change()
        if change and not self._put(change):  # nothing begins no segment: its first group, empty, is never sent
            return False
        wanted.accepted()
        if durable is not None:
            self._pipeline.settle(durable)  # where the change is nothing, the group may be empty
        return True

    def _put(self, change: dict[str, Any]) -> bool:
        """Put a change into the filling group, or a new one behind it; False if there is no room now."""
        group = self._placement.group
        size = change_bytes_max(change, group.metadata.joined)
        if size > self._room():
            self._pipeline.cut_off()
            if not self._placement.place(size, joining=True):
                return False
            group = self._placement.group
        self._metadata.apply(change)
        merge(group.metadata.joined, change)
        group.metadata.reserved += size
        self._placement.set_room()
        return True

    def _room(self) -> int:
        """Bytes that the filling group may still take besides its records."""
        group = self._placement.group
        limit = group.segment.limit if group.payloads else group.segment.join_limit
        filled = self._placement.intake.filled_bytes
        return limit - group.offset - filled - group.metadata.reserved - GROUP_HEADER_BYTES

    # ---- groups of their own

    @whole("writing metadata")
    def try_write(self, change: dict[str, Any], flags: int = 0, *, mark: bool = False) -> asyncio.Future[int] | None:
        """Append a group of metadata only, or a `mark` without any; its future gets its offset in its segment. None: no room
        yet. Raises DurabilityLost: a group of a log that has failed would be sent by nobody, and nobody told of it."""
        self._health.raise_failure()
        if self._placement.batch_lsn:
            return None  # it would go with the batch if that is given up
        self._pipeline.cut_off()
        meta = encode_map(change) if change else b""
        if not self._placement.place(len(meta), metadata=True, mark=mark):
            return None
        group = self._placement.group
        group.metadata.encoded = meta
        group.flags |= flags | self._open_due
        self._open_due = 0
        self._metadata.apply(change)
        future: asyncio.Future[int] = self._health.loop.create_future()
        group.answers.barriers.append((future, group.offset))
        self._pipeline.send()
        return future

    async def write(self, change: dict[str, Any], flags: int = 0) -> int:
        """Append a metadata group and wait until it is durable; returns its offset in its segment. For callers that have the extent:
        where the log's end is being cut, the group would come into what goes."""
        while (future := self.try_write(change, flags)) is None:
            await self._queue.room_change(metadata=True)
        return await future

    async def write_mark(self, flag: int) -> bool:
        """Append an empty group, and wait until it is durable. False: it is left out, since what room there is on the device
        is kept for what makes more, or no segment may begin any more."""
        try:
            while (future := self.try_write({}, flag, mark=True)) is None:
                if self._metadata.sealed:
                    return False
                await self._queue.room_change()
        except NoSpace:
            return False
        await future
        return True

    async def open(self) -> None:
        """Mark that the log was opened; where there is no room, with the next group of metadata."""
        if not await self.write_mark(Flag.OPEN):
            self._open_due = Flag.OPEN

    async def close(self) -> None:
        """Mark that the log was closed in order, unless `marked`."""
        if not self.marked:
            await self.write_mark(Flag.CLOSE)

    # ---- topics

    async def topic_number(self, name: str) -> int:
        """A topic's number; it is made, durably, if it is not there. For callers that hold off all appends."""
        number = self._metadata.topics.get(name)
        if number is None:
            number = self._metadata.topics.given + 1
            await self.write({"topics": {name: number}})
        return number

    def rewind(self, end: int) -> None:
        """The log ends before LSN `end` now: no consumer stands beyond it."""
        for place in self.places.values():
            place.rewind(end)
