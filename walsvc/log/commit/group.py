"""A group on its way: first open and filling, then closed, then written, then durable."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.format.columns import encode_column
from walsvc.format.group import DURABLE_UNIT, GROUP_HEADER_BYTES, Flag, GroupHeader, align_up
from walsvc.format.labels import collect
from walsvc.format.meta import encode_map
from walsvc.log.commit.encoding import columns, encode_group, measure
from walsvc.log.commit.results import BatchResult, Part
from walsvc.log.commit.segment import Segment
from walsvc.model import AppendResult

if TYPE_CHECKING:
    from walsvc.log.commit.framing import Head

NO_NONCE = bytes(12)
NO_LENGTHS: array[int] = array("I")


class Labels(NamedTuple):
    """Type, topic and attributes, by which a record differs from an ordinary one."""

    type: int = 0
    topic: int = 0
    attributes_bytes: int = 0


class Group:
    """Records that share one write and one sync.

    `payloads` and `waiters` run in parallel, one entry for each record; a waiter is None where nobody waits for that very
    record (Relaxed, or part of a batch). `labels` is sparse, by index. `barriers` are futures with the values they get
    when the group is durable.
    """

    __slots__ = (
        "attached",
        "barriers",
        "batch_lsn",
        "batches",
        "buffer",
        "done",
        "first_lsn",
        "flags",
        "group_bytes",
        "head",
        "joined",
        "labels",
        "lasts",
        "lengths",
        "meta",
        "new_topics",
        "offset",
        "payload_bytes",
        "payloads",
        "prefix",
        "reserved",
        "rest",
        "seen",
        "segment",
        "submitted_at",
        "told",
        "topics",
        "waiters",
        "written_in_order",
    )  # fmt: skip

    def __init__(self, segment: Segment, offset: int, first_lsn: int) -> None:
        self.segment: Segment = segment
        self.offset: int = offset
        self.first_lsn: int = first_lsn
        self.head: Head | None = None  # segment header and snapshot, when this group is the first of its segment
        self.prefix: bytes = b""  # their bytes
        self.payloads: list[bytes] = []
        self.waiters: list[Any] = []
        self.batches: list[tuple[Part, asyncio.Future[Sequence[AppendResult]]]] = []
        self.told: list[Callable[[int], None]] = []  # called with sync_us before anybody is answered
        self.barriers: list[tuple[asyncio.Future[Any], Any]] = []
        self.labels: dict[int, Labels] = {}
        self.batch_lsn: int = 0  # of the batch over several groups that it is part of
        self.written_in_order: asyncio.Future[None] | None = (
            None  # done when it and all before are written, batch or not
        )
        self.flags: int = 0
        self.meta: bytes = b""
        self.joined: dict[str, Any] = {}  # changes of metadata that joined it, merged
        self.new_topics: set[int] = set()  # which no group before has in this segment
        self.reserved: int = 0  # bytes that `joined` takes at most
        self.lasts: dict[int, int] = {}  # index of each topic's last record among the first `seen`
        self.seen: int = 0
        # set by close():
        self.topics: array[int] | None = None  # its column of topic numbers
        self.lengths: array[int] = NO_LENGTHS
        self.payload_bytes: int = 0
        self.rest: bytes = b""
        self.group_bytes: int = 0
        # set while it is written:
        self.buffer: memoryview | None = None
        self.attached: object = None
        self.submitted_at: float = 0.0
        self.done: bool = False

    @property
    def next_lsn(self) -> int:
        """LSN after the last record."""
        return self.first_lsn + len(self.payloads)

    @property
    def empty(self) -> bool:
        """Nothing in it to write."""
        return not self.payloads and not self.meta and not self.flags and not self.joined

    @property
    def changes(self) -> bool:
        """Whether it changes metadata, beside the labels of its records."""
        return bool(self.joined) or (bool(self.meta) and not self.payloads)

    def last_of(self, number: int) -> int:
        """LSN of a topic's last record in it; 0: it has none. Each record is looked at once, however often this is asked."""
        for index in range(self.seen, len(self.payloads)) if self.labels else ():
            if (labels := self.labels.get(index)) is not None:
                self.lasts[labels.topic] = index
        self.seen = len(self.payloads)
        index = self.lasts.get(number, -1)
        return 0 if index < 0 else self.first_lsn + index

    def close(self) -> None:
        """Fix the group's size; nothing can be added any more."""
        self.lengths, self.payload_bytes, _ = measure(self.payloads)
        index = [encode_column(self.lengths)]
        if self.labels:
            flags, rows = self._label_columns()
            self.flags |= flags
            index += rows
        if self.joined:
            assert not self.meta, "a group of metadata only is closed at once"
            self.meta = encode_map(self.joined)
        if self.labels and self.flags & Flag.ATTRIBUTES:
            self._name_labels(sum(map(len, index)))
        index.append(self.meta)
        self.rest = b"".join(index)
        self.group_bytes = align_up(
            GROUP_HEADER_BYTES + self.payload_bytes + len(self.rest) + self.segment.tag_bytes, self.segment.align
        )

    def _name_labels(self, index_bytes: int) -> None:
        """Say in the metadata which labels the records have, if they are few and there is room for it."""
        packed = [self.payloads[at][: row.attributes_bytes] for at, row in self.labels.items() if row.attributes_bytes]
        if (labels := collect(packed)) is not None:
            meta = encode_map({**self.joined, "labels": labels})
            end = self.offset + GROUP_HEADER_BYTES + self.payload_bytes + index_bytes + len(meta)
            if end <= self.segment.limit:
                self.meta = meta

    def _label_columns(self) -> tuple[int, list[bytes]]:
        flags, rows = 0, []
        types, self.topics, attributes = columns(self.labels, len(self.payloads))
        for flag, cells in ((Flag.TYPES, types), (Flag.TOPICS, self.topics), (Flag.ATTRIBUTES, attributes)):
            if cells is not None:
                flags |= flag
                rows.append(encode_column(cells))
        return flags, rows

    def begin_segment(self, before: Segment, durable_lsn: int) -> None:
        """Encode what stands in front of the first group of a segment; all groups of the segment before were submitted."""
        assert self.head is not None
        segment = self.segment
        segment.last_crc, segment.last_at = before.last_crc, before.last_at
        self.prefix, segment.previous_crc, _ = self.head.encode(before.last_crc, before.last_at, durable_lsn)

    def encode(self, view: memoryview, *, generation: int, durable_lsn: int, timestamp_ns: int) -> None:
        """Write prefix and group into `view` and hook the group into its segment's chain."""
        begin = len(self.prefix)
        view[:begin] = self.prefix
        segment = self.segment
        header = GroupHeader(  # by place, which takes a third of the time
            self.flags,
            segment.log_id,
            generation,
            segment.id,
            self.offset,
            self.first_lsn,
            durable_lsn,
            self.batch_lsn,
            timestamp_ns,
            len(self.payloads),
            self.payload_bytes,
            len(self.rest) - len(self.meta),
            len(self.meta),
            self.group_bytes,
            segment.previous_crc,
            NO_NONCE,
            0,
            0,
            segment.durable_end // DURABLE_UNIT,
            segment.last_crc,
        )
        segment.index.note(header)
        cipher = segment.cipher
        encode = encode_group if cipher is None else cipher.seal_group
        segment.previous_crc = encode(view[begin:], header, self.payloads, self.rest)
        if self.payloads:
            segment.last_crc, segment.last_at = segment.previous_crc, self.offset

    def resolve(self, waker: Any, sync_us: int) -> None:
        """Answer everybody who waits for this group; `waker.wake()` then wakes them."""
        begin = self.offset + GROUP_HEADER_BYTES
        for tell in self.told:
            tell(sync_us)
        waker.settle(self.waiters, self.first_lsn, self.segment.id, begin, self.lengths, sync_us)
        self.waiters.clear()  # a result that its task has taken then dies at once, in memory that is still in the cache
        for part, ack in self.batches:
            waker.give(ack, BatchResult([part], durable=True, sync_us=sync_us))
        for barrier, value in self.barriers:
            if not barrier.done():
                barrier.set_result(value)

    def fail(self, error: Callable[[], BaseException]) -> int:
        """Give everybody who waits for this group an error of their own; returns how many were told."""
        told = 0
        futures: list[asyncio.Future[Any] | None] = [*self.waiters]
        futures += [future for _, future in self.batches]
        futures += [barrier for barrier, _ in self.barriers]
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(error())
                told += 1
        return told
