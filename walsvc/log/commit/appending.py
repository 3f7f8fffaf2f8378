"""TakesRecords: the calls that append, which are the same for a writer, a log and a topic, wherever the log is."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, Unpack

from walsvc.keywords import AppendOptions, BatchOptions, Payload, Payloads, check_keywords, spelled_out
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.payload import NO_TYPE
from walsvc.log.commit.results import BatchResult
from walsvc.model import AppendResult, Mode, Strict


class AppendsTo(Protocol):
    """The way into a log, whose topics share it."""

    def append_to(
        self,
        topic: str | None,
        payload: Payload,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        *,
        options: AppendOptions,
        wait: bool,
    ) -> Any:
        """Append one record to a topic, or to none. With `wait` it waits for room, and the answer is an Ack; else a future."""
        ...

    def append_batch_to(
        self, topic: str | None, payloads: Payloads, mode: Mode, **options: Unpack[BatchOptions]
    ) -> Ack[BatchResult]:
        """Append several records atomically, to a topic or to none."""
        ...


class TakesRecords(ABC):
    """A writer, a log or a topic, as the programs see it that append to it."""

    @spelled_out(AppendOptions)
    def append(
        self,
        payload: Payload,
        mode: Mode = Strict,
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        **options: Unpack[AppendOptions],
    ) -> Ack[AppendResult]:
        """Append one record; await the result.

        Args:
            payload: anything with the buffer protocol, 0 to max_record_bytes; it is copied unless it is bytes.
            mode: Strict answers when the record and all before it are on stable storage. Relaxed answers at once; the record
                becomes durable within `relaxed_interval`. Quorum answers when Strict does and the replica has the record, too.
            type: application's record type, 0 to 65535; bit 15 marks types that a reader must know.
            attributes: labels, a msgpack-able map of at most 64 KiB encoded.
            expected: LSN that the log must end with when the record is accepted, 0 where it has no visible record; every record
                counts, whatever its topic. None: any. See AppendOptions.
            dedupe: the caller's own key of the record, 1 to 1,024 bytes in UTF-8: a call with a key that is remembered writes
                nothing, and gets the answer of the first one, with `duplicate` True. See AppendOptions.

        Returns:
            An Ack. When pending bytes are at their cap, or the next segment is not ready, it waits its turn. Cancelled
            before the record is accepted, nothing is written; later, the record stays and only the wait ends.

        Raises:
            Conflict: the log ends with another LSN than `expected`; nothing was written, and `actual` has that LSN.
            BadPayload, RecordTooLarge, BadOption, WrongLoop, Closed, DurabilityLost, NoSpace; for Quorum also ReplicaLost,
            and Truncated (by truncate_after, before it was replicated); at once where the call itself is wrong, through the
            Ack otherwise.
        """
        if options:
            check_keywords(TakesRecords.append, options, AppendOptions)
        way, topic = self._place()
        ack: Ack[AppendResult] = way.append_to(topic, payload, mode, type, attributes, options=options, wait=True)
        return ack

    @spelled_out(AppendOptions)
    def append_nowait(
        self,
        payload: Payload,
        mode: Mode = Strict,
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        **options: Unpack[AppendOptions],
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure (or NoSpace) where append would have to wait for room."""
        if options:
            check_keywords(TakesRecords.append_nowait, options, AppendOptions)
        way, topic = self._place()
        future: asyncio.Future[AppendResult] = way.append_to(
            topic, payload, mode, type, attributes, options=options, wait=False
        )
        return future

    @spelled_out(BatchOptions)
    def append_batch(
        self, payloads: Payloads, mode: Mode = Strict, **options: Unpack[BatchOptions]
    ) -> Ack[BatchResult]:
        """Append several records atomically: after a crash all of them are there, or none, and no reader sees a part.

        Up to max_group_bytes a batch shares a group with other appends. A larger one, or one from an asynchronous
        iterable, is streamed over several groups and segments in bounded memory; other appends wait meanwhile, in order.
        Cancelled, or ended by an error of the iterable, it leaves nothing.

        Args:
            payloads: an iterable or asynchronous iterable of payloads, together at most max_batch_bytes. Consecutive LSNs. A record
                with a type or labels of its own is an Entry. What an asynchronous iterable would wait for until its own batch
                has ended (an ack, a truncation, an append that it awaits) is BadOption.
            mode: as in append, for the whole batch. A streamed batch is always durable when it is answered.
            expected: as in append, for the whole batch; a streamed batch does not read its source where it does not hold.

        Returns:
            An Ack of a sequence of AppendResult, in order; empty for an empty batch, which writes nothing.

        Raises:
            As append; RecordTooLarge also for the batch as a whole. What is wrong with one record names its index: "payloads[3]: ...".
        """
        if options:
            check_keywords(TakesRecords.append_batch, options, BatchOptions)
        way, topic = self._place()
        return way.append_batch_to(topic, payloads, mode, **options)

    @abstractmethod
    def _place(self) -> tuple[AppendsTo, str | None]:
        """The way into the log that records take, and the name of their topic; None: no topic."""
