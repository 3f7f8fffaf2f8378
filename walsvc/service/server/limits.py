"""The limits of a server for its clients, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from walsvc.config import GIB, KIB, MIB, WalConfig, between
from walsvc.format.producers import REQUESTS_MAX
from walsvc.service.wire.frames import ITEMS_MAX, OVERHEAD_BYTES
from walsvc.service.wire.protocol import LENGTH_MAX

STREAM_BYTES = 256 * KIB  # of records in one RECORDS frame: enough for speed, little enough to share a connection
STREAM_RECORDS = 4096
FRAME_BYTES_MIN = OVERHEAD_BYTES // 2 + 32 * KIB  # attributes have up to 64 KiB, and a record must fit beside them


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; a client that goes beyond one is told which, and disconnected.

    Attributes:
        frame_bytes: largest frame, 96 KiB to 1 GiB; a longer one is refused by its length, before it is read. It bounds
            records as max_record_bytes does: 64 KiB of it are for their labels.
        connections: open at the same time, 1 to 1e6.
        pending_bytes: payload bytes that one connection may have sent and not seen answered, 64 KiB to 4 GiB; a request may
            always be sent when nothing is unanswered.
        pending_total_bytes: of all connections together, 64 KiB to 64 GiB: above it the server stops reading until some are
            answered, which delays clients and tells them nothing. And as much again may wait to be sent to all of them: above it
            no stream is read for, and a client that takes nothing for two seconds is gone.
        requests: APPEND and BATCH frames of one connection that are not answered, 1 to 1024 (as many are remembered).
        streams: open read, follow and consumer streams of one connection, 1 to 1e5; and
        streams_total: of all connections together, 1 to 1e7.
        calls: of one connection that are not answered, such as wait_durable, 1 to 1e5; and
        calls_total: of all connections together, 1 to 1e7: each is a task of the server.
        holds: of a log, 1 to 1e6; and
        holds_total: of all open logs, 1 to 1e7; and
        consumers: of a log and its topics, 1 to 1e6; and
        consumers_total: of all open logs, 1 to 1e7. Each stands in every new segment of its log.
        handshake_seconds: for TLS and HELLO, and to take the last words of a connection, 0.01 to 3600.
        idle_seconds: a client that says nothing for so long, not even PING, or does not read what was sent to it, is
            gone; also the longest pause within a streamed batch, which holds up all others. 0.01 to 86,400.
        open_namespaces: logs open at the same time, 1 to 10,000.
        namespace_seconds: an unused namespace is closed after so long, 0 to 1e9.
    """

    frame_bytes: int = 64 * MIB + OVERHEAD_BYTES
    connections: int = 4096
    pending_bytes: int = 16 * MIB
    pending_total_bytes: int = 256 * MIB
    requests: int = REQUESTS_MAX
    streams: int = 256
    streams_total: int = 65_536
    calls: int = 1024
    calls_total: int = 65_536
    holds: int = 1024
    holds_total: int = 16_384
    consumers: int = 10_000
    consumers_total: int = 100_000
    handshake_seconds: float = 10.0
    idle_seconds: float = 60.0
    open_namespaces: int = 256
    namespace_seconds: float = 300.0

    def __post_init__(self) -> None:
        between("frame_bytes", self.frame_bytes, FRAME_BYTES_MIN, LENGTH_MAX)
        between("connections", self.connections, 1, 1_000_000)
        between("pending_bytes", self.pending_bytes, 64 * KIB, 4 * GIB)
        between("pending_total_bytes", self.pending_total_bytes, 64 * KIB, 64 * GIB)
        between("requests", self.requests, 1, REQUESTS_MAX)
        between("streams", self.streams, 1, 100_000)
        between("streams_total", self.streams_total, 1, 10_000_000)
        between("calls", self.calls, 1, 100_000)
        between("calls_total", self.calls_total, 1, 10_000_000)
        between("holds", self.holds, 1, 1_000_000)
        between("holds_total", self.holds_total, 1, 10_000_000)
        between("consumers", self.consumers, 1, 1_000_000)
        between("consumers_total", self.consumers_total, 1, 10_000_000)
        between("handshake_seconds", self.handshake_seconds, 0.01, 3600.0)
        between("idle_seconds", self.idle_seconds, 0.01, 86_400.0)
        between("open_namespaces", self.open_namespaces, 1, 10_000)
        between("namespace_seconds", self.namespace_seconds, 0.0, 1e9)

    def told(self, config: WalConfig) -> dict[str, int]:
        """The limits as WELCOME names them, for a log with options `config`."""
        return {
            "frame_bytes": self.frame_bytes,
            "items": min(ITEMS_MAX, config.max_group_records),
            # a frame is one group, and a group is in one segment: small segments shall not be outgrown by every frame
            "append_bytes": min(
                config.max_group_bytes, config.segment_bytes // 4, self.frame_bytes - OVERHEAD_BYTES // 2
            ),
            "record_bytes": min(config.max_record_bytes, self.frame_bytes - OVERHEAD_BYTES // 2),
            "batch_bytes": config.max_batch_bytes,
            "pending_bytes": min(self.pending_bytes, config.max_pending_bytes),
            "requests": self.requests,
            "calls": self.calls,
            "streams": self.streams,
            "idle_ms": int(self.idle_seconds * 1000),
        }
