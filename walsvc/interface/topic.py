"""Topic: a named sequence of records on the one shared log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from walsvc.interface.appending import Appending
from walsvc.keywords import TopicAppendOptions, spelled_out

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from typing import Unpack

    from walsvc.format.limits import TopicLimits
    from walsvc.keywords import Payload
    from walsvc.log.commit.ack import Ack
    from walsvc.log.read.filter import Chosen
    from walsvc.log.read.lazy import LazyRecord
    from walsvc.model import AppendResult, Mode, Record


@runtime_checkable
class Topic(Appending, Protocol):
    """A named sequence of records on the one shared log. Get it by `log.topic(name)`.

    Attributes:
        name: its name.
    """

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @spelled_out(TopicAppendOptions)
    def append(
        self,
        payload: Payload,
        mode: Mode = ...,
        type: int = ...,
        attributes: Mapping[str, Any] | None = ...,
        **options: Unpack[TopicAppendOptions],
    ) -> Ack[AppendResult]:
        """Append one record to the topic; see Log.append.

        Args:
            not_before: an aware datetime, or Unix seconds, before which no shared consumer delivers the record.
        """
        ...

    @spelled_out(TopicAppendOptions)
    def append_nowait(
        self,
        payload: Payload,
        mode: Mode = ...,
        type: int = ...,
        attributes: Mapping[str, Any] | None = ...,
        **options: Unpack[TopicAppendOptions],
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure (or NoSpace) where append would have to wait for room."""
        ...

    def read(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        *,
        reverse: bool = ...,
        **chosen: Unpack[Chosen],
    ) -> AsyncGenerator[Record, None]:
        """Iterate over the topic's records; `start` and `stop` are LSNs of the log. See Log.read for all arguments."""
        ...

    def read_batches(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        **chosen: Unpack[Chosen],
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists, a group at a time."""
        ...

    def read_lazy(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        **chosen: Unpack[Chosen],
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, but payloads are fetched when they are asked for: `await record.payload()`."""
        ...

    def follow(self, start: int | None = ..., **chosen: Unpack[Chosen]) -> AsyncGenerator[Record, None]:
        """Iterate over the topic's durable records, then wait for new ones."""
        ...

    async def truncate_before(self, lsn: int, *, force: bool = ...) -> None:
        """Drop the topic's records below `lsn`, 1 to the log's next_lsn. BadOption: somebody holds records below it, and `force` is not
        set."""
        ...

    async def retain(self, *, records: int | None = ..., bytes: int | None = ..., seconds: float | None = ...) -> None:
        """Keep no more of the topic than this from now on; without any limit it has none any more. Durable on return."""
        ...

    async def limits(self) -> TopicLimits:
        """The limits that `retain` has set."""
        ...

    async def purge(
        self,
        key_or_labels: str | bytes | int | Mapping[str, Any] | None = ...,
        *,
        before: int | None = ...,
        lsns: Iterable[int] | None = ...,
        keep: int | None = ...,
    ) -> int | None:
        """Hide the topic's records that have a key, or labels (with `before` those below that LSN); or all below `before`; or those
        with these LSNs; or all but the newest `keep`. Durable on return: how many were hidden, None for a key or labels."""
        ...

    async def redrive(self, name: str) -> int:
        """Send the dead letters of a shared consumer back to the topic; returns how many."""
        ...

    async def count(self) -> int:
        """How many records the topic has from the log's first_lsn on."""
        ...

    async def first_lsn(self) -> int | None:
        """LSN of the topic's first visible record, None if there is none."""
        ...

    async def last_lsn(self) -> int | None:
        """LSN of the topic's last record, None if there is none."""
        ...

    async def last(self) -> Record | None:
        """The topic's last record that is visible; None: it has none."""
        ...
