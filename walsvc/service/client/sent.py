"""The appends of one frame on their way, until they are answered."""

from __future__ import annotations

from array import array
from itertools import accumulate
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
    """The appends of one frame, until they are answered."""

    __slots__ = ("_account", "_id", "_labels", "_payloads", "_since", "_waiters", "counted", "deadline", "seq", "size")

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
        self._id = session.new_id()
        self._since = 0
        self.size: int = size
        self.counted: bool = False
        self.seq: int = account.new_seq(self)
        self.deadline: float | None = account.deadline()
        session.submit(self._id, self)

    def again(self) -> bool:
        """Send it: the first time with since=0, later with the next_lsn that was known then, in the very same grouping."""
        session, labels = self._account.session, self._labels
        if labels.expected is not None:
            session.need("expected", "conditional appends")  # the server that came back may be older
        if labels.dedupe is not None:
            session.need("dedupe", "deduplication")
        if not self._account.has_credit(self):
            return False
        self._account.count(self)
        if session.connections > 1 and self._account.limits.outgrown(Pieces(self._payloads), len(labels.attributes)):
            if not self._since:
                raise self._account.limits.does_not_fit()
            session.put(question(self._id, self.seq, self._account.done(), self._since, labels.mode))
            return True
        frame = Append(
            self._id,
            self.seq,
            self._account.done(),
            self._since,
            labels.mode,
            labels.topic,
            labels.type,
            labels.attributes,
            self._payloads,
            labels.expected,
            labels.dedupe,
        )
        session.put(encode(frame))
        session.repeated += self._since > 0
        self._since = self._since or session.state[1]
        return True

    def lost(self) -> None:
        """It will be sent again."""
        self._account.uncount(self)

    def received(self, frame: Frame) -> None:
        """ACK or ERROR."""
        if isinstance(frame, Ack):
            self._finish()
            self._resolve(frame)
        elif isinstance(frame, Error):
            self._finish()
            self._fail(error_of(frame.code, frame.message, frame.fields))

    def failed(self, error: WalError) -> None:
        """No connection in time, or closed."""
        session = self._account.session
        self._account.answered(self)
        if self._since:
            self._fail(session.unknown(error, "the append"))
        else:
            self._fail(session.unreachable(error, "nothing could be appended"))

    def expired(self) -> None:
        """Over the caller's deadline: it is not sent again."""
        session = self._account.session
        self._finish()
        if self._since:
            session.put(encode(Cancel(self._id)))
        timeout = session.timed_out("the append")
        self._fail(session.unknown(timeout, "the append") if self._since else timeout)

    def _finish(self) -> None:
        self._account.session.requests.pop(self._id, None)
        self._account.answered(self)

    def _resolve(self, ack: Ack) -> None:
        """Answer everybody, then wake them."""
        if not ack.parts:  # to a question
            self._fail(self._account.limits.does_not_fit())
            return
        waker = self._account.waker
        if ack.duplicate is not None:
            (lsn, _, segment, offset), waiter = ack.parts[0], self._waiters[0]
            if not waiter.done():
                waiter.set_result(Duplicate(lsn, segment, offset, ack.duplicate, ack.durable, ack.sync_us))
            return
        begin, extra = 0, len(self._labels.attributes)
        if ack.durable is False and ack.parts:
            self._account.relaxed_lsn = ack.parts[-1][0] + ack.parts[-1][1] - 1
        for first, count, segment, offset in ack.parts:
            end = begin + count
            lengths = list(map(len, self._payloads[begin:end]))
            if extra:
                lengths = [length + extra for length in lengths]
            waiters = self._waiters if count == len(self._waiters) else self._waiters[begin:end]
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

    def _fail(self, error: WalError) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(copy_of(error))
