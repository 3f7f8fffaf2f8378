"""A shared consumer of a log behind a server: leases, order and counts are there; a call of next() here is a question there.

Nothing is sent ahead, unless it was opened with `prefetch` (stock.py): a record that nobody has asked for runs against its deadline. Calls of one
turn of the loop share a frame: those of next() in asking.py, those of ack() in acks.py. The server frees what a connection has when that ends. A client that has lost its connection opens the
consumer again by itself; what it had it may still acknowledge, as long as nobody else got it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from walsvc.errors import BadOption, Closed, ProtocolError, WalError, copy_of
from walsvc.service.client.acks import Acks
from walsvc.service.client.asking import QUESTIONS_MAX, Asking, BatchQuestion
from walsvc.service.client.call import Calling, encoded
from walsvc.service.client.delivery import RemoteDelivery
from walsvc.service.client.opened import OpenedThere
from walsvc.service.client.session import Session
from walsvc.service.client.stock import KEPT_SECONDS, Stock
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.columns import records_of
from walsvc.service.wire.frames import End, Error, Frame, Open, Records, Result
from walsvc.service.wire.protocol import encode
from walsvc.tasks import begin_task
from walsvc.topics.names import ConsumerStatus, Start
from walsvc.topics.shared import Delivery, SharedConsumer, several
from walsvc.topics.sharing import SharedOptions, Sharing, prefetch_of


class RemoteShared(OpenedThere, SharedConsumer):
    """See walsvc.SharedConsumer, whose interface this is."""

    def __init__(self, session: Session, topic: str | None, name: str, *, start: Start, options: SharedOptions) -> None:
        super().__init__(topic, name, options.get("worker"))
        self._session = session
        self._id = session.new_id()
        self._stock: Stock = Stock(self, session.loop, prefetch_of(options))
        there = {name: value for name, value in options.items() if name != "prefetch"}
        self._frame = Open(self._id, "shared", {"name": name, "topic": topic, "start": start, "options": there}, 0)
        self._asking: Asking = Asking(self, session, self._stock)
        self._batches = asyncio.Semaphore(QUESTIONS_MAX)
        self._sharing = Sharing()
        self._open = True
        self._error: WalError | None = None
        self._acks: Acks = Acks(self, session, self._stock)
        self._opened: asyncio.Future[None] = session.loop.create_future()
        self._closed: asyncio.Future[None] = session.loop.create_future()
        self._leaving: asyncio.Task[None] | None = None
        self._left = False
        encoded(self._frame)  # what cannot be sent is said before anything is
        session.begin(self._id, self)

    @property
    def sharing(self) -> Sharing:
        """See SharedConsumer."""
        return self._sharing

    # ---- from the session

    def lost(self) -> None:
        """See OpenedThere. The server has freed what it had sent."""
        self._stock.forget()
        super().lost()

    def again(self) -> bool:
        """Open it, also on a new connection."""
        self._session.put(encode(self._frame))
        return True

    def failed(self, error: WalError) -> None:
        """No connection in time, or closed."""
        self._stock.forget()
        self._fail(self._session.unreachable(error, f"consumer {self.name!r} is lost"))

    def received(self, frame: Frame) -> None:
        """RESULT when it is open, ERROR where it cannot be opened, END when it is closed."""
        if isinstance(frame, Result):
            try:
                self._sharing = Sharing(**frame.value["sharing"])
            except (KeyError, TypeError):
                raise ProtocolError("the server does not say how a shared consumer is open") from None
            if not self._opened.done():
                self._opened.set_result(None)
        elif isinstance(frame, Error):
            self._fail(error_of(frame.code, frame.message, frame.fields))
        elif isinstance(frame, End):
            self._gone()

    def _fail(self, error: WalError) -> None:
        self._open, self._error = False, error
        self._gone()
        if not self._opened.done():
            self._opened.set_exception(copy_of(error))
            self._opened.exception()  # perhaps nobody waits for it any more

    # ---- records

    async def next(self) -> RemoteDelivery:
        """See SharedConsumer."""
        return await self._asking.next()

    async def _batch(self, max_bytes: int, max_records: int) -> Sequence[RemoteDelivery]:
        async with self._batches:
            self.check()
            if there := self._stock.take_several(max_bytes, max_records):
                return there
            question = BatchQuestion(self, self._session, max_bytes, max_records)
            self._session.begin(question.id, question)
            try:
                return await question.answer
            except asyncio.CancelledError:
                question.give_up()
                raise

    def deliveries(self, answer: Any) -> list[RemoteDelivery]:
        """Make deliveries of the server's answer to next()."""
        if not isinstance(answer, Mapping) or not isinstance(answer.get("records"), list):
            raise ProtocolError("the answer to shared.next is none")
        try:
            records = records_of(Records._make([0, 0, *answer["records"], []]))
            rows, token = zip(records, answer["attempts"], answer["left"], strict=True), answer["token"]
            now = self._session.loop.time()
            return [
                RemoteDelivery(self, record, attempt, token, None if left is None else now + left)
                for record, attempt, left in rows
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"the answer to shared.next is none: {error}") from None

    def ahead(self, answer: Any) -> None:
        """Take the deliveries that the answer to an acknowledgement has brought; None: it has brought none."""
        if answer is not None:
            deliveries = self.deliveries(answer)
            if self._open:
                self._asking.ahead(deliveries)
            elif not self._left:
                self._stock.put(deliveries)  # until it is closed

    def return_unseen(self, deliveries: Sequence[RemoteDelivery]) -> None:
        """Return deliveries that no caller got: they go out again as if they had not been."""
        if deliveries and not (self._left or self._closed.done()):
            rows = [each.row() for each in deliveries]
            call = Calling(self._session, "shared.unseen", {"stream": self._id, "deliveries": rows}, None)
            call.answer.add_done_callback(hear)

    # ---- what becomes of them

    @property
    def id(self) -> int:
        """Of its stream."""
        return self._id

    def is_of(self, session: Session) -> bool:
        """True if it is a consumer of that log."""
        return self._session is session

    async def call(self, method: str, **args: Any) -> Any:
        """Call a method of this consumer."""
        self.check()
        return await self._session.call(method, stream=self._id, **args)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See SharedConsumer."""
        rows = []
        for each in several(deliveries):
            if not isinstance(each, RemoteDelivery) or each.home is not self:
                raise BadOption(f"{each!r} is no delivery of {self!r}")
            rows.append(each.row())
        await self._acks.ack(rows)

    async def status(self) -> ConsumerStatus:
        """See SharedConsumer."""
        return ConsumerStatus(**await self.call("shared.status"))

    async def seek(self, to: Start) -> None:
        """See SharedConsumer."""
        await self.call("shared.seek", to=to)

    # ---- ending

    def check_there(self) -> None:
        """Raise whatever makes a call of it vain that was made before it was closed."""
        self._session.check()
        if self._error is not None:
            raise copy_of(self._error)

    def check(self) -> None:
        """Raise whatever makes any call of it vain."""
        self.check_there()
        if not self._open:
            raise Closed(f"consumer {self.name!r} is closed", path=self._session.address.url, hint="open it again")

    async def close(self) -> None:
        """See SharedConsumer."""
        self._session.check_loop()
        if self._open:
            self._open = False
            self._stock.most = 0
            self._acks.send_all()
            if self._stock.asked and self._session.connected:
                self._leaving = begin_task(self._leave_behind_acks())
            else:
                self._leave()
        await asyncio.shield(self._closed)

    async def _leave_behind_acks(self) -> None:
        """Leave once the acknowledgements that are under way have brought what they were to bring."""
        await asyncio.wait(self._acks.under_way, timeout=KEPT_SECONDS)
        if not self._closed.done():
            self._leave()

    def _leave(self) -> None:
        self._stock.give_back()
        self._left = True
        super()._leave()


def hear(answer: asyncio.Future[Any]) -> None:
    """Take note of an answer for which nobody waits."""
    if not answer.cancelled():
        answer.exception()
