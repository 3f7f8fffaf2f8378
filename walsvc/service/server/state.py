"""The state of a log as every answer of the server carries it: its range, and the counters of walsvc.Stats."""

from __future__ import annotations

from walsvc.api import Log
from walsvc.errors import WalError
from walsvc.service.wire.frames import State


def state_of(log: Log) -> State:
    """The values of STATE_FIELDS now. Called for every answer, so it neither counts nor sorts anything."""
    writer = log.writer
    return [
        writer._metadata.truncated,
        writer.next_lsn,
        writer.durable_lsn,
        writer._pending_bytes + writer._filled_bytes,
        len(writer._waiting),
        writer.next_lsn - writer._lsn_at_open,
        writer._payload_bytes,
        writer._groups,
        writer._groups + writer._rotations,
        writer._written_bytes,
        writer._rotations,
        len(writer._segment_ids),
        writer._spares.count,
        writer._segment.id,
        writer._group_records_max,
        writer._sync_us_last,
        writer._sync_us_total,
        len(writer._metadata.topics),
    ]


def failure_of(log: Log) -> WalError | None:
    """Why the log takes and answers nothing any more; None while it works."""
    return log.writer._failure
