"""The limits that the server has said in WELCOME, as the append side looks at them, and what is refused by them.

A server may come back with other limits than it had when an append was accepted.
"""

from __future__ import annotations

from itertools import accumulate

from walsvc.errors import RecordTooLarge
from walsvc.log.commit.conditions import check_expected, check_key
from walsvc.log.commit.entries import Pieces
from walsvc.log.commit.payload import PayloadBound
from walsvc.service.client.session import Session
from walsvc.service.wire.frames import APPEND_COST

FRAME_RECORDS = 256  # a frame with so many leaves at once: the server is at work while this turn goes on appending


class Limits(PayloadBound):
    """Those of the present connection, or the last one.

    Attributes:
        append_bytes_max: of the payloads and attributes of a frame, with APPEND_COST for each record.
        items_max: records that a frame is filled with.
        requests_max: requests that may be unanswered.
    """

    def __init__(self, session: Session) -> None:
        hint = "split it, or let the server open the log with a larger max_record_bytes"
        super().__init__(session.limits["record_bytes"], session.address.url, hint)
        self._session = session
        self.take()

    def take(self) -> None:
        """There is another connection: take what its WELCOME says."""
        limits = self._session.limits
        self.record_bytes_max: int = limits["record_bytes"]
        self.append_bytes_max: int = limits["append_bytes"]
        self.items_max: int = min(limits["items"], FRAME_RECORDS)
        self.requests_max: int = limits["requests"]

    def check_expected(self, expected: int | None) -> None:
        """Raise what is wrong with `expected`, and UnsupportedFormat where the server would not look at it."""
        check_expected(expected)
        if expected is not None:
            self._session.need("expected", "conditional appends")

    def check_key(self, dedupe: str | None) -> None:
        """Raise what is wrong with a key of the caller's, and UnsupportedFormat where the server would not look at it."""
        check_key(dedupe)
        if dedupe is not None:
            self._session.need("dedupe", "deduplication")

    def check_entries(self, pieces: Pieces) -> None:
        """Raise UnsupportedFormat for records with labels of their own where the server would not look at these."""
        if pieces.labels:
            self._session.need("entries", "records of a batch with labels of their own")

    def outgrown(self, pieces: Pieces, attributes_bytes: int = 0) -> bool:
        """True if a frame is over the limits of this connection: a server may come back with lower ones. `attributes_bytes`: of each
        record, besides."""
        if self._session.connections == 1:
            return False
        together = len(pieces) > self._session.limits["items"]
        together = together or (
            len(pieces) > 1 and pieces.size + attributes_bytes * len(pieces) > self.append_bytes_max
        )
        return together or pieces.longest > self.record_bytes_max

    def fitting(self, payloads: list[bytes], attributes_bytes: int) -> int:
        """How many of some records, from the first on, a frame takes: at least one."""
        sizes = accumulate(len(payload) + attributes_bytes + APPEND_COST for payload in payloads[: self.items_max])
        return max(sum(size <= self.append_bytes_max for size in sizes), 1)

    def outgrown_batch(self, pieces: Pieces) -> bool:
        """True if a batch is over the limits of this connection, in whatever parts it is sent."""
        return pieces.longest > self.record_bytes_max or pieces.size > self._session.limits["batch_bytes"]

    def does_not_fit(self) -> RecordTooLarge:
        """The error of what was accepted under other limits, and of which nothing was written."""
        return RecordTooLarge(
            "the server has come back with lower limits, which this is over; nothing of it was written",
            path=self._session.address.url,
            expected=f"records of {self.record_bytes_max} bytes, together {self.append_bytes_max} in a frame",
            hint="append it again, split where it has to be, or start the server with its limits of before",
        )
