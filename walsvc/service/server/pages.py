"""Pages of records, newest first, for clients that read backwards: each call begins where the page before has ended."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from walsvc.api import Log
from walsvc.errors import WalError
from walsvc.model import Record
from walsvc.service.server.limits import STREAM_BYTES, STREAM_RECORDS
from walsvc.service.wire.columns import packed_labels, records_frame
from walsvc.service.wire.frames import RECORD_COST
from walsvc.service.wire.wanted import reading


async def read_back(log: Log, args: dict[str, Any]) -> dict[str, Any]:
    """Answer read_back: see docs/PROTOCOL.md."""
    wanted = reading(args)
    bytes_max = min(wanted.pop("max_bytes"), STREAM_BYTES)
    cuts, known, stop = log.writer.segments.cuts, wanted.pop("cuts"), wanted.pop("stop")
    count = cuts.count if known is None else known
    stop = min(log.next_lsn if stop is None else stop, cuts.since(count))
    records: list[Record] = []
    labels: list[bytes] = []
    size, ended = 0, False
    async with aclosing(log.read(stop=stop, reverse=True, **wanted)) as found:
        try:
            while size < bytes_max and len(records) < STREAM_RECORDS and not ended:
                if (record := await anext(found, None)) is None:
                    ended = True
                else:
                    records.append(record)
                    labels.append(packed_labels(record))
                    size += len(record.payload) + len(labels[-1]) + RECORD_COST
        except WalError:
            if not records:
                raise
            # the next call meets it first
    records = [each for each in records if each.lsn < cuts.since(count)]
    labels = labels[len(labels) - len(records) :]  # the newest came first
    rows = list(records_frame(0, 0, records, labels, [])[2:-1]) if records else None
    return {"records": rows, "stop": records[-1].lsn if records else stop, "cuts": count, "ended": ended}
