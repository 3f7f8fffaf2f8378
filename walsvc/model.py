"""The values that cross the public interface."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard


def is_lsn(value: object) -> TypeGuard[int]:
    """True if a value is a number that may be an LSN: no float, no bool, no text."""
    return isinstance(value, int) and not isinstance(value, bool) and -1 << 63 <= value < 1 << 64


class Mode(enum.Enum):
    """The moment at which an append is answered."""

    STRICT = "strict"
    RELAXED = "relaxed"
    QUORUM = "quorum"

    def __repr__(self) -> str:
        return self.value.capitalize()


Strict = Mode.STRICT
"""Answer only when the record and every record before it are on stable storage."""

Relaxed = Mode.RELAXED
"""Answer when the record is accepted; it becomes durable within `relaxed_interval`."""


Quorum = Mode.QUORUM
"""Answer only when Strict would, and the log's replica has the record as well (`replicate=`, docs/ENGINES.md)."""


class Entry(NamedTuple):
    """A record for append_batch that has a type or labels of its own; it may stand beside plain payloads.

    Attributes:
        payload: anything with the buffer protocol, 0 to max_record_bytes.
        type: application's record type, 0 to 65535; bit 15 marks types that a reader must know.
        attributes: labels, a msgpack-able map of at most 64 KiB encoded.
    """

    payload: bytes | bytearray | memoryview
    type: int = 0
    attributes: Mapping[str, Any] | None = None


class AppendResult(NamedTuple):
    """The place of a record.

    Attributes:
        lsn: the record's own log sequence number; dense, from 1.
        segment_id: first LSN of its segment, whose file is `%016x.wal`.
        offset: byte offset in that file at which the stored record begins.
        encoded_len: bytes of the stored record from `offset` on (attributes and payload; ciphertext when encrypted).
        durable: True when it is on stable storage (Strict), False when only accepted (Relaxed).
        sync_us: microseconds that the write and sync of its group took; 0 for Relaxed.
    """

    lsn: int
    segment_id: int
    offset: int
    encoded_len: int
    durable: bool
    sync_us: int

    @property
    def duplicate(self) -> bool:
        """True: the append's `dedupe` key had been used before, so this is where the first one's record is."""
        return False


class Duplicate(AppendResult):
    """The answer to an append whose `dedupe` key had been used before; equal to any AppendResult of the same place."""

    __slots__ = ()

    @property
    def duplicate(self) -> bool:
        """True."""
        return True


class Record(NamedTuple):
    """A record as reading returns it.

    Attributes:
        lsn: log sequence number.
        payload: the bytes that were appended.
        type: application's record type, 0 to 65535; bit 15 means "required": who does not know it must stop.
        topic: name of its topic, or None.
        timestamp_ns: wall-clock time (Unix, nanoseconds) at which its group was closed.
        attributes: labels given with the append; empty mapping when none.
    """

    lsn: int
    payload: bytes
    type: int
    topic: str | None
    timestamp_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that recovery or verification saw.

    Attributes:
        kind: "torn_tail", "unclean_close", "successor_dropped", "truncation_resumed", "corruption", "unsupported", ...
        message: what it is, in words.
        segment, offset, lsn: where.
        length: bytes concerned.
        fatal: True when acknowledged data is hit.
    """

    kind: str
    message: str
    segment: int | None = None
    offset: int | None = None
    lsn: int | None = None
    length: int = 0
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """The findings of opening, and its repairs.

    Attributes:
        clean: the log had been closed in order; nothing was dropped.
        created: the log is new.
        first_lsn, next_lsn: the range of records, next_lsn excluded.
        segments: number of segment files.
        bytes_read: bytes read to find the end.
        findings: in order of place.
    """

    clean: bool
    created: bool
    first_lsn: int
    next_lsn: int
    segments: int
    bytes_read: int
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Pin:
    """A consumer or a hold that needs records, so that retention may not drop them.

    Attributes:
        kind: "consumer" or "hold".
        name: whose.
        topic: the consumer's topic; None for one of the whole log, and for a hold.
        lsn: lowest LSN that it may need; next_lsn when it needs nothing that is there.
        bytes: size of the segments from there on.
    """

    kind: str
    name: str
    topic: str | None
    lsn: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LimitedTopic:
    """A topic that has limits of its own, which `topic.retain` has set; None: no limit.

    Attributes:
        topic: its name.
        records, bytes, seconds: as of `topic.retain`.
    """

    topic: str
    records: int | None
    bytes: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Retention:
    """The segments that are kept, and the pins that need them. Counters count from opening.

    Attributes:
        first_lsn, next_lsn: the range of records.
        segments, bytes: files and their size, spares not counted.
        pins: everybody who needs records, those who need the oldest first.
        dropped_segments, dropped_bytes, dropped_records: by reclaiming and by limits.
        overtaken: consumers that lost records to a limit.
        last_drop: the last one in words, or None.
        failed: why the last look in the background dropped nothing, in words; None when it went well.
        clocks: how wall clock and monotonic clock have disagreed since the log was opened, in words; None: they agree.
    """

    first_lsn: int
    next_lsn: int
    segments: int
    bytes: int
    pins: tuple[Pin, ...]
    dropped_segments: int = 0
    dropped_bytes: int = 0
    dropped_records: int = 0
    overtaken: int = 0
    last_drop: str | None = None
    failed: str | None = None
    clocks: str | None = None


@dataclass(slots=True)
class ReadStats:
    """The cost of reading so far. Pass one to `read(stats=...)`: it is added to while records are yielded.

    Attributes:
        bytes_read: from the disk, seals and segment headers included.
        groups_read: groups that had wanted records, or could not be ruled out.
        groups_passed: groups whose payloads were not read.
        segments_passed: how often a segment's end was passed over by what seals and indexes tell.
    """

    bytes_read: int = 0
    groups_read: int = 0
    groups_passed: int = 0
    segments_passed: int = 0


# Upper bounds of the buckets in Stats, each included; one more bucket counts what is above the last. Syncs: from 25 us in
# steps of 1.4, up to the 8 s at which etcd's fsync buckets end. Records: 0 is a group of metadata alone.
SYNC_US_BOUNDS = (
    *(25, 35, 50, 70, 100, 140, 200, 280, 400, 560, 800, 1_100, 1_600, 2_200, 3_200, 4_500, 6_400, 9_000, 12_800),
    *(25_600, 51_200, 102_400, 204_800, 409_600, 819_200, 1_638_400, 3_276_800, 8_192_000),
)
GROUP_RECORDS_BOUNDS = (0, *(1 << power for power in range(17)))


@dataclass(frozen=True, slots=True)
class Stats:
    """A frozen picture of a log. Counters count from opening.

    Attributes:
        disk, disk_reason: backend and why it was chosen.
        core, core_reason: "c" or "python", which of the two commit paths answers appends, and why; "" where nothing is appended.
        direct, block_bytes, sync_method: how it writes.
        first_lsn, next_lsn, durable_lsn: the log's range, and how far it is on stable storage.
        records, payload_bytes: accepted by append.
        groups, syncs: group commits written; durable writes issued for them (one each, two with double_write).
        written_bytes: bytes written to segments, padding and, in layout pack, blocks written again included; the double-write
            file is not.
        pending_bytes: accepted but not yet durable.
        waiting: appends that wait for room, and next() of shared consumers while max_outstanding records are out.
        rotations: segments begun since opening.
        segments, spares: files at hand.
        segment_id: the active segment.
        group_records_max: most records that shared one sync.
        sync_us_last, sync_us_total: time of the last write-and-sync, and the sum over all.
        failed: the terminal error in words, or None.
        topics: how many there are.
        limited_topics: the topics with limits of their own (`topic.retain`), the oldest 16 of them.
        pins: the consumers and holders that need the oldest records, at most 16.
        layout: of the active segment, "pad" or "pack".
        double_write: the option: "off", "buffered" or "direct".
        double_write_uncovered: groups that were too large for the double-write file: a damaged one is not restored. What had
            been acknowledged before it is.
        reading: how records are read, "direct", "mapped", "through the page cache", and why not as asked for.
        log_bytes: what the groups take in segments, headers and padding included.
        key_id: of the key that the active segment is encrypted with; None: it is not encrypted.
        sync_us_counts: of the groups, how many took a write-and-sync within each of SYNC_US_BOUNDS and above the one before;
            one more for the rest. Their sum is the number of groups that the disk has answered, sync_us_total their time.
        group_records_counts: the same groups by the number of records in them, with GROUP_RECORDS_BOUNDS.
        group_records_total: records in these groups.
        replicated_lsn: every record up to it is stored by the replica; None: the log is not replicated.
        replica_records, replica_bytes: durable here and not stored there yet; the bytes are an upper bound.
        replica_state: in words, see docs/ENGINES.md; None: the log is not replicated.
    """

    disk: str
    disk_reason: str
    direct: bool
    block_bytes: int
    sync_method: str
    first_lsn: int
    next_lsn: int
    durable_lsn: int
    records: int = 0
    payload_bytes: int = 0
    groups: int = 0
    syncs: int = 0
    written_bytes: int = 0
    pending_bytes: int = 0
    waiting: int = 0
    rotations: int = 0
    segments: int = 0
    spares: int = 0
    segment_id: int = 0
    group_records_max: int = 0
    sync_us_last: int = 0
    sync_us_total: int = 0
    failed: str | None = None
    topics: int = 0
    pins: tuple[Pin, ...] = ()
    layout: str = "pad"
    double_write: str = "off"
    double_write_uncovered: int = 0
    key_id: str | None = None
    log_bytes: int = 0
    reading: str = "direct"
    sync_us_counts: tuple[int, ...] = ()
    group_records_counts: tuple[int, ...] = ()
    group_records_total: int = 0
    replicated_lsn: int | None = None
    replica_records: int = 0
    replica_bytes: int = 0
    replica_state: str | None = None
    limited_topics: tuple[LimitedTopic, ...] = ()
    core: str = ""
    core_reason: str = ""
