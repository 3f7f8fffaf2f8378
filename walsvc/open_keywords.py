"""The keywords of `walsvc.open` for each kind of target, for type checkers alone. A test holds them against the classes that check them
and say what each means: WalConfig, ClientConfig and JetStreamOptions."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from ssl import SSLContext

    from walsvc.config import DiskKind
    from walsvc.keyring import KeyRing


class CommonOptions(TypedDict, total=False):
    """Options of a log that this process writes itself, wherever its bytes go."""

    block_bytes: int | None
    segment_bytes: int
    max_record_bytes: int
    max_group_bytes: int
    max_group_records: int
    max_batch_bytes: int
    max_pending_bytes: int
    commit_delay: float
    relaxed_interval: float | None
    reclaim: Literal["manual", "consumed"]
    retain_bytes: int | None
    retain_seconds: float | None
    slow_sync_seconds: float | None
    dedupe_records: int
    dedupe_seconds: float
    dedupe_bytes: int
    keys: KeyRing | None


class LogOptions(CommonOptions, total=False):
    """Options of a log in a directory, but for `read_only`; see WalConfig."""

    disk: DiskKind
    direct: bool | None
    layout: Literal["pad", "pack"]
    double_write: Literal["off", "buffered", "direct"]
    namespace: str | None
    reading: Literal["direct", "mapped"]
    replicate: str | None


class ClientOptions(TypedDict, total=False):
    """Options of a log behind a server (unix://, wal://, wals://); see ClientConfig."""

    namespace: str | None
    token_file: str | PathLike[str] | None
    ca: str | PathLike[str] | None
    cert: str | PathLike[str] | None
    key: str | PathLike[str] | None
    server_name: str | None
    timeout: float | None
    connect_seconds: float
    open_seconds: float
    reconnect_seconds: float
    backoff_seconds: float
    backoff_max_seconds: float
    max_pending_bytes: int
    read_ahead_bytes: int
    read_only: bool
    insecure: bool
    name: str | None


class StreamOptions(CommonOptions, total=False):
    """Options of a log in JetStream (nats://, tls://); see JetStreamOptions and docs/ENGINES.md."""

    read_only: bool
    replicas: int
    allow_unsynced: bool
    monitor: Sequence[str] | str | None
    system_user: str | None
    system_password: str | None
    system_credentials: str | None
    credentials: str | None
    token: str | None
    ca: str | PathLike[str] | None
    cert: str | PathLike[str] | None
    key: str | PathLike[str] | None
    server_name: str | None
    tls: SSLContext | None
    timeout: float
