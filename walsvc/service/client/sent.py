"""The appends of one frame on their way, until they are answered."""

from __future__ import annotations

from array import array
from itertools import accumulate, compress
from typing import Any

from walsvc.errors import WalError, copy_of
from walsvc.log.commit.entries import Pieces
from walsvc.model import AppendResult, Duplicate
from walsvc.service.client.account import Account
from walsvc.service.client.labels import FrameLabels, question
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.frames import Ack, Append, Cancel, Error, Frame
from walsvc.service.wire.protocol import encode


class Sent:
    """The appends of one frame, until they are answered.

    A server may come back with lower limits. Then what fits them goes on in several frames, one after the other, and what is behind
    waits for the last one; what does not fit fails alone. A frame that may have been carried out is asked for before.
    """

    __slots__ = (
        "_account",
        "_id",
        "_labels",
        "_part",
        "_payloads",
        "_since",
        "_used",
        "_waiters",
        "_waits_on",
        "counted",
        "deadline",
        "seq",
        "size",
    )

    def __init__(
        self,
        account: Account,
        labels: FrameLabels,
        payloads: list[bytes],
        waiters: list[Any],
        size: int,
    ) -> None:
        session = account.session
        self._account = account
        self._labels = labels
        self._payloads = payloads
        self._waiters = waiters
        self._part = len(payloads)  # so many of them are in the frame
        self._id = session.new_id()
        self._since = 0
        self._used = 0  # numbers, from seq on, that frames before this one had
        self._waits_on = 0  # the connection on which what is behind waits for the frame's answer
        self.size: int = size
        self.counted: bool = False
        # Each record may have a frame of its own in the end, and each frame may be asked for once: a number for each
        self.seq: int = account.new_seq(self, 2 * len(payloads))
        self.deadline: float | None = account.deadline()
        session.submit(self._id, self)

    def again(self) -> bool:
        """Send it: the first time with since=0, later with the next_lsn that was known then, in the very same grouping."""
        session, labels, limits = self._account.session, self._labels, self._account.limits
        if self._waits_on == session.connections:
            return False
        if labels.expected is not None:
            session.need("expected", "conditional appends")  # the server that came back may be older
        if labels.dedupe is not None:
            session.need("dedupe", "deduplication")
        if not self.counted and not self._account.has_credit(self):
            return False
        self._account.count(self)
        if session.connections > 1 and limits.outgrown(Pieces(self._frame_payloads), len(labels.attributes)):
            if self._since:
                session.put(question(self._id, self.seq + self._used, self._account.done(), self._since, labels.mode))
                self._waits_on = session.connections
                return False
            self._divide()
            if not self._payloads:
                self._finish()
                return True
        frame = Append(
            self._id,
            self.seq + self._used,
            self._account.done(),
            self._since,
            labels.mode,
            labels.topic,
            labels.type,
            labels.attributes,
            self._frame_payloads,
            labels.expected,
            labels.dedupe,
        )
        session.put(encode(frame))
        session.repeated += self._since > 0
        self._since = self._since or session.state[1]
        if self._part < len(self._payloads):
            self._waits_on = session.connections
            return False
        return True

    @property
    def _frame_payloads(self) -> list[bytes]:
        return self._payloads if self._part == len(self._payloads) else self._payloads[: self._part]

    def _divide(self) -> None:
        """Fail the records that fit no frame of this connection, and let the next frame have as many of the others as it takes."""
        limits = self._account.limits
        fits = [len(payload) <= limits.record_bytes_max for payload in self._payloads]
        fail([waiter for waiter, fit in zip(self._waiters, fits, strict=True) if not fit], limits.does_not_fit())
        self._payloads, self._waiters = list(compress(self._payloads, fits)), list(compress(self._waiters, fits))
        self._part = limits.fitting(self._payloads, len(self._labels.attributes))

    def lost(self) -> None:
        """It will be sent again."""
        self._account.uncount(self)

    def received(self, frame: Frame) -> None:
        """ACK or ERROR."""
        if isinstance(frame, Ack) and not frame.parts:  # to a question: nothing was written
            self._next(self._part)
        elif isinstance(frame, (Ack, Error)):
            payloads, waiters, part = self._payloads, self._waiters, self._part
            if part < len(payloads):
                self._payloads, self._waiters = payloads[part:], waiters[part:]
                payloads, waiters = payloads[:part], waiters[:part]
                self._next(len(self._payloads))
            else:
                self._finish()
            if isinstance(frame, Ack):
                self._resolve(frame, payloads, waiters)
            else:
                fail(waiters, error_of(frame.code, frame.message, frame.fields))

    def _next(self, part: int) -> None:
        """Send the next frame, with so many records at most."""
        self._part = part
        self._used += 1
        self._since = self._waits_on = 0
        self._account.session.order.send_on()

    def failed(self, error: WalError) -> None:
        """No connection in time, or closed."""
        session = self._account.session
        self._account.answered(self)
        self._end(error, session.unreachable(error, "nothing could be appended"))

    def expired(self) -> None:
        """Over the caller's deadline: it is not sent again."""
        session = self._account.session
        self._finish()
        if self._since:
            session.put(encode(Cancel(self._id)))
        timeout = session.timed_out("the append")
        self._end(timeout, timeout)

    def _end(self, error: WalError, unsent: WalError) -> None:
        """Fail what is on its way as unknown, because of an error, and the rest as not sent."""
        sent = self._part if self._since else 0
        fail(self._waiters[:sent], self._account.session.unknown(error, "the append"))
        fail(self._waiters[sent:], unsent)

    def _finish(self) -> None:
        self._account.session.requests.pop(self._id, None)
        self._account.answered(self)

    def _resolve(self, ack: Ack, payloads: list[bytes], answered: list[Any]) -> None:
        """Answer everybody, then wake them."""
        waker = self._account.waker
        if ack.duplicate is not None:
            (lsn, _, segment, offset), waiter = ack.parts[0], answered[0]
            if not waiter.done():
                waiter.set_result(Duplicate(lsn, segment, offset, ack.duplicate, ack.durable, ack.sync_us))
            return
        begin, extra = 0, len(self._labels.attributes)
        if ack.durable is False:
            self._account.relaxed_lsn = ack.parts[-1][0] + ack.parts[-1][1] - 1
        for first, count, segment, offset in ack.parts:
            end = begin + count
            lengths = list(map(len, payloads[begin:end]))
            if extra:
                lengths = [length + extra for length in lengths]
            waiters = answered if count == len(answered) else answered[begin:end]
            if ack.durable:
                waker.settle(waiters, first, segment, offset, array("I", lengths), ack.sync_us)
            else:
                rows = zip(
                    range(first, first + count), waiters, accumulate(lengths, initial=offset), lengths, strict=False
                )
                for lsn, waiter, at, length in rows:
                    if not waiter.done():
                        waiter.set_result(AppendResult(lsn, segment, at, length, False, ack.sync_us))
            begin = end
        waker.wake()


def fail(waiters: list[Any], error: WalError) -> None:
    """Give an error to those that still wait."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(copy_of(error))
