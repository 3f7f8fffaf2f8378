"""Every option of a log, with its default, bounds and the reason for them. One frozen object, validated once."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from walsvc.errors import BadOption
from walsvc.keyring import KeyRing
from walsvc.options import check_type, unknown_option

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

# Limits that no option moves, each with its reason.
SEGMENT_BYTES_MIN = 64 * KIB  # below, headers and rotation outweigh the records
SEGMENT_BYTES_MAX = 64 * GIB
BLOCK_BYTES_MIN = 512  # the smallest sector that O_DIRECT knows
BLOCK_BYTES_MAX = 64 * KIB
RECORD_BYTES_MAX = 1 * GIB  # lengths are u32 on disk, and a record must fit in memory twice
BATCH_BYTES_MAX = 10 * GIB  # walrus-rust allows as much
ATTRIBUTES_BYTES_MAX = 64 * KIB  # labels, not data

DiskKind = Literal["auto", "uring", "threads"]

NAMESPACE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")  # file names have 255 bytes
OWN_FILES = frozenset({"LOCK", "double-write", "double-write.new", "copy.unfinished"})
DISK_ENVIRONMENT = "WALSVC_DISK"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalConfig:
    """Options of a log; also accepted by `walsvc.open` as keywords.

    Attributes:
        disk: "auto" (probe), "uring" or "threads". The environment variable WALSVC_DISK wins over "auto".
        direct: write with O_DIRECT. None: where the file system takes it. True: refuse to open where it does not.
        block_bytes: alignment of groups; a power of two, 512 B to 64 KiB. None: what the device asks for, at least 4096.
        segment_bytes: size of a segment file, 64 KiB to 64 GiB. A young log begins with smaller ones.
        max_record_bytes: largest payload, up to 1 GiB.
        max_group_bytes: a group is closed when its records reach this size (one record may be larger), 4 KiB to 1 GiB.
        max_group_records: records in a group at most; 1 means one write and one sync for each append.
        max_batch_bytes: largest atomic batch, up to 10 GiB.
        max_pending_bytes: payload bytes accepted but not yet durable; over it `append` waits, `append_nowait` raises.
        commit_delay: seconds that an idle log waits for company before it commits, 0 to 1. 0: commit at once (PostgreSQL's
            commit_delay; useful only where a sync is slow and appends are many).
        relaxed_interval: seconds within which a Relaxed record becomes durable, above 0 up to 3600. None: only at
            flush, rotation and close.
        layout: "pad": every group starts on a fresh block. "pack": groups follow each other at 64 bytes, so a commit writes the
            log's last block again; only with `double_write`. An existing log takes it up with its next segment.
        double_write: "off", or write each group into the file `double-write` first, and sync it there: "direct" with O_DIRECT
            (the log must have it, too), "buffered" through the page cache. One sync more for each group; a damaged last
            group is restored from there. A log whose last segment is packed needs it to be opened for writing.
        read_only: read a log that another process may be writing.
        namespace: name of a log of its own below the given directory: letters, digits, "_", "-", ".", at most 200.
        reclaim: "manual": segments are dropped only by `reclaim()` and the truncations. "consumed": also as soon as all
            consumers and holders have passed them.
        retain_bytes: drop the oldest segments while all together are larger, whether consumed or not, 64 KiB or more.
        retain_seconds: drop segments whose last record is older, whether consumed or not, 0.001 to 1e9. Older by the wall clock
            and by the monotonic clock of this process, so that setting a clock ahead drops nothing.
        dedupe_records: how many later records with a `dedupe` key of the same topic a key is remembered for, 1 to 1e9.
        dedupe_seconds: how long a `dedupe` key is remembered, 0.001 to 1e9, by the monotonic clock while the log is open, so that setting
            a clock forgets nothing, and by the wall clock over a restart.
        dedupe_bytes: what all remembered `dedupe` keys take together, 60 bytes each, 4 KiB to 64 MiB; beyond it the oldest of any
            topic is forgotten. Each segment begins with them.
        reading: "direct": read with O_DIRECT, or through the page cache where the file system does not take that. "mapped":
            through memory maps, so that several readers of the same records share the page cache while they read; a file that
            is cut under a reader is an error like any other, not SIGBUS. Pages that were not in the page cache before are
            dropped from it again, either way.
        keys: encrypt the log with AES-256-GCM; the keys of an encrypted log, which cannot be opened without. A plain log is
            encrypted from its next segment on.
        slow_sync_seconds: warn, on logger `walsvc.log`, of a group whose write and sync took longer, 0.001 to 3600; None: never. 1 is
            etcd's limit for the same warning.
        replicate: ship every committed group to a JetStream stream, "nats://host,host,host/stream?monitor=..."; see
            docs/ENGINES.md. None: no replica.
    """

    disk: DiskKind = "auto"
    direct: bool | None = None
    block_bytes: int | None = None
    segment_bytes: int = 64 * MIB
    max_record_bytes: int = 64 * MIB
    max_group_bytes: int = 1 * MIB
    max_group_records: int = 65_536
    max_batch_bytes: int = 1 * GIB
    max_pending_bytes: int = 256 * MIB
    commit_delay: float = 0.0
    relaxed_interval: float | None = 0.2
    layout: Literal["pad", "pack"] = "pad"
    double_write: Literal["off", "buffered", "direct"] = "off"
    read_only: bool = False
    namespace: str | None = None
    reclaim: Literal["manual", "consumed"] = "manual"
    retain_bytes: int | None = None
    retain_seconds: float | None = None
    dedupe_records: int = 100_000
    dedupe_seconds: float = 3600.0
    dedupe_bytes: int = 1 * MIB
    reading: Literal["direct", "mapped"] = "direct"
    keys: KeyRing | None = field(default=None, repr=False)  # what is wrongly given may be a key itself
    slow_sync_seconds: float | None = 1.0
    replicate: str | None = None

    def __post_init__(self) -> None:
        one_of("disk", self.disk, ("auto", "uring", "threads"))
        one_of("direct", self.direct, (None, True, False))
        one_of("layout", self.layout, ("pad", "pack"))
        one_of("double_write", self.double_write, ("off", "buffered", "direct"))
        if self.layout == "pack" and self.double_write == "off" and not self.read_only:
            raise BadOption(
                'layout="pack" needs double_write: it writes blocks again that hold acknowledged records, and a write that a '
                "crash cuts may destroy them",
                hint='add double_write="direct" or "buffered", or leave layout at "pad"',
            )
        one_of("read_only", self.read_only, (True, False))
        if self.block_bytes is not None:
            between("block_bytes", self.block_bytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
            if self.block_bytes & (self.block_bytes - 1):
                raise BadOption(f"block_bytes={self.block_bytes} is not a power of two", hint="use 4096")
        between("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
        between("max_record_bytes", self.max_record_bytes, 1, RECORD_BYTES_MAX)
        between("max_group_bytes", self.max_group_bytes, 4 * KIB, RECORD_BYTES_MAX)
        between("max_group_records", self.max_group_records, 1, 1 << 24)
        between("max_batch_bytes", self.max_batch_bytes, 1, BATCH_BYTES_MAX)
        between("max_pending_bytes", self.max_pending_bytes, 4 * KIB, 64 * GIB)
        between("commit_delay", self.commit_delay, 0.0, 1.0)
        one_of("reclaim", self.reclaim, ("manual", "consumed"))
        if self.namespace is not None:
            check_namespace(self.namespace)
        if self.retain_bytes is not None:
            between("retain_bytes", self.retain_bytes, SEGMENT_BYTES_MIN, 1 << 62)
        if self.retain_seconds is not None:
            between("retain_seconds", self.retain_seconds, 0.001, 1e9)
        between("dedupe_records", self.dedupe_records, 1, 1_000_000_000)
        between("dedupe_seconds", self.dedupe_seconds, 0.001, 1e9)
        between("dedupe_bytes", self.dedupe_bytes, 4 * KIB, 64 * MIB)
        one_of("reading", self.reading, ("direct", "mapped"))
        check_keys(self.keys)
        if self.replicate is not None and (self.read_only or not isinstance(self.replicate, str)):
            raise BadOption(
                "replicate= takes a URL, and a log that is open for writing", hint="nats://host,host,host/stream"
            )
        if self.relaxed_interval is not None:
            between("relaxed_interval", self.relaxed_interval, 0.0001, 3600.0)
        if self.slow_sync_seconds is not None:
            between("slow_sync_seconds", self.slow_sync_seconds, 0.001, 3600.0)

    @classmethod
    def of(cls, base: WalConfig | None, overrides: dict[str, Any]) -> WalConfig:
        """`base` (or the defaults) with `overrides`; unknown names raise BadOption."""
        check_type("config", base, cls)
        known = {each.name for each in dataclasses.fields(cls)}
        if not isinstance(overrides.get("keys"), (KeyRing, type(None))):
            overrides["keys"] = type(overrides["keys"])  # it may be a key, and tracebacks may show this map
            check_keys(overrides["keys"])
        for name in overrides:
            if name not in known:
                raise unknown_option(name, known)
        config = dataclasses.replace(base or cls(), **overrides)
        wished = os.environ.get(DISK_ENVIRONMENT)
        if wished and config.disk == "auto":
            one_of(DISK_ENVIRONMENT, wished, ("auto", "uring", "threads"))
            config = dataclasses.replace(config, disk=cast("DiskKind", wished))
        return config


def check_namespace(name: object) -> None:
    """Raise BadOption unless `name` is a plain directory name that is no file of a log.

    It is taken as it is, so two namespaces are never one directory; nothing is replaced or folded.
    """
    plain = isinstance(name, str) and NAMESPACE.fullmatch(name) is not None
    if not plain or str(name) in OWN_FILES or str(name).endswith((".wal", ".spare", ".rewrite")):
        raise BadOption(
            f"namespace={name!r} is not a name for a directory",
            hint='1 to 200 letters, digits, "_", "-" and ".", not "." in front, and no name of a log\'s own files',
        )


def check_keys(keys: object) -> None:
    """Raise BadOption unless `keys` is a KeyRing or None. No message has its value, which may be a key."""
    if not isinstance(keys, (KeyRing, type(None))):
        kind = keys.__name__ if isinstance(keys, type) else type(keys).__name__
        raise BadOption(f"keys must be a KeyRing, not {kind}", hint="keys=walsvc.KeyRing(current=(id, key))")


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise BadOption unless `value` is one of `allowed`."""
    if not any(value is each or (isinstance(each, str) and value == each) for each in allowed):
        raise BadOption(f"{name}={value!r} is not known", hint="one of: " + ", ".join(map(repr, allowed)))


def between(name: str, value: float, low: float, high: float) -> None:
    """Raise BadOption unless `value` is a number of the bounds' kind within [low, high]."""
    kinds = (int, float) if isinstance(low, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        what = "a number" if float in kinds else "an integer"
        raise BadOption(f"{name}={value!r} is not {what}", hint=f"allowed: {low} to {high}")
    if not low <= value <= high:
        raise BadOption(f"{name}={value} is out of bounds", hint=f"allowed: {low} to {high}")


def check_timeout(timeout: float | None) -> None:
    """BadOption unless `timeout` is None or a number of seconds, which no negative one, infinity or NaN is."""
    if timeout is not None:
        between("timeout", timeout, 0.0, 1e9)
