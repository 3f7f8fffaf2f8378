"""A durable consumer of a log behind a server: it has the position there, and delivers here what the server sends ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

from walsvc.config import between
from walsvc.errors import BadOption, Closed, WalError
from walsvc.model import Record
from walsvc.service.client_call import again, encoded
from walsvc.service.codes import error_of
from walsvc.service.columns import cost_of, records_of
from walsvc.service.protocol import Cancel, Credit, End, Error, Frame, Open, Records, Result, encode
from walsvc.service.wanted import Hidden
from walsvc.topics.consumer import BATCH_BYTES, BATCH_RECORDS
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import Start

if TYPE_CHECKING:
    from walsvc.service.remote import RemoteLog


class RemoteConsumer:
    """See walsvc.Consumer, whose interface this is. The server gives its name free when the connection ends; a client that
    has lost its connection opens it again by itself, and delivers nothing again that it has delivered here.

    Attributes:
        name, topic, delivery: as of walsvc.Consumer.
    """

    def __init__(self, log: RemoteLog, topic: str | None, name: str, delivery: Delivery, start: Start) -> None:
        self.name = name
        self.topic = topic
        self.delivery = delivery
        self._log = log
        self._session = log._session
        self._args = {"name": name, "topic": topic, "persist_every": delivery.persist_every, "start": start}
        self._id = self._session.new_id()
        self._window = self._session.config.read_ahead_bytes
        self._turn: int | None = None
        self._ahead: deque[Record] = deque()  # received, not yet delivered
        self._ahead_cost = 0
        self._owed = 0
        self._sent = 0  # highest LSN that was received on this connection: the server lets it be acknowledged
        self._shown: deque[int] = deque()  # LSNs that were delivered or peeked at, and not yet acknowledged
        self._following = 0  # nothing below is delivered any more
        self._checked = 0  # first_lsn that this consumer is known to have nothing lost below
        self._position = 0
        self._error: WalError | None = None
        self._open = True
        self._opened: asyncio.Future[None] = self._session.loop.create_future()
        self._closed: asyncio.Future[None] = self._session.loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._reading = asyncio.Lock()
        self._saving = asyncio.Lock()
        opening = encoded(Open(self._id, "consumer", self._args, self._window))
        log._consumers[self._id] = self
        self._session.begin(self._id, self)
        self._session.put(opening)

    # ---- from the session

    def again(self) -> None:
        """Open it on a new connection: it begins at the position, and what was delivered here is passed over."""
        self._turn, self._sent = None, 0
        self._drop_ahead()
        self._session.put(encode(Open(self._id, "consumer", self._args, self._window)))

    def lost(self) -> None:
        """It will be opened again, unless it is being closed: then it is."""
        if not self._open:
            self._gone()

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
            self._position = max(self._position, frame.value["position"])
            if not self._opened.done():
                self._following = self._position
                self._opened.set_result(None)
        elif isinstance(frame, Error):
            self._fail(error_of(frame.code, frame.message, frame.fields))
        elif isinstance(frame, End):
            self._gone()
        self._wake()

    def _take_in(self, frame: Records) -> None:
        if frame.turn != self._turn:
            self._turn = frame.turn
            self._drop_ahead()
        records = records_of(frame)
        self._sent = max(self._sent, records[-1].lsn)
        cost = cost_of(records)
        fresh = records if records[0].lsn >= self._following else [r for r in records if r.lsn >= self._following]
        self._ahead.extend(fresh)
        if len(fresh) < len(records):
            self._grant(cost - cost_of(fresh))
        self._error = None

    def _fail(self, error: WalError) -> None:
        self._error = error
        if not self._opened.done():
            self._open = False
            self._gone()
            self._opened.set_exception(again(error))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drop_ahead(self) -> None:
        """What was received is not to be delivered; its credit is given back."""
        if self._ahead:
            cost = cost_of(self._ahead)
            self._ahead.clear()
            self._grant(cost)

    def _grant(self, cost: int) -> None:
        self._owed += cost
        if self._owed * 2 >= self._window:
            self._session.put(encode(Credit(self._id, self._owed)))
            self._owed = 0

    def cut(self, lsn: int) -> None:
        """The log was cut behind `lsn`."""
        self._position = min(self._position, lsn + 1)
        self._following = min(self._following, lsn + 1)
        while self._shown and self._shown[-1] > lsn:
            self._shown.pop()
        while self._ahead and self._ahead[-1].lsn > lsn:
            self._grant(cost_of([self._ahead.pop()]))

    def purged(self, hidden: Hidden) -> None:
        """Some of what was received and not delivered is hidden now."""
        if gone := [record for record in self._ahead if hidden(record)]:
            self._ahead = deque(record for record in self._ahead if not hidden(record))
            self._grant(cost_of(gone))

    # ---- looking

    async def opened(self) -> None:
        """Wait until the server has opened it; raises what it says instead."""
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._leave()
            raise

    @property
    def position(self) -> int:
        """LSN of the next record to be acknowledged, or below that: everything before it is done."""
        if self._shown:  # what lies below it and was dropped was none of this consumer's
            return max(self._position, min(self._shown[0], self._session.state[0]))
        return self._position

    async def lag(self) -> int:
        """How many records are in the topic and not acknowledged."""
        self._check()
        lag: int = await self._session.call("consumer.lag", stream=self._id)
        return lag

    # ---- reading

    async def next(self) -> Record:
        """The next record; waits for one. It is not acknowledged by that."""
        async with self._reading:
            await self._have_one()
            return self._deliver()

    async def peek(self) -> Record:
        """Like next, but it stays the next one; repeatable. It may be acknowledged."""
        async with self._reading:
            await self._have_one()
            record = self._ahead[0]
            self._show(record.lsn)
            return record

    async def read_batch(self, max_bytes: int = BATCH_BYTES, max_records: int = BATCH_RECORDS) -> list[Record]:
        """The next records that are there: at least one, for which it waits; see Consumer.read_batch."""
        between("max_bytes", max_bytes, 1, 1 << 62)
        between("max_records", max_records, 1, 1 << 62)
        async with self._reading:
            await self._have_one()
            batch = [self._deliver()]
            size = len(batch[0].payload)
            while len(batch) < max_records and self._ahead:
                size += len(self._ahead[0].payload)
                if size > max_bytes:
                    break
                batch.append(self._deliver())
            return batch

    def __aiter__(self) -> RemoteConsumer:
        return self

    async def __anext__(self) -> Record:
        """For `async for`: asking for the next record acknowledges the one before it. Ends when the log is closed."""
        try:
            if self._shown and self._shown[0] < self._following:
                await self.ack(self._following - 1)
            return await self.next()
        except Closed:
            raise StopAsyncIteration from None

    def _deliver(self) -> Record:
        record = self._ahead.popleft()
        self._grant(cost_of((record,)))
        self._show(record.lsn)
        self._following = record.lsn + 1
        return record

    def _show(self, lsn: int) -> None:
        if not self._shown or self._shown[-1] < lsn:
            self._shown.append(lsn)

    async def _have_one(self) -> None:
        while True:
            self._check()
            await self._check_position()
            if self._ahead:
                return
            if self._error is not None:
                raise again(self._error)
            self._waiter = self._session.loop.create_future()
            await self._waiter

    async def _check_position(self) -> None:
        """Truncated where records that were not acknowledged are gone. Only the server knows, so it is asked, once each time
        the log's beginning has moved beyond the position."""
        first = self._session.state[0]
        if self._position < first and self._checked < first:
            await self._session.call("consumer.lag", stream=self._id)
            self._checked = first

    # ---- acknowledging

    async def ack(self, lsn: int) -> None:
        """Everything up to record `lsn` is done; see Consumer.ack."""
        self._check()
        if not isinstance(lsn, int) or isinstance(lsn, bool) or lsn < 1:
            raise BadOption(f"{lsn!r} is no LSN", hint="acknowledge record.lsn")
        async with self._saving:
            while lsn >= self._position:
                if not self._shown or lsn > self._shown[-1]:
                    raise BadOption(
                        f"LSN {lsn} was not delivered to consumer {self.name!r} yet",
                        path=self._log.path,
                        lsn=lsn,
                        hint="to skip records use seek",
                    )
                connection = self._session.connections
                try:
                    await self._save(lsn)
                except BadOption:
                    if connection == self._session.connections:
                        raise
                    # the server that was asked in the end had not sent that record: it has opened the consumer anew
                else:
                    self._acknowledged(lsn + 1)

    async def _save(self, lsn: int) -> None:
        """Tell the server. What was delivered on an earlier connection cannot be acknowledged on this one, only passed."""
        if lsn > self._sent:
            await self._session.call("consumer.seek", self._passed, stream=self._id, to=lsn + 1)
        else:
            await self._session.call("consumer.ack", stream=self._id, lsn=lsn)

    def _passed(self, _: Any) -> None:
        self._drop_ahead()

    def _acknowledged(self, position: int) -> None:
        self._position = max(self._position, position)
        while self._shown and self._shown[0] < position:
            self._shown.popleft()
        if self._following < position:  # it was only peeked at
            self._following = position
            while self._ahead and self._ahead[0].lsn < position:
                self._grant(cost_of((self._ahead.popleft(),)))

    async def seek(self, to: Start) -> None:
        """Go on at `to`; see Consumer.seek."""
        self._check()
        async with self._saving:
            while True:
                try:
                    await self._session.call("consumer.seek", self._moved, stream=self._id, to=to)
                except BadOption:
                    first = self._session.state[0]
                    if type(to) is not int or not self._position <= to < first:
                        raise
                    await self._session.call("consumer.lag", stream=self._id)  # Truncated where something is lost
                    to = first
                else:
                    return

    def _moved(self, position: int) -> None:
        """Before any later frame is looked at: what was received so far is from the old place."""
        self._drop_ahead()
        self._position = self._following = position
        self._shown.clear()
        self._error = None

    # ---- ending

    def _check(self) -> None:
        self._session.check()
        if not self._open:
            if self._error is not None:
                raise again(self._error)
            raise Closed(f"consumer {self.name!r} is closed", path=self._log.path, hint="open it again")

    async def close(self) -> None:
        """Make what was acknowledged durable, and let others open the name. Idempotent."""
        if not self._open:
            return
        self._open = False
        self._leave()
        self._wake()
        await self._closed

    def _leave(self) -> None:
        """Give it up on the server."""
        self._open = False
        self._session.send(Cancel(self._id))
        if not self._session.connected:
            self._gone()

    def _gone(self) -> None:
        self._session.requests.pop(self._id, None)
        self._log._consumers.pop(self._id, None)
        if not self._closed.done():
            self._closed.set_result(None)

    async def __aenter__(self) -> RemoteConsumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        of: Any = "the log" if self.topic is None else repr(self.topic)
        return f"Consumer({self.name!r} of {of}, position={self.position})"
