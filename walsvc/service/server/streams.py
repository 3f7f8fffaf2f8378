"""Streams of records to a client, each with its credit: what the client does not take is neither read nor kept.

A stream sends while its credit is above zero and the connection takes bytes; so a slow reader holds nothing but one frame,
and nobody else notices. Records that are there go out together: a frame is closed when it is full, or when the source has
to wait for more.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from walsvc.api import Log
from walsvc.errors import BadOption, Closed, WalError
from walsvc.log.read.cuts import Cuts
from walsvc.model import Record
from walsvc.service.server.limits import STREAM_BYTES, STREAM_RECORDS
from walsvc.service.wire.columns import cost_of, records_frame
from walsvc.service.wire.frames import RECORD_COST, End, Frame, Open, Result, State
from walsvc.service.wire.wanted import reading
from walsvc.service.wire.window import Window
from walsvc.tasks import begin_task
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import AtLeastOnce, Delivery, StrictlyOnce
from walsvc.topics.leases import Lease
from walsvc.topics.names import Start
from walsvc.topics.shared import LocalConsumer, LocalDelivery

RecordSource = AsyncGenerator[list[Record], None] | AsyncGenerator[Record, None]


class Line(Protocol):
    """What a stream needs of its connection."""

    @property
    def state(self) -> State: ...
    @property
    def stuck(self) -> bool:
        """The client does not read what was sent."""

    def send(self, frame: Frame) -> None: ...
    def answer_error(self, id: int, error: WalError) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    async def writable(self) -> None:
        """Wait until the connection takes bytes."""


class Stream:
    """The sending half of a stream: gathers records and watches the credit."""

    def __init__(self, line: Line, id: int, credit: int) -> None:
        self.id = id
        self._window = Window(credit)
        self._line = line
        self._gathered: list[Record] = []
        self._gathered_cost = 0
        self._granted: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` send; what it raises unexpectedly ends the connection."""
        self.task = begin_task(work)
        self.task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._line.fail(error)

    async def stop(self) -> None:
        """Send nothing more."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        self.drop()

    def grant(self, credit: int) -> None:
        """The client takes more."""
        self._window.give(credit)
        if self._window.left > 0 and self._granted is not None and not self._granted.done():
            self._granted.set_result(None)

    async def ready(self) -> None:
        """Wait until the client and the connection take more."""
        while self._window.left <= 0:
            self._granted = self._loop.create_future()
            await self._granted
        await self._line.writable()

    @property
    def full(self) -> bool:
        """What is gathered is a frame, or all that the client takes."""
        cost = self._gathered_cost
        return cost >= STREAM_BYTES or len(self._gathered) >= STREAM_RECORDS or cost >= self._window.left

    def gather(self, record: Record) -> None:
        """Send a record with those that come in the same turn of the loop."""
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(record)
        self._gathered_cost += len(record.payload) + RECORD_COST

    def flush(self, turn: int = 0) -> None:
        """Send what is gathered."""
        if self._gathered:
            records, self._gathered = self._gathered, []
            self._window.take(self._gathered_cost)
            self._gathered_cost = 0
            self._line.send(records_frame(self.id, turn, records, self._line.state))

    def drop(self) -> None:
        """Send nothing of what is gathered."""
        self._gathered.clear()
        self._gathered_cost = 0


class RecordStream(Stream):
    """A "read" or "follow". Where the log is cut, the client is told first: what it was sent from there on is void.

    The reads of a connection take turns (`turn`): each begins when the client has taken what the one before has read, or the
    first records of all of them would be held at once. A follower waits for records, and takes no turn.
    """

    def __init__(  # noqa: PLR0917
        self, line: Line, id: int, credit: int, what: str, cuts: Cuts, turn: asyncio.Lock | None = None
    ) -> None:
        super().__init__(line, id, credit)
        self._turn = turn
        self._bounds = ("start",) if what == "follow" else ("start", "stop")
        self._cuts = cuts
        self._opened = self._told = cuts.count

    def tell_cut(self) -> None:
        """Say where the log was cut since the client was told last."""
        if self._told != self._cuts.count:
            end, self._told = self._cuts.since(self._told), self._cuts.count
            self._gathered = [record for record in self._gathered if record.lsn < end]
            self._gathered_cost = cost_of(self._gathered)
            self._line.send(Result(self.id, dict.fromkeys(self._bounds, end), self._line.state))

    def gather(self, record: Record) -> None:
        self.tell_cut()
        super().gather(record)

    def flush(self, turn: int = 0) -> None:
        self.tell_cut()
        super().flush(turn)

    async def pump(self, begin: Callable[[int], RecordSource]) -> None:
        """Send a source to its end, then END, or the error that ended it. `begin` makes it, up to a cut that came since the
        stream was opened, or from there."""
        try:
            await self.ready()
            async with aclosing(begin(self._cuts.since(self._opened))) as records:
                while (item := await self._next(records)) is not None:
                    for record in self._cuts.standing(item) if isinstance(item, list) else (item,):
                        self.gather(record)
                        if self.full or self._line.stuck:
                            self.flush()
                            await self.ready()
            self.flush()
            self._line.send(End(self.id, self._line.state))
        except WalError as error:
            self.flush()
            self._line.answer_error(self.id, error)

    async def _next(self, records: RecordSource) -> list[Record] | Record | None:
        """What the source gives next; None at its end."""
        if self._turn is None:
            return await anext(records, None)
        async with self._turn:
            await self._line.writable()
            return await anext(records, None)


class Holding(Stream):
    """A stream that holds a consumer open: it is the connection's until it is closed."""

    async def close(self) -> None:
        """Stop, and give the consumer free."""
        raise NotImplementedError


HoldingT = TypeVar("HoldingT", bound=Holding)


class SharedStream(Holding):
    """A shared consumer of the log for a client. It sends nothing by itself."""

    def __init__(self, line: Line, id: int, consumer: LocalConsumer) -> None:
        super().__init__(line, id, 0)
        self.consumer = consumer

    async def next(self, max_bytes: int, max_records: int) -> dict[str, Any]:
        """Answer shared.next. Given up it takes nothing."""
        hub, loop = self.consumer.open_hub(), self._loop
        batch = await self.consumer.read_batch(min(max_bytes, STREAM_BYTES), min(max_records, STREAM_RECORDS))
        given = [each for each in batch if isinstance(each, LocalDelivery)]
        try:
            await self._line.writable()
        except BaseException:
            for each in given:
                hub.unseen(each.lease)
            raise
        frame = records_frame(self.id, 0, [each.record for each in given], self._line.state)
        left = [None if each.deadline is None else each.deadline - loop.time() for each in given]
        attempts = [each.attempt for each in given]
        return {"records": list(frame[2:-1]), "attempts": attempts, "left": left, "token": hub.past.token}

    async def leases(self, rows: list[Any]) -> list[Lease]:
        """The deliveries that a client speaks of. Raises LeaseLost, BadOption."""
        found = []
        for row in rows:
            if type(row) is not list or [type(each) for each in row] != [int, int, str]:
                raise BadOption("a delivery is [lsn, attempt, token]")
            found.append(await self.consumer.open_hub().find(*row))
        return found

    async def close(self) -> None:
        """Others get what the client had, at once."""
        await self.consumer.close()


class ConsumerStream(Holding):
    """A consumer of the log for a client. It is the connection's until it is closed."""

    def __init__(self, line: Line, id: int, credit: int, consumer: Consumer) -> None:
        super().__init__(line, id, credit)
        self.consumer = consumer
        self._moving = asyncio.Lock()

    async def deliver(self) -> None:
        """Send what the consumer reads until this is cancelled. After an error it waits to be moved."""
        while True:
            await self.ready()
            try:
                records = await self.consumer.read_batch(min(self._window.left, STREAM_BYTES), STREAM_RECORDS)
            except WalError as error:
                self._line.answer_error(self.id, error)
                if isinstance(error, Closed):
                    return
                await self._loop.create_future()  # until it is cancelled: seek begins anew
            else:
                for record in records:
                    self._gathered.append(record)
                    self._gathered_cost += len(record.payload) + RECORD_COST
                self.flush(self.consumer.turns)

    def begin(self) -> None:
        """Deliver from the consumer's position on."""
        self.start(self.deliver())

    async def seek(self, to: Start) -> int:
        """See Consumer.seek; returns the position."""
        async with self._moving:
            try:
                await self.stop()
                await self.consumer.seek(to)
            finally:
                self.begin()
            return self.consumer.position

    async def close(self) -> None:
        """Stop and give the name free."""
        async with self._moving:
            await self.stop()
            await self.consumer.close()


def range_of(log: Log, args: dict[str, Any]) -> dict[str, Any]:
    """What "start" and, for a read, "stop" mean at this moment: a client that comes back goes on within it."""
    found: dict[str, Any] = {"start": log.first_lsn if args["start"] is None else args["start"]}
    if "stop" in args:
        found["stop"] = log.next_lsn if args["stop"] is None else min(args["stop"], log.next_lsn)
    return found


def source_of(log: Log, what: str, args: dict[str, Any]) -> Callable[[int], RecordSource]:
    """What makes the source of a "read" or "follow", for RecordStream.pump."""
    wanted = reading(args)

    def begin(end: int) -> RecordSource:
        if what == "read":
            return log.read_batches(**{**wanted, "stop": min(wanted["stop"], end)})
        return log.follow(**{**wanted, "start": min(wanted["start"], end)})

    return begin


async def open_shared(log: Log, line: Line, frame: Open, args: dict[str, Any]) -> tuple[Stream, dict[str, Any]]:
    """The shared consumer that an OPEN asks for."""
    consumer = await log.hubs.open(args["topic"], args["name"], args["start"], args["options"])
    return SharedStream(line, frame.id, consumer), {"sharing": dataclasses.asdict(consumer.sharing)}


async def open_consumer(log: Log, line: Line, frame: Open, args: dict[str, Any]) -> tuple[Stream, dict[str, Any]]:
    """The consumer that an OPEN asks for."""
    every = args["persist_every"]
    delivery: Delivery = StrictlyOnce() if every == 1 else AtLeastOnce(every)
    owner: Any = log if args["topic"] is None else log.topic(args["topic"])
    consumer: Consumer = await owner.consumer(args["name"], delivery, args["start"])
    stream = ConsumerStream(line, frame.id, frame.credit, consumer)
    stream.begin()
    return stream, {"position": consumer.position, "topic": consumer.topic}


OPENED = {"consumer": open_consumer, "shared": open_shared}
