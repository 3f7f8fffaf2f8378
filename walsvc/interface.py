"""The interface of a log, its topics and its consumers, wherever the log is: in a directory, behind a server, in JetStream.

`walsvc.Log`, `walsvc.Topic` and `walsvc.Consumer` are these protocols: for annotations, for isinstance, for type checkers. What
is not here is no part of the interface. Each kind of log has its own classes, whose docstrings say what is special about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, overload, runtime_checkable

from walsvc.keywords import AppendOptions, BatchOptions, TopicAppendOptions, spelled_out

if TYPE_CHECKING:
    import asyncio
    import datetime
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Literal, Unpack

    from walsvc.config import WalConfig
    from walsvc.keyring import KeyRing
    from walsvc.keywords import Payload, Payloads
    from walsvc.log.commit.ack import Ack
    from walsvc.log.read.filter import Chosen, Wanted
    from walsvc.log.read.lazy import LazyRecord
    from walsvc.model import AppendResult, Mode, ReadStats, Record, RecoveryReport, Retention, Stats
    from walsvc.service.client.config import ClientConfig
    from walsvc.topics.delivery import Delivery
    from walsvc.topics.names import ConsumerStatus, Start
    from walsvc.topics.shared import SharedConsumer
    from walsvc.topics.sharing import SharedOptions
    from walsvc.topics.transaction import Transaction


@runtime_checkable
class Appending(Protocol):
    """Appending to a log or to a topic of it."""

    @spelled_out(AppendOptions)
    def append(
        self,
        payload: Payload,
        mode: Mode = ...,
        type: int = ...,
        attributes: Mapping[str, Any] | None = ...,
        **options: Unpack[AppendOptions],
    ) -> Ack[AppendResult]:
        """Append one record; await the result.

        Args:
            payload: anything with the buffer protocol, 0 to max_record_bytes; it is copied unless it is bytes.
            mode: Strict answers when the record and all before it are on stable storage. Relaxed answers at once; the record
                becomes durable within `relaxed_interval`. Quorum answers when Strict does and the replica has the record.
            type: application's record type, 0 to 65535; bit 15 marks types that a reader must know.
            attributes: labels, a msgpack-able map of at most 64 KiB encoded.
            expected: LSN of the last record of the topic, or of the log, 0 where there is none: Conflict where it ends with another.
            dedupe: key of the caller's, text of 1 to 1,024 bytes in UTF-8. Where the topic, or the log's records of no topic, got
                it before and it is remembered, nothing is written: the answer is the first one's, with `duplicate` True.

        Raises:
            BadPayload, RecordTooLarge, BadOption, WrongLoop, Closed, DurabilityLost, NoSpace; for Quorum also ReplicaLost.
        """
        ...

    @spelled_out(AppendOptions)
    def append_nowait(
        self,
        payload: Payload,
        mode: Mode = ...,
        type: int = ...,
        attributes: Mapping[str, Any] | None = ...,
        **options: Unpack[AppendOptions],
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure (or NoSpace) where append would have to wait for room."""
        ...

    @spelled_out(BatchOptions)
    def append_batch(
        self, payloads: Payloads, mode: Mode = ..., **options: Unpack[BatchOptions]
    ) -> Ack[Sequence[AppendResult]]:
        """Append several records atomically: after a crash all of them are there or none. Up to max_batch_bytes."""
        ...

    async def purge(self, key_or_labels: str | bytes | int | Mapping[str, Any], *, before: int | None = ...) -> None:
        """Hide the records below LSN `before` (None: all so far) that have a key, or labels. Durable on return."""
        ...

    @overload
    async def consumer(
        self,
        name: str,
        delivery: Delivery | type[Delivery] = ...,
        start: Start = ...,
        *,
        shared: Literal[False] = ...,
    ) -> Consumer: ...
    @overload
    async def consumer(
        self,
        name: str,
        delivery: Delivery | type[Delivery] = ...,
        start: Start = ...,
        *,
        shared: Literal[True],
        **options: Unpack[SharedOptions],
    ) -> SharedConsumer: ...
    async def consumer(
        self,
        name: str,
        delivery: Delivery | type[Delivery] = ...,
        start: Start = ...,
        *,
        shared: bool = ...,
        **options: Any,
    ) -> Consumer | SharedConsumer:
        """Open consumer `name`, making it if there is none; it exists, durably, until it is deleted. InUse: it is open.

        Args:
            name: 1 to 255 bytes in UTF-8.
            delivery: StrictlyOnce or AtLeastOnce(persist_every=n).
            start: where a new consumer begins: "first" (all that is there), "next" (only what comes), or an LSN.
            shared: several may open it, also in other processes, and each record goes to one of them; see docs/QUEUES.md for
                its options.
        """
        ...

    async def consumers(self) -> list[ConsumerStatus]:
        """All consumers, by name; of a log: also those of its topics."""
        ...

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer that is not open, durably. InUse, BadOption (also: no such consumer)."""
        ...

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer that is not open, durably: it holds nothing back any more. InUse, BadOption."""
        ...


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
        """Everything up to record `lsn` is done: it is not delivered again, and retention may drop it."""
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


@runtime_checkable
class Log(Appending, Protocol):
    """A log, in one event loop. Get it by `walsvc.open`; leaving its `async with` block closes it.

    Attributes:
        path: its directory, or its URL.
        config: the options it was opened with.
        report: what recovery found when it was opened.
        first_lsn: LSN of the first visible record; next_lsn when there is none.
        next_lsn: LSN that the next accepted record gets.
        durable_lsn: every record up to this LSN is on stable storage.
        replicated_lsn: every record up to this LSN is stored by the replica; None: there is none.
    """

    @property
    def path(self) -> str: ...
    @property
    def config(self) -> WalConfig | ClientConfig: ...
    @property
    def report(self) -> RecoveryReport: ...
    @property
    def first_lsn(self) -> int: ...
    @property
    def next_lsn(self) -> int: ...
    @property
    def durable_lsn(self) -> int: ...
    @property
    def replicated_lsn(self) -> int | None: ...

    def stats(self) -> Stats:
        """A frozen picture: range, backend, counters."""
        ...

    async def get(self, lsn: int) -> Record | None:
        """Return the record with this LSN, or None where it was purged. Truncated: it was dropped; BadOption: it is still to come."""
        ...

    async def refresh(self) -> int:
        """Look at what only comes when it is asked for: of a served log topics, holds, retention; of one that is only read,
        what its writer has added. Returns next_lsn."""
        ...

    def transaction(self, mode: Mode = ...) -> Transaction:
        """Appends to several topics, acknowledgements and conditions that become durable together, or not at all."""
        ...

    async def flush(self) -> int:
        """Wait until everything appended so far is durable; returns durable_lsn."""
        ...

    async def wait_durable(self, lsn: int) -> int:
        """Wait until record `lsn` is durable, starting its commit if nobody did; returns durable_lsn."""
        ...

    async def wait_replicated(self, lsn: int | None = ...) -> int:
        """Wait until the replica has record `lsn` (None: everything so far), and all acknowledgements, truncations and other changes
        that were answered before; returns replicated_lsn. BadOption: the log is not replicated."""
        ...

    def read(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        *,
        reverse: bool = ...,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[Record, None]:
        """Iterate over records in LSN order; everything accepted before the call is made durable first.

        Args:
            start: first LSN; None: first_lsn.
            stop: LSN to stop before; None: next_lsn as it is now.
            reverse: from the record before `stop` down to `start`.
            stats: counts what reading costs, while it goes on.
            topic: only records of this topic.
            types: record types that the caller understands. Other optional ones are skipped.
            where: label to value, or to a collection of values of which one is enough; all labels must fit.
            since, until: aware datetimes; only records from `since` on and before `until`.

        Raises:
            Truncated, Closed, Corruption, BadOption, UnsupportedFormat (a required type that is not among `types`).
        """
        ...

    def read_batches(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists, a group at a time: several times faster for small records."""
        ...

    def read_lazy(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, but payloads are fetched when they are asked for: `await record.payload()`."""
        ...

    def follow(self, start: int | None = ..., **wanted: Unpack[Wanted]) -> AsyncGenerator[Record, None]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones."""
        ...

    async def seek_time(self, moment: datetime.datetime, *, stats: ReadStats | None = ...) -> int:
        """The LSN of the first visible record with a timestamp of `moment` or later; next_lsn when there is none."""
        ...

    def topic(self, name: str) -> Topic:
        """The topic `name`, 1 to 255 bytes in UTF-8. It exists in the log from its first record or consumer on."""
        ...

    def topics(self) -> list[str]:
        """Names of all topics, in the order in which they were made."""
        ...

    async def has_topic(self, name: str) -> bool:
        """Whether the topic `name` exists: it has had a record or a consumer. One look-up, however many topics there are.
        BadOption: no topic can have that name."""
        ...

    async def hold(self, name: str, lsn: int) -> None:
        """Keep every record from `lsn` on until `release`, or until the hold is moved by another call. Durable on return."""
        ...

    async def release(self, name: str) -> None:
        """Give up a hold, durably; nothing happens where there is none."""
        ...

    def holds(self) -> dict[str, int]:
        """The holders and the lowest LSN that each of them needs."""
        ...

    async def reclaim(self) -> int:
        """Drop the segments that every consumer and every holder has passed; returns how many records."""
        ...

    def retention(self) -> Retention:
        """Segments that are kept, the pins that need them, and the records dropped since opening."""
        ...

    async def compact(self, on_segment: Callable[[int, int, int], None] | None = ...) -> int:
        """Rewrite the sealed segments without what was purged; returns the bytes by which the log's files have shrunk."""
        ...

    async def truncate_before(self, lsn: int, *, force: bool = ...) -> None:
        """Drop all records below `lsn`. BadOption: somebody holds records below it, and `force` is not set."""
        ...

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; the next append gets lsn + 1. Durable when it returns."""
        ...

    async def use_keys(self, keys: KeyRing) -> None:
        """Go on with another current key, or with other older ones, without stopping appends."""
        ...

    async def seal(self) -> None:
        """Make everything durable and take no more appends, in this opening or any later one. Idempotent."""
        ...

    async def close(self, timeout: float | None = ...) -> None:
        """Make everything durable that was called before, and release the log. Idempotent. WalTimeout: not in time."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
