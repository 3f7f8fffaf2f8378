"""Calls of next() and read_batch() of a shared consumer behind a server, as questions there.

Calls of next() that are made in one turn of the loop are one question, which is answered until each of them has its record; the server has
them wait at one place, so they get records before whoever has asked later. A record belongs to the caller that has waited longest, whichever
question has brought it. A caller that gives up leaves its part of a question to the next caller. Where none comes, a question that nobody
waits for is cancelled, and a record that nobody waits for goes back as if it had never been out.

A server without "each" in `features` answers a question once, so each call is a question of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from walsvc.errors import ProtocolError, WalError, copy_of
from walsvc.service.client.delivery import Home, RemoteDelivery
from walsvc.service.client.session import Session
from walsvc.service.client.stock import BYTES_MAX, Stock
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.frames import Call, Cancel, Error, Frame, Result
from walsvc.service.wire.protocol import encode

NEXT = "shared.next"
FEATURE = "each"
QUESTIONS_MAX = 64  # of one consumer at a time; the server takes 1,024 calls of a connection
CALLS_MAX = 1_000  # of next() in one question


class Asker(Home, Protocol):
    """The consumer that asks."""

    def deliveries(self, answer: Any) -> list[RemoteDelivery]:
        """Make deliveries of the server's answer."""

    def return_unseen(self, deliveries: Sequence[RemoteDelivery]) -> None:
        """Return deliveries that no caller got."""


class Question:
    """A CALL of shared.next that waits for its answers, as long as it takes. Subclasses say what becomes of them."""

    def __init__(self, home: Asker, session: Session) -> None:
        self.home = home
        self.session = session
        self.id: int = session.new_id()

    def args(self) -> dict[str, Any]:
        """Arguments besides the stream."""
        raise NotImplementedError

    def answered(self, deliveries: list[RemoteDelivery], more: int) -> None:
        """Records have come, and the server will send `more`."""
        raise NotImplementedError

    def refused(self, error: WalError) -> None:
        """No record will come."""
        raise NotImplementedError

    @property
    def wanted(self) -> bool:
        """True if a caller waits for it."""
        raise NotImplementedError

    def received(self, frame: Frame) -> None:
        """RESULT or ERROR."""
        if isinstance(frame, Result):
            deliveries = self.home.deliveries(frame.value)
            more = frame.value.get("more", 0)
            if not isinstance(more, int):
                raise ProtocolError("the answer to shared.next does not say how many more there are")
            if more <= 0:
                self.session.room.leave(self.id)
            self.answered(deliveries, more)
        elif isinstance(frame, Error):
            self.session.room.leave(self.id)
            self.refused(error_of(frame.code, frame.message, frame.fields))

    def lost(self) -> None:
        """The server has freed the records that it gave to a connection that has ended."""
        if not self.wanted:
            self.session.room.leave(self.id)

    def again(self) -> bool:
        """Ask, when there is room."""
        if self.session.room.enter(self.id, self, NEXT, self.home.id):
            self.session.put(encode(Call(self.id, NEXT, {"stream": self.home.id, **self.args()})))
        return True

    def failed(self, error: WalError) -> None:
        """No connection in time, or closed."""
        self.session.room.leave(self.id)
        self.refused(self.session.unreachable(error, "no record was asked for"))

    @property
    def there(self) -> bool:
        """True if it is at the server."""
        return self.session.connected and self.session.room.has(self.id)

    def give_up(self) -> None:
        """Cancel a question that has no callers any more at the server, whose ERROR or records end it."""
        if self.id not in self.session.requests:
            return
        if self.there:
            self.session.send(Cancel(self.id))
        else:
            self.session.room.leave(self.id)


class BatchQuestion(Question):
    """A call of read_batch().

    Attributes:
        answer: its deliveries.
    """

    def __init__(self, home: Asker, session: Session, max_bytes: int, max_records: int) -> None:
        super().__init__(home, session)
        self._args = {"max_bytes": max_bytes, "max_records": max_records}
        self.answer: asyncio.Future[list[RemoteDelivery]] = session.loop.create_future()

    def args(self) -> dict[str, Any]:
        return self._args

    @property
    def wanted(self) -> bool:
        return not self.answer.done()

    def answered(self, deliveries: list[RemoteDelivery], more: int) -> None:
        if self.answer.done():
            self.home.return_unseen(deliveries)
        else:
            self.answer.set_result(deliveries)

    def refused(self, error: WalError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def give_up(self) -> None:
        """The caller has given up: cancel it at the server, or return what it brought."""
        if self.answer.done() and not self.answer.cancelled() and self.answer.exception() is None:
            self.home.return_unseen(self.answer.result())
        super().give_up()


class NextQuestion(Question):
    """Calls of next().

    Attributes:
        left: how many of them have no answer yet.
    """

    def __init__(self, asking: Asking, home: Asker, session: Session, calls: int) -> None:
        super().__init__(home, session)
        self.left: int = calls
        self._asking = asking

    def args(self) -> dict[str, Any]:
        if self.left == 1 or not self._asking.together:
            return {"max_bytes": 1, "max_records": 1}
        return {"max_bytes": BYTES_MAX, "max_records": self.left, "each": True}

    @property
    def wanted(self) -> bool:
        return self.left > 0

    def answered(self, deliveries: list[RemoteDelivery], more: int) -> None:
        self._asking.answered(self, deliveries, more)

    def refused(self, error: WalError) -> None:
        self._asking.refused(self, error)


class Asking:
    """The calls of next() of one consumer, in order. Loop thread only."""

    def __init__(self, home: Asker, session: Session, stock: Stock) -> None:
        self._home = home
        self._session = session
        self._stock = stock
        self._callers: deque[asyncio.Future[RemoteDelivery]] = deque()
        self._questions: dict[NextQuestion, None] = {}
        self._due = False

    async def next(self) -> RemoteDelivery:
        """See SharedConsumer.next."""
        self._home.check()
        if (there := self._stock.take()) is not None:
            return there
        caller: asyncio.Future[RemoteDelivery] = self._session.loop.create_future()
        self._callers.append(caller)
        self._ask_soon()
        try:
            return await caller
        except asyncio.CancelledError:
            if caller in self._callers:
                self._callers.remove(caller)
                self._withdraw()
            elif not caller.cancelled() and caller.exception() is None:
                self._home.return_unseen([caller.result()])
            raise

    # ---- asking

    @property
    def together(self) -> bool:
        """True if the server answers several calls by one question."""
        return FEATURE in self._session.info.get("features", ())

    def _ask_soon(self) -> None:
        if not self._due:
            self._due = True
            self._session.loop.call_soon(self._ask)

    def _ask(self) -> None:
        """Ask for those callers for which no question does."""
        self._due = False
        while (calls := len(self._callers) - self._asked) > 0 and len(self._questions) < QUESTIONS_MAX:
            try:
                self._home.check()
            except WalError as error:
                for _ in range(calls):
                    tell(self._callers.pop(), error)
                return
            question = NextQuestion(self, self._home, self._session, min(calls, CALLS_MAX) if self.together else 1)
            self._questions[question] = None
            self._session.begin(question.id, question)
        self._session.write_out()

    @property
    def _asked(self) -> int:
        """Records that the questions may still bring."""
        return sum(question.left for question in self._questions)

    def _withdraw(self) -> None:
        """A caller has given up: take back what is asked for nobody, the latest first, where that can be done as a whole."""
        spare = self._asked - len(self._callers)
        for question in reversed(list(self._questions)):
            if spare <= 0:
                return
            if question.left <= spare:
                spare -= question.left
                self._over(question)
                question.give_up()
            elif not question.there:
                question.left, spare = question.left - spare, 0

    def _over(self, question: NextQuestion) -> int:
        """No more of the callers count on a question; returns how many did."""
        left, question.left = question.left, 0
        self._questions.pop(question, None)
        return left

    # ---- answers

    def answered(self, question: NextQuestion, deliveries: list[RemoteDelivery], more: int) -> None:
        """A question has brought records; those that nobody waits for go back."""
        if question in self._questions:
            question.left = min(more, question.left)
            if not question.left:
                self._over(question)
        self._home.return_unseen(self._given(deliveries))
        if len(self._callers) > self._asked:
            self._ask_soon()
        else:
            self._withdraw()

    def ahead(self, deliveries: Sequence[RemoteDelivery]) -> None:
        """An acknowledgement has brought records: for callers that wait, and for those that will come."""
        self._stock.put(self._given(deliveries))
        self._withdraw()

    def _given(self, deliveries: Sequence[RemoteDelivery]) -> Sequence[RemoteDelivery]:
        """Give deliveries to those that have waited longest; returns what nobody waits for."""
        for place, delivery in enumerate(deliveries):
            while self._callers and self._callers[0].done():
                self._callers.popleft()
            if not self._callers:
                return deliveries[place:]
            self._callers.popleft().set_result(delivery)
        return ()

    def refused(self, question: NextQuestion, error: WalError) -> None:
        """A question brings nothing more: as many callers hear why, those that have waited longest."""
        for _ in range(min(self._over(question), len(self._callers))):
            tell(self._callers.popleft(), error)
        if self._callers:
            self._ask_soon()


def tell(caller: asyncio.Future[RemoteDelivery], error: WalError) -> None:
    """Let a caller hear of an error."""
    if not caller.done():
        caller.set_exception(copy_of(error))
