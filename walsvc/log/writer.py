"""WalWriter: the append side of a log.

Group commit reads as a three-way choice (okaywal): a record is already durable, or somebody is committing and takes it
along, or this append starts the commit. `append` is a plain function that returns a future, not a coroutine: gather and
wait_for take it as it is, and no task is needed for an append in flight.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import weakref
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import Any, cast

from walsvc.config import WalConfig, between
from walsvc.disk.base import Disk
from walsvc.errors import BadOption, RecordTooLarge
from walsvc.format.group import LENGTH_BYTES
from walsvc.format.meta import Metadata
from walsvc.log.accept import Entry
from walsvc.log.batches import batch_too_large, start_batch
from walsvc.log.commit.ack import CORE, Ack, ack_of, reason
from walsvc.log.double_write import DoubleWrite
from walsvc.log.ending import Ending
from walsvc.log.group import Labels
from walsvc.log.payload import NO_TYPE, pack_attributes, to_bytes
from walsvc.log.pins import PINS_SHOWN, pins_of
from walsvc.log.replicated import of_writer
from walsvc.log.results import BatchResult
from walsvc.log.scope import Opening, Scoped
from walsvc.log.segments import Segment
from walsvc.model import AppendResult, Mode, Quorum, Stats, Strict


class WalWriter(Ending, Scoped):
    """Appends to a log. Get it from `walsvc.open(...)` as `log.writer`, or alone by `await WalWriter.open(path)`.

    Belongs to one event loop; every method raises WrongLoop elsewhere (another loop or thread, a forked child), Closed
    after close or seal, and DurabilityLost after the first failed write or sync.
    """

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
        self._record_bytes_max = config.max_record_bytes
        self._thread = get_ident()
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
        WRITERS.add(self)

    @classmethod
    def open(
        cls, path: str | bytes | os.PathLike[Any], *, config: WalConfig | None = None, **overrides: Any
    ) -> Opening:
        """Open (or create) the log in directory `path` for appending: `async with WalWriter.open(path) as writer`, or
        `writer = await WalWriter.open(path)`. Options and errors as in `walsvc.open`."""
        options = WalConfig.of(config, {**overrides, "read_only": False})
        if options.replicate is not None:
            raise BadOption("a WalWriter alone is not replicated", hint="walsvc.open(path, replicate=...)")
        return Opening(partial(cls._open, path, options))

    @classmethod
    async def _open(cls, path: str | bytes | os.PathLike[Any], config: WalConfig) -> WalWriter:
        from walsvc.disk.choose import open_disk
        from walsvc.log.opening import open_writer, releasing
        from walsvc.log.rekey import check_newest

        check = partial(check_newest, config.keys)
        disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=True, check=check)
        async with releasing(disk):
            writer, _ = await open_writer(disk, config)
        return writer

    # ---- appending

    def append(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,  # not keyword-only: CPython looks up each absent keyword-only argument in a dict
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> Ack[AppendResult]:
        """Append one record; await the result.

        Args:
            payload: anything with the buffer protocol, 0 to max_record_bytes; it is copied unless it is bytes.
            mode: Strict answers when the record and all before it are on stable storage. Relaxed answers at once;
                the record becomes durable within `relaxed_interval`. Quorum answers when Strict does and the replica has
                the record, too.
            type: application's record type, 0 to 65535; bit 15 marks types that a reader must know.
            attributes: labels, a msgpack-able map of at most 64 KiB encoded.

        Returns:
            An Ack. When pending bytes are at their cap, or the next segment is not ready, it waits its turn. Cancelled
            before the record is accepted, nothing is written; later, the record stays and only the wait ends.

        Raises:
            BadPayload, RecordTooLarge, BadOption, WrongLoop, Closed, DurabilityLost, NoSpace; for Quorum also ReplicaLost,
            and Truncated (by truncate_after, before it was replicated); at once where the call itself is wrong, through the
            future otherwise.
        """
        if payload.__class__ is bytes and mode is Strict and type is NO_TYPE and attributes is None:
            length = len(payload)
            room = self._room - length - self._record_cost
            if (
                room >= 0
                and length <= self._record_bytes_max
                and len(self._payloads) < self._records_max
                and get_ident() == self._thread
            ):
                first = not self._commit_wanted
                if first:
                    self.health.check_loop()  # costs a system call in CPython 3.11, so once for each group
                self._room = room
                self._payloads.append(payload)
                ack: Ack[AppendResult] = self._new_ack()
                self._waiters.append(ack)
                if first:
                    self._want_commit()
                return ack
        if mode is Quorum:
            return of_writer(self).after(self.append(payload, Strict, type, attributes))
        return self._enter(self._single(payload, mode, type, attributes), wait=True)

    def append_nowait(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure (or NoSpace) where append would have to wait for room."""
        if mode is Quorum:
            replicated = of_writer(self)
            stored = self.append_nowait(payload, type=type, attributes=attributes)
            return replicated.after(stored)
        return self._enter_now(self._single(payload, mode, type, attributes))

    def _append_topic(self, topic: str, labels: Labels | None, payload: Any) -> Ack[AppendResult]:
        """The way of Topic.append for a Strict record without type and attributes; `labels` once its number is known."""
        if labels is not None and payload.__class__ is bytes:
            length = len(payload)
            room = self._room - length - self._record_cost
            if (
                room >= 0
                and self._record_cost > LENGTH_BYTES  # the group has labels
                and labels.topic in self._metadata.tally  # the segment's summary has its row
                and length <= self._record_bytes_max
                and len(self._payloads) < self._records_max
                and get_ident() == self._thread
            ):
                first = not self._commit_wanted
                if first:
                    self.health.check_loop()
                self._room = room
                self._filling.labels[len(self._payloads)] = labels
                self._payloads.append(payload)
                ack: Ack[AppendResult] = self._new_ack()
                self._waiters.append(ack)
                if first:
                    self._want_commit()
                return ack
        return self._enter(self._single(payload, Strict, 0, None, topic), wait=True)

    def append_batch(
        self,
        payloads: Iterable[bytes | bytearray | memoryview] | AsyncIterable[bytes | bytearray | memoryview],
        mode: Mode = Strict,
    ) -> Ack[BatchResult]:
        """Append several records atomically: after a crash all of them are there, or none, and no reader sees a part.

        Up to max_group_bytes a batch shares a group with other appends. A larger one, or one from an asynchronous
        iterable, is streamed over several groups and segments in bounded memory; other appends wait meanwhile, in order.
        Cancelled, or ended by an error of the iterable, it leaves nothing.

        Args:
            payloads: an iterable or asynchronous iterable of payloads, together at most max_batch_bytes. Consecutive LSNs.
            mode: as in append, for the whole batch. A streamed batch is always durable when it is answered.

        Returns:
            An Ack of a sequence of AppendResult, in order; empty for an empty batch, which writes nothing.

        Raises:
            As append; RecordTooLarge also for the batch as a whole.
        """
        return self._append_batch(payloads, mode, None)

    def _append_batch(
        self, payloads: Iterable[Any] | AsyncIterable[Any], mode: Mode, topic: str | None
    ) -> Ack[BatchResult]:
        """append_batch, to a topic or to none."""
        if mode is Quorum:
            return of_writer(self).after(self._append_batch(payloads, Strict, topic))
        self.health.check_call(mode)
        if isinstance(payloads, AsyncIterable):
            return ack_of(start_batch(self, [], payloads, topic))
        if isinstance(payloads, (list, tuple)):
            pieces, rest = self._whole_batch(payloads)
        else:
            pieces, rest = self._head_of_batch(iter(payloads))
        if rest is not None:
            return ack_of(start_batch(self, pieces, rest, topic))
        entry = Entry(pieces, mode, None, batch=True, future=self._new_ack(), topic=topic)
        if not pieces:
            entry.future.set_result(BatchResult([], durable=True, sync_us=0))
            return cast("Ack[BatchResult]", entry.future)
        return self._enter(entry, wait=True)

    def _whole_batch(self, payloads: Sequence[Any]) -> tuple[list[bytes], Iterator[Any] | None]:
        """Like _head_of_batch, for payloads that are all in memory: checked without a line of Python for each."""
        pieces = list(payloads)
        if set(map(type, pieces)) - {bytes}:
            pieces = list(map(to_bytes, pieces))
        lengths = list(map(len, pieces))
        self._check_length(max(lengths, default=0))
        size = sum(lengths)
        if size > self._config.max_batch_bytes:
            raise batch_too_large(self._config.max_batch_bytes, self._disk.path)
        if size + LENGTH_BYTES * len(pieces) > self._config.max_group_bytes and len(pieces) > 1:
            return [], iter(pieces)
        return pieces, None

    def _head_of_batch(self, payloads: Iterator[Any]) -> tuple[list[bytes], Iterator[Any] | None]:
        """As many payloads as fit a group, and the iterator over the others, if there are others."""
        pieces: list[bytes] = []
        room = self._config.max_group_bytes
        for payload in payloads:
            piece = self._checked(payload)
            room -= len(piece) + LENGTH_BYTES
            if room < 0 and pieces:
                return pieces, itertools.chain([piece], payloads)
            pieces.append(piece)
        if sum(map(len, pieces)) > self._config.max_batch_bytes:
            raise batch_too_large(self._config.max_batch_bytes, self._disk.path)
        return pieces, None

    def _checked(self, payload: Any) -> bytes:
        piece = to_bytes(payload)
        self._check_length(len(piece))
        return piece

    def _single(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        topic: str | None = None,
    ) -> Entry:
        """Check one append's arguments and make them an entry."""
        piece = self._checked(payload)
        self.health.check_call(mode)
        between("type", type, 0, 0xFFFF)
        labels = None
        packed = pack_attributes(attributes)
        if type or packed:
            labels = Labels(type, 0, len(packed))
            piece = packed + piece
        return Entry([piece], mode, labels, batch=False, future=self._new_ack(), topic=topic)

    def _check_length(self, length: int) -> None:
        if length > self._config.max_record_bytes:
            raise RecordTooLarge(
                f"the payload has {length} bytes, the limit is {self._config.max_record_bytes}",
                path=self._disk.path,
                hint="split it, or open the log with a larger max_record_bytes",
            )

    # ---- looking

    def stats(self) -> Stats:
        """A frozen picture of the writer's state and counters."""
        view, counters = self.catalog.view, self.counters
        return Stats(
            disk=self._disk.kind,
            disk_reason=self._disk.reason,
            core=CORE,
            core_reason=reason,
            direct=self._disk.direct,
            block_bytes=self._disk.block_bytes,
            sync_method=self._disk.sync_method,
            reading=self._disk.reading,
            first_lsn=self._metadata.truncated,
            next_lsn=self.next_lsn,
            durable_lsn=view.durable_lsn,
            records=self.next_lsn - counters.lsn_at_open,
            payload_bytes=counters.payload_bytes + sum(map(len, self._payloads)),
            groups=counters.groups,
            syncs=counters.syncs,
            written_bytes=counters.written_bytes,
            pending_bytes=self._pending_bytes + self._filled_bytes,
            waiting=len(self._waiting),
            rotations=counters.rotations,
            segments=len(view.ids),
            spares=self._spares.count,
            segment_id=self._segment.id,
            group_records_max=counters.group_records_max,
            sync_us_last=counters.sync_us_last,
            sync_us_total=counters.sync_us_total,
            failed=None if self.health.failure is None else self.health.failure.message,
            topics=len(self._metadata.topics),
            pins=pins_of(self._metadata, self.next_lsn, view.sizes, PINS_SHOWN),
            layout="pack" if self._segment.packed else "pad",
            double_write=self._config.double_write,
            key_id=None if self._segment.cipher is None else self._segment.cipher.key_id,
            double_write_uncovered=counters.uncovered,
            log_bytes=counters.log_bytes,
            sync_us_counts=tuple(counters.sync_us_counts),
            group_records_counts=tuple(counters.group_records_counts),
            group_records_total=counters.group_records_total,
            **self._replica_stats(),
        )

    def _replica_stats(self) -> dict[str, Any]:
        replicated = self._replicated
        if replicated is None:
            return {}
        return {
            "replicated_lsn": replicated.lsn,
            "replica_records": max(self.catalog.durable_lsn - replicated.lsn, 0),
            "replica_bytes": replicated.behind_bytes(),
            "replica_state": replicated.state,
        }


WRITERS: weakref.WeakSet[WalWriter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A forked child shares the file descriptors but not the loop: shut the fast path, so that every call raises."""
    for writer in WRITERS:
        writer._room = -1


os.register_at_fork(after_in_child=_after_fork_in_child)
