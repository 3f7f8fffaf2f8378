"""The frames of one batch: its parts in order, and the result when the server has answered."""

from __future__ import annotations

from array import array

from walsvc.log.commit.entries import Pieces
from walsvc.log.commit.results import BatchResult, Part
from walsvc.service.client.labels import FrameLabels, question
from walsvc.service.wire.columns import columns_of
from walsvc.service.wire.frames import Ack, Batch


class BatchFrames:
    """Makes the frames of a batch, and knows how far they were sent.

    Args:
        id, seq: of the request.
        labels: of all its records.

    Attributes:
        complete: the last part was sent, on some connection.
        next_lsn: of the log when the first part was sent; 0: none was.
        lengths: of the payloads that were sent on this connection.
    """

    def __init__(self, id: int, seq: int, labels: FrameLabels) -> None:
        self._id = id
        self._seq = seq
        self.labels: FrameLabels = labels
        self._since = 0
        self._parts = 0
        self.complete: bool = False
        self.next_lsn: int = 0
        self.lengths: array[int] = array("I")

    def part(self, pieces: Pieces, *, last: bool, done: int) -> Batch:
        """The frame of the next part. `done`: every request of the producer below this number is answered."""
        payloads, types, attributes = columns_of(pieces)
        return Batch(
            self._id,
            self._seq,
            done,
            self._since,
            self.labels.mode,
            self.labels.topic,
            self._parts,
            last,
            payloads,
            self.labels.expected if self._parts == 0 else None,
            types,
            attributes,
        )

    def sent(self, pieces: Pieces, *, last: bool, next_lsn: int) -> None:
        """Count a part that was sent. `next_lsn`: of the log, as last heard."""
        self.lengths.extend(map(len, pieces.payloads))
        self.next_lsn = self.next_lsn or next_lsn
        self.complete = self.complete or last
        self._parts += 1

    def begin_again(self) -> None:
        """On a new connection: from the first part on."""
        self._since, self._parts = self.next_lsn, 0
        self.lengths = array("I")

    def question(self, done: int) -> bytes:
        """A frame that asks what became of the batch."""
        return question(self._id, self._seq, done, self.next_lsn, self.labels.mode)

    def result(self, ack: Ack) -> BatchResult:
        """The answer to the caller, from an ACK."""
        parts, begin = [], 0
        for first, count, segment, offset in ack.parts:
            parts.append(Part(first, segment, offset, self.lengths[begin : begin + count]))
            begin += count
        return BatchResult(parts, durable=ack.durable, sync_us=ack.sync_us)
