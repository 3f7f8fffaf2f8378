"""Atomic batches of a client that wait for their answer: in one frame, or in parts.

A batch in parts holds back what is appended after it until its last part is sent: appends behind it would use up the room
that its parts need. After a lost connection a batch whose payloads are all in memory is sent again, from its first part.
One from an iterable cannot be: it was given up by the server with the connection, unless its last part had been sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from walsvc.errors import Unreachable, WalError, copy_of
from walsvc.log.commit.entries import Pieces
from walsvc.log.commit.results import BatchResult
from walsvc.model import Mode
from walsvc.service.client.account import Account
from walsvc.service.client.batch_frames import BatchFrames
from walsvc.service.client.labels import MODES, FrameLabels
from walsvc.service.client.session import Session
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.frames import APPEND_COST, Ack, Cancel, Credit, Error, Frame
from walsvc.service.wire.protocol import encode


class SentBatch:
    """A batch until it is answered. `answer` is its result; `Sending` sends its parts.

    Args:
        account: the client's, of requests that are not answered.
        mode, topic: of all its records.
        expected: see WalWriter.append_batch.
        whole: its records where all of them are in memory: then it can be sent again.

    Attributes:
        seq, size, deadline, counted: as of every request of a producer; size is what the server has not consumed yet.
        connection: on which its turn has come, as the session counts them; 0: on none yet.
        due: its parts are to be sent on that connection.
    """

    def __init__(
        self, account: Account, mode: Mode, topic: str | None, whole: Pieces | None, expected: int | None
    ) -> None:
        self.whole = whole
        self._account = account
        self._session = account.session
        self._id = self._session.new_id()
        self._keeps_back = False  # what stands behind it in the session
        self._open = True
        self.size = 0
        self.counted: bool = False
        self.due: bool = False
        self.connection: int = 0
        self.deadline: float | None = account.deadline()
        self.interrupt: Callable[[WalError], None] = lambda _error: None
        self.answer: Any = account.waker.ack()
        self.seq: int = account.new_seq(self)
        self._frames = BatchFrames(self._id, self.seq, FrameLabels(MODES[mode], topic, expected=expected))

    @property
    def complete(self) -> bool:
        """True if its last part was sent, on some connection."""
        return self._frames.complete

    def submit(self) -> None:
        """Let the session say when its turn has come."""
        self._session.submit(self._id, self)

    def send(self, part: Pieces, *, last: bool) -> None:
        """Send the next part."""
        self._account.resize(self, size_of(part))
        self._put(part, last=last)

    def _put(self, part: Pieces, *, last: bool) -> None:
        self._session.put(encode(self._frames.part(part, last=last, done=self._account.done())))
        self._frames.sent(part, last=last, next_lsn=self._session.state[1])
        if last:
            self.due = self._keeps_back = False

    def _ask(self) -> None:
        """It was sent before and cannot be sent again: ask what became of it. RecordTooLarge where it was not sent whole."""
        if not self.complete:
            raise self._account.limits.does_not_fit()
        self._session.put(self._frames.question(self._account.done()))

    # ---- from the session

    def received(self, frame: Frame) -> None:
        """CREDIT, and then ACK or ERROR."""
        if isinstance(frame, Credit):
            self._account.resize(self, -min(frame.bytes, self.size))
        elif isinstance(frame, Ack):
            if not frame.parts and self._frames.lengths:
                self._settle(given_up(self._session) if self.whole is None else self._account.limits.does_not_fit())
            self.end()
            if not self.answer.done():
                if not frame.durable and frame.parts:
                    self._account.relaxed_lsn = frame.parts[-1][0] + frame.parts[-1][1] - 1
                self.answer.set_result(self._frames.result(frame))
        elif isinstance(frame, Error):
            self._settle(error_of(frame.code, frame.message, frame.fields))

    def again(self) -> bool:
        """Its turn has come. What stands behind it in the session waits while all of it is sent again: else the log would take
        that first. When it is sent for the first time, what is appended behind it waits in its own queue."""
        if self.connection == self._session.connections:
            return not self._keeps_back
        if not self._account.has_credit(self):
            return False
        self._check_server()
        self.connection = self._session.connections
        self._account.count(self)
        repeated = self._frames.next_lsn > 0
        self.due = not repeated or (self.whole is not None and not self._account.limits.outgrown_batch(self.whole))
        self._keeps_back = self.due and repeated
        if self._keeps_back:
            self._frames.begin_again()
        elif self.complete:
            self._ask()
        elif not self.due and self.whole is not None:
            raise self._account.limits.does_not_fit()
        self._account.pulse()
        return not self._keeps_back

    def _check_server(self) -> None:
        """Raise UnsupportedFormat where the server that came back is older, and would not look at the condition or the labels."""
        if self._frames.labels.alone:
            self._session.need("expected", "conditional appends")
        if self.whole is not None:
            self._account.limits.check_entries(self.whole)

    def lost(self) -> None:
        """Let the sender of the parts stop."""
        self._account.uncount(self)
        self._account.resize(self, -self.size)
        self._account.pulse()

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
            if self._frames.next_lsn:
                self._session.put(encode(Cancel(self._id)))

    def end(self) -> None:
        """It is answered, or nobody waits for an answer any more."""
        self._open = False
        self._session.requests.pop(self._id, None)
        self._account.answered(self)
        self._account.pulse()


class WholeBatch(SentBatch):
    """A batch in one frame."""

    def __init__(self, account: Account, mode: Mode, topic: str | None, pieces: Pieces, expected: int | None) -> None:
        super().__init__(account, mode, topic, pieces, expected)
        self._pieces = pieces
        account.resize(self, size_of(pieces))
        self.answer.add_done_callback(self._left)
        self.submit()

    def again(self) -> bool:
        """Send it."""
        if not self._account.has_credit(self):
            return False
        self._check_server()
        self._account.count(self)
        if not self._account.limits.outgrown(self._pieces):
            self._frames.begin_again()
            self._put(self._pieces, last=True)
        elif self.complete:
            self._ask()
        else:
            raise self._account.limits.does_not_fit()
        return True

    def lost(self) -> None:
        """It will be sent again."""
        self._account.uncount(self)

    def _left(self, answer: Any) -> None:
        if answer.cancelled():
            self.cancel()


def size_of(pieces: Pieces) -> int:
    """Bytes that records take of the credit that the server gives."""
    return pieces.size + APPEND_COST * len(pieces)


def given_up(session: Session) -> Unreachable:
    """The error of a batch that the server has given up with the connection, and that cannot be sent again."""
    return Unreachable(
        "the connection was lost before the whole batch was sent",
        path=session.address.url,
        hint="nothing of it was written; append it again (a list or tuple would be sent again by itself)",
    )
