"""Consumer: delivers records in order, and remembers which were acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from walsvc.model import Record
    from walsvc.topics.delivery import Delivery
    from walsvc.topics.names import Start


@runtime_checkable
class Consumer(Protocol):
    """Delivers a topic's records (or the whole log's) in order, and remembers which were acknowledged.

    Get it by `await topic.consumer(name)` or `await log.consumer(name)`; use it with `async with`, and with `async for`, where asking
    for the next record acknowledges the one before it.

    Attributes:
        name: its name.
        topic: its topic's name; None: the whole log.
        delivery: StrictlyOnce() or AtLeastOnce(...).
        position: LSN of the next record to be acknowledged, or below that: everything before it is done.
    """

    @property
    def name(self) -> str: ...
    @property
    def topic(self) -> str | None: ...
    @property
    def delivery(self) -> Delivery: ...
    @property
    def position(self) -> int: ...

    async def next(self) -> Record:
        """The next record; waits for one. It is not acknowledged by that."""
        ...

    async def peek(self) -> Record:
        """Like next, but it stays the next one; repeatable. It may be acknowledged."""
        ...

    async def read_batch(self, max_bytes: int = ..., max_records: int = ...) -> list[Record]:
        """The next records that are there: at least one, for which it waits, within both limits."""
        ...

    async def ack(self, lsn: int) -> None:
        """Acknowledge everything up to record `lsn`: it is not delivered again, and retention may drop it."""
        ...

    async def seek(self, to: Start) -> None:
        """Go on at `to` ("first", "next", or an LSN from first_lsn to next_lsn), forward or back; durable on return."""
        ...

    async def lag(self) -> int:
        """How many records are there and not acknowledged, purged ones included."""
        ...

    async def close(self) -> None:
        """Make what was acknowledged durable, and let others open the name. Idempotent."""
        ...

    def __aiter__(self) -> AsyncIterator[Record]: ...
    async def __anext__(self) -> Record: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
