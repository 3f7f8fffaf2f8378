"""The append side of a client: what is appended in one turn of the loop, with the same labels, leaves in one frame.

`append` is a plain function that returns an Ack, as WalWriter's is; nothing is created for a record but that Ack. An
append is accepted when there is room for it, and is then sent whatever becomes of its future; until then it waits in a
queue, in order, and can be cancelled.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Mapping
from threading import get_ident
from typing import Any

from walsvc.config import between, one_of
from walsvc.errors import Backpressure, RecordTooLarge, WalError, copy_of
from walsvc.log.commit.ack import Ack, Waker
from walsvc.log.commit.conditions import check_expected, check_key
from walsvc.log.commit.payload import NO_TYPE, pack_attributes, to_bytes
from walsvc.model import AppendResult, Mode, Quorum, Relaxed, Strict
from walsvc.service.client.account import Account
from walsvc.service.client.sent import MODES, PLAIN, FrameLabels, Sent, Unsent
from walsvc.service.client.session import Session
from walsvc.service.wire.frames import APPEND_COST

FRAME_RECORDS = 256  # a frame with so many leaves at once: the server is at work while this turn goes on appending
PENDING = 3  # place of pending_bytes in the state


class Appends(Account):
    """Accepts appends, gathers them into frames, and keeps account of what is not answered yet.

    Attributes:
        waker: makes and answers Acks.
        drawing: tasks of batches whose asynchronous source has not ended.
        relaxed_lsn: highest LSN of this client that was accepted, and not durable when that was said.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.relaxed_lsn = 0
        self.drawing: set[asyncio.Task[Any]] = set()
        self._create_future = session.loop.create_future
        self.waker: Any = Waker(session.loop)
        self._new_ack = self.waker.ack
        self._thread = get_ident()
        self._filling_bytes = 0
        self._payloads: list[bytes] = []
        self._waiters: list[Any] = []
        self._labels = PLAIN
        self._waiting: deque[Unsent] = deque()
        self._holds = 0  # batches that are being streamed
        self._room = 0  # that a plain append on the fast path may take; below 0: none
        self._turn = False  # a flush at the end of this turn is arranged
        self._lone = False  # the last frame had one record
        session.before_sending = self._send_turn
        session.state_changed = self._set_room
        session.limits_changed = self._take_limits
        session.ended = self.end
        self._take_limits()
        CLIENTS.add(self)

    # ---- appending

    def append(  # noqa: PLR0917  keywords only would make each call dearer
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
        expected: int | None = None,
        dedupe: str | None = None,
    ) -> Ack[AppendResult]:
        """Append one record; see WalWriter.append. Over the room for unanswered payloads it waits its turn."""
        if (
            payload.__class__ is bytes
            and mode is Strict
            and type is NO_TYPE
            and attributes is None
            and expected is None
            and dedupe is None
        ):
            length = len(payload)
            room = self._room - length - APPEND_COST
            if (
                room >= 0
                and length <= self._record_bytes_max
                and self._labels is PLAIN
                and len(self._payloads) < self._items_max
                and get_ident() == self._thread
            ):
                first = not self._turn
                if first:
                    self.session.check()  # costs a system call in CPython 3.11, so once for each turn
                self._room = room
                self._filling_bytes += length + APPEND_COST
                self._payloads.append(payload)
                ack: Ack[AppendResult] = self._new_ack()
                self._waiters.append(ack)
                if first:
                    self._begin_turn()
                return ack
        waiting: Ack[AppendResult] = self.enter(
            payload, mode, type, attributes, None, wait=True, expected=expected, dedupe=dedupe
        )
        return waiting

    def _begin_turn(self) -> None:
        """Let the filling frame leave at the end of this turn; a lone appender's at once, who has nobody to wait for."""
        if self._lone and not self._open:
            self._send_turn()
            self.session.write_out()
        else:
            self._turn = True
            self.session.wake_up()

    def enter(
        self,
        payload: Any,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        topic: str | None,
        *,
        wait: bool,
        expected: int | None = None,
        dedupe: str | None = None,
    ) -> Any:
        """Any append: check it, accept it or let it wait; Backpressure where it must not wait."""
        self.check(mode)
        piece = self.checked(payload)
        between("type", type, 0, 0xFFFF)
        self.check_expected(expected)
        self.check_key(dedupe)
        labels = PLAIN
        packed = pack_attributes(attributes)
        if mode is not Strict or topic is not None or type or packed or expected is not None or dedupe is not None:
            labels = FrameLabels(MODES[mode], topic, type, packed, expected=expected, dedupe=dedupe)
        answer: Any = self._new_ack() if wait else self._create_future()  # asyncio.wait takes a future, and no Ack
        entry = Unsent(piece, labels, len(piece) + APPEND_COST, answer)
        if not self._waiting and not self._holds and self._fits(entry, self._others()):
            self._accept(entry)
        elif wait:
            self.queue(entry)
        else:
            raise self._no_room()
        return answer

    def check(self, mode: Mode = Strict) -> None:
        """Raise whatever makes any append wrong or vain."""
        self.session.check(changes=True)
        one_of("mode", mode, (Strict, Relaxed, Quorum))

    def check_expected(self, expected: int | None) -> None:
        """Raise what is wrong with `expected`, and UnsupportedFormat where the server would not look at it."""
        check_expected(expected)
        if expected is not None:
            self.session.need("expected", "conditional appends")

    def check_key(self, dedupe: str | None) -> None:
        """Raise what is wrong with a key of the caller's, and UnsupportedFormat where the server would not look at it."""
        check_key(dedupe)
        if dedupe is not None:
            self.session.need("dedupe", "deduplication")

    def checked(self, payload: Any) -> bytes:
        """A payload as bytes of our own, of a length that the server takes."""
        piece = to_bytes(payload)
        if len(piece) > self._record_bytes_max:
            raise RecordTooLarge(
                f"the payload has {len(piece)} bytes, the limit is {self._record_bytes_max}",
                path=self.session.address.url,
                hint="split it, or let the server open the log with a larger max_record_bytes",
            )
        return piece

    def outgrown(self, payloads: list[bytes]) -> bool:
        """Whether a frame is over the limits of this connection: a server may come back with lower ones."""
        if self.session.connections == 1:
            return False
        lengths, limits = list(map(len, payloads)), self.session.limits
        together = len(lengths) > limits["items"] or (len(lengths) > 1 and sum(lengths) > self._append_bytes_max)
        return together or max(lengths, default=0) > self._record_bytes_max

    def outgrown_batch(self, payloads: list[bytes]) -> bool:
        """Whether a batch is over the limits of this connection, in whatever parts it is sent."""
        lengths, limits = list(map(len, payloads)), self.session.limits
        return max(lengths, default=0) > self._record_bytes_max or sum(lengths) > limits["batch_bytes"]

    def does_not_fit(self) -> RecordTooLarge:
        """The error of what was accepted under other limits, and of which nothing was written."""
        return RecordTooLarge(
            "the server has come back with lower limits, which this is over; nothing of it was written",
            path=self.session.address.url,
            expected=f"records of {self._record_bytes_max} bytes, together {self._append_bytes_max} in a frame",
            hint="append it again, split where it has to be, or start the server with its limits of before",
        )

    # ---- room

    def _take_limits(self) -> None:
        limits, config = self.session.limits, self.session.config
        self._record_bytes_max = limits["record_bytes"]
        self._items_max = min(limits["items"], FRAME_RECORDS)
        self._append_bytes_max = limits["append_bytes"]
        self._requests_max, self.credit.size = limits["requests"], limits["pending_bytes"]
        self.accepted.size = min(limits["pending_bytes"], config.max_pending_bytes)
        self._set_room()

    def _others(self) -> int:
        """Bytes that are pending in the log, and not ours."""
        state = self.session.state
        return max(state[PENDING] - self.accepted.used, 0) if len(state) > PENDING else 0

    def _fits(self, entry: Unsent, others: int = 0) -> bool:
        """Whether there is room for it: always, when nothing is unanswered and nobody else's records take it."""
        frames = len(self._open) + bool(self._payloads) + (not self._joins(entry))
        if frames > self._requests_max:
            return False
        used = self.accepted.used + self._filling_bytes + others
        return not used or used + entry.size <= self.accepted.size

    def _joins(self, entry: Unsent) -> bool:
        """Whether it can be in the frame that is being filled."""
        return (
            bool(self._payloads)
            and len(self._payloads) < self._items_max
            and self._filling_bytes + entry.size <= self._append_bytes_max
            and (entry.labels is self._labels or entry.labels == self._labels)
            and not entry.labels.alone
        )

    def _set_room(self) -> None:
        """What the fast path may take; nothing while somebody waits."""
        frames = len(self._open) + (not self._payloads)
        shut = self._thread == FORKED or self.session.closed is not None or self.session.config.read_only
        if shut or self._waiting or self._holds or frames > self._requests_max:
            self._room = -1
        else:
            free = self.accepted.size - self.accepted.used - self._filling_bytes - self._others()
            self._room = min(free, self._append_bytes_max - self._filling_bytes)

    def _no_room(self) -> Backpressure:
        return Backpressure(
            f"no room: {self.accepted.used + self._filling_bytes} bytes are not answered, {len(self._waiting)} appends wait",
            path=self.session.address.url,
            lsn=self.session.state[1],
            expected=f"at most {self.accepted.size} bytes pending, this client's and others'",
            hint="await append instead, or try again later",
        )

    def _settled(self) -> None:
        if self._waiting:
            self.session.wake_up()

    # ---- the queue

    @property
    def waiting(self) -> int:
        """Appends that wait for room."""
        return len(self._waiting)

    @property
    def unanswered_bytes(self) -> int:
        """Payload bytes that were accepted and are not answered, with what each record costs besides."""
        return self.accepted.used + self._filling_bytes

    def last_waiting(self) -> asyncio.Future[Any] | None:
        """The future of the append at the end of the queue."""
        return self._waiting[-1].future if self._waiting else None

    def queue(self, entry: Unsent) -> None:
        """Wait for room, behind the others."""
        entry.deadline = self.deadline()
        self._waiting.append(entry)
        self._set_room()
        self.session.wake_up()

    def take_turn(self) -> asyncio.Future[None]:
        """For a batch: resolved when everything appended before is sent; what comes later then waits for `hold(-1)`."""
        entry = Unsent(None, PLAIN, 0, self._create_future())
        if self._waiting or self._holds:
            self.queue(entry)
        else:
            self._grant(entry)
        return entry.future

    def _grant(self, entry: Unsent) -> None:
        self._cut()
        self._holds += 1
        self._set_room()
        entry.future.set_result(None)

    def hold(self, change: int) -> None:
        """Let appends wait while a batch is streamed (1), or no longer (-1)."""
        self._holds += change
        self._set_room()
        self.pulse()
        self.session.wake_up()

    def _accept(self, entry: Unsent) -> None:
        """Take it into the filling frame, or the next."""
        assert entry.payload is not None
        if not self._joins(entry):
            full = len(self._payloads) >= self._items_max
            self._cut()
            if full:
                self.session.write_out()
        if not self._payloads:
            self._labels = entry.labels
        self._payloads.append(entry.payload)
        self._waiters.append(entry.future)
        self._filling_bytes += entry.size
        self._set_room()
        self.session.wake_up()

    def _send_turn(self) -> None:
        """The end of a turn, or something that must come behind the appends so far: what was gathered leaves."""
        self._turn = False
        while self._waiting and not self._holds:
            entry = self._waiting[0]
            if not entry.future.done():
                if entry.payload is None:
                    self._grant(entry)
                elif self._fits(entry):
                    self._accept(entry)
                else:
                    break
            self._waiting.popleft()
        self._cut()
        self._set_room()

    def _cut(self) -> None:
        """Close the filling frame and send it."""
        if not self._payloads:
            return
        payloads, waiters, size, labels = self._payloads, self._waiters, self._filling_bytes, self._labels
        self._payloads, self._waiters, self._filling_bytes, self._labels = [], [], 0, PLAIN
        self._lone = len(payloads) == 1
        Sent(self, labels, payloads, waiters, size)

    # ---- what is not answered

    async def drain(self) -> None:
        """Send what waits for room, and wait until everything is answered. Batches whose asynchronous source has not ended are
        given up. For a session that takes no more calls."""
        self._set_room()
        await asyncio.sleep(0)  # batches called in this turn begin: only a task that runs can say why it ends
        for batch in list(self.drawing):
            batch.cancel()
        while True:
            self._send_turn()
            if not (self._waiting or self._holds or self._open):
                return
            await self.change()

    def end(self, error: WalError) -> None:
        """Whoever waits for room is told."""
        while self._waiting:
            entry = self._waiting.popleft()
            if not entry.future.done():
                entry.future.set_exception(copy_of(error))
        self._set_room()

    def forked(self) -> None:
        """In a forked child, which shares the socket but not the loop: shut the fast path, so that every call raises."""
        self._thread = FORKED
        self._room = -1

    # ---- deadlines

    def _expire(self) -> None:
        """Tell those that are late."""
        self._timer = None
        now = self._loop.time()
        late: list[Any] = [request for request in self._open.values() if (request.deadline or now + 1) <= now]
        for request in late:
            request.expired()
        for entry in self._waiting:
            if entry.deadline is not None and entry.deadline <= now and not entry.future.done():
                entry.future.set_exception(self.session.timed_out("the append"))
        self._send_turn()
        left = [each.deadline for each in (*self._open.values(), *self._waiting) if each.deadline is not None]
        self._arm(min(left, default=None))


FORKED = -1
CLIENTS: weakref.WeakSet[Appends] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in CLIENTS:
        client.forked()


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
