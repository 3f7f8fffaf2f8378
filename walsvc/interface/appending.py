"""Appending: the calls that a log and its topics have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

from walsvc.keywords import AppendOptions, BatchOptions, spelled_out

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence
    from typing import Literal, Unpack

    from walsvc.interface.consumer import Consumer
    from walsvc.keywords import Payload, Payloads
    from walsvc.log.commit.ack import Ack
    from walsvc.model import AppendResult, Mode
    from walsvc.topics.delivery import Delivery
    from walsvc.topics.names import ConsumerStatus, Start
    from walsvc.topics.shared import SharedConsumer
    from walsvc.topics.sharing import SharedOptions


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
        """Append several records atomically: after a crash all of them are there or none. Up to max_batch_bytes.

        Args:
            payloads: any iterable, or asynchronous one, of payloads, and of walsvc.Entry for records with a type or labels.
            mode: as in append, for the whole batch.
            expected: as in append, for the whole batch.

        Raises:
            As append; an error that concerns one record names its index in the batch, and nothing is written.
        """
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
