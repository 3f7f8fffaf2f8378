"""Delivering, which is the same for every consumer wherever its log is: records go out in order, one task at a time, and those
that went out may be acknowledged."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol, Self

from walsvc.config import between, one_of
from walsvc.errors import BadOption, Closed
from walsvc.model import Record, is_lsn
from walsvc.scope import Scoped
from walsvc.tasks import TaskLock
from walsvc.topics.delivery import Delivery
from walsvc.topics.shown import Shown

BATCH_BYTES = 1 << 20  # read_batch's default
BATCH_RECORDS = 1 << 30


class ConsumerPlace(Protocol):
    """Where a consumer stands.

    Attributes:
        following: LSN below which nothing is delivered any more.
    """

    following: int

    def pass_by(self, position: int) -> None:
        """Everything below `position` is acknowledged."""


class Delivering(Scoped):
    """Consumer and RemoteConsumer have all that is here in common; how records come, and where the position is kept, is
    their own. Attributes: see Consumer."""

    def __init__(self, path: str, topic: str | None, name: str, delivery: Delivery, place: ConsumerPlace) -> None:
        self.name = name
        self.topic = topic
        self.delivery = delivery
        self._path = path  # of the log, for messages
        self._place = place
        self._ahead: deque[Record] = deque()  # here, not yet delivered
        self._shown = Shown()  # LSNs that were delivered or peeked at, not yet acknowledged
        self._reading = TaskLock()
        self._saving = TaskLock()
        self._waiter: asyncio.Future[Any] | None = None  # of whoever waits for a record, if anybody does
        self._open = True

    @property
    @abstractmethod
    def position(self) -> int:
        """LSN of the next record to be acknowledged, or below that: everything before it is done."""

    # ---- delivering

    async def next(self) -> Record:
        """The next record; waits for one. It is not acknowledged by that."""
        async with self._reading:
            await self._have_one()
            return self._deliver()

    async def peek(self) -> Record:
        """Like next, but it stays the next one; repeatable. It may be acknowledged."""
        async with self._reading:
            await self._have_one()
            record = self._ahead[0]
            self._shown.show(record.lsn)
            return record

    async def read_batch(self, max_bytes: int = BATCH_BYTES, max_records: int = BATCH_RECORDS) -> list[Record]:
        """The next records that are there: at least one, for which it waits; no more than `max_records`, and together no
        more payload than `max_bytes`, unless the first alone is larger. Where the caller gives it up, all of them come again."""
        between("max_bytes", max_bytes, 1, 1 << 62)
        between("max_records", max_records, 1, 1 << 62)
        async with self._reading:
            await self._have_one()
            if self._fitting(max_bytes, max_records) == len(self._ahead):
                size = payload_bytes(self._ahead)
                while size < max_bytes and len(self._ahead) < max_records and (more := await self._read_on()):
                    size += payload_bytes(more)
                    await self._have_one()  # it may have been moved or closed meanwhile
            # Nothing awaits from here on: what is counted as delivered reaches the caller.
            return [self._deliver() for _ in range(self._fitting(max_bytes, max_records))]

    def _fitting(self, max_bytes: int, max_records: int) -> int:
        """How many of the records in `_ahead` a batch takes: at least one."""
        count = size = 0
        for record in islice(self._ahead, max_records):
            size += len(record.payload)
            if count and size > max_bytes:
                break
            count += 1
        return count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """For `async for`: asking for the next record acknowledges the one before it. Ends when the log or the
        consumer is closed."""
        try:
            if self._shown and self._shown.first < self._place.following:
                await self.ack(self._place.following - 1)
            return await self.next()
        except Closed:
            raise StopAsyncIteration from None

    @abstractmethod
    async def _have_one(self) -> None:
        """Wait until a record is in `_ahead`."""

    @abstractmethod
    async def _read_on(self) -> Sequence[Record]:
        """Put what comes next behind `_ahead` if that needs no waiting for new records; returns what came."""

    def _deliver(self) -> Record:
        record = self._take()
        self._shown.show(record.lsn)
        self._place.following = record.lsn + 1
        return record

    def _take(self) -> Record:
        """Remove the first record from `_ahead`."""
        return self._ahead.popleft()

    # ---- acknowledging

    async def ack(self, lsn: int, *, only: bool = False) -> None:
        """Acknowledge everything up to record `lsn`: it is not delivered again, and retention may drop it.

        Args:
            lsn: of a record that was delivered.
            only: the record alone is done, and those before it stay as they are.

        When it returns, that is durable with StrictlyOnce; with AtLeastOnce it may be repeated as its delivery says. An LSN
        that was acknowledged before changes nothing.

        Raises:
            BadOption: a record up to `lsn` was not delivered yet; NoSpace: try again when there is room.
        """
        self._check()
        self._check_lsn(lsn)
        one_of("only", only, (True, False))
        async with self._saving:
            self._check()  # again: it may have been closed meanwhile
            await (self._ack_only(lsn) if only else self._ack(lsn))

    @abstractmethod
    async def _ack(self, lsn: int) -> None:
        """`ack`, one at a time."""

    @abstractmethod
    async def _ack_only(self, lsn: int) -> None:
        """`ack(only=True)`, one at a time."""

    def _check_lsn(self, lsn: object) -> None:
        if not is_lsn(lsn) or lsn < 1:
            raise BadOption(f"{lsn!r} is no LSN", hint="acknowledge record.lsn")

    def _check_shown(self, lsn: int) -> None:
        if not self._shown or lsn > self._shown.last:
            raise BadOption(
                f"LSN {lsn} was not delivered to consumer {self.name!r} yet",
                path=self._path,
                lsn=lsn,
                hint="to skip records use seek",
            )

    def _acknowledged(self, position: int) -> None:
        """Take note that everything below `position` is done."""
        self._place.pass_by(position)
        self._shown.drop_below(position)
        if self._place.following < position:  # it was only peeked at
            self._place.following = position
            while self._ahead and self._ahead[0].lsn < position:
                self._take()

    # ---- ending

    @abstractmethod
    def _check(self) -> None:
        """Raise if the consumer or its log cannot be used any more."""

    def _wake(self) -> None:
        """Let whoever waits for a record look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"consumer {self.name!r} is closed", path=self._path, hint="open it again")

    def __repr__(self) -> str:
        of: Any = "the log" if self.topic is None else repr(self.topic)
        return f"Consumer({self.name!r} of {of}, position={self.position})"


def payload_bytes(records: Iterable[Record]) -> int:
    """Payload bytes of all records together."""
    return sum(len(record.payload) for record in records)
