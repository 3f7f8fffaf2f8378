"""The requests of idempotent producers that the log remembers, and the records that they became.

A producer numbers its requests. When one is accepted, a row with its place goes into the metadata of the group that ends
its records, so record and row are durable together or not at all: a request that is repeated because its answer was lost
finds its row, also after a crash. Each request says below which number everything was answered, and rows below that are
forgotten, as RIFL (Lee et al., SOSP 2015) and Ongaro's Raft dissertation (section 6.3) do it; so what is kept is what is
unanswered, not a guess at a time. Three bounds keep it small whatever producers do; what they drop counts as unknown.

    row    56 bytes, little-endian: producer u64, seq u64, done u64, lsn u64, segment u64, offset u64, records u32, parts u32
           lsn, records   the request's records
           segment, offset   where the first stands
           parts   groups that hold them: more than one for a batch that was streamed
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from walsvc.errors import OutcomeUnknown
from walsvc.format.group import BadGroup

ROW = struct.Struct("<QQQQQQII")
REQUEST_BYTES = ROW.size + 32  # what a request adds to its group's metadata at most
REQUESTS_MAX = 1024  # rows of one producer: as many requests may be unanswered
PRODUCERS_MAX = 2048  # a thousand clients, and as many that have gone
ROWS_MAX = 32_768  # of all together: 1.8 MB in the snapshot at the head of a segment


class Request(NamedTuple):
    """A request, as its producer describes it.

    Attributes:
        producer: its number, 1 to 2^64 - 1, which nobody else has.
        seq: the request's, ascending from 1.
        done: every request below this has been answered.
        since: 0 at the first attempt; later next_lsn as it was known at the first attempt, or less.
    """

    producer: int
    seq: int
    done: int = 0
    since: int = 0


class RequestRow(NamedTuple):
    """The place of a request's records; see the head of this file."""

    lsn: int
    segment: int
    offset: int
    records: int
    parts: int


@dataclass(slots=True)
class ProducerWindow:
    """One producer's requests. `floor`: below it, what has no row is forgotten.

    Ordered dicts, here and below: the first entry of a plain one is found in a time that grows with what was removed there.
    """

    rows: OrderedDict[int, RequestRow] = field(default_factory=OrderedDict)
    floor: int = 0


@dataclass(slots=True)
class Producers:
    """All producers, those that appended last at the end.

    Attributes:
        windows: by producer's number.
        forgotten: LSN of the last request of any producer that was dropped as a whole.
        count: rows of all.
    """

    windows: OrderedDict[int, ProducerWindow] = field(default_factory=OrderedDict)
    forgotten: int = 0
    count: int = 0

    @property
    def encoded_bytes(self) -> int:
        """Bytes of `encode`."""
        return self.count * ROW.size

    def find(self, request: Request) -> RequestRow | None:
        """The row of a request that was accepted; None: it never was. Raises OutcomeUnknown where that was forgotten."""
        window = self.windows.get(request.producer)
        if window is None:
            known = request.since == 0 or request.since > self.forgotten
        else:
            if (row := window.rows.get(request.seq)) is not None:
                return row
            known = request.seq >= window.floor
        if known:
            return None
        raise OutcomeUnknown(
            f"whether request {request.seq} was appended is no longer known",
            lsn=request.since or None,
            hint=f"at most {REQUESTS_MAX} requests of a producer, and {PRODUCERS_MAX} producers, are remembered; read the log "
            "from that LSN on to see whether the records are there",
        )

    def note(self, producer: int, seq: int, done: int, row: RequestRow) -> None:
        """A request was accepted."""
        windows = self.windows
        window = windows.get(producer)
        if window is None:
            window = windows[producer] = ProducerWindow()
        windows.move_to_end(producer)
        rows = window.rows
        window.floor = max(window.floor, done)
        before = len(rows)
        while rows and (first := next(iter(rows))) < done:
            del rows[first]
        rows[seq] = row
        if len(rows) > REQUESTS_MAX:
            first, _ = rows.popitem(last=False)
            window.floor = max(window.floor, first + 1)
        self.count += len(rows) - before
        while (self.count > ROWS_MAX or len(windows) > PRODUCERS_MAX) and len(windows) > 1:
            _, gone = self.windows.popitem(last=False)
            self.count -= len(gone.rows)
            self.forgotten = max(self.forgotten, *(each.lsn for each in gone.rows.values()))

    def cut(self, lsn: int) -> None:
        """The log ends with record `lsn` now: what has no record left may be appended again."""
        for producer, window in list(self.windows.items()):
            window.rows = OrderedDict((seq, row) for seq, row in window.rows.items() if row.lsn <= lsn)
            if not window.rows:
                del self.windows[producer]
        self.count = sum(len(window.rows) for window in self.windows.values())
        self.forgotten = min(self.forgotten, lsn)

    def copy(self) -> Producers:
        """A copy that later changes of this one do not touch."""
        windows = (
            (number, ProducerWindow(OrderedDict(each.rows), each.floor)) for number, each in self.windows.items()
        )
        return Producers(OrderedDict(windows), self.forgotten, self.count)

    def encode(self) -> bytes:
        """All rows, for a snapshot."""
        return b"".join(
            [
                ROW.pack(producer, seq, window.floor, *row)
                for producer, window in self.windows.items()
                for seq, row in window.rows.items()
            ]
        )

    def apply(self, data: bytes) -> None:
        """Take note of encoded rows. Raises BadGroup if they are cut."""
        if len(data) % ROW.size:
            raise BadGroup("the rows of producers are cut")
        for producer, seq, done, *row in ROW.iter_unpack(data):
            self.note(producer, seq, done, RequestRow(*row))
