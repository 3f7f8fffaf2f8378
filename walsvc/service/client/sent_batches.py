"""Atomic batches of a client that wait for their answer: in one frame, or in parts.

A batch in parts holds back what is appended after it until its last part is sent: appends behind it would use up the room
that its parts need. After a lost connection a batch whose payloads are all in memory is sent again, from its first part.
One from an iterable cannot be: it was given up by the server with the connection, unless its last part had been sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from walsvc.errors import Unreachable, WalError, copy_of
from walsvc.log.commit.results import BatchResult, Part
from walsvc.model import Mode
from walsvc.service.client.appends import Appends
from walsvc.service.client.sent import MODES
from walsvc.service.client.session import Session
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.frames import APPEND_COST, Ack, Batch, Cancel, Credit, Error, Frame
from walsvc.service.wire.protocol import encode


class SentBatch:
    """A batch until it is answered. `answer` is its result; the parts are sent by who made it.

    Attributes:
        seq, size, deadline: as of every request of a producer; size is what the server has not consumed yet.
        complete: its last part was sent, on some connection.
    """

    def __init__(self, appends: Appends, mode: Mode, topic: str | None, expected: int | None) -> None:
        self._appends = appends
        self._session = appends.session
        self._mode = MODES[mode]
        self._topic = topic
        self._expected = expected
        self._id = self._session.new_id()
        self._since = 0
        self._sent_since = 0  # next_lsn when it was first sent
        self._parts = 0
        self._lengths = array("I")
        self._open = True
        self.size = 0
        self.complete: bool = False
        self.connection: int = 0  # counts connections
        self.can_repeat = True  # whoever sends the parts can send all of them once more
        self.deadline: float | None = None
        self.interrupt: Callable[[WalError], None] = lambda _error: None
        self.answer: Any = appends.waker.ack()
        self.seq: int = appends.new_seq(self)
        self._session.note(self._id, self)

    def _begin_again(self) -> None:
        """On a new connection: from the first part on."""
        self._since, self._parts, self._lengths = self._sent_since, 0, array("I")
        self._appends.resize(self, -self.size)

    def send(self, payloads: list[bytes], *, last: bool) -> None:
        """Send the next part."""
        size = sum(map(len, payloads)) + APPEND_COST * len(payloads)  # as the server counts what it gives credit for
        self._appends.resize(self, size)
        self._lengths.extend(map(len, payloads))
        self._sent_since = self._sent_since or self._session.state[1]
        self.complete = self.complete or last
        done = self._appends.done()
        expected = self._expected if self._parts == 0 else None
        frame = Batch(
            self._id, self.seq, done, self._since, self._mode, self._topic, self._parts, last, payloads, expected
        )
        self._parts += 1
        self._session.put(encode(frame))

    # ---- from the session

    def received(self, frame: Frame) -> None:
        """CREDIT, and then ACK or ERROR."""
        if isinstance(frame, Credit):
            self._appends.resize(self, -min(frame.bytes, self.size))
        elif isinstance(frame, Ack):
            if not frame.parts and self._lengths:
                self._settle(given_up(self._session))
            self.end()
            if not self.answer.done():
                self.answer.set_result(self._result(frame))
        elif isinstance(frame, Error):
            self._settle(error_of(frame.code, frame.message, frame.fields))

    def _result(self, ack: Ack) -> BatchResult:
        parts, begin = [], 0
        if not ack.durable and ack.parts:
            self._appends.relaxed_lsn = ack.parts[-1][0] + ack.parts[-1][1] - 1
        for first, count, segment, offset in ack.parts:
            parts.append(Part(first, segment, offset, self._lengths[begin : begin + count]))
            begin += count
        return BatchResult(parts, durable=ack.durable, sync_us=ack.sync_us)

    def again(self) -> None:
        """There is another connection. What stands before and after it is sent at this moment, and in this order, so a first
        part without payloads takes the place; the others follow as there is room for them. One that was sent whole and
        cannot be sent again ends with that: the server answers with what it knows, or with a batch of nothing."""
        self.connection += 1
        if self._refused():
            return
        if self._parts and (self.can_repeat or self.complete):
            kept = self._lengths
            self._begin_again()
            self.send([], last=not self.can_repeat)
            if not self.can_repeat:
                self._lengths = kept
        self._appends.pulse()

    def _refused(self) -> bool:
        """Whether it has ended because the server that came back is older, and would not look at its condition."""
        lack = None if self._expected is None else self._session.lack("expected", "conditional appends")
        if lack is not None:
            self._settle(self._session.unknown(lack, "the batch") if self.complete else lack)
        return lack is not None

    def lost(self) -> None:
        """Whoever sends the parts stops."""
        self._appends.pulse()

    def failed(self, error: WalError) -> None:
        """No connection in time, or closed."""
        if self.complete:
            self._settle(self._session.unknown(error, "the batch"))
        else:
            self._settle(self._session.unreachable(error, "the batch was given up"))

    def expired(self) -> None:
        """Over the caller's deadline."""
        timeout = self._session.timed_out("the batch")
        self.cancel()
        self._settle(self._session.unknown(timeout, "the batch") if self.complete else timeout)

    # ---- ending

    def _settle(self, error: WalError) -> None:
        self.end()
        if not self.answer.done():
            self.answer.set_exception(copy_of(error))
            self.interrupt(error)

    def nothing(self) -> None:
        """It has no payloads: there is nothing to send, and this is its answer."""
        self.end()
        self.answer.set_result(BatchResult([], durable=True, sync_us=0))

    def cancel(self) -> None:
        """Give it up: the server forgets what it has of it, if its last part is not accepted yet."""
        if self._open:
            self.end()
            if self._parts:
                self._session.put(encode(Cancel(self._id)))

    def end(self) -> None:
        """It is answered, or nobody waits for an answer any more."""
        self._open = False
        self._session.requests.pop(self._id, None)
        self._appends.answered(self)
        self._appends.pulse()


class WholeBatch(SentBatch):
    """A batch in one frame."""

    def __init__(
        self, appends: Appends, mode: Mode, topic: str | None, payloads: list[bytes], expected: int | None
    ) -> None:
        super().__init__(appends, mode, topic, expected)
        self._payloads = payloads
        self.deadline: float | None = appends.deadline()
        self.answer.add_done_callback(self._left)
        if self._session.connected:
            self.send(payloads, last=True)

    def again(self) -> None:
        """Send it again."""
        self.connection += 1
        if self._refused():
            return
        self._begin_again()
        self.send(self._payloads, last=True)

    def _left(self, answer: Any) -> None:
        if answer.cancelled():
            self.cancel()


def given_up(session: Session) -> Unreachable:
    """The error of a batch that the server has given up with the connection, and that cannot be sent again."""
    return Unreachable(
        "the connection was lost before the whole batch was sent",
        path=session.address.url,
        hint="nothing of it was written; append it again (a list or tuple would be sent again by itself)",
    )
