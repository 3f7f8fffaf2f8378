"""The append side of a client: what is appended in one turn of the loop, with the same labels, leaves in one frame.

`append` is a plain function that returns an Ack, as WalWriter's is; nothing is created for a record but that Ack. An
append is accepted when there is room for it, and is then sent whatever becomes of its future; until then it waits in a
queue, in order, and can be cancelled.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Mapping
from functools import partial
from threading import get_ident
from typing import Any, Unpack

from walsvc.config import between, one_of
from walsvc.errors import Backpressure, WalError, from_source
from walsvc.keywords import AppendOptions, check_keywords, spelled_out
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.payload import NO_TYPE, pack_attributes
from walsvc.model import AppendResult, Mode, Quorum, Relaxed, Strict
from walsvc.service.client.account import Account
from walsvc.service.client.filling import Filling
from walsvc.service.client.labels import MODES, PLAIN, FrameLabels, Unsent
from walsvc.service.client.queue import Queue
from walsvc.service.client.sent import Sent
from walsvc.service.client.session import AppendSide, Session
from walsvc.service.wire.frames import APPEND_COST
from walsvc.tasks import when_awaited
from walsvc.visible import counted

PENDING = 3  # place of pending_bytes in the state


class Appends(Account):
    """Accepts appends, gathers them into frames, and keeps account of what is not answered yet.

    Attributes:
        queue: what waits for room.
        drawing: tasks of batches whose asynchronous source has not ended.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.drawing: set[asyncio.Task[Any]] = set()
        self._create_future = session.loop.create_future
        self._new_ack = self.waker.ack
        self._thread = get_ident()
        self._filling = Filling(self.limits)
        self.queue: Queue = Queue()
        self._room = 0  # that a plain append on the fast path may take; below 0: none
        self._stale = True  # what may change that has happened: it is reckoned anew when it is asked for
        self._turn = False  # a flush at the end of this turn is arranged
        self._lone = False  # the last frame had one record
        session.appends = AppendSide(self._send_turn, self._set_room, self._take_limits, self.end, self.drawing)
        self._take_limits()
        CLIENTS.add(self)

    # ---- appending

    @spelled_out(AppendOptions)
    def append(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
        **options: Unpack[AppendOptions],
    ) -> Ack[AppendResult]:
        """Append one record; see Log.append. Over the room for unanswered payloads it waits its turn."""
        if payload.__class__ is bytes and mode is Strict and type is NO_TYPE and attributes is None and not options:
            if self._stale:
                self._reckon_room()
            length = len(payload)
            room = self._room - length - APPEND_COST
            limits, filling = self.limits, self._filling
            if (
                room >= 0
                and length <= limits.record_bytes_max
                and filling.labels is PLAIN
                and len(filling.payloads) < limits.items_max
                and get_ident() == self._thread
            ):
                first = not self._turn
                if first:
                    self.session.check()  # costs a system call in CPython 3.11, so once for each turn
                self._room = room
                filling.size += length + APPEND_COST
                filling.payloads.append(payload)
                ack: Ack[AppendResult] = self._new_ack()
                filling.waiters.append(ack)
                if first:
                    self._begin_turn()
                return ack
        check_keywords(Appends.append, options, AppendOptions)
        waiting: Ack[AppendResult] = self.enter(payload, mode, type, attributes, None, wait=True, **options)
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
        piece = self.limits.checked(payload)
        between("type", type, 0, 0xFFFF)
        self.limits.check_expected(expected)
        self.limits.check_key(dedupe)
        labels = PLAIN
        packed = pack_attributes(attributes)
        if mode is not Strict or topic is not None or type or packed or expected is not None or dedupe is not None:
            labels = FrameLabels(MODES[mode], topic, type, packed, expected=expected, dedupe=dedupe)
        answer: Any = self._new_ack() if wait else self._create_future()  # asyncio.wait takes a future, and no Ack
        entry = Unsent(piece, labels, len(piece) + len(packed) + APPEND_COST, answer)
        if not self.queue.busy and self._fits(entry, self._others()):
            self._accept(entry)
        elif wait:
            self._wait(entry)
        else:
            raise self._no_room()
        return answer

    def check(self, mode: Mode = Strict) -> None:
        """Raise whatever makes any append wrong or vain."""
        self.session.check(changes=True)
        one_of("mode", mode, (Strict, Relaxed, Quorum))

    # ---- room

    def _take_limits(self) -> None:
        self.take_limits()
        self._set_room()

    def _others(self) -> int:
        """Bytes that are pending in the log, and not ours."""
        state = self.session.state
        return max(state[PENDING] - self.accepted.used, 0) if len(state) > PENDING else 0

    def _fits(self, entry: Unsent, others: int = 0) -> bool:
        """True if there is room for it: always, when nothing is unanswered and nobody else's records take it."""
        frames = len(self._open) + bool(self._filling.payloads) + (not self._filling.joins(entry))
        if frames > self.limits.requests_max:
            return False
        used = self.accepted.used + self._filling.size + others
        return not used or used + entry.size <= self.accepted.size

    def _set_room(self) -> None:
        self._stale = True

    def _reckon_room(self) -> None:
        """The bytes that the fast path may take; none while an append waits."""
        self._stale = False
        frames = len(self._open) + (not self._filling.payloads)
        shut = self._thread == FORKED or self.session.closed is not None or self.session.config.read_only
        if shut or self.queue.busy or frames > self.limits.requests_max:
            self._room = -1
        else:
            free = self.accepted.size - self.accepted.used - self._filling.size - self._others()
            self._room = min(free, self.limits.append_bytes_max - self._filling.size)

    def _no_room(self) -> Backpressure:
        return Backpressure(
            f"no room: {self.accepted.used + self._filling.size} bytes are not answered, and "
            f"{counted(len(self.queue.entries), 'append')} before this one",
            path=self.session.address.url,
            lsn=self.session.state[1],
            expected=f"at most {self.accepted.size} bytes pending, this client's and others'",
            hint="await append instead, or try again later",
        )

    def _settled(self) -> None:
        if self.queue.entries:
            self.session.wake_up()

    # ---- the queue

    @property
    def unanswered_bytes(self) -> int:
        """Payload bytes that were accepted and are not answered, with what each record costs besides."""
        return self.accepted.used + self._filling.size

    def _wait(self, entry: Unsent) -> None:
        """Wait for room, behind the others."""
        entry.deadline = self.deadline()
        self.queue.entries.append(entry)
        self._set_room()
        self.session.wake_up()
        if self.session.in_source:
            error = from_source(self.session.address.url)
            when_awaited(asyncio.current_task(), entry.future, partial(entry.future.set_exception, error))

    def take_turn(self) -> asyncio.Future[None]:
        """For a batch: resolved when everything appended before is sent; what comes later then waits for `hold(-1)`."""
        entry = Unsent(None, PLAIN, 0, self._create_future())
        if self.queue.busy:
            self._wait(entry)
        else:
            self._grant(entry)
        return entry.future

    def _grant(self, entry: Unsent) -> None:
        self._cut()
        self.queue.holds += 1
        self._set_room()
        entry.future.set_result(None)

    def hold(self, change: int) -> None:
        """Let appends wait while a batch is streamed (1), or no longer (-1)."""
        self.queue.holds += change
        self._set_room()
        self.pulse()
        self.session.wake_up()

    def _accept(self, entry: Unsent) -> None:
        """Take it into the filling frame, or the next."""
        if not self._filling.joins(entry):
            full = self._filling.full
            self._cut()
            if full:
                self.session.write_out()
        self._filling.add(entry)
        self._set_room()
        self.session.wake_up()

    def _send_turn(self) -> None:
        """The end of a turn, or something that must come behind the appends so far: what was gathered leaves."""
        self._turn = False
        waiting = self.queue.entries
        while waiting and not self.queue.holds:
            entry = waiting[0]
            if not entry.future.done():
                if entry.payload is None:
                    self._grant(entry)
                elif self._fits(entry):
                    self._accept(entry)
                else:
                    break
            waiting.popleft()
        self._cut()
        self._set_room()

    def _cut(self) -> None:
        """Close the filling frame and send it."""
        filling = self._filling
        if not filling.payloads:
            return
        payloads, waiters, size, labels = filling.payloads, filling.waiters, filling.size, filling.labels
        filling.empty()
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
            if not (self.queue.busy or self._open):
                return
            await self.change()

    def end(self, error: WalError) -> None:
        """Give `error` to every call that waits for room."""
        self.queue.end(error)
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
        self.queue.expire(now, self.session.timed_out("the append"))
        self._send_turn()
        left = [each.deadline for each in self._open.values() if each.deadline is not None]
        self._arm(min(left + self.queue.deadlines(), default=None))


FORKED = -1
CLIENTS: weakref.WeakSet[Appends] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in CLIENTS:
        client.forked()


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
