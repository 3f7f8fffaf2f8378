"""Appends on their way: what a frame of them has in common, what waits for room, and what waits for its answer."""

from __future__ import annotations

import asyncio
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from walsvc.errors import WalError, copy_of
from walsvc.model import AppendResult, Duplicate, Mode, Quorum, Relaxed, Strict
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.frames import QUORUM, RELAXED, STRICT, Ack, Append, Batch, Cancel, Error, Frame
from walsvc.service.wire.protocol import encode

if TYPE_CHECKING:
    from walsvc.service.client.appends import Appends


MODES: dict[Mode, int] = {Strict: STRICT, Relaxed: RELAXED, Quorum: QUORUM}


class FrameLabels:
    """What all appends of a frame have in common."""

    __slots__ = ("attributes", "dedupe", "expected", "mode", "topic", "type")

    def __init__(
        self,
        mode: int = STRICT,
        topic: str | None = None,
        type: int = 0,
        attributes: bytes = b"",
        *,
        expected: int | None = None,
        dedupe: str | None = None,
    ) -> None:
        self.mode: int = mode
        self.topic: str | None = topic
        self.type: int = type
        self.attributes: bytes = attributes
        self.expected: int | None = expected
        self.dedupe: str | None = dedupe

    @property
    def alone(self) -> bool:
        """Whether the frame has one record: the server decides for a frame as a whole."""
        return self.expected is not None or self.dedupe is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrameLabels) and self._fields() == other._fields()

    def _fields(self) -> tuple[Any, ...]:
        return self.mode, self.topic, self.type, self.attributes, self.expected, self.dedupe

    __hash__ = None  # type: ignore[assignment]


PLAIN = FrameLabels()


def question(id: int, seq: int, done: int, since: int, mode: int) -> bytes:
    """A frame that asks for the answer to a request that was sent before and cannot be sent again: a batch of nothing under its
    number. The server answers with what it knows of that, or else, without parts, that nothing of it was written."""
    return encode(Batch(id, seq, done, since, mode, None, 0, True, []))


class Unsent:
    """Something that waits in the queue: an append, or a batch that waits for its turn (whose payload is None)."""

    __slots__ = ("deadline", "future", "labels", "payload", "size")

    def __init__(self, payload: bytes | None, labels: FrameLabels, size: int, future: asyncio.Future[Any]) -> None:
        self.payload: bytes | None = payload
        self.labels: FrameLabels = labels
        self.size: int = size
        self.future: asyncio.Future[Any] = future
        self.deadline: float | None = None


class Sent:
    """The appends of one frame, until they are answered."""

    __slots__ = ("_appends", "_id", "_labels", "_payloads", "_since", "_waiters", "counted", "deadline", "seq", "size")

    def __init__(
        self,
        appends: Appends,
        labels: FrameLabels,
        payloads: list[bytes],
        waiters: list[Any],
        size: int,
    ) -> None:
        session = appends.session
        self._appends = appends
        self._labels = labels
        self._payloads = payloads
        self._waiters = waiters
        self._id = session.new_id()
        self._since = 0
        self.size: int = size
        self.counted: bool = False
        self.seq: int = appends.new_seq(self)
        self.deadline: float | None = appends.deadline()
        session.submit(self._id, self)

    def again(self) -> bool:
        """Send it: the first time with since=0, later with the next_lsn that was known then, in the very same grouping."""
        session, labels = self._appends.session, self._labels
        if labels.expected is not None:
            session.need("expected", "conditional appends")  # the server that came back may be older
        if labels.dedupe is not None:
            session.need("dedupe", "deduplication")
        if not self._appends.has_credit(self):
            return False
        self._appends.count(self)
        if self._appends.outgrown(self._payloads):
            if not self._since:
                raise self._appends.does_not_fit()
            session.put(question(self._id, self.seq, self._appends.done(), self._since, labels.mode))
            return True
        frame = Append(
            self._id,
            self.seq,
            self._appends.done(),
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
        self._appends.uncount(self)

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
        session = self._appends.session
        self._appends.answered(self)
        if self._since:
            self._fail(session.unknown(error, "the append"))
        else:
            self._fail(session.unreachable(error, "nothing could be appended"))

    def expired(self) -> None:
        """Over the caller's deadline: it is not sent again."""
        session = self._appends.session
        self._finish()
        if self._since:
            session.put(encode(Cancel(self._id)))
        timeout = session.timed_out("the append")
        self._fail(session.unknown(timeout, "the append") if self._since else timeout)

    def _finish(self) -> None:
        self._appends.session.requests.pop(self._id, None)
        self._appends.answered(self)

    def _resolve(self, ack: Ack) -> None:
        """Answer everybody, then wake them."""
        if not ack.parts:  # to a question
            self._fail(self._appends.does_not_fit())
            return
        waker = self._appends.waker
        if ack.duplicate is not None:
            (lsn, _, segment, offset), waiter = ack.parts[0], self._waiters[0]
            if not waiter.done():
                waiter.set_result(Duplicate(lsn, segment, offset, ack.duplicate, ack.durable, ack.sync_us))
            return
        begin, extra = 0, len(self._labels.attributes)
        if ack.durable is False and ack.parts:
            self._appends.relaxed_lsn = ack.parts[-1][0] + ack.parts[-1][1] - 1
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
