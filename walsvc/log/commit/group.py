"""A group on its way: first open and filling, then closed, then written, then durable."""

from __future__ import annotations

import asyncio
from array import array
from typing import Any, NamedTuple, Protocol

from walsvc.format.columns import encode_column
from walsvc.format.group import DURABLE_UNIT, GROUP_HEADER_BYTES, Flag, GroupHeader, align_up
from walsvc.format.labels import collect
from walsvc.format.meta import encode_map
from walsvc.log.commit.answers import Answers
from walsvc.log.commit.encoding import columns, encode_group, measure
from walsvc.log.commit.segment import Segment
from walsvc.log.commit.spare import Spare

NO_NONCE = bytes(12)


class Labels(NamedTuple):
    """Type, topic and attributes, by which a record differs from an ordinary one."""

    type: int = 0
    topic: int = 0
    attributes_bytes: int = 0


class Body:
    """The size and the index of a closed group.

    Attributes:
        topics: its column of topic numbers, if it has one.
        lengths: of the payloads, which take `payload_bytes` in all.
        rest: index and metadata, encoded.
        group_bytes: of the group on disk, padding included.
    """

    __slots__ = ("group_bytes", "lengths", "payload_bytes", "rest", "topics")

    def __init__(
        self, topics: array[int] | None, lengths: array[int], payload_bytes: int, rest: bytes, group_bytes: int
    ) -> None:
        self.topics: array[int] | None = topics
        self.lengths: array[int] = lengths
        self.payload_bytes: int = payload_bytes
        self.rest: bytes = rest
        self.group_bytes: int = group_bytes


OPEN = Body(None, array("I"), 0, b"", 0)


class GroupMetadata:
    """The changes of metadata that a group carries.

    Attributes:
        encoded: as the group has them on disk.
        joined: changes that joined the group, merged; `reserved` bytes at most.
        new_topics: numbers of topics that no group before has in this segment.
        lasts: index of each topic's last record among the first `seen` of the group.
    """

    __slots__ = ("encoded", "joined", "lasts", "new_topics", "reserved", "seen")

    def __init__(self) -> None:
        self.encoded: bytes = b""
        self.joined: dict[str, Any] = {}
        self.reserved: int = 0
        self.new_topics: set[int] = set()
        self.lasts: dict[int, int] = {}
        self.seen: int = 0


class Flight:
    """The state of a group while the disk has it.

    Attributes:
        buffer: the kernel may read it; None: the disk has answered, or has not been asked.
        submitted_at: on the clock of time.perf_counter.
        done: it is durable, and the groups before it may not be.
    """

    __slots__ = ("buffer", "done", "submitted_at")

    def __init__(self) -> None:
        self.buffer: memoryview | None = None
        self.submitted_at: float = 0.0
        self.done: bool = False


class Heading(Protocol):
    """Header and snapshot of a segment, see walsvc.log.commit.framing.Head."""

    def encode(self, before: int, before_at: int, durable_lsn: int) -> tuple[bytes, int, Any]:
        """The bytes, the CRC that the next group names, and the cipher."""


class Beginning(NamedTuple):
    """The things that the first group of a segment brings along.

    Attributes:
        head: stands in front of the group.
        before: the segment before this one, or the one that it replaces.
        spare: the file, which gets the segment's name.
    """

    head: Heading
    before: Segment
    spare: Spare


class Group:
    """Records that share one write and one sync.

    Attributes:
        segment, offset, first_lsn: its place, which never changes.
        beginning: where this group is the first of its segment; `prefix` then has the bytes of header and snapshot.
        payloads: of the records; `answers.waiters` runs in parallel.
        labels: of the records that have some, by index.
        batch_lsn: first LSN of the batch over several groups that it is part of; 0: it is part of none.
        written_in_order: done when the group and all before it are written, part of a batch or not.
        body: set by `close`.
    """

    __slots__ = (
        "answers",
        "batch_lsn",
        "beginning",
        "body",
        "first_lsn",
        "flags",
        "flight",
        "labels",
        "metadata",
        "offset",
        "payloads",
        "prefix",
        "segment",
        "written_in_order",
    )  # fmt: skip

    def __init__(self, segment: Segment, offset: int, first_lsn: int) -> None:
        self.segment: Segment = segment
        self.offset: int = offset
        self.first_lsn: int = first_lsn
        self.beginning: Beginning | None = None
        self.prefix: bytes = b""
        self.payloads: list[bytes] = []
        self.labels: dict[int, Labels] = {}
        self.flags: int = 0
        self.batch_lsn: int = 0
        self.written_in_order: asyncio.Future[None] | None = None
        self.answers: Answers = Answers()
        self.metadata: GroupMetadata = GroupMetadata()
        self.body: Body = OPEN
        self.flight: Flight = Flight()

    @property
    def next_lsn(self) -> int:
        """LSN after the last record."""
        return self.first_lsn + len(self.payloads)

    @property
    def empty(self) -> bool:
        """Nothing in it to write."""
        return not self.payloads and not self.flags and not self.metadata.encoded and not self.metadata.joined

    @property
    def changes(self) -> bool:
        """True if it changes metadata, beside the labels of its records."""
        return bool(self.metadata.joined) or (bool(self.metadata.encoded) and not self.payloads)

    def last_of(self, number: int) -> int:
        """LSN of a topic's last record in it; 0: it has none. Each record is looked at once, however often this is asked."""
        metadata = self.metadata
        for index in range(metadata.seen, len(self.payloads)) if self.labels else ():
            if (labels := self.labels.get(index)) is not None:
                metadata.lasts[labels.topic] = index
        metadata.seen = len(self.payloads)
        index = metadata.lasts.get(number, -1)
        return 0 if index < 0 else self.first_lsn + index

    def close(self) -> None:
        """Fix the group's size; nothing can be added any more."""
        lengths, payload_bytes, _ = measure(self.payloads)
        topics, index = None, [encode_column(lengths)]
        metadata, segment = self.metadata, self.segment
        if self.labels:
            flags, topics, rows = self._label_columns()
            self.flags |= flags
            index += rows
        if metadata.joined:
            assert not metadata.encoded, "a group of metadata only is closed at once"
            metadata.encoded = encode_map(metadata.joined)
        if self.labels and self.flags & Flag.ATTRIBUTES:
            self._name_labels(self.offset + GROUP_HEADER_BYTES + payload_bytes + sum(map(len, index)))
        index.append(metadata.encoded)
        rest = b"".join(index)
        size = align_up(GROUP_HEADER_BYTES + payload_bytes + len(rest) + segment.tag_bytes, segment.header.align)
        self.body = Body(topics, lengths, payload_bytes, rest, size)

    def _name_labels(self, begin: int) -> None:
        """Say in the metadata, which stands at `begin`, which labels the records have, if they are few and there is room for it."""
        packed = [self.payloads[at][: row.attributes_bytes] for at, row in self.labels.items() if row.attributes_bytes]
        if (labels := collect(packed)) is not None:
            meta = encode_map({**self.metadata.joined, "labels": labels})
            if begin + len(meta) <= self.segment.limit:
                self.metadata.encoded = meta

    def _label_columns(self) -> tuple[int, array[int] | None, list[bytes]]:
        """Flags, the column of topics, and all columns of labels, encoded."""
        flags, rows = 0, []
        types, topics, attributes = columns(self.labels, len(self.payloads))
        for flag, cells in ((Flag.TYPES, types), (Flag.TOPICS, topics), (Flag.ATTRIBUTES, attributes)):
            if cells is not None:
                flags |= flag
                rows.append(encode_column(cells))
        return flags, topics, rows

    def begin_segment(self, beginning: Beginning, durable_lsn: int) -> None:
        """Encode what stands in front of the first group of a segment; all groups of the segment before were submitted."""
        links, last = self.segment.links, beginning.before.links
        links.last_crc, links.last_at = last.last_crc, last.last_at
        self.prefix, links.previous_crc, _ = beginning.head.encode(last.last_crc, last.last_at, durable_lsn)

    def encode(self, view: memoryview, *, generation: int, durable_lsn: int, timestamp_ns: int) -> None:
        """Write prefix and group into `view` and hook the group into its segment's chain."""
        begin = len(self.prefix)
        view[:begin] = self.prefix
        segment, body, meta_bytes = self.segment, self.body, len(self.metadata.encoded)
        links = segment.links
        header = GroupHeader(  # by place, which takes a third of the time
            self.flags,
            segment.header.log_id,
            generation,
            segment.id,
            self.offset,
            self.first_lsn,
            durable_lsn,
            self.batch_lsn,
            timestamp_ns,
            len(self.payloads),
            body.payload_bytes,
            len(body.rest) - meta_bytes,
            meta_bytes,
            body.group_bytes,
            links.previous_crc,
            NO_NONCE,
            0,
            0,
            segment.durable_end // DURABLE_UNIT,
            links.last_crc,
        )
        segment.index.note(header)
        cipher = segment.cipher
        encode = encode_group if cipher is None else cipher.seal_group
        links.previous_crc = encode(view[begin:], header, self.payloads, body.rest)
        if self.payloads:
            links.last_crc, links.last_at = links.previous_crc, self.offset

    def let_go(self) -> None:
        """Keep only what its callers are told. For a group that is written and whose batch has not ended: all of the batch may be far more than
        there is memory."""
        body = self.body
        self.body = Body(None, body.lengths, body.payload_bytes, b"", body.group_bytes)
        self.payloads.clear()
        self.labels.clear()
        self.metadata.encoded = b""
        self.answers.waiters.clear()  # nobody waits for a part of a batch

    def resolve(self, waker: Any, sync_us: int) -> None:
        """Answer every caller that waits for this group; `waker.wake()` then wakes them."""
        begin = self.offset + GROUP_HEADER_BYTES
        self.answers.give(waker, (self.first_lsn, self.segment.id, begin), self.body.lengths, sync_us)
