"""A durable consumer of a log behind a server: it has the position there, and delivers here what the server sends ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from walsvc.errors import BadOption, DurabilityLost, NoSpace, WalError, copy_of
from walsvc.model import Record
from walsvc.service.client.call import encoded
from walsvc.service.client.opened import OpenedThere
from walsvc.service.client.place import Place
from walsvc.service.client.session import Session
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.columns import cost_of, records_of
from walsvc.service.wire.frames import Credit, End, Error, Frame, Open, Records, Result
from walsvc.service.wire.protocol import encode
from walsvc.service.wire.wanted import Hidden
from walsvc.service.wire.window import Window
from walsvc.topics.delivering import Delivering
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import Start


class RemoteConsumer(OpenedThere, Delivering):
    """See walsvc.Consumer, whose interface this is. The server gives its name free when the connection ends; a client that
    has lost its connection opens it again by itself, and delivers nothing again that it has delivered here.

    Attributes:
        name, topic, delivery: as of walsvc.Consumer.
    """

    _place: Place

    def __init__(
        self,
        session: Session,
        consumers: dict[int, RemoteConsumer],
        topic: str | None,
        name: str,
        *,
        delivery: Delivery,
        start: Start,
    ) -> None:
        super().__init__(session.address.url, topic, name, delivery, Place())
        self._session = session
        self._consumers = consumers  # the log's open ones
        self._args = {"name": name, "topic": topic, "persist_every": delivery.persist_every, "start": start}
        self._id = self._session.new_id()
        self._window = Window(self._session.config.read_ahead_bytes)
        self._turn: int | None = None
        self._sent = 0  # highest LSN that was received on this connection: the server lets it be acknowledged
        self._resent: asyncio.Future[None] | None = None  # of an acknowledgement that waits for its record
        self._error: WalError | None = None
        self._opened: asyncio.Future[None] = self._session.loop.create_future()
        self._closed: asyncio.Future[None] = self._session.loop.create_future()
        # an OPEN that cannot be sent raises before anything is sent
        encoded(Open(self._id, "consumer", self._args, self._window.size))
        consumers[self._id] = self
        self._session.begin(self._id, self)

    # ---- from the session

    def again(self) -> bool:
        """Open it, also on a new connection: it begins at the position, and what was delivered here is passed over."""
        self._turn, self._sent = None, 0
        self._drop_ahead()
        self._session.put(encode(Open(self._id, "consumer", self._args, self._window.renewed())))
        return True

    def failed(self, error: WalError) -> None:
        """No connection in time, or closed."""
        self._open = False
        self._gone()
        self._fail(self._session.unreachable(error, f"consumer {self.name!r} is lost"))

    def received(self, frame: Frame) -> None:
        """RESULT when it is open, RECORDS, ERROR as often as one happens, END when it is closed."""
        if isinstance(frame, Records):
            self._take_in(frame)
        elif isinstance(frame, Result):
            self._place.pass_by(frame.value["position"])
            if not self._opened.done():
                self._place.following = self._place.position
                self._opened.set_result(None)
        elif isinstance(frame, Error):
            self._fail(error_of(frame.code, frame.message, frame.fields))
        elif isinstance(frame, End):
            self._gone()
        self._wake()

    def _wake(self) -> None:
        super()._wake()
        if self._resent is not None and not self._resent.done():
            self._resent.set_result(None)

    def _take_in(self, frame: Records) -> None:
        if frame.turn != self._turn:
            self._turn = frame.turn
            self._drop_ahead()
        records = records_of(frame)
        self._sent = max(self._sent, records[-1].lsn)
        cost = cost_of(records)
        self._window.take(cost)
        following = self._place.following
        fresh = records if records[0].lsn >= following else [r for r in records if r.lsn >= following]
        self._ahead.extend(fresh)
        if len(fresh) < len(records):
            self._grant(cost - cost_of(fresh))
        self._error = None

    def _fail(self, error: WalError) -> None:
        self._error = error
        if not self._open:
            if isinstance(error, (DurabilityLost, NoSpace)) and not self._closed.done():  # else it had failed before
                self._closed.set_exception(copy_of(error))
                self._closed.exception()  # perhaps nobody waits for it any more
            self._gone()
        if not self._opened.done():
            self._open = False
            self._gone()
            self._opened.set_exception(copy_of(error))
            self._opened.exception()  # perhaps nobody waits for it any more
        self._wake()

    def _drop_ahead(self) -> None:
        """Drop what was received, and give its credit back."""
        if self._ahead:
            cost = cost_of(self._ahead)
            self._ahead.clear()
            self._grant(cost)

    def _grant(self, cost: int) -> None:
        if granted := self._window.taken(cost):
            self._session.put(encode(Credit(self._id, granted)))

    def cut(self, lsn: int) -> None:
        """The log was cut behind `lsn`."""
        self._place.cut(lsn + 1)
        self._shown.drop_above(lsn)
        while self._ahead and self._ahead[-1].lsn > lsn:
            self._grant(cost_of([self._ahead.pop()]))

    def purged(self, hidden: Hidden) -> None:
        """Some of what was received and not delivered is hidden now; perhaps it was dropped, and this consumer has missed it."""
        self._place.floor = max(self._place.floor, hidden.below(self.topic))
        if gone := [record for record in self._ahead if hidden(record)]:
            self._ahead = deque(record for record in self._ahead if not hidden(record))
            self._grant(cost_of(gone))

    # ---- looking

    @property
    def position(self) -> int:
        """LSN of the next record to be acknowledged, or below that: everything before it is done."""
        if self._shown:  # what lies below it and was dropped was none of this consumer's
            return max(self._place.position, min(self._shown.first, self._session.state[0]))
        return self._place.position

    @property
    def turns(self) -> int:
        """Counted where the consumer is: at the server, which says by itself that it was moved."""
        raise BadOption("how often a consumer was moved is counted at the server", path=self._session.address.url)

    async def lag(self) -> int:
        """How many records are in the topic and not acknowledged."""
        self._check()
        lag: int = await self._session.call("consumer.lag", stream=self._id)
        return lag

    # ---- reading

    def _take(self) -> Record:
        record = super()._take()
        self._grant(cost_of((record,)))
        return record

    async def _read_on(self) -> Sequence[Record]:
        return ()  # the server sends ahead

    async def _have_one(self) -> None:
        while True:
            self._check()
            await self._check_position()
            if self._ahead:
                return
            if self._error is not None:
                raise copy_of(self._error)
            self._waiter = self._session.loop.create_future()
            await self._waiter

    async def _check_position(self) -> None:
        """Truncated where records that were not acknowledged are gone. Only the server knows, so it is asked, once each time
        the log's beginning has moved beyond the position."""
        first = max(self._session.state[0], self._place.floor)
        if self._place.position < first and self._place.checked < first:
            await self._session.call("consumer.lag", stream=self._id)
            self._place.checked = first

    # ---- acknowledging

    @property
    def id(self) -> int:
        """Of its stream."""
        return self._id

    def is_of(self, session: Session) -> bool:
        """True if it is a consumer of that log."""
        return self._session is session

    def check_ack(self, lsn: int) -> None:
        """Raise what `ack(lsn)` raises at once."""
        self._check()
        self._check_lsn(lsn)
        if lsn >= self._place.position:
            self._check_shown(lsn)

    def acknowledged_there(self, lsn: int) -> None:
        """The server has acknowledged everything up to record `lsn`, with something else."""
        self._acknowledged(lsn + 1)

    async def _ack(self, lsn: int) -> None:
        cuts = self._place.cuts
        while lsn >= self._place.position and cuts == self._place.cuts:
            self._check_shown(lsn)
            connection = self._session.connections
            try:
                await self._save(lsn)
            except BadOption:
                if connection == self._session.connections:
                    raise
                # the server that was asked in the end had not sent that record: it has opened the consumer anew
            else:
                if cuts == self._place.cuts:  # else there is no such record any more, or another one
                    self._acknowledged(lsn + 1)

    async def _ack_only(self, lsn: int) -> None:
        if lsn not in self._shown:
            if lsn >= self._place.position:
                self._check_shown(lsn)
            return
        cuts = self._place.cuts
        # an earlier connection has brought it: it is sent again on this one
        while lsn > self._sent and cuts == self._place.cuts:
            self._check()
            self._resent = self._session.loop.create_future()
            await self._resent
        await self._session.call("consumer.ack", stream=self._id, lsn=lsn, only=True)
        if cuts != self._place.cuts or lsn not in self._shown:
            return
        if self._shown.first != lsn:
            self._shown.remove(lsn)
            return
        self._acknowledged(self._shown.second or max(self._place.following, lsn + 1))

    async def _save(self, lsn: int) -> None:
        """Tell the server. What was delivered on an earlier connection cannot be acknowledged on this one, only passed."""
        if lsn > self._sent:
            await self._session.call("consumer.seek", self._passed, stream=self._id, to=lsn + 1)
        else:
            await self._session.call("consumer.ack", stream=self._id, lsn=lsn)

    def _passed(self, _: Any) -> None:
        self._drop_ahead()

    async def seek(self, to: Start) -> None:
        """Go on at `to`; see Consumer.seek."""
        self._check()
        async with self._saving:
            while True:
                try:
                    await self._session.call("consumer.seek", self._moved, stream=self._id, to=to)
                except BadOption:
                    first = max(self._session.state[0], self._place.floor)
                    if type(to) is not int or not self._place.position <= to < first:
                        raise
                    await self._session.call("consumer.lag", stream=self._id)  # Truncated where something is lost
                    to = first
                else:
                    return

    def _moved(self, position: int) -> None:
        """Before any later frame is looked at: what was received so far is from the old place."""
        self._drop_ahead()
        self._place.move(position)
        self._shown.clear()
        self._error = None

    # ---- ending

    def _check(self) -> None:
        self._session.check()
        if not self._open and self._error is not None:
            raise copy_of(self._error)
        self._check_open()

    async def close(self) -> None:
        """See Consumer.close."""
        self._session.check_loop()
        if self._open:
            self._leave()
            self._wake()
        elif self._closed.done():
            return
        await asyncio.shield(self._closed)

    def _gone(self) -> None:
        self._consumers.pop(self._id, None)
        super()._gone()
