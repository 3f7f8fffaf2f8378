"""Admission of one connection's appends: its right, its credit, and the order of its requests."""

from __future__ import annotations

from walsvc.errors import Backpressure, Denied, ProtocolError
from walsvc.format.producers import Request
from walsvc.service.server.auth import Grant
from walsvc.service.server.budget import Share
from walsvc.service.server.limits import Limits
from walsvc.service.server.line import Line
from walsvc.service.wire.frames import APPEND_COST, RECORD_COST, Append, Batch
from walsvc.service.wire.methods import APPEND
from walsvc.service.wire.window import Window
from walsvc.visible import counted


class Admission:
    """Admits appends and parts of batches.

    Args:
        line: the connection.
        limits: of each connection.
        share: its share of what the server holds.
        grant: what its token gives.
        producer: the number of its producer; 0: none.

    Attributes:
        window: credit for payloads with APPEND_COST, see docs/PROTOCOL.md.
    """

    def __init__(self, line: Line, limits: Limits, share: Share, grant: Grant, producer: int) -> None:
        self.window: Window = Window(limits.pending_bytes)
        self._line = line
        self._limits = limits
        self._share = share
        self._may = APPEND in grant.rights
        self._producer = producer
        self._records = 0  # that are not answered
        self._seq = 0  # the highest that came on this connection

    def admit(self, frame: Append | Batch, size: int, unanswered: int) -> None:
        """Raise what ends a connection that does not keep to its credit or to the order of its requests.

        Args:
            frame: an APPEND, or the first part of a BATCH.
            size: bytes of its payloads.
            unanswered: requests that the log has not answered.
        """
        id, seq = frame.id, frame.seq
        if not self._line.claim(id):
            raise ProtocolError(f"request {id} is not answered yet, and its id came again")
        if not self.window.fits(size + APPEND_COST * len(frame.payloads)):
            raise self._over_credit(size, frame, "wait for answers before sending more")
        if unanswered >= self._limits.requests:
            raise Backpressure(
                f"{counted(unanswered, 'request')} unanswered on this connection",
                expected=f"at most {self._limits.requests}",
                hint="wait for answers before sending more",
            )
        if seq:
            if seq <= self._seq:
                raise ProtocolError(f"request number {seq} came after {self._seq}", hint="they ascend on a connection")
            self._seq = seq

    def admit_part(self, frame: Batch, size: int) -> None:
        """The same for a part that is not the first. One without payloads costs nothing."""
        if frame.payloads and not self.window.fits(size + APPEND_COST * len(frame.payloads)):
            raise self._over_credit(size, frame, "a batch in parts waits for CREDIT")

    def _over_credit(self, size: int, frame: Append | Batch, hint: str) -> Backpressure:
        pending = self.window.used - APPEND_COST * self._records + size
        records = self._records + len(frame.payloads)
        return Backpressure(
            f"{pending} payload bytes are unanswered on this connection, of {counted(records, 'record')}",
            expected=f"at most {self.window.size} with {APPEND_COST} for each record",
            hint=hint,
        )

    def check_right(self) -> None:
        """Denied where the token may not append."""
        if not self._may:
            raise Denied("this token may not append", hint='it needs the right "append"')

    def request(self, frame: Append | Batch) -> Request | None:
        """The request as the log is to remember it; None: it need not."""
        if not self._producer or not frame.seq:
            return None
        return Request(self._producer, frame.seq, min(frame.done, frame.seq), frame.since)

    def hold(self, size: int, count: int, copied: int = 0) -> None:
        """So many more payload bytes and records are held, or fewer: a record without payload is an object, too. `copied`: bytes of
        attributes that a frame has once and each of its records has."""
        self.window.take(size + APPEND_COST * count)
        self._records += count
        self._share.hold(size + RECORD_COST * count + copied)
